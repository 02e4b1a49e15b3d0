"""The samples of proxies at work: a real proxy, three real candidates, an application beside each, clients that write."""

import http.client
import itertools
import json
import os
import re
import signal
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from .backend import Backend, Store
from .cluster import Candidate, Process, leader_of
from .net import Answer, free_port, request
from .tools import ROOT, tool
from .waiting import eventually

IDS = ["pod-0", "pod-1", "pod-2"]
ELECTION = "orders"
# Writes that each leadership has to let through.
ENOUGH = 10


@dataclass(frozen=True)
class Sample:
    """How a sample is started. `listen` is what it listens on, and the same on one address only."""

    file: Path
    listen: tuple[str, str]
    args: list[str]
    check: list[str]
    # What a program needs around the sample; `{}` is the sample's path.
    around: str = ""
    # What a client may see of a door that is closed.
    closed: frozenset[int | None] = frozenset({403, 503})
    # What a client may see whose request was under way when its leader fell; None: the connection ended.
    cut: frozenset[int | None] = frozenset()
    asks_gate: bool = True

    def text(self) -> str:
        return self.file.read_text()


SAMPLES = {
    "nginx": Sample(
        ROOT / "deploy/nginx/tenure.conf",
        ("listen 8000;", "listen {ip}:8000;"),
        ["nginx", "-e", "stderr", "-c"],
        ["nginx", "-e", "stderr", "-t", "-c"],
        around="daemon off; master_process off; pid {}.pid; error_log stderr; events {{}} http {{ access_log off; include {}; }}",
    ),
    "haproxy": Sample(
        ROOT / "deploy/haproxy/haproxy.cfg",
        ("bind :8000", "bind {ip}:8000"),
        ["haproxy", "-f"],
        ["haproxy", "-c", "-f"],
        cut=frozenset({502, None}),
        asks_gate=False,
    ),
    "envoy": Sample(
        ROOT / "deploy/envoy/envoy.yaml",
        ("address: 0.0.0.0,", "address: {ip},"),
        ["envoy", "--disable-hot-restart", "--log-level", "warn", "--concurrency", "1", "-c"],
        ["envoy", "--mode", "validate", "-c"],
    ),
    "caddy": Sample(
        ROOT / "deploy/caddy/Caddyfile",
        (":8000 {", "{{\n\tadmin off\n}}\n:8000 {{\n\tbind {ip}"),
        ["caddy", "run", "--adapter", "caddyfile", "--config"],
        ["caddy", "validate", "--adapter", "caddyfile", "--config"],
    ),
}


def command(name: str, directory: Path, text: str, args: list[str]) -> list[str]:
    """Writes the sample into a directory, with what is needed around it, and gives the command line."""
    path = directory / SAMPLES[name].file.name
    path.write_text(text)
    if SAMPLES[name].around:
        inner, path = path, directory / "around.conf"
        path.write_text(SAMPLES[name].around.format(path, inner))
    return [tool(args[0]), *args[1:], str(path)]


def environment(directory: Path) -> dict[str, str]:
    """Programs keep their state in the test's directory."""
    return {**os.environ, "HOME": str(directory), "XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}


@dataclass
class Reign:
    """A daemon's leadership, by its own audit."""

    id: str
    generation: int
    start: float
    end: float = float("inf")


@dataclass(frozen=True)
class Try:
    """A client's write."""

    body: bytes
    status: int | None


@dataclass
class Client:
    """Writes all the time, on one connection or on a new one for each write."""

    address: str
    name: str
    keep: bool
    tries: list[Try] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        connection = None
        for n, method in zip(itertools.count(), itertools.cycle(["POST", "PUT", "PATCH", "DELETE"])):
            if self.stop.wait(0.01):
                break
            if connection is None:
                connection = http.client.HTTPConnection(self.address, timeout=5)
            body, headers = f"{self.name}-{n}".encode(), {"Sent": repr(time.time())}
            try:
                # The query is one that a gate must not listen to.
                connection.request(method, f"/orders/{n}?election=other", body=body, headers=headers)
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except (OSError, http.client.HTTPException):
                status = None
            self.tries.append(Try(body, status))
            if not self.keep or status is None:
                connection.close()
                connection = None


class World:
    """A sample with all that belongs to it, on addresses of its own: 127.0.`net`.1 is the door, .11 to .13 the hosts."""

    def __init__(self, name: str, etcd: str, directory: Path, net: int):
        self.name, self.sample = name, SAMPLES[name]
        self.directory = directory
        directory.mkdir()
        self._etcd = etcd
        ip = f"127.0.{net}.1"
        door, application, self._daemon = free_port(), free_port(), free_port()
        self.door = f"{ip}:{door}"
        self.hosts = {id: f"{ip}{i + 1}" for i, id in enumerate(IDS)}
        self.killed: dict[str, list[float]] = {id: [] for id in IDS}
        self.store = Store()
        self.backends = {
            id: Backend(id, host, application, self.store, None if self.sample.asks_gate else self._remembers(host))
            for id, host in self.hosts.items()
        }
        self.candidates: dict[str, Candidate] = {}
        self.proxy: Process | None = None
        words = {"10.0.0.1": ip, "8000": str(door), "8080": str(application), "4790": str(self._daemon)}
        self._command = command(name, directory, adapted(self.sample, words, ip), self.sample.args)

    def open(self) -> None:
        """Starts everything, and waits until a first write is let through."""
        for id in IDS:
            self.start(id)
        self.start_proxy()
        # Not a read: what a proxy does in its first instants counts too.
        eventually(f"{self.name} lets a write through", lambda: self.write(body=b"first").status == 201, within=15)

    def start_proxy(self) -> None:
        """Starts the door, in place of the one before."""
        if self.proxy:
            self.proxy.end()
        self.proxy = Process(self._command, self.directory / "proxy.log", env=environment(self.directory))

    def _remembers(self, host: str):
        """A careless application: it asks its daemon for the token, and where that says no it goes on with its last one."""
        last: list[int] = []

        def token() -> int | None:
            try:
                answer = request(f"{host}:{self._daemon}", f"/v1/elections/{ELECTION}/gate", timeout=1)
                if answer.status == 200:
                    last[:] = [int(answer.headers["fencing-token"])]
            except OSError:
                pass
            return last[0] if last else None

        return token

    def start(self, id: str) -> None:
        """Starts a daemon at its place."""
        host = self.hosts[id]
        config = {
            "etcd": {"prefix": f"/doors/{self.name}"},
            "session": {"ttl": "3s"},
            "http": {"public": f"{host}:{self._daemon}", "advertise_url": f"http://{host}:{self._daemon}"},
            "audit": {"file": str(self.directory / f"{id}.audit")},
        }
        self.candidates[id] = Candidate(self.directory, id, self._etcd, config)

    def kill(self, id: str) -> None:
        """kill -9: the audit will not tell of this end."""
        self.candidates[id].end()
        self.killed[id].append(time.time())

    def leader(self) -> Candidate:
        return leader_of(list(self.candidates.values()))

    def write(self, path: str = "/orders/1", headers: Sequence[tuple[str, str]] = (), body: bytes = b"x") -> Answer:
        """One write through the door; headers may come more than once."""
        connection = http.client.HTTPConnection(self.door, timeout=10)
        try:
            connection.putrequest("POST", path)
            for header in [("Content-Length", str(len(body))), ("Sent", repr(time.time())), *headers]:
                connection.putheader(*header)
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def latency(self) -> dict[str, float]:
        """The median, in milliseconds, of a write and a read through the door, and of a read past it; connections are kept."""
        leader = self.backends[self.leader().id]
        found = {}
        for what, where, method in [("write", self.door, "POST"), ("read", self.door, "GET"), ("direct", leader.address, "GET")]:
            connection = http.client.HTTPConnection(where, timeout=5)
            times = []
            for n in range(100):
                began = time.perf_counter()
                connection.request(method, f"/latency/{n}", headers={"Sent": repr(time.time())})
                connection.getresponse().read()
                times.append(1000 * (time.perf_counter() - began))
            connection.close()
            found[what] = statistics.median(times)
        return found

    def read(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return request(self.door, path, headers=headers)

    def seen(self, body: bytes | None = None) -> list:
        """The writes that reached applications, in order; of one body, or all."""
        writes = [s for b in self.backends.values() for s in list(b.seen) if s.method not in ("GET", "HEAD")]
        return sorted((s for s in writes if body is None or s.body == body), key=lambda s: s.arrived)

    def reigns(self) -> list[Reign]:
        """Who led and when, by the daemons' own audits; a killed one led no longer than it lived."""
        found: list[Reign] = []
        for id in IDS:
            mine: list[Reign] = []
            for line in (self.directory / f"{id}.audit").read_text().splitlines():
                entry = json.loads(line)
                at = datetime.fromisoformat(entry["time"].replace("Z", "+00:00")).timestamp()
                if entry["from"] == "leader" and mine and entry["to"] != "leader":
                    mine[-1].end = min(mine[-1].end, at)
                if entry["to"] == "leader":
                    mine.append(Reign(id, entry["new_generation"], at))
            for reign in mine:
                reign.end = min([reign.end, *(k for k in self.killed[id] if k > reign.start)])
            found += mine
        return sorted(found, key=lambda r: r.generation)

    def fail_over(self, how: signal.Signals | None) -> None:
        """Ends the present leadership by resigning (None) or by a signal, and waits until a write got through the next."""
        old = self.leader()
        before = self.store.taken[-1]
        if how is None:
            assert old.verb(f"/v1/elections/{ELECTION}/resign").status == 200
        elif how == signal.SIGKILL:
            self.kill(old.id)
        else:
            old.signal(how)
            assert old.wait() == 0

        def served() -> bool:
            return len(self.store.taken) > ENOUGH and self.store.taken[-ENOUGH] > before

        eventually(f"{self.name} lets writes through to the next leader", served)
        if how is not None:
            self.start(old.id)

    def end(self) -> None:
        for process in [self.proxy, *self.candidates.values()]:
            if process:
                process.end()
        for backend in self.backends.values():
            backend.end()


def adapted(sample: Sample, words: dict[str, str], ip: str) -> str:
    """The sample with addresses and ports replaced, and nothing else; each of them has to be there."""
    text = sample.text()
    for old in (sample.listen[0], *words):
        assert old in text, f"{sample.file} no longer says {old!r}"
    text = text.replace(sample.listen[0], sample.listen[1].format(ip=ip))
    text = re.sub("|".join(map(re.escape, words)), lambda match: words[match[0]], text)
    for i in range(1, 4):
        assert f"{words['10.0.0.1']}{i}" in text, f"{sample.file} names three hosts"
    return text
