"""The chart of the candidates: rendered by the real helm, held against everything that can be known of it without a cluster."""

import json
import os
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
def test_the_objects_fit_each_other_and_the_binary(file: Path):
    check_references(render(CHART, values(file)))


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
    "no replicas": ({"replicaCount": 0}, "replicaCount"),
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
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_the_schema_refuses(bad: tuple[dict, str]):
    done = template(over(bad[0]))
    assert done.returncode != 0
    assert "don't meet the specifications of the schema" in done.stderr and bad[1] in done.stderr, done.stderr


FAILS = {
    "no election": ({"elections": []}, "elections:"),
    "no endpoint": ({"etcd": {"endpoints": []}}, "etcd.endpoints:"),
    "https without authorities": ({"etcd": {"endpoints": ["https://a:2379"]}}, "etcd.tls: https"),
    "a certificate without a key": ({"etcd": {"tls": {**TLS, "certKey": "tls.crt"}}}, "certKey and keyKey"),
    "a user without a password": ({"etcd": {"username": "a"}}, "username and passwordSecret"),
    "a password without a user": ({"etcd": {"passwordSecret": {"name": "a"}}}, "username and passwordSecret"),
    "client certificates without TLS": ({"http": {"tls": {"clientCaKey": "ca.crt"}}}, "http.tls"),
    "verbs over TCP without a token": ({"control": {"tcp": {"enabled": True}}}, "adminTokenSecret"),
    "a control Service without the listener": ({"control": {"tcp": {"service": {"enabled": True}}}}, "control.tcp.service"),
    "two listeners on a port": ({"control": {"tcp": {"enabled": True, "port": 4790, "adminTokenSecret": {"name": "a"}}}}, "4790 is"),
    "no time for handing over": ({"session": {"promise": "25s"}}, "terminationGracePeriodSeconds: at least 35"),
    "a grace of less than the pause": ({"preStopSleepSeconds": 25}, "terminationGracePeriodSeconds: at least 31"),
    "a slice without a Service": ({"routing": {"mode": "endpointSlice", "service": {"create": False}}}, "routing: mode endpointSlice"),
    "a leader Service with a name that is taken": ({"routing": {"mode": "label", "service": {"name": "t-tenure"}}}, "routing.service.name"),
    "routing an election that is not held": ({"routing": {"mode": "label", "election": "other"}}, "routing.election"),
    "two monitors": ({"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}}, "serviceMonitor or podMonitor"),
    "a monitor of no Service": ({"service": {"enabled": False}, "metrics": {"serviceMonitor": {"enabled": True}}}, "needs service.enabled"),
}


@pytest.mark.parametrize("bad", FAILS.values(), ids=FAILS)
def test_values_that_contradict_each_other_are_refused(bad: tuple[dict, str]):
    done = template(over(bad[0]))
    assert done.returncode != 0 and bad[1] in done.stderr, done.stderr


def test_what_the_schema_says_of_replicas_holds_without_it():
    done = template(over({"replicaCount": 0}), "--skip-schema-validation")
    assert done.returncode != 0 and "replicaCount: at least 1" in done.stderr, done.stderr


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
    elections = [{"name": "a", "priority": 7}, "b", {"name": "c", "observe": True}]
    preferred = config(render(CHART, over({"elections": elections})))["elections"]
    assert preferred == [{"name": "a", "priority": 7}, {"name": "b", "priority": 1}, {"name": "c", "observe": True}]
    plain = config(render(CHART, over({"elections": elections, "preferNewestRevision": False})))["elections"]
    assert plain == [{"name": "a", "priority": 7}, {"name": "b"}, {"name": "c", "observe": True}]


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
    assert ports({"etcd": {"endpoints": ["http://a:1234", "http://[fd00::1]:2380/"]}}) == {1234, 2380, 53}
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
    assert [p["exec"]["command"][-1] for p in mutual] == ["live", "live", "ready"] and not any("httpGet" in p for p in mutual)


def test_the_pause_before_the_end_is_left_out_where_it_is_not_known():
    def lifecycle(version: str) -> dict | None:
        (deployment,) = of_kind(render(CHART, LEAST, version), "Deployment")
        return deployment["spec"]["template"]["spec"]["containers"][0].get("lifecycle")

    assert lifecycle("1.29") is None
    assert lifecycle("1.30") == {"preStop": {"sleep": {"seconds": 5}}}


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
