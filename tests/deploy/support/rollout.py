"""A rolling update of a Deployment, played on loopback with real candidates.

What decides in a cluster is done as it is done there, from the manifest's own settings: the Deployment controller's
arithmetic, the ReplicaSet's choice of whom to delete, the kubelet's probes over HTTP at their periods, and its order at
termination. Pods are processes with an address of 127/8 each. Scheduling, image pulls, networks and cgroups are not played.
"""

import http.client
import secrets
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import binary
from .manifests import is_tenure
from .net import request
from .tools import run, tenure

# What the kubelet leaves a container between TERM and KILL when the hook has used up the grace period.
_LEAST_GRACE = 2.0


class Pod:
    """One pod and the kubelet's work on it."""

    def __init__(self, name: str, uid: str, address: str, template: dict, objects: list[dict], directory: Path):
        self.name, self.uid, self.address = name, uid, address
        spec = template["spec"]
        (self.container,) = [c for c in spec["containers"] if is_tenure(c)]
        self.grace: float = spec["terminationGracePeriodSeconds"]
        self._hook = self.container.get("lifecycle", {}).get("preStop", {})
        assert self._hook.keys() <= {"sleep"}, f"this play has no hooks of the kind of {self._hook}"
        self.dir = directory / name
        self.dir.mkdir(parents=True)
        self.created = time.monotonic()
        self.ready_since: float | None = None
        self.deleted: float | None = None
        self.exit: tuple[int, float] | None = None
        self.restarts = 0
        self.asked: dict[str, list[tuple[float, str | None]]] = {"startupProbe": [], "livenessProbe": [], "readinessProbe": []}
        self._started = False
        self._wake = {kind: threading.Event() for kind in self.asked}
        self._log = (self.dir / "log").open("wb")
        self.child = self._start(spec, objects)
        for kind in self.asked:
            self._thread(self._probe, kind)

    def _thread(self, target, *args) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()

    # The container

    def run(self, command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
        """Runs a command in the container, whose only program is the image's."""
        assert command[0] == "/tenure", f"the image has no {command[0]}"
        return run(tenure(), *command[1:], check=False, timeout=timeout, env=self._env)

    def _start(self, spec: dict, objects: list[dict]) -> subprocess.Popen:
        c, own = self.container, {"metadata.name": self.name, "metadata.namespace": "default", "status.podIP": self.address}
        env = [
            {"name": e["name"], "value": own[e["valueFrom"]["fieldRef"]["fieldPath"]]} if "fieldRef" in e.get("valueFrom", {}) else e
            for e in c.get("env", [])
        ]
        args, variables = binary.played({**c, "env": env}, spec, objects, self.dir)
        # The socket's default place is in the container's own /run/tenure.
        (socket,) = [self.dir / str(i) / "control.sock" for i, m in enumerate(c["volumeMounts"]) if m["mountPath"] == "/run/tenure"]
        control = dict.fromkeys(("TENURE_HTTP__CONTROL", "TENURE_CONTROL"), f"unix:{socket}")
        self._env = binary.environment({**variables, **control, "HOSTNAME": self.name})
        return subprocess.Popen([tenure(), *args], env=self._env, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)

    # Probes, as the kubelet's workers ask them: a ticker each, readiness also at once when the container has started

    def _probe(self, kind: str) -> None:
        probe, failures = self.container[kind], 0
        tick = self.created + probe.get("initialDelaySeconds", 0)
        while True:
            if self._wake[kind].wait(max(0.0, tick - time.monotonic())):
                self._wake[kind].clear()
            else:
                tick += probe.get("periodSeconds", 10)
            over = self._started if kind == "startupProbe" else self.deleted is not None and kind == "livenessProbe"
            if over or self.exit is not None:
                return
            failures = self._ask_once(kind, probe, failures)

    def _ask_once(self, kind: str, probe: dict, failures: int) -> int:
        """The number of failures in a row after this one; what they lead to is done."""
        if kind != "startupProbe" and not self._started:
            return 0
        problem = self._ask(probe)
        self.asked[kind].append((time.monotonic(), problem))
        if problem is None:
            if kind == "startupProbe":
                self._started = True
                self._wake["readinessProbe"].set()
            if kind == "readinessProbe" and self.ready_since is None:
                self.ready_since = time.monotonic()
            return 0
        if failures + 1 >= probe.get("failureThreshold", 3):
            if kind == "readinessProbe":
                self.ready_since = None
            elif not self.deleted:
                self.restarts += 1
                self.child.kill()
        return failures + 1

    def _ask(self, probe: dict) -> str | None:
        """What is wrong, if anything is."""
        timeout = probe.get("timeoutSeconds", 1)
        get = probe["httpGet"]
        (port,) = [p["containerPort"] for p in self.container["ports"] if get["port"] in (p["containerPort"], p.get("name"))]
        try:
            status = request(f"{self.address}:{port}", get["path"], timeout=timeout).status
        except OSError as e:
            return repr(e)
        return None if 200 <= status < 400 else f"status {status}"

    def failed_probes(self) -> list[str]:
        """Failures of a probe after its first success, until the pod was told to go."""
        found = []
        for kind, asked in self.asked.items():
            first = next((i for i, (_, problem) in enumerate(asked) if problem is None), len(asked))
            found += [f"{self.name} {kind}: {p}" for at, p in asked[first:] if p is not None and not (self.deleted and at >= self.deleted)]
        return found

    # Termination

    def delete(self) -> None:
        """The hook, TERM, and KILL when the grace period is over, which the hook counts into."""
        self.deleted = time.monotonic()
        self._thread(self._terminate)

    def _terminate(self) -> None:
        time.sleep(min(self._hook.get("sleep", {}).get("seconds", 0), self.grace))
        self.child.terminate()
        try:
            code = self.child.wait(max(_LEAST_GRACE, self.deleted + self.grace - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.child.kill()
            code = self.child.wait(10)
        self._over((code, time.monotonic() - self.deleted))

    def _over(self, exit: tuple[int, float]) -> None:
        self.exit = exit
        for wake in self._wake.values():
            wake.set()

    def end(self) -> None:
        """Ends it for good, whatever it is doing."""
        if self.child.poll() is None:
            self.child.kill()
        self._over(self.exit or (self.child.wait(10), 0.0))
        self._log.close()


def first_to_go(pods: list[Pod]) -> list[Pod]:
    """In the order in which a ReplicaSet deletes its pods, each on a node of its own, never restarted, without a deletion cost:
    those that are not ready first, then by uid.

    That is `ActivePodsWithRanks` in kubernetes/pkg/controller/controller_utils.go. It compares ages before uids, but only by their
    logarithm, which is the same for pods that have been there for a while and became ready within seconds of each other.
    """
    return sorted(pods, key=lambda pod: (pod.ready_since is not None, pod.uid))


@dataclass
class Answer:
    """An answer to /leader."""

    asked: float
    answered: float
    pod: Pod


@dataclass
class Rollout:
    """Plays a Deployment: `apply` makes its pods be those of a template, as the controller would."""

    directory: Path
    # 127.x.y.0/24: the pods' network.
    network: str = field(default_factory=lambda: f"127.{100 + secrets.randbelow(100)}.{secrets.randbelow(250)}")
    pods: list[Pod] = field(default_factory=list)
    # Every 200 of /leader.
    led: list[Answer] = field(default_factory=list)
    longest_pause: float = 0.0
    _done: threading.Event = field(default_factory=threading.Event)

    def start(self, objects: list[dict], revision: str, uid: str) -> Pod:
        """A new pod of a Deployment's template; it is observed from now on."""
        (deployment,) = [o for o in objects if o["kind"] == "Deployment"]
        number = len(self.pods) + 1
        pod = Pod(f"{revision}-{number}", uid, f"{self.network}.{number}", deployment["spec"]["template"], objects, self.directory)
        self.pods.append(pod)
        threading.Thread(target=self._observe, args=(pod,), daemon=True).start()
        return pod

    def _observe(self, pod: Pod) -> None:
        """Asks every 5 ms whether the pod leads."""
        connection, last = None, None
        while not self._done.is_set() and pod.exit is None:
            asked = time.monotonic()
            try:
                connection = connection or http.client.HTTPConnection(pod.address, 4790, timeout=2)
                connection.request("GET", "/leader")
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    self.led.append(Answer(asked, time.monotonic(), pod))
            except (OSError, http.client.HTTPException):
                connection = None
            if last is not None:
                self.longest_pause = max(self.longest_pause, asked - last)
            last = asked
            time.sleep(max(0.0, asked + 0.005 - time.monotonic()))

    def replace(self, objects: list[dict], revision: str, limit: float = 120) -> None:
        """The rolling update of all present pods to a new template. Returns when the old processes have ended."""
        (deployment,) = [o for o in objects if o["kind"] == "Deployment"]
        spec = deployment["spec"]
        replicas, rolling = spec["replicas"], spec["strategy"]["rollingUpdate"]
        surge, unavailable = rolling["maxSurge"], rolling["maxUnavailable"]
        old, new = list(self.pods), []
        end = time.monotonic() + limit
        while len(new) < replicas or not all(map(self._ended, old)) or not all(self._available(p, spec) for p in new):
            assert time.monotonic() < end, f"the update does not end; ready: {[p.name for p in self.pods if p.ready_since]}"
            there = [p for p in old if p.deleted is None]
            for _ in range(min(replicas + surge - len(there) - len(new), replicas - len(new))):
                new.append(self.start(objects, revision, secrets.token_hex(8)))
            spare = sum(self._available(p, spec) for p in [*there, *new]) - (replicas - unavailable)
            for pod in first_to_go(there)[: max(0, spare)]:
                pod.delete()
            time.sleep(0.005)

    @staticmethod
    def _ended(pod: Pod) -> bool:
        return pod.exit is not None

    @staticmethod
    def _available(pod: Pod, spec: dict) -> bool:
        return pod.ready_since is not None and time.monotonic() >= pod.ready_since + spec.get("minReadySeconds", 0)

    def leaders(self) -> list[tuple[Pod, float, float]]:
        """Who led, in order: (pod, first moment at which it had said so, last moment at which it was asked and said so).

        It said so somewhere between question and answer; that of one may come late, after the next has led.
        """
        turns: dict[str, tuple[Pod, float, float]] = {}
        for one in self.led:
            _, first, last = turns.get(one.pod.name, (one.pod, one.answered, one.asked))
            turns[one.pod.name] = (one.pod, min(first, one.answered), max(last, one.asked))
        return sorted(turns.values(), key=lambda turn: turn[1])

    def end(self) -> None:
        """Ends all that is left."""
        self._done.set()
        for pod in self.pods:
            pod.end()
