"""Applications of which only the leader's may write, and the store that they share."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Store:
    """Checks the badge as every store should: a token lower than the newest that it has seen is refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest = 0
        self.taken: list[int] = []

    def write(self, token: int | None) -> bool:
        """Whether a write with that token is taken."""
        with self._lock:
            if token is None or token < self._newest:
                return False
            self._newest = token
            self.taken.append(token)
            return True


@dataclass(frozen=True)
class Seen:
    """A request that reached an application. Names of headers in lower case, each with all its values."""

    backend: str
    method: str
    path: str
    body: bytes
    headers: dict[str, list[str]]
    arrived: float
    token: int | None
    stored: bool

    @property
    def sent(self) -> float:
        """When the client began, by its own word."""
        return float(self.headers["sent"][0])


class Backend:
    """An application: it writes to the store with the token that the request carries, or with what `token` gives.

    It answers 201 when the store took the write, 409 when the store refused, 200 to reads.
    """

    def __init__(self, id: str, host: str, port: int, store: Store, token: Callable[[], int | None] | None = None):
        self.id = id
        self.address = f"{host}:{port}"
        self.seen: list[Seen] = []
        self._store = store
        self._token = token
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body are two writes: without this the second waits for the client's acknowledgement of the first.
            disable_nagle_algorithm = True

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:
                    self.close_connection = True

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                seen = backend._take(self, body, time.time())
                status = 200 if self.command in ("GET", "HEAD") else 201 if seen.stored else 409
                self.send_response(status)
                self.send_header("Backend", backend.id)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

            def log_message(self, *_) -> None:
                """Nothing: the test has the requests."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()

    def _take(self, request: BaseHTTPRequestHandler, body: bytes, arrived: float) -> Seen:
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        token, stored = None, False
        if request.command not in ("GET", "HEAD"):
            carried = headers.get("fencing-token", [])
            token = self._token() if self._token else int(carried[0]) if len(carried) == 1 else None
            stored = self._store.write(token)
        seen = Seen(self.id, request.command, request.path, body, headers, arrived, token, stored)
        self.seen.append(seen)
        return seen

    def end(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
