"""The sidecar of helm/tenure-lib: what it renders, who may open its socket, and how a pod with it stops."""

import os
import re
import shutil
import tempfile
import tomllib
from pathlib import Path

import pytest
import yaml

from support.manifests import KUBE_VERSIONS, check_references, check_restricted, containers, is_tenure, of_kind, pods, render, validate
from support.tools import ROOT, run, tenure, tool
from support.waiting import eventually

LIBRARY = ROOT / "helm/tenure-lib"
EXAMPLES = [ROOT / "helm/examples/web", ROOT / "helm/examples/statefulset"]
CLASSIC_VERSIONS = ["1.25", "1.26", "1.27", "1.28"]
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
    ],
)
def test_the_sidecar_listens_publishes_and_is_asked_at_one_port(http, public, url):
    moved = sidecar(render(EXAMPLES[1], {"tenure": {"http": http}}))
    env = {e["name"]: e.get("value") for e in moved["env"]}
    assert env["TENURE_HTTP__PUBLIC"] == public and env["TENURE_HTTP__ADVERTISE_URL"] == url
    port = http.get("port", 4790)
    assert moved["ports"][0]["containerPort"] == moved["livenessProbe"]["httpGet"]["port"] == port


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"elections": []}, "elections names the leaderships"),
        ({"elections": "web"}, "elections must be a list"),
        ({"elections": [{"name": "web"}]}, "takes names only"),
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
        ({"routing": {"mode": "label", "election": "other"}}, "is none of tenure.elections"),
        ({"config": {"elections": ["web"]}}, "there is no value tenure.config; there are: elections"),
        ({"log": {"level": "debug"}}, "and extraConfig takes every key of `tenure config example`"),
        ({"etcd": {"tls": {"secret": "x"}}}, "there is no value tenure.etcd.tls.secret"),
        ({"image": "tenure:1"}, "tenure.image must be a mapping"),
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
    """Its blocks, as they stand there, in a chart that has nothing else of ours."""
    dependency, values, spec = re.findall(r"```yaml\n(.*?)```", (LIBRARY / "README.md").read_text(), re.S)
    assert "oci://ghcr.io/tenure-dev/charts" in dependency
    chart = tmp_path / "mine"
    (chart / "templates").mkdir(parents=True)
    local = dependency.replace("oci://ghcr.io/tenure-dev/charts", f"file://{LIBRARY}")
    (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: mine\nversion: 1.0.0\n{local}")
    (chart / "values.yaml").write_text(values)
    head = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: mine}\nspec:\n  selector: {matchLabels: {a: b}}\n"
    (chart / "templates/all.yaml").write_text(f"{head}  template:\n    metadata: {{labels: {{a: b}}}}\n    spec:\n{spec}")
    run(tool("helm"), "dependency", "build", chart)
    objects = [o for o in yaml.safe_load_all(run(tool("helm"), "template", "t", chart).stdout) if o]
    validate(objects)
    check_references(objects)
    assert sidecar(objects)["env"]


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
