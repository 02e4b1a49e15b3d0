"""Loopback ports and plain HTTP."""

import http.client
import json
import socket
from dataclasses import dataclass
from pathlib import Path


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago, below the range that outgoing connections take."""
    import random

    for _ in range(200):
        port = random.randrange(20000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port of loopback")


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        """The body as JSON."""
        return json.loads(self.body)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def request(
    where: str | Path,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 5.0,
) -> Answer:
    """One request on a connection of its own. `where`: `host:port`, or the path of a Unix socket."""
    if isinstance(where, Path):
        connection: http.client.HTTPConnection = _UnixConnection(where, timeout)
    else:
        host, port = where.rsplit(":", 1)
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()
