"""A real etcd and real candidates on loopback."""

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

from .net import Answer, free_port, request
from .tools import ROOT, run, tenure
from .waiting import eventually


class Process:
    """A child process with its output in a file; ended, by its id, when the test is over."""

    def __init__(self, args: list[str], log: Path, **options):
        self.log = log
        self.child = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log.open("wb"), stderr=subprocess.STDOUT, **options)

    @property
    def pid(self) -> int:
        return self.child.pid

    def running(self) -> bool:
        return self.child.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def wait(self, within: float = 30.0) -> int:
        return self.child.wait(within)

    def end(self) -> None:
        """Ends it for good; harmless when it has ended."""
        if self.running():
            self.child.send_signal(signal.SIGCONT)
            self.child.kill()
        self.child.wait(10)

    def text(self) -> str:
        return self.log.read_text(errors="replace")


class Etcd(Process):
    """One member of the newest version that the project is tested on."""

    def __init__(self, directory: Path):
        etcd = run(ROOT / "dev/etcd", "path", cwd=ROOT, timeout=600).stdout.strip()
        client, peer = free_port(), free_port()
        self.endpoint = f"http://127.0.0.1:{client}"
        super().__init__(
            [
                f"{etcd}/etcd",
                f"--data-dir={directory}/data",
                f"--listen-client-urls={self.endpoint}",
                f"--advertise-client-urls={self.endpoint}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-cluster=default=http://127.0.0.1:{peer}",
                "--unsafe-no-fsync",
            ],
            directory / "etcd.log",
        )
        eventually("etcd is healthy", lambda: request(self.endpoint.removeprefix("http://"), "/health").json()["health"] == "true")


class Candidate(Process):
    """`tenure run` with a configuration file, as its users start it.

    `config` is laid over the least that a test needs; its values win. `env` is added to the environment.
    """

    def __init__(self, directory: Path, id: str, etcd: str, config: dict | None = None, env: dict[str, str] | None = None):
        self.id = id
        self.dir = Path(tempfile.mkdtemp(prefix=f"{id}-", dir=directory))
        self.control = self.dir / "control.sock"
        base = {
            "id": id,
            "elections": ["orders"],
            "etcd": {"endpoints": [etcd]},
            "session": {"ttl": "5s"},
            "http": {"public": "127.0.0.1:0", "control": f"unix:{self.control}"},
        }
        self.config = self.dir / "tenure.yaml"
        self.config.write_text(json.dumps(_overlay(base, config or {})))
        ready = self.dir / "ready.json"
        super().__init__(
            [tenure(), "run", "-c", str(self.config), "--ready-file", str(ready)],
            self.dir / "log",
            env={**os.environ, **(env or {})},
        )
        self.addresses = eventually(f"{id} is up", lambda: self._ready(ready), within=15)
        self.public: str = self.addresses["public"]

    def _ready(self, path: Path):
        if not self.running():
            raise RuntimeError(f"{self.id} ended at start:\n{self.text()}")
        return json.loads(path.read_text()) if path.exists() else None

    def get(self, path: str, **options) -> Answer:
        """A request to the public listener."""
        return request(self.public, path, **options)

    def verb(self, path: str, body: dict | None = None) -> Answer:
        """A POST to the control listener."""
        data = json.dumps(body or {}).encode()
        return request(self.control, path, method="POST", body=data, headers={"Content-Type": "application/json"}, timeout=30)

    def leads(self) -> bool:
        return self.get("/leader").status == 200

    def token(self) -> int | None:
        """The fencing token, while this one leads."""
        answer = request(self.control, "/token")
        return answer.json()["token"] if answer.status == 200 else None


def leader_of(candidates: list[Candidate]) -> Candidate:
    """Waits until one of them leads."""
    return eventually("somebody leads", lambda: next((c for c in candidates if c.running() and c.leads()), None))


def _overlay(base: dict, over: dict) -> dict:
    merged = dict(base)
    for key, value in over.items():
        merged[key] = _overlay(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
    return merged
