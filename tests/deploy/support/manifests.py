"""Kubernetes objects: rendered by the real helm, held against the schemas, Pod Security, each other and the binary."""

import copy
import functools
import json
import re
import shutil
import tempfile
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml
from referencing import Registry, Resource

from . import binary
from .tools import ROOT, run, tool

CRDS = ROOT / "tests/deploy/crds"
# The versions of Kubernetes that charts and manifests are held against.
KUBE_VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
# Labels that the daemon sets on its own pod, so that no template has them.
_SET_BY_DAEMON = {"tenure.dev/role", "tenure.dev/election"}
_TENURE_IMAGE = re.compile(r"(^|/)tenure([:@]|$)")


# Rendering


def render(
    chart: Path | str, values: dict | None = None, kube_version: str = "1.33", release: str = "t", namespace: str = "default"
) -> list[dict]:
    """The objects of a chart. Each combination is rendered once in a session; every caller gets a copy of its own."""
    rendered = _render(str(chart), json.dumps(values or {}, sort_keys=True), kube_version, release, namespace)
    return copy.deepcopy(rendered)


@functools.cache
def _render(chart: str, values: str, kube_version: str, release: str, namespace: str) -> list[dict]:
    with tempfile.TemporaryDirectory(prefix="tenure-chart-") as directory:
        given = Path(directory, "values.json")
        given.write_text(values)
        path = with_dependencies(Path(chart), Path(directory, "chart"))
        command = [tool("helm"), "template", release, path, "-n", namespace, "-f", given, "--kube-version", kube_version]
        return parse(run(*command).stdout)


class _Strict(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """A key that comes twice in a mapping is an error, not a silent loss."""

    def construct_mapping(self, node, deep=False):
        keys = [k.value for k in (pair[0] for pair in node.value) if isinstance(k, yaml.ScalarNode)]
        twice = {k for k in keys if keys.count(k) > 1}
        assert not twice, f"{node.start_mark}: {sorted(twice)} twice"
        return super().construct_mapping(node, deep)


def parse(text: str) -> list[dict]:
    """The objects of YAML documents."""
    return [d for d in yaml.load_all(text, Loader=_Strict) if d is not None]


def with_dependencies(chart: Path, copy_to: Path) -> Path:
    """The chart itself or, where it depends on others by `file://`, a copy that holds them, as `helm dependency build` makes one."""
    named = yaml.safe_load((chart / "Chart.yaml").read_text()).get("dependencies", [])
    if not named:
        return chart
    shutil.copytree(chart, copy_to, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
    for one in named:
        place = one["repository"]
        assert place.startswith("file://"), f"{chart}: {one['name']} is not beside it: {place}"
        shutil.copytree((chart / place.removeprefix("file://")).resolve(), copy_to / "charts" / one["name"])
    return copy_to


# Finding


def of_kind(objects: list[dict], kind: str, name: str | None = None) -> list[dict]:
    """The objects of a kind, and of a name if one is given."""
    return [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]


def called(o: dict) -> str:
    """What messages call an object."""
    return f"{o['kind']}/{o['metadata']['name']}"


def pods(objects: list[dict]) -> list[tuple[dict, dict, dict]]:
    """(owner, metadata, spec) of every pod that the objects make."""
    found = []
    for o in objects:
        if o["kind"] == "Pod":
            found.append((o, o["metadata"], o["spec"]))
        elif o["kind"] == "CronJob":
            template = o["spec"]["jobTemplate"]["spec"]["template"]
            found.append((o, template.get("metadata", {}), template["spec"]))
        elif o["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"):
            template = o["spec"]["template"]
            found.append((o, template.get("metadata", {}), template["spec"]))
    return found


def containers(spec: dict) -> list[dict]:
    """All of a pod, sidecars and init containers first."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def is_tenure(container: dict) -> bool:
    """Whether a container runs the daemon's image."""
    return bool(_TENURE_IMAGE.search(container.get("image", "")))


# Schemas


@functools.cache
def _definitions(version: str) -> Registry:
    schema = kubernetes_validate.utils.schema_contents(f"kubernetes-json-schema/v{version}.0-local-strict/_definitions.json", version)
    return Resource.from_contents(schema) @ Registry()


@functools.cache
def _validator(api_version: str, kind: str, version: str) -> jsonschema.protocols.Validator | None:
    crd = CRDS / f"{api_version.replace('/', '_')}_{kind}.json"
    if crd.exists():
        return jsonschema.Draft7Validator(json.loads(crd.read_text()))
    name = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    path = f"kubernetes-json-schema/v{version}.0-local-strict/{kind.lower()}-{name}.json"
    try:
        schema = kubernetes_validate.utils.schema_contents(path, version)
    except FileNotFoundError:
        return None
    return jsonschema.Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _definitions(version))


def validate(objects: list[dict], kube_version: str = "1.33") -> None:
    """Every object against the schema of its kind: unknown fields are errors, and so are unknown kinds."""
    problems = []
    for o in objects:
        validator = _validator(o["apiVersion"], o["kind"], kube_version)
        if validator is None:
            problems.append(f"{called(o)}: Kubernetes {kube_version} knows no {o['apiVersion']} {o['kind']}")
            continue
        problems += [f"{called(o)}: {e.json_path}: {e.message}" for e in validator.iter_errors(o)]
    _none("schema", problems)


# Pod Security Standard "restricted"


def check_restricted(objects: list[dict]) -> None:
    """The standard's rules for every container of every pod, https://kubernetes.io/docs/concepts/security/pod-security-standards/,
    and two of ours: a root file system that is read-only, and a numeric user that is not root."""
    problems = []
    for owner, _, spec in pods(objects):
        where = called(owner)
        problems += [f"{where}: {key}" for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace") if spec.get(key)]
        allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret", "name"}
        problems += [f"{where}: volume {v['name']} of a type that is not allowed" for v in spec.get("volumes", []) if set(v) - allowed]
        shared = spec.get("securityContext", {})
        for c in containers(spec):
            problems += [f"{where}, container {c['name']}: {p}" for p in _of_container(c, {**shared, **c.get("securityContext", {})})]
    _none("Pod Security", problems)


def _of_container(c: dict, context: dict) -> list[str]:
    own = c.get("securityContext", {})
    capabilities = own.get("capabilities", {})
    hooks = [*c.get("lifecycle", {}).values(), *(c[p] for p in ("livenessProbe", "readinessProbe", "startupProbe") if c.get(p))]
    rules = {
        "privileged": not own.get("privileged"),
        "allowPrivilegeEscalation must be false": own.get("allowPrivilegeEscalation") is False,
        "capabilities must drop ALL": "ALL" in capabilities.get("drop", []),
        "capabilities may add NET_BIND_SERVICE at most": set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
        "runAsNonRoot must be true": context.get("runAsNonRoot") is True,
        "runAsUser must be a number other than 0": isinstance(context.get("runAsUser"), int) and context["runAsUser"] != 0,
        "seccompProfile must be RuntimeDefault": context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
        "readOnlyRootFilesystem must be true": own.get("readOnlyRootFilesystem") is True,
        "hostPort": not any(p.get("hostPort") for p in c.get("ports", [])),
        "probes and hooks must not name a host": not any(h.get(k, {}).get("host") for h in hooks for k in ("httpGet", "tcpSocket")),
    }
    return [what for what, kept in rules.items() if not kept]


# References


def check_references(objects: list[dict]) -> None:
    """That the objects fit each other and the binary.

    Names are unique; selectors match pods; ports, volumes, ConfigMaps, Roles and accounts that are named are there; and of
    containers with the daemon's image: probes ask for paths that it serves, and it takes their arguments and variables.
    Secrets come from outside.
    """
    problems: list[str] = []
    seen: set[tuple] = set()
    for o in objects:
        key = (o["apiVersion"], o["kind"], o["metadata"]["name"], o["metadata"].get("namespace"))
        if key in seen:
            problems.append(f"{called(o)}: twice")
        seen.add(key)
        problems += [f"{called(o)}: {p}" for p in _REFERENCES.get(o["kind"], lambda *_: [])(o, objects)]
    for owner, meta, spec in pods(objects):
        problems += [f"{called(owner)}: {p}" for p in _of_pod(owner, meta, spec, objects)]
    _none("references", problems)


def matches(selector: dict, labels: dict) -> bool:
    """Whether a label selector, or a Service's, selects labels. What the daemon sets at run time counts as set."""
    plain = selector.get("matchLabels", {}) if selector.keys() & {"matchLabels", "matchExpressions"} else selector
    if any(k not in _SET_BY_DAEMON and labels.get(k) != v for k, v in plain.items()):
        return False
    for e in selector.get("matchExpressions", []):
        has = labels.get(e["key"])
        kept = {"In": has in e.get("values", []), "NotIn": has not in e.get("values", []), "Exists": has is not None, "DoesNotExist": has is None}
        if not kept[e["operator"]]:
            return False
    return True


def _selected(selector: dict, objects: list[dict]) -> list[dict]:
    return [spec for _, meta, spec in pods(objects) if matches(selector, meta.get("labels", {}))]


def _has_port(spec: dict, port: int | str) -> bool:
    # A sidecar's port has no name for Services before 1.32.
    named = [p for c in spec["containers"] for p in c.get("ports", []) if p.get("name") == port]
    return bool(named) or any(p["containerPort"] == port for c in containers(spec) for p in c.get("ports", []))


def _service(o: dict, objects: list[dict]) -> list[str]:
    if not o["spec"].get("selector"):
        return []
    found = _selected(o["spec"]["selector"], objects)
    targets = [p.get("targetPort", p["port"]) for p in o["spec"]["ports"]]
    return (["its selector matches no pod"] if not found else []) + [
        f"no container has its target port {t}" for t in targets for spec in found if not _has_port(spec, t)
    ]


def _owner(o: dict, _: list[dict]) -> list[str]:
    selector = o["spec"].get("selector")
    if selector is None or matches(selector, o["spec"]["template"]["metadata"]["labels"]):
        return []
    return ["its selector does not match its own pods"]


def _selects_pods(key: str):
    def check(o: dict, objects: list[dict]) -> list[str]:
        selector = o["spec"].get(key)
        return [] if selector == {} or _selected(selector, objects) else [f"{key} matches no pod"]

    return check


def _service_monitor(o: dict, objects: list[dict]) -> list[str]:
    services = [s for s in of_kind(objects, "Service") if matches(o["spec"]["selector"], s["metadata"].get("labels", {}))]
    problems = [] if services else ["its selector matches no Service"]
    for endpoint in o["spec"]["endpoints"]:
        if not any(p.get("name") == endpoint["port"] for s in services for p in s["spec"]["ports"]):
            problems.append(f"no Service has a port of the name {endpoint['port']}")
        problems += _metrics_path(endpoint)
    return problems


def _pod_monitor(o: dict, objects: list[dict]) -> list[str]:
    found = _selected(o["spec"]["selector"], objects)
    problems = [] if found else ["its selector matches no pod"]
    for endpoint in o["spec"]["podMetricsEndpoints"]:
        port = endpoint.get("portNumber", endpoint.get("port"))
        if not any(port in (p.get("name"), p["containerPort"]) for spec in found for c in containers(spec) for p in c.get("ports", [])):
            problems.append(f"no container has a port {port}")
        problems += _metrics_path(endpoint)
    return problems


def _metrics_path(endpoint: dict) -> list[str]:
    path = endpoint.get("path", "/metrics")
    return [] if binary.serves(path) else [f"the binary does not serve {path}"]


def _role_binding(o: dict, objects: list[dict]) -> list[str]:
    problems = [] if of_kind(objects, o["roleRef"]["kind"], o["roleRef"]["name"]) else [f"no {o['roleRef']['kind']} {o['roleRef']['name']}"]
    accounts = {spec.get("serviceAccountName", "default") for _, _, spec in pods(objects)}
    return problems + [f"no pod runs as {s['name']}" for s in o["subjects"] if s["kind"] == "ServiceAccount" and s["name"] not in accounts]


_REFERENCES = {
    "Service": _service,
    "Deployment": _owner,
    "StatefulSet": _owner,
    "DaemonSet": _owner,
    "PodDisruptionBudget": _selects_pods("selector"),
    "NetworkPolicy": _selects_pods("podSelector"),
    "ServiceMonitor": _service_monitor,
    "PodMonitor": _pod_monitor,
    "RoleBinding": _role_binding,
}


def _of_pod(owner: dict, meta: dict, spec: dict, objects: list[dict]) -> list[str]:
    problems = []
    for constraint in spec.get("topologySpreadConstraints", []):
        if not matches(constraint.get("labelSelector", {}), meta.get("labels", {})):
            problems.append("a spread constraint does not match the pod")
    volumes = {v["name"]: v for v in spec.get("volumes", [])}
    volumes |= {c["metadata"]["name"]: c for c in owner["spec"].get("volumeClaimTemplates", [])}
    sources = [s for v in volumes.values() for s in (v, *v.get("projected", {}).get("sources", [])) if "configMap" in s]
    problems += [f"no ConfigMap {s['configMap']['name']}" for s in sources if not of_kind(objects, "ConfigMap", s["configMap"]["name"])]
    for c in containers(spec):
        problems += [f"container {c['name']}: {p}" for p in _of_one(c, volumes, spec, objects)]
    return problems


def _of_one(c: dict, volumes: dict, spec: dict, objects: list[dict]) -> list[str]:
    problems = [f"no volume {m['name']}" for m in c.get("volumeMounts", []) if m["name"] not in volumes]
    for what, names in {
        "variable": [e["name"] for e in c.get("env", [])],
        "mount": [m["mountPath"] for m in c.get("volumeMounts", [])],
        "port": [p.get("name") for p in c.get("ports", []) if p.get("name")],
    }.items():
        problems += [f"{what} {n} twice" for n in sorted({n for n in names if names.count(n) > 1})]
    probes = {p: c[p] for p in ("startupProbe", "livenessProbe", "readinessProbe") if c.get(p)}
    for name, probe in {**probes, **c.get("lifecycle", {})}.items():
        if len(handlers := probe.keys() & {"exec", "grpc", "httpGet", "sleep", "tcpSocket"}) != 1:
            problems.append(f"{name}: one handler belongs there, not {sorted(handlers)}")
        if "httpGet" in probe and not any(probe["httpGet"]["port"] in (p.get("name"), p["containerPort"]) for p in c.get("ports", [])):
            problems.append(f"{name}: the container has no port {probe['httpGet']['port']}")
        if is_tenure(c) and "httpGet" in probe and not binary.serves(probe["httpGet"]["path"]):
            problems.append(f"{name}: the binary does not serve {probe['httpGet']['path']}")
        if is_tenure(c) and "exec" in probe:
            program, *args = probe["exec"]["command"]
            problems += [f"{name}: {p}" for p in ([] if program == "/tenure" else [f"no {program} in the image"]) + binary.refuses(args)]
    if is_tenure(c):
        problems += binary.refuses_container(c, spec, objects)
    return problems


def _none(what: str, problems: list[str]) -> None:
    assert not problems, f"{what}:\n" + "\n".join(problems)
