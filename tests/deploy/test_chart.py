"""The chart of the candidates: rendered by the real helm, held against everything that can be known of it without a cluster."""

import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from support import binary
from support.chart import CHART, LEAST, over
from support.manifests import KUBE_VERSIONS, called, check_references, check_restricted, of_kind, parse, pods, render, validate
from support.tools import ROOT, run, tenure, tool
from support.values import documented, table

MATRIX = sorted(CHART.glob("ci/*-values.yaml"))
TLS = {"existingSecret": "etcd-client"}


def values(file: Path) -> dict:
    return yaml.safe_load(file.read_text())


def names(parameter) -> str:
    return parameter.stem.removesuffix("-values") if isinstance(parameter, Path) else str(parameter)


def template(values: dict, *flags: str) -> subprocess.CompletedProcess[str]:
    """helm's answer to values that it may refuse."""
    command = [tool("helm"), "template", "t", str(CHART), "-f", "-", *flags]
    return subprocess.run(command, input=json.dumps(values), text=True, capture_output=True, timeout=60)


def config(objects: list[dict]) -> dict:
    """The daemon's configuration in rendered objects."""
    return next(yaml.safe_load(o["data"]["tenure.yaml"]) for o in of_kind(objects, "ConfigMap") if "tenure.yaml" in o["data"])


# Every combination


@pytest.mark.parametrize("kube_version", KUBE_VERSIONS)
@pytest.mark.parametrize("file", MATRIX, ids=names)
def test_every_object_is_valid_and_restricted(file: Path, kube_version: str):
    objects = render(CHART, values(file), kube_version)
    validate(objects, kube_version)
    check_restricted(objects)


@pytest.mark.parametrize("file", MATRIX, ids=names)
def test_the_objects_fit_each_other_and_the_binary(file: Path, monkeypatch: pytest.MonkeyPatch):
    if values(file).get("http", {}).get("ipv6"):
        monkeypatch.setitem(binary.DOWNWARD, "status.podIP", "fd00::5")
    check_references(render(CHART, values(file)))


def test_ipv6_is_not_for_pods_with_an_ipv4_address():
    """As values.yaml says, which is why it is off."""
    assert ":" not in binary.DOWNWARD["status.podIP"]
    with pytest.raises(AssertionError, match="advertise_url"):
        check_references(render(CHART, over({"http": {"ipv6": True}})))


@pytest.mark.parametrize("file", [None, *MATRIX], ids=lambda f: names(f) if f else "none")
def test_helm_lints_it_strictly(file: Path | None):
    run(tool("helm"), "lint", "--strict", CHART, *(["-f", file] if file else []))


def test_the_package_renders_the_same(tmp_path: Path):
    run(tool("helm"), "package", CHART, "-d", tmp_path)
    (package,) = tmp_path.glob("*.tgz")
    inside = {n.removeprefix("tenure/") for n in tarfile.open(package).getnames()}
    assert {"Chart.yaml", "values.yaml", "values.schema.json", "README.md"} <= inside
    assert not [n for n in inside if n.startswith("ci/")]
    everything = CHART / "ci/label-values.yaml"
    rendered = run(tool("helm"), "template", "t", package, "-n", "default", "-f", everything, "--kube-version", "1.33").stdout
    assert parse(rendered) == render(CHART, values(everything))


def test_kubectl_reads_every_object():
    rendered = run(tool("helm"), "template", "t", CHART, "-f", CHART / "ci/label-values.yaml").stdout
    command = [tool("kubectl"), "annotate", "--local", "-f", "-", "read=yes", "-o", "json"]
    done = subprocess.run(command, input=rendered, text=True, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    decoder, at, read = json.JSONDecoder(), 0, []
    while at < len(done.stdout.rstrip()):
        one, at = decoder.raw_decode(done.stdout, at)
        read.append(called(one))
        at += len(done.stdout[at:]) - len(done.stdout[at:].lstrip())
    assert read == [called(o) for o in parse(rendered)]


# Values


def test_every_value_has_a_comment_and_a_place_in_the_schema():
    schema = json.loads((CHART / "values.schema.json").read_text())
    rows = documented(CHART / "values.yaml")
    assert [key for key, (comment, _) in rows.items() if not comment] == []

    def keys(node: dict, above: str = "") -> set[str]:
        """The leaves: what has no named properties of its own."""
        found = set()
        for name, one in node.get("properties", {}).items():
            found |= keys(one, f"{above}{name}.") if "properties" in one else {above + name}
        return found

    assert keys(schema) == set(rows)

    def open_ones(node: dict, path: str = "") -> set[str]:
        """Where unknown keys are let in."""
        inner = [open_ones(one, f"{path}.{name}".strip(".")) for name, one in node.get("properties", {}).items()]
        own = {path} if "properties" in node and node.get("additionalProperties") is not False else set()
        return own.union(*inner)

    assert open_ones(schema) == {"global"}, "keys that are not known must be refused, but for those of other charts"


def test_the_readme_lists_every_value():
    readme = CHART / "README.md"
    before, _, rest = readme.read_text().partition("<!-- values -->\n")
    _, _, after = rest.partition("<!-- end of values -->")
    right = f"{before}<!-- values -->\n{table(CHART / 'values.yaml')}\n<!-- end of values -->{after}"
    if os.environ.get("README") == "rewrite":
        readme.write_text(right)
    assert readme.read_text() == right, "values.yaml has changed: README=rewrite make test-deploy"


BAD = {
    "an unknown key": ({"replicas": 3}, "replicas"),
    "an unknown key below": ({"etcd": {"endpoint": "http://a:1"}}, "endpoint"),
    "fewer replicas than none": ({"replicaCount": -1}, "replicaCount"),
    "a string for a number": ({"replicaCount": "3"}, "replicaCount"),
    "a port out of range": ({"service": {"port": 70000}}, "port"),
    "a duration without a unit": ({"session": {"promise": "10"}}, "promise"),
    "a TTL that is not whole": ({"session": {"ttl": "2500ms"}}, "ttl"),
    "an endpoint without a scheme": ({"etcd": {"endpoints": ["etcd:2379"]}}, "endpoints"),
    "a prefix without a slash": ({"etcd": {"prefix": "tenure"}}, "prefix"),
    "a mode of routing that is none": ({"routing": {"mode": "readiness"}}, "mode"),
    "a name of an election with a slash": ({"elections": ["a/b"]}, "elections"),
    "an election without a name": ({"elections": [{"priority": 3}]}, "elections"),
    "a digest that is none": ({"image": {"digest": "latest"}}, "digest"),
    "a secret inline": ({"etcd": {"password": "geheim"}}, "password"),
    "a token inline": ({"control": {"tcp": {"adminToken": "geheim"}}}, "adminToken"),
    "an unknown log format": ({"log": {"format": "xml"}}, "format"),
    "a number in the environment": ({"extraEnv": [{"name": "A", "value": 1}]}, "extraEnv"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_the_schema_refuses(bad: tuple[dict, str]):
    done = template(over(bad[0]))
    assert done.returncode != 0
    assert "don't meet the specifications of the schema" in done.stderr and bad[1] in done.stderr, done.stderr


FAILS = {
    "no election": ({"elections": []}, "elections:"),
    "no endpoint": ({"etcd": {"endpoints": []}}, "etcd.endpoints:"),
    "http and https": ({"etcd": {"endpoints": ["https://a:1", "http://b:1"], "tls": TLS}}, "etcd.endpoints: http or https"),
    "TLS for http": ({"etcd": {"tls": TLS}}, "etcd.tls: existingSecret"),
    "https without authorities": ({"etcd": {"endpoints": ["https://a:2379"]}}, "etcd.tls: https"),
    "a certificate without a key": ({"etcd": {"tls": {**TLS, "certKey": "tls.crt"}}}, "certKey and keyKey"),
    "a user without a password": ({"etcd": {"username": "a"}}, "username and passwordSecret"),
    "a password without a user": ({"etcd": {"passwordSecret": {"name": "a"}}}, "username and passwordSecret"),
    "client certificates without TLS": ({"http": {"tls": {"clientCaKey": "ca.crt"}}}, "http.tls"),
    "verbs over TCP without a token": ({"control": {"tcp": {"enabled": True}}}, "adminTokenSecret"),
    "a control Service without the listener": ({"control": {"tcp": {"service": {"enabled": True}}}}, "control.tcp.service"),
    "two listeners on a port": ({"control": {"tcp": {"enabled": True, "port": 4790, "adminTokenSecret": {"name": "a"}}}}, "4790 is"),
    "no time for handing over": ({"session": {"ttl": "60s", "promise": "18s"}}, "terminationGracePeriodSeconds: at least 31"),
    "no time for an etcd that does not answer": ({"etcd": {"requestTimeout": "7400ms"}}, "terminationGracePeriodSeconds: at least 31"),
    "a grace of less than the pause": ({"preStopSleepSeconds": 22}, "terminationGracePeriodSeconds: at least 31"),
    "a budget without a number": ({"podDisruptionBudget": {"maxUnavailable": None}}, "podDisruptionBudget: minAvailable or"),
    "a slice without a Service": ({"routing": {"mode": "endpointSlice", "service": {"create": False}}}, "routing: mode endpointSlice"),
    "a leader Service with a name that is taken": ({"routing": {"mode": "label", "service": {"name": "t-tenure"}}}, "routing.service.name"),
    "a leader Service with the name of control's": (
        over(
            {"control": {"tcp": {"enabled": True, "adminTokenSecret": {"name": "a"}, "service": {"enabled": True}}}},
            {"routing": {"mode": "label", "service": {"name": "t-tenure-control"}}},
        ),
        "routing.service.name",
    ),
    "routing an election that is only observed": ({"elections": [{"name": "a", "observe": True}], "routing": {"mode": "label"}}, "only observed"),
    "routing an election that is not held": ({"routing": {"mode": "label", "election": "other"}}, "routing.election"),
    "two monitors": ({"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}}, "serviceMonitor or podMonitor"),
    "a monitor of no Service": ({"service": {"enabled": False}, "metrics": {"serviceMonitor": {"enabled": True}}}, "needs service.enabled"),
}


@pytest.mark.parametrize("bad", FAILS.values(), ids=FAILS)
def test_values_that_contradict_each_other_are_refused(bad: tuple[dict, str]):
    done = template(over(bad[0]))
    assert done.returncode != 0 and bad[1] in done.stderr, done.stderr


@pytest.mark.parametrize("same", [{"session": {"ttl": "60s", "promise": "17s"}}, {"etcd": {"requestTimeout": "7333ms"}}, {"preStopSleepSeconds": 21}])
def test_the_least_grace_is_enough(same: dict):
    done = template(over(same))
    assert done.returncode == 0, done.stderr


def nested(paths: set[str], value=None) -> dict:
    """A value at each of these paths."""
    tree: dict = {}
    for path in sorted(paths):
        *above, last = path.split(".")
        at = tree
        for key in above:
            at = at.setdefault(key, {})
        at[last] = value
    return tree


def test_a_value_that_is_taken_away_is_missed_by_name_or_not_needed():
    """`--set x=null` takes the default away."""
    schema, needed, other = json.loads((CHART / "values.schema.json").read_text()), set(), set()
    for key in documented(CHART / "values.yaml"):
        node, (*above, last) = schema, key.split(".")
        for name in above:
            node = node["properties"][name]
        (needed if last in node.get("required", []) else other).add(key)
    for extra in ({}, {"http": {"tls": {"existingSecret": "a", "clientCaKey": "ca.crt"}}}):
        objects = render(CHART, over(nested(other), extra, {"podDisruptionBudget": {"minAvailable": 1}}))
        validate(objects)
        check_references(objects)

    def missed(*paths: str) -> set[str]:
        lines = re.findall(r"at '/?(.*)': missing propert(?:y|ies) (.*)", template(over(nested(set(paths)))).stderr)
        return {f"{place.replace('/', '.')}.{name}".strip(".") for place, names in lines for name in re.findall(r"'(\w+)'", names)}

    assert missed(*needed) == needed
    sections = {key.rsplit(".", depth)[0] for key in {*needed, *other} for depth in range(1, key.count(".") + 1)}
    for depth in range(3):
        these = {s for s in sections if s.count(".") == depth}
        assert these and missed(*these) == these


# At the edges of what the binary takes: good values and bad ones. Chart and binary have to agree, or pods would start in vain.
EDGES = {
    "etcd.endpoints": (
        [["http://a:1"], ["http://${HOST}.etcd:2379"], ["http://a:65535", "http://a_b.c-d:2379"], ["http://[::1]:2379", "http://[fd00::1]:2379", "http://10.0.0.5:2379"]],
        [
            *([e] for e in ("http://a", "http://a:0", "http://a:65536", "http://a:1/", "http://a:1/x", "http://a:1?x", "http://:1", "http://[]:1")),
            *([e] for e in ("http://u:geheim@a:1", "http://[10.0.0.5]:1", "http://[1:2]:1", "ftp://a:1", "http://a b:1")),
            ["http://a:1", "http://a:1"],
            [f"http://a:{port}" for port in range(1, 34)],
        ],
    ),
    "etcd.prefix": (["/a", "/a/b", "/a.b-c_d", "/" + "x" * 511], ["a", "/", "/a/", "/a//b", "//a", "/a b", "/ä", "/" + "x" * 512]),
    "etcd.connectTimeout": (["10ms", "99ms", "60000ms", "1s", "60s", "1m"], ["9ms", "60001ms", "0s", "61s", "2m", "1h", "0.5s", "2"]),
    "etcd.requestTimeout": (["10ms", "59999ms", "60s"], ["9ms", "60001ms", "61s"]),
    "session.ttl": (["2s", "9s", "10s", "99s", "100s", "300s", "1m", "5m"], ["0s", "1s", "301s", "6m", "1h", "2500ms", "2.5s"]),
    "session.drift": (["0%", "0.0001%", "9.5%", "19.9999%", "20%", "20.0%"], ["20.0001%", "21%", "100%", "1", "1.00001%", "-1%", ".5%"]),
    "session.slack": (["0s", "3899ms"], ["3900ms", "1h", "0.5s"]),
    "session.promise": (["1ms", "9s", "9650ms"], ["0s", "9651ms", "10s", "1m", "1.5s"]),
    "session.vacancyGrace": (["0s", "5051ms", "10s", "20s"], ["1ms", "1s", "5050ms", "20001ms", "1m"]),
    "session.drainTimeout": (["0s", "10m", "24h", "1440m", "86400s"], ["25h", "1441m", "86401s", "0.5h"]),
    "http.requestTimeout": (["100ms", "60s", "1m"], ["99ms", "60001ms", "61s", "2m"]),
    "http.maxConnections": ([1, 65536], [0, 65537]),
    "http.advertiseUrl": (
        ["http://a", "https://a.example:1/x?y", "http://[fd00::1]:1", "http://${POD_IP}:4790", "${URL}", "${SCHEME}://a"],
        ["a:1", "ftp://a", "http://", "http:///x", "http://u:p@a", "http://a#b", "http://:1", "http://" + "x" * 1024],
    ),
    "historyLimit": ([1, 100000], [0, 100001]),
    "elections": (
        [["9.x_y-Z"], ["a" * 128], [{"name": "a", "priority": 2**31 - 1}], [{"name": "a", "observe": True, "priority": 0}]],
        [["-a"], ["a" * 129], ["a", {"name": "a"}], [{"name": "a", "observe": True, "priority": 1}], [{"name": "a", "priority": 2**31}]],
    ),
    "routing.label": (
        ["a", "tenure.dev/role", "A_b.c", "x" * 63],
        ["a/b/c", "/a", "a/", "-a", "a-", "A.dev/x", "a_b/c", "x" * 64, "tenure.dev/election", "pod-template-hash"],
    ),
    "routing.election": (["a", "a" * 63, "a.b"], ["a" * 64, "a-", "a."]),
}


def said(path: str, value) -> tuple[dict, dict]:
    """A value in the chart's words and in the daemon's."""
    ours, own = nested({path}, value), nested({re.sub("[A-Z]", lambda m: f"_{m[0].lower()}", path.replace("routing", "kubernetes"))}, value)
    if path.startswith("routing."):
        ours, own = over(ours, {"routing": {"mode": "label"}}), over(own, {"kubernetes": {"route": "label", "pod": "pod-0"}})
    if path == "routing.election":
        ours["elections"] = own["elections"] = [value]
    return over(ours, {"terminationGracePeriodSeconds": 300}), over(own, {"id": "pod-0"})


@pytest.mark.parametrize("path", EDGES)
def test_the_chart_takes_what_the_binary_takes_and_nothing_else(path: str, tmp_path: Path):
    good, bad = EDGES[path]
    file = tmp_path / "tenure.yaml"
    for value in [*good, *bad]:
        ours, own = said(path, value)
        file.write_text(yaml.safe_dump(own))
        chart = template(ours)
        check = run(tenure(), "config", "check", file, check=False, env=binary.environment({"POD_IP": "10.0.0.5", "HOST": "etcd-0", "URL": "http://a:1", "SCHEME": "https"}))
        assert (chart.returncode == 0, check.returncode == 0) == (value in good, value in good), f"{value}: {chart.stderr}{check.stderr}"


# The daemon's configuration


def effective(text: str, tmp_path: Path) -> dict:
    """The settings that the binary takes from a configuration."""
    file = tmp_path / "tenure.yaml"
    file.write_text(text)
    env = binary.environment({"HOSTNAME": "pod-0", "POD_NAME": "pod-0", "POD_NAMESPACE": "default", "POD_IP": "10.0.0.5"})
    return yaml.safe_load(run(tenure(), "config", "check", "--output", "yaml", file, env=env).stdout)


def test_defaults_are_the_daemons_own(tmp_path: Path):
    ours = effective(of_kind(render(CHART, LEAST), "ConfigMap")[0]["data"]["tenure.yaml"], tmp_path)
    own = effective(yaml.safe_dump({"id": "pod-0", **LEAST}), tmp_path)
    ours["elections"][0].pop("priority"), own["elections"][0].pop("priority")
    assert (ours["http"].pop("advertise_url"), own["http"].pop("advertise_url")) == ("http://10.0.0.5:4790", None)
    assert (ours["log"].pop("format"), own["log"].pop("format")) == ("json", "text")
    assert ours == own


def test_every_setting_of_the_daemon_can_be_said_by_a_value_or_by_extra_config(tmp_path: Path):
    more = {"session": {"ttl": "7s"}, "state_dir": str(tmp_path), "audit": {"keep": 9}, "http": {"advertise_url": "http://x:1"}}
    merged = effective(yaml.safe_dump(config(render(CHART, over({"extraConfig": more, "session": {"slack": "300ms"}})))), tmp_path)
    assert (merged["session"]["ttl"], merged["session"]["slack"]) == ("7s", "300ms")
    assert (merged["state_dir"], merged["audit"]["keep"], merged["http"]["advertise_url"]) == (str(tmp_path), 9, "http://x:1")


def test_candidates_of_a_newer_revision_are_preferred_but_where_a_priority_is_set():
    elections = [{"name": "a", "priority": 7}, "b", {"name": "c", "observe": True}, {"name": "d", "priority": 0}]
    preferred = config(render(CHART, over({"elections": elections})))["elections"]
    assert preferred == [{"name": "a", "priority": 7}, {"name": "b", "priority": 1}, {"name": "c", "observe": True}, {"name": "d", "priority": 0}]
    plain = config(render(CHART, over({"elections": elections, "preferNewestRevision": False})))["elections"]
    assert plain == [{"name": "a", "priority": 7}, {"name": "b"}, {"name": "c", "observe": True}, {"name": "d", "priority": 0}]


def checksum(*layers: dict) -> str:
    (deployment,) = of_kind(render(CHART, over(*layers)), "Deployment")
    return deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"]


def test_a_change_of_the_configuration_restarts_the_pods_and_nothing_else_does():
    plain = checksum()
    for change in ({"session": {"ttl": "5s"}}, {"elections": ["other"]}, {"extraConfig": {"audit": {"keep": 1}}}, {"routing": {"mode": "label"}}):
        assert checksum(change) != plain, change
    # The revision goes into the configuration, and must not restart pods at every upgrade: without it, the sum is the same.
    for same in ({"replicaCount": 5}, {"preferNewestRevision": False}, {"metrics": {"dashboards": {"enabled": True}}}):
        assert checksum(same) == plain, same


@pytest.mark.parametrize("file", MATRIX, ids=names)
def test_commands_in_the_container_find_the_socket_without_being_told(file: Path):
    """Those of the notes, and the probes that ask the binary."""
    default = "unix:/run/tenure/control.sock"
    assert default in run(tenure(), "check", "--help").stdout
    listeners = config(render(CHART, values(file)))["http"]["control"]
    assert default in (listeners if isinstance(listeners, list) else [listeners])


# What else must hold


@pytest.mark.parametrize("file", MATRIX, ids=names)
def test_no_secret_is_inline(file: Path):
    objects = render(CHART, values(file))
    assert of_kind(objects, "Secret") == []
    secret = {k: v for section in ("etcd", "http") for k, v in config(objects)[section].items() if k in ("password_file", "admin_token_file")}
    assert all(v.startswith("/secrets/") for v in secret.values())


def test_secrets_are_mounted_by_reference_and_only_the_keys_in_use():
    (_, _, spec) = next(p for p in pods(render(CHART, values(CHART / "ci/endpointslice-values.yaml"))) if p[0]["kind"] == "Deployment")
    mounted = {v["secret"]["secretName"]: {i["key"] for i in v["secret"]["items"]} for v in spec["volumes"] if "secret" in v}
    assert mounted == {
        "etcd-client": {"ca.crt", "tls.crt", "tls.key"},
        "etcd-user": {"password"},
        "tenure-tls": {"tls.crt", "tls.key"},
        "tenure-admin": {"token"},
    }


@pytest.mark.parametrize("length", [1, 20, 53])
def test_names_fit(length: int):
    """63 characters for Services and label values; helm itself takes names of releases of up to 53."""
    everything = over(values(CHART / "ci/endpointslice-values.yaml"), {"metrics": {"dashboards": {"enabled": True}}})
    for extra in ({}, {"fullnameOverride": "f" * 80}, {"nameOverride": "n" * 80}):
        objects = render(CHART, over(everything, extra), release="r" * length)
        assert [called(o) for o in objects if len(o["metadata"]["name"]) > 63 or o["metadata"]["name"].endswith("-")] == []
        assert [v for o in objects for v in o["metadata"]["labels"].values() if len(v) > 63] == []
        check_references(objects)


@pytest.mark.parametrize("mode", ["label", "endpoint_slice"])
def test_routing_has_the_least_rights(mode: str):
    """The same rules under which the daemon is tested against an API server that enforces them."""
    least = (ROOT / f"tests/fixtures/rbac-{mode}.json").read_text().replace('"orders', '"t-tenure-leader')
    objects = render(CHART, over({"routing": {"mode": {"label": "label", "endpoint_slice": "endpointSlice"}[mode]}}))
    (role,) = of_kind(objects, "Role")
    assert role["rules"] == json.loads(least)
    assert of_kind(objects, "ClusterRole") == []
    (deployment,) = of_kind(objects, "Deployment")
    assert deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] is True


def test_the_gate_has_no_rights():
    objects = render(CHART, LEAST)
    assert of_kind(objects, "Role") == of_kind(objects, "RoleBinding") == []
    (deployment,) = of_kind(objects, "Deployment")
    assert deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


def test_nothing_that_the_daemon_writes_is_in_a_template():
    """Helm applies on the server's side: a field that both write would be a conflict at the next upgrade."""
    for file in MATRIX:
        objects = render(CHART, values(file))
        assert of_kind(objects, "EndpointSlice") == []
        for _, meta, _ in pods(objects):
            ours = {*meta.get("labels", {}), *meta.get("annotations", {})}
            assert not [k for k in ours if k.startswith("tenure.dev/") or "pod-deletion-cost" in k]


def test_the_leaders_service_has_a_selector_only_where_pods_are_labelled():
    def leader(mode: str) -> list[dict]:
        return of_kind(render(CHART, over({"routing": {"mode": mode}})), "Service", "t-tenure-leader")

    assert leader("gate") == []
    assert "selector" not in leader("endpointSlice")[0]["spec"]
    assert leader("label")[0]["spec"]["selector"]["tenure.dev/role"] == "leader"


def test_the_slice_that_the_daemon_writes_is_valid_and_belongs_to_the_leaders_service():
    slice = json.loads((ROOT / "tests/fixtures/endpoint_slice.json").read_text())
    for version in KUBE_VERSIONS:
        validate([slice], version)
    service = slice["metadata"]["labels"]["kubernetes.io/service-name"]
    objects = render(CHART, over({"routing": {"mode": "endpointSlice", "service": {"name": service}}}))
    assert "selector" not in of_kind(objects, "Service", service)[0]["spec"]
    assert config(objects)["kubernetes"]["service"] == service
    (role,) = of_kind(objects, "Role")
    assert [r["resourceNames"] for r in role["rules"] if "update" in r["verbs"]] == [[slice["metadata"]["name"]]]


def test_the_network_policy_lets_out_what_the_daemon_needs():
    def ports(*layers: dict) -> set[int]:
        (policy,) = of_kind(render(CHART, over({"networkPolicy": {"enabled": True}}, *layers)), "NetworkPolicy")
        return {p["port"] for rule in policy["spec"]["egress"] for p in rule["ports"]}

    assert ports() == {2379, 53}
    assert ports({"etcd": {"endpoints": ["http://a:1234", "http://[fd00::1]:2380"]}}) == {1234, 2380, 53}
    assert ports({"routing": {"mode": "label"}}) == {2379, 53, 443, 6443}


def test_probes_follow_the_listeners():
    """The kubelet asks by HTTPS where there is TLS, and by the binary where it would need a certificate."""

    def probes(tls: dict) -> list[dict]:
        (deployment,) = of_kind(render(CHART, over({"http": {"tls": tls}})), "Deployment")
        (c,) = deployment["spec"]["template"]["spec"]["containers"]
        return [c[p] for p in ("startupProbe", "livenessProbe", "readinessProbe")]

    assert ["scheme" in p["httpGet"] for p in probes({})] == [False] * 3
    assert [p["httpGet"]["scheme"] for p in probes({"existingSecret": "a"})] == ["HTTPS"] * 3
    mutual = probes({"existingSecret": "a", "clientCaKey": "ca.crt"})
    assert [p["exec"]["command"][-1] for p in mutual] == ["started", "live", "ready"] and not any("httpGet" in p for p in mutual)


def test_the_pause_before_the_end_is_left_out_where_it_is_not_known():
    def lifecycle(version: str) -> dict | None:
        (deployment,) = of_kind(render(CHART, LEAST, version), "Deployment")
        return deployment["spec"]["template"]["spec"]["containers"][0].get("lifecycle")

    assert lifecycle("1.29") is None
    assert lifecycle("1.30") == {"preStop": {"sleep": {"seconds": 5}}}


def test_nothing_rolls_where_pods_are_replaced_all_at_once():
    def strategy(*layers: dict) -> dict:
        return of_kind(render(CHART, over(*layers)), "Deployment")[0]["spec"]["strategy"]

    assert strategy({"strategy": {"type": "Recreate"}}) == {"type": "Recreate"}
    assert strategy({"strategy": {"rollingUpdate": {"maxSurge": 2}}}) == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}}


def test_rules_and_dashboards_arrive_as_they_are():
    objects = render(CHART, values(CHART / "ci/label-values.yaml"))
    (rule,) = of_kind(objects, "PrometheusRule")
    groups = [g for f in sorted(CHART.glob("files/rules/*.yaml")) for g in yaml.safe_load(f.read_text())["groups"]]
    assert groups and rule["spec"]["groups"] == groups
    (dashboards,) = of_kind(objects, "ConfigMap", "t-tenure-dashboards")
    files = {f.name: json.loads(f.read_text()) for f in CHART.glob("files/dashboards/*.json")}
    assert files and {name: json.loads(text) for name, text in dashboards["data"].items()} == files
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_unknown_versions_of_kubernetes_are_refused():
    assert "incompatible with Kubernetes" in template(LEAST, "--kube-version", "1.28").stderr
    assert template(LEAST, "--kube-version", "1.31.2-gke.100").returncode == 0
