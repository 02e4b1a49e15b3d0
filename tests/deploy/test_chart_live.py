"""The chart's pods, run for real on loopback by what is rendered: configuration, arguments, environment, probes, `helm test`.

A rolling update of them is in test_rolling.py.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import binary
from support.chart import CHART, LEAST, over
from support.cluster import Etcd, Process
from support.manifests import of_kind, render
from support.net import request
from support.tools import run, tenure
from support.waiting import eventually

MUTUAL = over({"http": {"tls": {"existingSecret": "a", "clientCaKey": "ca.crt"}}})
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def container(objects: list[dict]) -> dict:
    (deployment,) = of_kind(objects, "Deployment")
    (one,) = deployment["spec"]["template"]["spec"]["containers"]
    return one


class Pod(Process):
    """The process of a rendered Deployment's pod. Changed are only addresses: etcd's, and the public listener's to a free port."""

    def __init__(self, name: str, objects: list[dict], directory: Path, env: dict[str, str]):
        self.name, self.container = name, container(objects)
        directory.mkdir()
        spec = of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]
        args, own = binary.played(self.container, spec, objects, directory)
        mapped = {"HOSTNAME": name, "POD_NAME": name, "POD_IP": "127.0.0.1", "TENURE_HTTP__PUBLIC": "127.0.0.1:0"}
        self.env = binary.environment({**own, **mapped, **env})
        ready = directory / "ready.json"
        super().__init__([tenure(), *args, "--ready-file", str(ready)], directory / "log", env=self.env)
        addresses = eventually(f"{name} listens", lambda: ready.exists() and json.loads(ready.read_text()))
        self.public, self.control = addresses["public"], addresses["control"][0]

    def answers(self, probe: dict) -> bool:
        """One try of a probe, over HTTP or by the binary in the container."""
        if "exec" in probe:
            _, *args = probe["exec"]["command"]
            return run(tenure(), *args, "--control", self.control, check=False, env=self.env, timeout=probe["timeoutSeconds"]).returncode == 0
        return request(self.public, probe["httpGet"]["path"], timeout=probe["timeoutSeconds"]).status == 200


@pytest.fixture
def start(tmp_path: Path, etcd: Etcd, request: pytest.FixtureRequest) -> Iterator[Callable[..., Pod]]:
    """Starts a pod: `start("pod-0", objects)`; more variables of its environment by name."""
    started: list[Pod] = []
    env = {"TENURE_ETCD__ENDPOINTS": etcd.endpoint, "TENURE_ETCD__PREFIX": f"/test/{request.node.name}"}

    def make(name: str, objects: list[dict], **more: str) -> Pod:
        started.append(Pod(name, objects, tmp_path / name, {**env, **more}))
        return started[-1]

    yield make
    for pod in started:
        pod.end()


def leads(pod: Pod) -> bool:
    return request(pod.public, "/leader").status == 200


def test_a_candidate_of_the_chart_leads_and_every_probe_succeeds(start: Callable[..., Pod]):
    pod = start("pod-0", render(CHART, LEAST))
    eventually("it leads", lambda: leads(pod))
    assert [probe for probe in PROBES if not pod.answers(pod.container[probe])] == []
    leader = request(pod.public, "/v1/elections/orders").json()["leader"]
    assert (leader["id"], leader["url"]) == ("pod-0", "http://127.0.0.1:4790")


def test_readiness_is_lost_when_the_candidate_drains_and_life_is_not(start: Callable[..., Pod]):
    """By both kinds of probes: over HTTP, and those by the binary where clients of the listeners need a certificate."""
    pod = start("pod-0", render(CHART, LEAST))
    by_binary = container(render(CHART, MUTUAL))
    kinds = (pod.container, by_binary)
    assert all("httpGet" in pod.container[p] and "exec" in by_binary[p] for p in PROBES)
    eventually("it is ready", lambda: all(pod.answers(kind[p]) for kind in kinds for p in PROBES))
    run(tenure(), "drain", "--control", pod.control)
    assert [[p for p in PROBES if not pod.answers(kind[p])] for kind in kinds] == [["readinessProbe"]] * 2


def test_a_pod_that_waits_for_etcd_has_not_started_before_by_either_kind_of_probe(start: Callable[..., Pod]):
    waits = {"startup": {"waitForEtcd": True}}
    kinds = [container(render(CHART, over(MUTUAL, waits))), container(render(CHART, over(waits)))]
    pod = start("pod-0", render(CHART, over(waits)), TENURE_ETCD__ENDPOINTS="http://127.0.0.1:1")
    assert [[p for p in PROBES if pod.answers(kind[p])] for kind in kinds] == [["livenessProbe"]] * 2
    pod = start("pod-1", render(CHART, over(waits)))
    eventually("it has started", lambda: all(pod.answers(kind["startupProbe"]) for kind in kinds))


def test_the_charts_own_tests_succeed_with_a_candidate_and_fail_without(start: Callable[..., Pod], tmp_path: Path, etcd: Etcd):
    """`helm test`: its containers' arguments, with the Service's address and etcd's replaced by those here."""
    objects = render(CHART, LEAST)
    (test,) = [o for o in of_kind(objects, "Pod") if o["metadata"]["annotations"]["helm.sh/hook"] == "test"]
    pod = start("pod-0", objects)
    eventually("it is ready", lambda: pod.answers(pod.container["readinessProbe"]))

    def outcome(container: dict, public: str, endpoint: str) -> int:
        place = tmp_path / f"{container['name']}-{time.monotonic_ns()}"
        place.mkdir()
        args, env = binary.played(container, test["spec"], objects, place)
        args = [a.replace("http://t-tenure.default.svc:4790", f"http://{public}") for a in args]
        env = binary.environment({**env, "TENURE_ETCD__ENDPOINTS": endpoint, "POD_IP": "127.0.0.1"})
        return subprocess.run([tenure(), *args], env=env, capture_output=True, timeout=30, stdin=subprocess.DEVNULL).returncode

    assert [c["name"] for c in test["spec"]["containers"]] == ["etcd", "service"]
    for one in test["spec"]["containers"]:
        assert outcome(one, pod.public, etcd.endpoint) == 0, one["name"]
        assert outcome(one, "127.0.0.1:1", "http://127.0.0.1:1") != 0, one["name"]


def test_over_tls_the_charts_own_test_asks_the_service_where_it_may():
    """Whom to trust has to be known, and no certificate has to be shown."""

    def asks(tls: dict) -> list[str]:
        objects = render(CHART, over({"http": {"tls": {"existingSecret": "a", **tls}}}))
        (test,) = [o for o in of_kind(objects, "Pod") if o["metadata"]["annotations"]["helm.sh/hook"] == "test"]
        asking = [c for c in test["spec"]["containers"] if c["name"] == "service"]
        assert [p for c in asking for p in binary.refuses_container(c, test["spec"], objects)] == []
        return [a for c in asking for a in c["args"]]

    assert asks({}) == asks({"caKey": "ca.crt", "clientCaKey": "ca.crt"}) == []
    trusting = asks({"caKey": "ca.crt"})
    assert "--control=https://t-tenure.default.svc:4790" in trusting and "--ca-file=/secrets/http-ca/ca.pem" in trusting


def test_the_status_that_the_notes_show_names_the_leaders_pod(start: Callable[..., Pod]):
    pods = [start(f"pod-{i}", render(CHART, LEAST)) for i in range(2)]
    leader = eventually("one leads", lambda: next((p for p in pods if leads(p)), None))
    for pod in pods:
        status = [tenure(), "status", "-e", "orders", "--control", pod.control]
        eventually("it names the leader", lambda: leader.name in run(*status, check=False).stdout)
