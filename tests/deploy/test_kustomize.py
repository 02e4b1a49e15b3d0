"""What is copied or applied without Helm: kustomize's base and Component, the snippets of deploy/kubernetes, and the admission policy."""

import json
import re

import pytest
import yaml

from support.manifests import KUBE_VERSIONS, check_references, check_restricted, containers, is_tenure, of_kind, parse, pods, render, validate
from support.tools import ROOT, run, tenure, tool

KUSTOMIZE = ROOT / "deploy/kustomize"
KUBERNETES = ROOT / "deploy/kubernetes"
POLICY = KUBERNETES / "mutating-admission-policy.yaml"


def build(name: str) -> list[dict]:
    return parse(run(tool("kubectl"), "kustomize", KUSTOMIZE / name).stdout)


def snippets() -> list[dict]:
    """The blocks of deploy/kubernetes/README.md, as they stand there."""
    return [yaml.safe_load(b) for b in re.findall(r"```yaml\n(.*?)```", (KUBERNETES / "README.md").read_text(), re.S)]


def sidecar(objects: list[dict], app: str = "shop") -> dict:
    [one] = [c for _, _, spec in pods(objects) for c in containers(spec) if is_tenure(c) and app in [c["name"] for c in spec["containers"]]]
    return one


def with_annotations(objects: list[dict]) -> list[dict]:
    """Variables that are taken from a pod's annotations, filled in as the kubelet does."""
    for _, meta, spec in pods(objects):
        for e in [e for c in containers(spec) for e in c.get("env", [])]:
            field = e.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
            if named := re.fullmatch(r"metadata\.annotations\['(.*)'\]", field):
                del e["valueFrom"]
                e["value"] = meta["annotations"][named[1]]
    return objects


def settled(container: dict) -> dict:
    """A sidecar without what each way of delivering it says in its own words: where etcd is, and what to lead."""
    own = {"TENURE_ELECTIONS", "TENURE_ETCD__ENDPOINTS", "TENURE_HTTP__PUBLIC"}
    left = {k: v for k, v in container.items() if k not in ("envFrom", "imagePullPolicy")}
    return left | {"env": {e["name"]: e for e in container["env"] if e["name"] not in own}}


@pytest.mark.parametrize("name", ["base", "example"])
def test_a_kustomization_builds_what_every_version_of_kubernetes_takes(name):
    objects = build(name)
    for version in KUBE_VERSIONS:
        validate(objects, version)
    check_restricted(objects)
    check_references(with_annotations(objects))


def test_the_base_has_a_configuration_that_the_binary_takes_and_no_rights():
    objects = build("base")
    [config] = of_kind(objects, "ConfigMap")
    file = KUSTOMIZE / "base/tenure.yaml"
    assert config["data"]["tenure.yaml"] == file.read_text()
    run(tenure(), "config", "check", file, env={"POD_NAME": "pod-0", "POD_IP": "10.0.0.5"})
    [(owner, _, spec)] = pods(objects)
    assert owner["spec"]["replicas"] == 3 and spec["automountServiceAccountToken"] is False
    assert not {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "Secret"} & {o["kind"] for o in objects}


def test_the_component_puts_the_sidecar_first_and_into_labelled_workloads_only():
    objects = build("example")
    by_name = {owner["metadata"]["name"]: spec for owner, _, spec in pods(objects)}
    first = by_name["shop"]["initContainers"][0]
    assert is_tenure(first) and first["restartPolicy"] == "Always"
    assert "initContainers" not in by_name["tenure"], "the base's own candidates have no label"
    [settings] = [o for o in of_kind(objects, "ConfigMap") if o["metadata"]["name"].startswith("tenure-sidecar-")]
    assert first["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    assert settings["data"]["TENURE_ETCD__ENDPOINTS"] == "http://etcd:2379"


def test_the_component_goes_before_the_init_containers_that_are_there(tmp_path):
    """In any kind of workload that it is for."""
    app = yaml.safe_load((KUSTOMIZE / "example/app.yaml").read_text())
    app["spec"]["template"]["spec"]["initContainers"] = [{"name": "migrate", "image": "migrate"}]
    writer = json.loads(json.dumps(app)) | {"kind": "StatefulSet"}
    writer["spec"]["serviceName"] = "shop"
    plain = json.loads(json.dumps(app))
    plain["metadata"] = {"name": "plain"}
    (tmp_path / "app.yaml").write_text(yaml.safe_dump_all([app, writer, plain]))
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["app.yaml"], "components": ["sidecar"]}))
    (tmp_path / "sidecar").symlink_to(KUSTOMIZE / "components/sidecar")
    objects = parse(run(tool("kubectl"), "kustomize", "--load-restrictor=LoadRestrictionsNone", tmp_path).stdout)
    names = {(o["kind"], o["metadata"]["name"]): [c["name"] for c in s["initContainers"]] for o, _, s in pods(objects)}
    both = ["tenure", "migrate"]
    assert names == {("Deployment", "shop"): both, ("StatefulSet", "shop"): both, ("Deployment", "plain"): ["migrate"]}


def test_the_snippets_of_the_readme_are_right_as_they_stand_there():
    native, classic, settings, labelled = snippets()
    for version in KUBE_VERSIONS:
        validate([native, settings, labelled], version)
    for version in ("1.25", "1.26", "1.27", "1.28"):
        validate([classic], version)
    for objects in ([native], [classic]):
        check_restricted(objects)
        check_references(objects)
    one = sidecar([native])
    assert one.pop("restartPolicy") == "Always" and one == sidecar([classic])


def test_every_way_to_get_the_sidecar_gives_the_same_one(admit):
    library = render(ROOT / "helm/examples/statefulset")
    expected = settled(sidecar(library, "writer"))
    native, _, _, labelled = snippets()
    [injected] = admit([pod_of(labelled)])
    for way, objects in {"kustomize": build("example"), "snippet": [native], "policy": [injected]}.items():
        assert settled(sidecar(objects)) == expected, way


# The admission policy


def pod_of(owner: dict) -> dict:
    """The pod that a workload makes."""
    template = owner["spec"]["template"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod-0", **template["metadata"]}, "spec": template["spec"]}


@pytest.fixture
def admit(tmp_path):
    """What the policy makes of pods, by the code of the API server."""

    def admitted(given: list[dict]) -> list[dict]:
        file = tmp_path / "pods.json"
        file.write_text(json.dumps(given))
        made = json.loads(run(tool("admit"), POLICY, file).stdout)
        for pod in made:
            pod.pop("status", None)
        return made

    return admitted


def pod(spec: dict | None = None, labels: dict | None = None) -> dict:
    own = [{"name": "app", "image": "app"}, {"name": "log", "image": "log", "volumeMounts": [{"name": "d", "mountPath": "/d"}]}]
    chosen = {"tenure.dev/inject": "enabled"} if labels is None else labels
    meta = {"name": "pod-0", "labels": chosen, "annotations": {"tenure.dev/elections": "shop"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": own, "volumes": [{"name": "d", "emptyDir": {}}], **(spec or {})}}


def test_the_policy_and_its_binding_fit_kubernetes_and_each_other():
    objects = parse(POLICY.read_text())
    for version in ("1.36", "1.37"):
        validate(objects, version)
    [policy], [binding] = of_kind(objects, "MutatingAdmissionPolicy"), of_kind(objects, "MutatingAdmissionPolicyBinding")
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]


def test_the_policy_puts_the_sidecar_first_with_its_socket_in_every_container_and_its_group(admit):
    old = {"initContainers": [{"name": "migrate", "image": "migrate"}], "securityContext": {"runAsUser": 7, "supplementalGroups": [5]}}
    for given, names, groups in [(pod(), ["tenure"], [65532]), (pod(old), ["tenure", "migrate"], [5, 65532])]:
        [made] = admit([given])
        validate([made], "1.36")
        spec = made["spec"]
        assert [c["name"] for c in spec["initContainers"]] == names
        assert spec["securityContext"] == given["spec"].get("securityContext", {}) | {"supplementalGroups": groups}
        assert [v["name"] for v in spec["volumes"]] == ["d", "tenure-run"]
        mount = {"name": "tenure-run", "mountPath": "/run/tenure", "readOnly": True}
        assert [c["volumeMounts"] for c in spec["containers"]] == [[mount], [{"name": "d", "mountPath": "/d"}, mount]]


def test_the_policy_leaves_alone_what_did_not_ask_and_what_has_a_sidecar(admit):
    once = admit([pod()])
    assert admit(once) == once
    for labels in ({}, {"tenure.dev/inject": "disabled"}):
        [made] = admit([pod(labels=labels)])
        assert "initContainers" not in made["spec"] and len(made["spec"]["volumes"]) == 1


def test_what_the_readme_labels_the_policy_makes_whole(admit):
    _, _, settings, labelled = snippets()
    [made] = admit([pod_of(labelled)])
    objects = with_annotations([made, settings])
    validate(objects, "1.36")
    check_restricted(objects)
    check_references(objects)
    [(_, _, spec)] = pods(objects)
    assert spec["containers"][0]["volumeMounts"][0]["name"] == "tenure-run"
