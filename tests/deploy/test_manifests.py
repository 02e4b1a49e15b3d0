"""The checks of Kubernetes objects find what is wrong: each fault, put into objects that pass."""

from collections.abc import Callable

import pytest

from support.manifests import check_references, check_restricted, of_kind, parse, render, validate
from support.tools import ROOT

VALUES = {
    "elections": ["orders"],
    "etcd": {"endpoints": ["http://etcd:2379"]},
    "routing": {"mode": "label"},
    "networkPolicy": {"enabled": True},
    "metrics": {"serviceMonitor": {"enabled": True}},
}


def objects() -> list[dict]:
    return render(ROOT / "helm/tenure", VALUES)


def one(all: list[dict], kind: str, name: str = "t-tenure") -> dict:
    return of_kind(all, kind, name)[0]


def pod(all: list[dict]) -> dict:
    return one(all, "Deployment")["spec"]["template"]["spec"]


def daemon(all: list[dict]) -> dict:
    return pod(all)["containers"][0]


FAULTS: dict[str, tuple[Callable[[list[dict]], object], Callable, str]] = {
    "an unknown field": (lambda o: daemon(o).update(imagePull="x"), validate, "imagePull"),
    "an unknown kind": (lambda o: one(o, "Role").update(kind="Rôle"), validate, "knows no"),
    "an unknown field of a CRD": (lambda o: one(o, "ServiceMonitor")["spec"].update(jobLabels="x"), validate, "jobLabels"),
    "a missing field": (lambda o: one(o, "Deployment")["spec"].pop("selector"), validate, "selector"),
    "a number for text": (lambda o: one(o, "ConfigMap")["data"].update(a=1), validate, "not of type"),
    "root": (lambda o: pod(o)["securityContext"].update(runAsUser=0), check_restricted, "runAsUser"),
    "privilege": (lambda o: daemon(o)["securityContext"].update(privileged=True), check_restricted, "privileged"),
    "escalation": (lambda o: daemon(o)["securityContext"].pop("allowPrivilegeEscalation"), check_restricted, "allowPrivilegeEscalation"),
    "no seccomp": (lambda o: pod(o)["securityContext"].pop("seccompProfile"), check_restricted, "seccompProfile"),
    "a capability": (lambda o: daemon(o)["securityContext"]["capabilities"].update(add=["NET_RAW"]), check_restricted, "NET_BIND_SERVICE"),
    "the host's files": (lambda o: pod(o)["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), check_restricted, "volume h"),
    "the host's network": (lambda o: pod(o).update(hostNetwork=True), check_restricted, "hostNetwork"),
    "a probe of another host": (lambda o: daemon(o)["livenessProbe"]["httpGet"].update(host="a"), check_restricted, "host"),
    "a selector of nothing": (lambda o: one(o, "Service")["spec"]["selector"].update(a="b"), check_references, "matches no pod"),
    "a policy for nothing": (lambda o: one(o, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].update(a="b"), check_references, "matches no pod"),
    "a port that is not there": (lambda o: one(o, "Service")["spec"]["ports"][0].update(targetPort=80), check_references, "target port 80"),
    "a monitor's port": (lambda o: one(o, "ServiceMonitor")["spec"]["endpoints"][0].update(port="x"), check_references, "of the name x"),
    "a monitor's path": (lambda o: one(o, "ServiceMonitor")["spec"]["endpoints"][0].update(path="/metric"), check_references, "/metric"),
    "a Role that is not there": (lambda o: one(o, "RoleBinding")["roleRef"].update(name="x"), check_references, "no Role x"),
    "an account of nobody": (lambda o: one(o, "RoleBinding")["subjects"][0].update(name="x"), check_references, "no pod runs as x"),
    "a ConfigMap that is not there": (lambda o: pod(o)["volumes"][0]["configMap"].update(name="x"), check_references, "no ConfigMap x"),
    "a volume that is not there": (lambda o: pod(o)["volumes"].pop(), check_references, "no volume run"),
    "a path that is not served": (lambda o: daemon(o)["readinessProbe"]["httpGet"].update(path="/ready"), check_references, "/ready"),
    "a probe of two kinds": (lambda o: daemon(o)["livenessProbe"].update(exec={"command": ["/tenure", "check", "--expect", "live"]}), check_references, "one handler"),
    "a probe's port": (lambda o: daemon(o)["readinessProbe"]["httpGet"].update(port=80), check_references, "no port 80"),
    "an unknown flag": (lambda o: daemon(o)["args"].append("--leader"), check_references, "--leader"),
    "an unknown command": (lambda o: daemon(o).update(args=["start"]), check_references, "start"),
    "an unknown setting": (lambda o: daemon(o)["env"].append({"name": "TENURE_ETCD__URL", "value": "x"}), check_references, "TENURE_ETCD__URL"),
    "a value that is refused": (lambda o: daemon(o)["env"].append({"name": "TENURE_SESSION__TTL", "value": "1s"}), check_references, "TENURE_SESSION__TTL"),
    "a variable twice": (lambda o: daemon(o)["env"].append({"name": "POD_IP", "value": "x"}), check_references, "POD_IP twice"),
    "an object twice": (lambda o: o.append(one(o, "Role")), check_references, "twice"),
    "a hook by a shell": (
        lambda o: daemon(o).update(lifecycle={"preStop": {"exec": {"command": ["sh", "-c", "sleep 5"]}}}),
        check_references,
        "no sh in the image",
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_is_found(fault: tuple[Callable, Callable, str]):
    break_it, check, words = fault
    broken = objects()
    check(broken)
    break_it(broken)
    with pytest.raises(AssertionError, match=words):
        check(broken)


def test_a_key_that_comes_twice_is_no_silent_loss():
    with pytest.raises(AssertionError, match="'b'.* twice"):
        parse("a: {b: 1, b: 2}")
