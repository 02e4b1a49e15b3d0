"""The sidecar of helm/tenure-lib: what it renders, who may open its socket, and how a pod with it stops."""

import json
import os
import re
import shutil
import tempfile
import tomllib
from pathlib import Path

import pytest
import yaml

from support.binary import environment, variables
from support.manifests import KUBE_VERSIONS, check_references, check_restricted, containers, is_tenure, of_kind, pods, render, validate, with_dependencies
from support.tools import ROOT, run, tenure, tool
from support.waiting import eventually

LIBRARY = ROOT / "helm/tenure-lib"
EXAMPLES = [ROOT / "helm/examples/web", ROOT / "helm/examples/statefulset"]
CLASSIC_VERSIONS = ["1.25", "1.26", "1.27", "1.28"]
# The blocks of the README, as they stand there.
DEPENDENCY, VALUES, POD, STATE, ALIAS = re.findall(r"```yaml\n(.*?)```", (LIBRARY / "README.md").read_text(), re.S)
# What the library can render at all, in one release: TLS, a password, settings of every type, more variables.
FULL = {
    "tenure": {
        "etcd": {
            "endpoints": ["https://a:2379", "https://b:2379"],
            "username": "web",
            "passwordSecret": {"name": "etcd-web"},
            "tls": {"existingSecret": "etcd-tls", "certKey": "tls.crt", "keyKey": "tls.key", "serverName": "etcd"},
        },
        "session": {"ttl": "5s", "promise": "500ms", "vacancyGrace": "3s"},
        "extraConfig": {"readiness": {"strict": True}, "history_limit": 100000, "etcd": {"request_timeout": "3s"}},
        "image": {"registry": "", "digest": "sha256:" + "0" * 64},
        "readinessProbe": False,
        "extraEnv": [{"name": "TENURE_LOG__FORMAT", "value": "json"}],
    },
}
# A ConfigMap that Kubernetes itself puts into every namespace.
ROOT_CA = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": ""}}


# The pods of a Deployment with the sidecar, for charts that tests make.
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
"""


def chart(directory: Path, templates: str, values: str, dependencies: str = DEPENDENCY) -> Path:
    """A chart that has nothing else of ours, with the dependencies beside it."""
    made = directory / "mine"
    (made / "templates").mkdir(parents=True)
    for name in ("tenure-lib", "tenure"):
        pattern = rf"(- name: {name}\n(?:    .*\n)*?    repository: ).*"
        dependencies = re.sub(pattern, rf"\g<1>file://{ROOT}/helm/{name}", dependencies)
    assert "oci:" not in dependencies
    (made / "Chart.yaml").write_text(f"apiVersion: v2\nname: mine\nversion: 1.0.0\n{dependencies}")
    (made / "values.yaml").write_text(values)
    (made / "templates/all.yaml").write_text(templates)
    return made


def sidecar(objects: list[dict]) -> dict:
    [one] = [c for _, _, spec in pods(objects) for c in containers(spec) if is_tenure(c)]
    return one


@pytest.mark.parametrize("chart", EXAMPLES, ids=lambda c: c.name)
def test_an_example_builds_its_dependency_lints_and_packages(chart, tmp_path):
    """With the real helm and no network, as its user would."""
    shutil.copytree(ROOT / "helm", tmp_path / "helm", ignore=shutil.ignore_patterns("charts", "*.tgz"))
    copy = tmp_path / "helm/examples" / chart.name
    run(tool("helm"), "dependency", "build", copy)
    run(tool("helm"), "lint", "--strict", copy)
    run(tool("helm"), "lint", "--strict", tmp_path / "helm/tenure-lib")
    rendered = run(tool("helm"), "template", "t", copy).stdout
    assert [o for o in yaml.safe_load_all(rendered) if o] == render(chart), "the tests render something else than helm does"
    run(tool("helm"), "package", copy, "-d", tmp_path)
    assert (tmp_path / f"{chart.name}-0.1.0.tgz").exists()


@pytest.mark.parametrize("chart", EXAMPLES, ids=lambda c: c.name)
@pytest.mark.parametrize("values", [{}, FULL], ids=["least", "full"])
def test_an_example_is_right_in_every_version_of_kubernetes(chart, values):
    for version in KUBE_VERSIONS:
        validate(render(chart, values, kube_version=version), version)
    classic = values | {"sidecar": "classic"}
    for version in CLASSIC_VERSIONS:
        validate(render(chart, classic, kube_version=version), version)
    for objects in (render(chart, values), render(chart, classic)):
        check_restricted(objects)
        check_references(objects)


@pytest.mark.parametrize("mode", ["label", "endpointSlice"])
def test_routing_has_its_service_its_rights_and_no_more(mode):
    values = {"tenure": {"routing": {"mode": mode}}, "monitoring": {"podMonitor": True}}
    objects = render(EXAMPLES[1], values)
    for version in KUBE_VERSIONS:
        validate(objects, version)
    check_restricted(objects)
    check_references([*objects, ROOT_CA])
    [service] = of_kind(objects, "Service", "t-statefulset-leader")
    [role] = of_kind(objects, "Role")
    rights = {(r["resources"][0], v, *r.get("resourceNames", [])) for r in role["rules"] for v in r["verbs"]}
    if mode == "label":
        assert service["spec"]["selector"]["tenure.dev/role"] == "leader"
        assert rights == {("pods", v) for v in ("get", "list", "patch")}
    else:
        assert "selector" not in service["spec"]
        name = service["metadata"]["name"]
        slices = {("endpointslices", v, f"{name}-tenure") for v in ("get", "update")}
        assert rights == {("services", "get", name), ("endpointslices", "create")} | slices
    [(_, _, spec)] = pods(objects)
    assert spec["automountServiceAccountToken"] is False
    with_token = [c["name"] for c in containers(spec) if "tenure-api-access" in [m["name"] for m in c["volumeMounts"]]]
    assert with_token == ["tenure"], "the application has no token of the API server"
    assert not {"Role", "RoleBinding"} & {o["kind"] for o in render(EXAMPLES[1])}, "without routing, no rights"


def test_the_sidecar_comes_first_and_differs_by_its_mode_in_one_line():
    for chart in EXAMPLES:
        [(_, _, native)] = pods(render(chart))
        [(_, _, classic)] = pods(render(chart, {"sidecar": "classic"}))
        first, ordinary = native["initContainers"][0], classic["containers"][-1]
        assert first.pop("restartPolicy") == "Always" and first == ordinary
        assert "initContainers" not in classic
        assert all(m["readOnly"] for c in native["containers"] for m in c["volumeMounts"] if m["name"] == "tenure-run")


def test_what_the_user_sets_replaces_the_default_whatever_its_type():
    c = sidecar(render(EXAMPLES[0], FULL))
    env = {e["name"]: e.get("value") for e in c["env"]}
    assert env["TENURE_ETCD__ENDPOINTS"] == "https://a:2379,https://b:2379"
    assert env["TENURE_READINESS__STRICT"] == "true" and env["TENURE_HISTORY_LIMIT"] == "100000"
    assert env["TENURE_SESSION__TTL"] == "5s" and env["TENURE_ETCD__PASSWORD_FILE"] == "/etc/tenure/etcd-auth/password"
    assert "readinessProbe" not in c and "readinessProbe" in sidecar(render(EXAMPLES[0]))
    assert c["image"] == "tenure-dev/tenure:0.1.0@sha256:" + "0" * 64
    assert env["TENURE_SESSION__VACANCY_GRACE"] == "3s" and env["TENURE_ETCD__REQUEST_TIMEOUT"] == "3s"
    assert env["TENURE_ETCD__TLS__SERVER_NAME"] == "etcd"


@pytest.mark.parametrize(
    ("http", "public", "url"),
    [
        ({"port": 9999}, "0.0.0.0:9999", "http://$(POD_IP):9999"),
        ({"port": 9999, "ipv6": True}, "[::]:9999", "http://[$(POD_IP)]:9999"),
        ({"advertiseUrl": "http://$(POD_IP):80"}, "0.0.0.0:4790", "http://$(POD_IP):80"),
        ({"advertiseUrl": "http://$(POD_IP):80/$(POD_IP)", "ipv6": True}, "[::]:4790", "http://[$(POD_IP)]:80/$(POD_IP)"),
        ({"advertiseUrl": "http://[$(POD_IP)]:80", "ipv6": True}, "[::]:4790", "http://[$(POD_IP)]:80"),
        ({"advertiseUrl": "http://shop.example", "ipv6": True}, "[::]:4790", "http://shop.example"),
    ],
)
def test_the_sidecar_listens_publishes_and_is_asked_at_one_port(http, public, url):
    moved = sidecar(render(EXAMPLES[1], {"tenure": {"http": http}}))
    env = {e["name"]: e.get("value") for e in moved["env"]}
    assert env["TENURE_HTTP__PUBLIC"] == public and env["TENURE_HTTP__ADVERTISE_URL"] == url
    port = http.get("port", 4790)
    assert moved["ports"][0]["containerPort"] == moved["livenessProbe"]["httpGet"]["port"] == port


def test_an_example_has_the_port_of_its_sidecar_nowhere_else():
    moved = json.dumps(render(EXAMPLES[0], {"tenure": {"http": {"port": 4999}}}))
    assert "http://127.0.0.1:4999/gate" in moved and "4790" not in moved


def test_a_change_of_the_port_restarts_the_door():
    sums = {pods(render(EXAMPLES[0], {"tenure": {"http": {"port": port}}}))[0][1]["annotations"]["checksum/nginx"] for port in (4790, 4999)}
    assert len(sums) == 2


@pytest.mark.parametrize("mode", ["label", "endpointSlice"])
def test_the_routed_pod_is_named_by_kubernetes_whatever_its_host_is_called(mode, tmp_path):
    """hostNetwork, `hostname` and setHostnameAsFQDN give a pod another host name."""
    objects = render(EXAMPLES[1], {"tenure": {"routing": {"mode": mode}}})
    env = environment(variables(sidecar(objects), objects) | {"HOSTNAME": "node-7"})
    (tmp_path / "none.yaml").write_text("{}")
    shown = yaml.safe_load(run(tenure(), "config", "check", "--output", "yaml", tmp_path / "none.yaml", env=env).stdout)
    assert shown["kubernetes"]["pod"] == "pod-0"
    assert "TENURE_KUBERNETES__POD" not in variables(sidecar(render(EXAMPLES[1])), objects), "with gate there is no pod to name"


@pytest.mark.parametrize(
    ("given", "rendered"),
    [
        ({"requests": {"memory": "128Mi"}}, {"requests": {"memory": "128Mi"}}),
        ({"limits": None, "requests": {"cpu": "20m"}}, {"requests": {"cpu": "20m"}}),
        ({}, {}),
        (None, {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}),
    ],
)
def test_resources_are_the_users_or_the_default_and_no_mixture(given, rendered):
    assert sidecar(render(EXAMPLES[0], {"tenure": {"resources": given}}))["resources"] == rendered


def test_a_value_is_rendered_as_it_was_written():
    values = {"session": {"drift": 0.05, "slack": 0, "ttl": None}, "image": {"tag": None}, "extraConfig": {"history_limit": 1000000, "readiness": {"strict": None}}}
    c = sidecar(render(EXAMPLES[0], {"tenure": values}))
    env = {e["name"]: e.get("value") for e in c["env"]}
    given = env["TENURE_SESSION__DRIFT"], env["TENURE_SESSION__SLACK"]
    assert given == ("0.05", "0"), "which the daemon then refuses: they have no unit"
    assert env["TENURE_HISTORY_LIMIT"] == "1000000"
    assert c["image"] == sidecar(render(EXAMPLES[0]))["image"], "a null is what was not said"
    assert not {"TENURE_SESSION__TTL", "TENURE_READINESS__STRICT"} & env.keys()


@pytest.mark.parametrize("duration", ["25s", "1500ms", "1m"])
def test_waiting_for_the_application_is_for_classic_mode(duration):
    values = {"tenure": {"waitForDrained": duration}}
    classic = render(EXAMPLES[0], values | {"sidecar": "classic"})
    assert sidecar(classic)["lifecycle"]["preStop"]["exec"]["command"][-1] == duration
    check_references(classic)
    with pytest.raises(AssertionError, match="waitForDrained is for mode classic"):
        render(EXAMPLES[0], values)


@pytest.mark.parametrize("mount", [{"mountPath": "/var/lib/tenure/"}, {"mountPath": "/var/lib"}, {"mountPath": "/var/lib/tenure", "subPath": "x"}])
def test_files_lie_on_a_volume_of_the_pod(mount):
    config = {"state_dir": "/var/lib/tenure", "audit": {"file": "/var/lib/tenure/audit.jsonl"}}
    values = {"tenure": {"extraConfig": config, "extraVolumeMounts": [{"name": "data"} | mount]}}
    objects = render(EXAMPLES[1], values)
    validate(objects)
    check_references(objects)
    assert sidecar(objects)["volumeMounts"][-1] == {"name": "data"} | mount


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"elections": []}, "elections names the leaderships"),
        ({"elections": "web"}, "elections must be a list"),
        ({"elections": [{"name": "web"}]}, "takes names only: priority and observe of an election need the daemon's file"),
        ({"etcd": {"endpoints": []}}, "endpoints names etcd's members"),
        ({"etcd": {"endpoints": ["https://a:2379"]}}, "etcd.tls.existingSecret names a Secret"),
        ({"etcd": {"username": "web"}}, "go together"),
        ({"etcd": {"passwordSecret": {"name": "x"}}}, "go together"),
        ({"etcd": {"tls": {"existingSecret": "x", "certKey": "tls.crt"}}}, "go together"),
        ({"http": {"port": "http"}}, "http.port is a number from 1 to 65535, not http"),
        ({"http": {"port": 70000}}, "http.port is a number from 1 to 65535, not 70000"),
        ({"extraConfig": {"id": "x"}}, "extraConfig.id cannot be set: it is the pod's name"),
        ({"extraConfig": {"kubernetes": {"route": "label"}}}, "it follows tenure.routing"),
        ({"extraConfig": {"http": {"control": "127.0.0.1:1"}}}, "/run/tenure/control.sock"),
        ({"extraConfig": {"http": {"public": "[::]:1"}}}, "it follows tenure.http.port and tenure.http.ipv6"),
        ({"extraConfig": {"http": {"tls": {"cert_file": "/x"}}}}, "is not for a sidecar"),
        ({"extraConfig": {"session": {"ttl": "5s"}}}, "it is tenure.session"),
        ({"routing": {"mode": "endpoint_slice"}}, "is gate, label or endpointSlice, not endpoint_slice"),
        ({"elections": ["a", "b"], "waitForDrained": "25s"}, "waits for one election"),
        ({"waitForDrained": 25}, "is a duration with its unit, such as 25s, not 25"),
        ({"waitForDrained": "25"}, "is a duration with its unit, such as 25s, not 25"),
        ({"waitForDrained": "25 s"}, "is a duration with its unit"),
        ({"extraEnv": [{"name": "TENURE_ID", "value": "x"}]}, "extraEnv cannot set TENURE_ID: the library sets it"),
        ({"extraEnv": [{"name": "TENURE_ETCD__ENDPOINTS", "value": "x"}]}, "extraEnv cannot set TENURE_ETCD__ENDPOINTS"),
        ({"extraConfig": {"state_dir": "/var/lib/tenure"}}, "extraConfig.state_dir needs a mount to write to: tenure.extraVolumeMounts has none for /var/lib/tenure"),
        ({"extraConfig": {"audit": {"file": "/d/a"}}, "extraVolumeMounts": [{"name": "d", "mountPath": "/d/a"}]}, "audit.file needs a mount"),
        ({"extraConfig": {"state_dir": "/d/../e"}, "extraVolumeMounts": [{"name": "d", "mountPath": "/d"}]}, "has none for /e"),
        ({"extraConfig": {"state_dir": "/data"}, "extraVolumeMounts": [{"name": "d", "mountPath": "/d"}]}, "has none for /data"),
        ({"extraConfig": {"state_dir": "/d"}, "extraVolumeMounts": [{"name": "d", "mountPath": "/d", "readOnly": True}]}, "has none for /d"),
        ({"routing": {"mode": "label", "election": "other"}}, "is none of tenure.elections"),
        ({"config": {"elections": ["web"]}}, "there is no value tenure.config; there are: elections"),
        ({"log": {"level": "debug"}}, "and extraConfig takes every key of `tenure config example`"),
        ({"etcd": {"tls": {"secret": "x"}}}, "there is no value tenure.etcd.tls.secret"),
        ({"image": "tenure:1"}, "tenure.image must be a mapping"),
        ("web", "tenure must be a mapping"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_say_instead(values, said):
    with pytest.raises(AssertionError, match=re.escape(said)):
        render(EXAMPLES[0], {"tenure": values})


def test_a_native_sidecar_is_refused_where_kubernetes_has_none():
    with pytest.raises(AssertionError, match="has no native sidecars.*mode classic"):
        render(EXAMPLES[0], kube_version="1.28")


def test_the_versions_of_library_binary_and_image_are_one():
    chart = yaml.safe_load((LIBRARY / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    assert chart["appVersion"] == chart["version"] == version
    assert sidecar(render(EXAMPLES[0]))["image"] == f"ghcr.io/tenure-dev/tenure:{version}"


def test_the_lines_of_the_readme_make_a_chart(tmp_path):
    assert "oci://ghcr.io/tenure-dev/charts" in DEPENDENCY
    objects = render(chart(tmp_path, DEPLOYMENT.replace("NAME", "mine") + POD, VALUES))
    validate(objects)
    check_references(objects)
    assert sidecar(objects)["env"]


TWO_WORKLOADS = (
    "{{- range $name, $own := .Values.workloads }}\n---\n"
    + DEPLOYMENT.replace("NAME", "{{ $name }}")
    + """
      serviceAccountName: {{ $name }}
      initContainers:
        {{- include "tenure-lib.sidecar" (dict "root" $ "values" $own) | nindent 8 }}
      containers:
        - {name: app, image: app, ports: [{containerPort: 80}]}
      volumes:
        {{- include "tenure-lib.volumes" (dict "root" $ "values" $own) | nindent 8 }}
---
{{ include "tenure-lib.leaderService" (dict "root" $ "values" $own "selector" (dict "app" $name) "ports" (list (dict "port" 80))) }}
---
{{ include "tenure-lib.role" (dict "root" $ "values" $own "serviceAccountName" $name) }}
---
{{ include "tenure-lib.podMonitor" (dict "root" $ "values" $own "selector" (dict "app" $name)) }}
{{- end }}
"""
)


def test_two_workloads_of_one_chart_lead_different_elections(tmp_path):
    """What both say once is under `tenure`; what one says goes over it, false and empty included."""
    shared = {"etcd": {"endpoints": ["http://etcd:2379"]}, "routing": {"mode": "label"}, "extraConfig": {"readiness": {"strict": True}}}
    api = {"elections": ["api"], "routing": {"service": "api-leader"}, "podMonitor": {"name": "api"}, "extraConfig": {"log": {"level": "debug"}}}
    worker = {
        "elections": ["worker"],
        "etcd": {"tls": {"existingSecret": "tls"}, "endpoints": ["https://other:2379"]},
        "routing": {"mode": "endpointSlice", "service": "worker-leader"},
        "http": {"port": 4999},
        "extraConfig": {"readiness": {"strict": False}},
        "podMonitor": {"name": "worker"},
    }
    values = yaml.safe_dump({"tenure": shared, "workloads": {"api": api, "worker": worker}})
    objects = render(chart(tmp_path, TWO_WORKLOADS, values))
    validate(objects)
    check_references([*objects, ROOT_CA])
    containers_of = {owner["metadata"]["name"]: spec["initContainers"][0] for owner, _, spec in pods(objects)}
    settings = {name: variables(one, objects) for name, one in containers_of.items()}
    assert {name: env["TENURE_ELECTIONS"] for name, env in settings.items()} == {"api": "api", "worker": "worker"}
    assert [e.get("TENURE_LOG__LEVEL") for e in settings.values()] == ["debug", None]
    assert [e["TENURE_READINESS__STRICT"] for e in settings.values()] == ["true", "false"]
    assert [e["TENURE_ETCD__ENDPOINTS"] for e in settings.values()] == ["http://etcd:2379", "https://other:2379"]
    assert [e["TENURE_HTTP__PUBLIC"] for e in settings.values()] == ["0.0.0.0:4790", "0.0.0.0:4999"]
    assert [e["TENURE_KUBERNETES__ROUTE"] for e in settings.values()] == ["label", "endpoint_slice"]
    volumes = [{v["name"] for v in spec["volumes"]} for _, _, spec in pods(objects)]
    assert volumes[1] - volumes[0] == {"tenure-etcd-tls"}
    assert [s["metadata"]["name"] for s in of_kind(objects, "Service")] == ["api-leader", "worker-leader"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ('"tenure-lib.sidecar" (dict "root" $ "value" dict)', "tenure-lib.sidecar takes no value; it takes root, values, mode"),
        ('"tenure-lib.volumes" (dict "root" $ "mode" "classic")', "tenure-lib.volumes takes no mode; it takes root, values"),
        ('"tenure-lib.values" (dict "root" $ "mode" "classic")', "tenure-lib.values takes no mode; it takes root, values"),
        ('"tenure-lib.role" (dict "root" $ "account" "x")', "takes no account; it takes root, values, serviceAccountName"),
        ('"tenure-lib.podMonitor" (dict "root" $ "labels" dict)', "takes no labels; it takes root, values, selector"),
        ('"tenure-lib.leaderService" (dict "root" $ "port" 80)', "takes no port; it takes root, values, selector, ports"),
        ('"tenure-lib.leaderService" $', "needs the ports of the Service"),
        ('"tenure-lib.sidecar" (dict "mode" "native")', 'tenure-lib.sidecar needs the root of your chart: (dict "root" $'),
        ('"tenure-lib.sidecar" (dict "root" $ "values" (dict "elektions" list))', "there is no value values.elektions"),
        ('"tenure-lib.sidecar" (dict "root" $ "values" "x")', "values must be a mapping"),
    ],
)
def test_a_call_that_says_what_its_template_does_not_take_is_refused(tmp_path, call, said):
    values = yaml.safe_dump(yaml.safe_load(VALUES)["tenure"] | {"routing": {"mode": "label"}})
    made = chart(tmp_path, f"{{{{ include {call} }}}}", "tenure:\n" + re.sub("(?m)^", "  ", values))
    with pytest.raises(AssertionError, match=re.escape(said)):
        render(made)


def test_a_template_takes_the_bare_root_as_well_as_a_mapping_with_it(tmp_path):
    both = ["root: {{ include \"tenure-lib.%s\" %s | toJson }}" % (name, arg) for name in ("sidecar", "volumes", "values") for arg in ("$", '(dict "root" $)')]
    made = chart(tmp_path, "\n---\n".join(both), VALUES)
    texts = [o["root"] for o in yaml.safe_load_all(run(tool("helm"), "template", "t", with_dependencies(made, tmp_path / "built")).stdout)]
    assert texts[::2] == texts[1::2] and all(texts)


def test_beside_the_chart_tenure_that_one_needs_an_alias(tmp_path):
    values = VALUES + "candidates:\n  elections: [others]\n  etcd: {endpoints: [http://etcd-0.etcd:2379]}\n"
    template = DEPLOYMENT.replace("NAME", "mine") + POD
    objects = render(chart(tmp_path, template, values, ALIAS))
    validate(objects)
    check_references(objects)
    mine, candidates = sorted(of_kind(objects, "Deployment"), key=lambda o: o["metadata"]["name"] != "mine")
    assert sidecar([mine])["env"] and "initContainers" not in candidates["spec"]["template"]["spec"]
    [config] = of_kind(objects, "ConfigMap")
    assert "others" in config["data"]["tenure.yaml"]
    with pytest.raises(AssertionError, match="give that dependency an alias"):
        render(chart(tmp_path / "plain", template, VALUES, ALIAS.replace("    alias: candidates\n", "")))


def test_the_readme_has_an_alert_on_a_leader_whose_pod_is_not_ready(tmp_path):
    """Of the leaders, exactly the one whose pod is not ready; by the labels of a PodMonitor and of kube-state-metrics."""
    [expression] = re.findall(r"^ +(max by .*)$", (LIBRARY / "README.md").read_text(), re.M)
    series = {}
    for pod, leads, ready in (("a", 1, 0), ("b", 1, 1), ("c", 0, 0)):
        series |= {f'tenure_is_leader{{namespace="n",pod="{pod}",container="tenure",election="{e}"}}': leads for e in ("x", "y")}
        for condition, is_so in {"true": ready, "false": 1 - ready, "unknown": 0}.items():
            series[f'kube_pod_status_ready{{namespace="n",pod="{pod}",condition="{condition}"}}'] = is_so
    asked = {"expr": expression, "eval_time": "5m", "exp_samples": [{"labels": '{namespace="n",pod="a"}', "value": 1}]}
    one = {"interval": "1m", "input_series": [{"series": s, "values": f"{v}x10"} for s, v in series.items()], "promql_expr_test": [asked]}
    (tmp_path / "unit.yaml").write_text(yaml.safe_dump({"tests": [one]}))
    run(tool("promtool"), "test", "rules", tmp_path / "unit.yaml")


# The socket


@pytest.fixture
def open_directory():
    """A directory that other users can reach, with a binary that they can run."""
    path = Path(tempfile.mkdtemp(prefix="tenure-socket-"))
    path.chmod(0o755)
    shutil.copy(tenure(), path / "tenure")
    yield path
    run(*as_root("rm", "-rf", str(path)))


def as_root(*args: str) -> list[str]:
    """Only root may become other users; CI's user may by sudo."""
    return list(args) if os.geteuid() == 0 else [tool("sudo"), "-n", *args]


def as_user(user: int, group: int, groups: list[int], *args: str) -> list[str]:
    named = [f"--groups={','.join(map(str, groups))}"] if groups else ["--clear-groups"]
    return [tool("setpriv"), f"--reuid={user}", f"--regid={group}", *named, *args]


@pytest.mark.parametrize("pod", [*EXAMPLES, {"fsGroup": 2000}], ids=["web", "statefulset", "fsGroup alone"])
def test_an_application_of_another_user_may_open_the_socket_by_its_group_alone(open_directory, spawn, pod):
    """The file system as the kubelet lays it out: an emptyDir is 0777 and root's, and with an fsGroup that group's and setgid;
    every container of the pod has its supplementary groups, and the application mounts it read-only."""
    [(_, _, spec)] = pods(render(EXAMPLES[0] if isinstance(pod, dict) else pod))
    context = pod if isinstance(pod, dict) else spec["securityContext"]
    fs_group = context.get("fsGroup")
    pod_groups = [*context.get("supplementalGroups", []), *([fs_group] if fs_group else [])]
    tenures = spec["initContainers"][0]["securityContext"]
    theirs = spec["containers"][0]["securityContext"]["runAsUser"]
    assert tenures["runAsUser"] != theirs
    socket = open_directory / "run/control.sock"
    mode = "2777" if fs_group else "0777"
    run(*as_root("install", "-d", f"--mode={mode}", f"--group={fs_group or 0}", str(socket.parent)))
    binary = str(open_directory / "tenure")
    settings = [
        "TENURE_ELECTIONS=a",
        "TENURE_ETCD__ENDPOINTS=http://127.0.0.1:1",
        "TENURE_HTTP__PUBLIC=127.0.0.1:0",
        f"TENURE_HTTP__CONTROL=unix:{socket}",
    ]
    spawn(as_root("env", *settings, *as_user(tenures["runAsUser"], tenures["runAsGroup"], pod_groups, binary, "run")), "sidecar.log")
    eventually("the socket is there", lambda: socket.is_socket())
    is_there = eventually("it has its mode", lambda: (s := socket.stat()).st_mode & 0o777 == 0o660 and s)
    assert is_there.st_uid == 65532 and is_there.st_gid == (fs_group or tenures["runAsGroup"])

    read_only = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && ! touch "$0/x" 2>/dev/null && exec "$@"'
    mounted = ["unshare", "--mount", "sh", "-c", read_only, str(socket.parent)]

    def ask(groups: list[int]):
        # Without a runAsGroup, an application's first group is 0.
        check = [binary, "check", "--expect", "live", "--control", f"unix:{socket}"]
        return run(*as_root(*mounted, *as_user(theirs, 0, groups, *check)), check=False)

    eventually("the sidecar answers its application", lambda: ask(pod_groups).returncode == 0)
    stranger = ask([])
    assert stranger.returncode == 5 and "ermission denied" in stranger.stderr, stranger.stderr


# Its files


def test_the_sidecar_writes_its_files_by_the_fs_group_of_the_pod(open_directory):
    """As the kubelet lays it out: a volume, and a subPath made in it, is root's, and with an fsGroup that group's and setgid."""
    objects = render(EXAMPLES[1], yaml.safe_load(STATE))
    [(_, _, spec)] = pods(objects)
    fs_group, user = spec["securityContext"]["fsGroup"], spec["initContainers"][0]["securityContext"]
    env = variables(sidecar(objects), objects)
    state, nothing = open_directory / "state", open_directory / "none.yaml"
    assert env["TENURE_STATE_DIR"] == sidecar(objects)["volumeMounts"][-1]["mountPath"]
    settings = [f"{k}={v}" for k, v in (env | {"TENURE_STATE_DIR": str(state)}).items()]
    nothing.write_text("{}")

    def check(mode: str, groups: list[int]):
        run(*as_root("install", "-d", f"--mode={mode}", f"--group={groups[0] if groups else 0}", str(state)))
        started = [str(open_directory / "tenure"), "config", "check", str(nothing)]
        return run(*as_root("env", *settings, *as_user(user["runAsUser"], user["runAsGroup"], groups, *started)), check=False)

    with_group = check("2775", [fs_group])
    assert with_group.returncode == 0, with_group.stderr
    without = check("0755", [])
    assert without.returncode != 0 and "state_dir" in without.stderr, without.stderr
