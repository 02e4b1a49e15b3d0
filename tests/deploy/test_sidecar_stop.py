"""A pod with the sidecar stops, played on loopback from the rendered example's own settings, in the order of the kubelet."""

import json
import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.binary import variables
from support.cluster import Process
from support.manifests import containers, is_tenure, pods, render
from support.net import free_port, request
from support.tools import ROOT, run, tenure, tool
from support.waiting import eventually

WEB = ROOT / "helm/examples/web"
# What the application takes to stop. Longer than any promise, so that a hand-over that waits only for promises would show.
STOPS_FOR = 2.5

# Asks for the token again and again, as it is meant to be used, and notes each answer. After SIGTERM it takes its time.
APPLICATION = """
import http.client, json, os, signal, socket, sys, time
path, log, stops_for, says_drained = sys.argv[1], open(sys.argv[2], "a", buffering=1), float(sys.argv[3]), sys.argv[4] == "True"
end = [float("inf")]
signal.signal(signal.SIGTERM, lambda *_: end.__setitem__(0, time.time() + stops_for))
def ask(method, what):
    connection = http.client.HTTPConnection("x", timeout=2)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    connection.request(method, what)
    return json.loads(connection.getresponse().read())
while time.time() < end[0]:
    sent = time.time()
    try:
        body = ask("GET", "/token")
        told = {"sent": sent, "token": body.get("token"), "until": sent + body.get("valid_for_ms", 0) / 1000, "code": body.get("code")}
    except OSError as e:
        told = {"sent": sent, "token": None, "until": 0, "code": repr(e)}
    log.write(json.dumps(told) + "\\n")
    time.sleep(0.02)
if says_drained:
    ask("POST", "/v1/elections/web/drained")
"""


def sidecar_of(objects: list[dict]) -> dict:
    [container] = [c for _, _, spec in pods(objects) for c in containers(spec) if is_tenure(c)]
    return container


class Sidecar(Process):
    """The rendered container's command with its environment. Only ports, addresses of others and the election's place in etcd are
    mapped; its containers reach it by 127.0.0.1, whatever it listens on."""

    def __init__(self, container: dict, objects: list[dict], name: str, directory: Path, etcd: str, prefix: str, url: str | None = None):
        self.container, self.name, self.dir = container, name, directory / name
        self.dir.mkdir()
        self.socket = self.dir / "control.sock"
        ready = self.dir / "ready.json"
        rendered = variables(container, objects)
        mapped = {
            "TENURE_ID": name,
            "TENURE_ETCD__ENDPOINTS": etcd,
            "TENURE_HTTP__PUBLIC": re.sub(r"\d+$", "0", rendered["TENURE_HTTP__PUBLIC"]),
            "TENURE_HTTP__ADVERTISE_URL": url or "http://127.0.0.1:1",
        }
        assert mapped.keys() <= rendered.keys(), "what is mapped is what the example sets"
        self.env = rendered | mapped
        self.env |= {"TENURE_ETCD__PREFIX": prefix, "TENURE_HTTP__CONTROL": f"unix:{self.socket}", "TENURE_CONTROL": f"unix:{self.socket}"}
        super().__init__([tenure(), *container["args"], "--ready-file", str(ready)], self.dir / "log", env=self.env)
        listens = eventually(f"{name} listens", lambda: ready.exists() and json.loads(ready.read_text())["public"])
        self.public = f"127.0.0.1:{listens.rpartition(':')[2]}"
        startup = container["startupProbe"]["httpGet"]["path"]
        eventually(f"{name} has started", lambda: request(self.public, startup).status == 200)

    def leads(self) -> bool:
        return request(self.public, "/leader").status == 200

    def status(self) -> dict:
        return request(self.public, "/v1/elections/web").json()

    def pre_stop(self) -> None:
        program, *args = self.container["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "/tenure"
        run(tenure(), *args, env=self.env)


class Application(Process):
    def __init__(self, sidecar: Sidecar, says_drained: bool):
        self.answers = sidecar.dir / "answers.jsonl"
        program = [sys.executable, "-c", APPLICATION, str(sidecar.socket), str(self.answers), str(STOPS_FOR), str(says_drained)]
        super().__init__(program, sidecar.dir / "application.log")

    def asked(self) -> list[dict]:
        lines = self.answers.read_text().splitlines() if self.answers.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def tokens(self) -> list[dict]:
        return [a for a in self.asked() if a["token"] is not None]


@dataclass
class Stop:
    """When what happened, on the wall clock, in seconds."""

    drained: float
    application_gone: float
    sidecar_told: float


def kubelet_stops(sidecar: Sidecar, application: Application) -> Stop:
    """All preStop hooks and the application's SIGTERM at once; the sidecar's SIGTERM after the application has exited where
    it is native, after its own preStop where it is not."""
    application.signal(signal.SIGTERM)
    sidecar.pre_stop()
    drained = time.time()
    if sidecar.container.get("restartPolicy") == "Always":
        assert application.wait() == 0
        gone = time.time()
        told = time.time()
        sidecar.signal(signal.SIGTERM)
    else:
        told = time.time()
        sidecar.signal(signal.SIGTERM)
        assert application.wait() == 0
        gone = time.time()
    assert sidecar.wait() == 0
    return Stop(drained, gone, told)


@pytest.fixture
def start(tmp_path, etcd, request):
    """Starts the sidecar of a rendered example; it ends with the test."""
    started: list[Process] = []

    def sidecar(objects: list[dict], name: str, url: str | None = None) -> Sidecar:
        started.append(Sidecar(sidecar_of(objects), objects, name, tmp_path, etcd.endpoint, f"/test/{request.node.name}", url))
        return started[-1]

    def application(of: Sidecar, says_drained: bool) -> Application:
        started.append(Application(of, says_drained))
        return started[-1]

    sidecar.application = application
    yield sidecar
    for process in reversed(started):
        process.end()


def play(start, values: dict, says_drained: bool = False) -> tuple[list[dict], Stop, float, list[dict]]:
    """Two pods; the leader's stops. What its application was told, when the stop went on, when the next leader was elected,
    and the tokens of the next one's application."""
    objects = render(WEB, values)
    names = [start(objects, name) for name in ("pod-0", "pod-1")]
    applications = [start.application(one, says_drained) for one in names]
    eventually("somebody leads", lambda: any(one.leads() for one in names))
    old, new = (0, 1) if names[0].leads() else (1, 0)
    eventually("the other follows", lambda: names[new].status()["queue_position"] == 1)
    eventually("the application holds a token", lambda: applications[old].tokens())
    stop = kubelet_stops(names[old], applications[old])
    eventually("the other leads", names[new].leads, within=5)
    elected = names[new].status()["leader"]["elected_at"]
    eventually("its application has a token", lambda: applications[new].tokens())
    return applications[old].asked(), stop, epoch(elected), applications[new].tokens()


def epoch(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def holds_in_both_modes(asked: list[dict], stop: Stop, elected: float, next_tokens: list[dict]) -> None:
    given = [a for a in asked if a["token"] is not None]
    after = [a for a in asked if a["sent"] > stop.drained]
    assert after, "the application asked on while it stopped"
    assert not [a for a in after if a["token"] is not None], "no token once the hook has returned"
    assert elected >= max(a["until"] for a in given) - 0.001, "no leader before the last promise has ended"
    assert min(a["token"] for a in next_tokens) > max(a["token"] for a in given)
    assert min(a["sent"] for a in next_tokens) >= max(a["until"] for a in given) - 0.001


def test_natively_the_application_has_stopped_before_the_next_leader_is_elected(start):
    asked, stop, elected, next_tokens = play(start, {})
    holds_in_both_modes(asked, stop, elected, next_tokens)
    assert {a["code"] for a in asked if a["sent"] > stop.drained} == {"draining"}, "until its end the sidecar answers, and refuses"
    # The record has milliseconds.
    assert elected >= stop.application_gone - 0.001
    assert stop.application_gone - stop.drained > 2, "the application took longer than any promise"
    assert elected - stop.sidecar_told < 1, "and then nobody waits for the lease to run out"


def test_in_classic_mode_the_next_leader_waits_for_the_last_promise_and_for_nothing_else(start):
    """That is all that can be had there, and what the README says: the application is still stopping."""
    asked, stop, elected, next_tokens = play(start, {"sidecar": "classic"})
    holds_in_both_modes(asked, stop, elected, next_tokens)
    assert elected < stop.application_gone
    assert elected - stop.drained < 2, "a promise is one second"


def test_in_classic_mode_a_pod_leads_on_until_its_application_says_that_it_has_stopped(start):
    """With waitForDrained, and an application that does its part, as natively."""
    values = {"sidecar": "classic", "tenure": {"waitForDrained": "20s"}}
    asked, stop, elected, next_tokens = play(start, values, says_drained=True)
    last = asked[-1]
    assert last["token"] is not None, "it works on with its token to its end"
    assert elected >= last["sent"] - 0.001, "and nobody else is elected before"
    assert min(a["sent"] for a in next_tokens) >= last["sent"]
    assert min(a["token"] for a in next_tokens) > last["token"]
    assert elected - last["sent"] < 1, "whoever says drained waits for no promise"
    assert stop.sidecar_told - elected < 5, "and the sidecar stops soon after, not when its time is up"


# An application that does not run


def test_a_leader_whose_application_cannot_work_is_made_to_step_down_as_the_readme_says(start):
    """From outside by the command, from inside by the request; each keeps out for its cooldown."""
    text = (ROOT / "helm/tenure-lib/README.md").read_text()
    [command] = re.findall(r"kubectl exec POD -c tenure -- /tenure (resign [^`]*)`", text)
    [(path, body)] = re.findall(r"`POST (/v1/elections/\w+/resign)` on the socket, with `(.*?)`", text)
    objects = render(WEB)
    both = [start(objects, name) for name in ("pod-0", "pod-1")]
    for step_down in (
        lambda one: run(tenure(), *command.split(), env=one.env),
        lambda one: request(one.socket, path.replace("orders", "web"), "POST", body.encode()),
    ):
        leader = eventually("somebody leads", lambda: next((one for one in both if one.leads()), None))
        [other] = [one for one in both if one is not leader]
        eventually("the other follows", lambda: other.status()["queue_position"] == 1)
        step_down(leader)
        eventually("the other leads", other.leads)
        assert leader.status()["queue_position"] is None, "it keeps out"
        # A new pod takes its place.
        leader.signal(signal.SIGTERM)
        assert leader.wait() == 0
        both = [other, start(objects, f"{leader.name}-next")]


# The door of the example web

BACKEND = """
import http.server, sys
class Backend(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = f"{sys.argv[2]} {self.headers.get('Fencing-Token', '-')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = answer
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Backend).serve_forever()
"""


def door(objects: list[dict], pod: Sidecar, own: str, listen: int, backend: int, spawn) -> None:
    """The rendered nginx.conf, started for real, with its addresses and directories mapped. `own` is the pod's address."""
    [config] = [o["data"]["nginx.conf"] for o in objects if o["kind"] == "ConfigMap"]
    of_ipv6 = {"listen [::]:8080;": f"listen [::1]:{listen};"} if own == "[::1]" else {}
    for there, here in {
        **of_ipv6,
        "listen 8080;": f"listen 127.0.0.1:{listen};",
        "127.0.0.1:8081": f"127.0.0.1:{backend}",
        "127.0.0.1:4790": pod.public,
        "/tmp/": f"{pod.dir}/",
    }.items():
        assert there in config
        config = config.replace(there, here)
    (pod.dir / "nginx.conf").write_text(config)
    spawn([tool("nginx"), "-p", str(pod.dir), "-c", str(pod.dir / "nginx.conf"), "-e", "stderr", "-g", "daemon off; master_process off;"], f"{pod.name}-door.log")
    spawn([sys.executable, "-c", BACKEND, str(backend), pod.name], f"{pod.name}-backend.log")
    eventually("the door opens", lambda: request(f"{own}:{listen}", "/").status == 200)


@pytest.mark.parametrize("own", ["127.0.0.1", "[::1]"], ids=["4", "6"])
def test_through_any_door_a_write_reaches_the_leader_with_its_token_and_a_dead_sidecar_means_closed(start, spawn, own):
    objects = render(WEB, {"tenure": {"http": {"ipv6": own == "[::1]"}}})
    doors = {name: free_port() for name in ("pod-0", "pod-1")}
    # As the example has it, with the kubelet's part and the port done here.
    published = variables(sidecar_of(objects), objects)["TENURE_HTTP__ADVERTISE_URL"].replace("10.0.0.5", own.strip("[]"))
    both = {name: start(objects, name, url=published.replace(":8080", f":{port}")) for name, port in doors.items()}
    for name, pod in both.items():
        door(objects, pod, own, doors[name], free_port(), spawn)

    def send(name: str, method: str = "POST", **headers) -> tuple[int, str]:
        answer = request(f"{own}:{doors[name]}", "/orders?election=none", method=method, body=b"x" * 10, headers=headers)
        return answer.status, answer.body.decode()

    leader = eventually("somebody leads", lambda: next((n for n, pod in both.items() if pod.leads()), None))
    [other] = both.keys() - {leader}
    token = both[leader].status()["generation"]
    eventually("the other knows", lambda: both[other].status()["name"] == leader)
    for name in both:
        assert send(name) == (200, f"{leader} {token}"), "a write, wherever it came in"
        assert send(name, **{"Fencing-Token": "999"}) == (200, f"{leader} {token}"), "no token but the sidecar's"
        assert send(name, "GET") == (200, f"{name} -"), "a read stays where it came in"
    assert send(other, **{"X-Passed-On": "1"})[0] == 503, "passed on once only"

    both[leader].pre_stop()
    assert send(leader)[0] == 503, "a draining leader takes no write, and there is no other yet"
    both[leader].signal(signal.SIGTERM)
    eventually("the other leads", both[other].leads)
    assert send(other) == (200, f"{other} {both[other].status()['generation']}")
    assert send(leader)[0] == 503, "closed, and no 500"
    assert send(leader, "GET")[0] == 200
