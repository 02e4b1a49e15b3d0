"""The samples of proxies in deploy/: only the leader's application gets writes, and what clients see when none may."""

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from support.cluster import Etcd
from support.doors import IDS, SAMPLES, Client, World, command, environment
from support.tools import ROOT, run
from support.waiting import eventually

FAIL_OVERS = 20
# The audit has milliseconds, and a daemon on a busy machine publishes a little after the instant that it writes down.
CLOCK = 0.05
# HAProxy's `inter` and `timeout check`, and as much again for a busy machine.
HAPROXY_WINDOW = 2 * (0.25 + 0.25)


class Run:
    """Twenty fail-overs of one sample, with two clients that write all the while."""

    def __init__(self, world: World):
        self.world = world
        self.clients = [Client(world.door, "kept", keep=True), Client(world.door, "new", keep=False)]
        threads = [threading.Thread(target=c.run, daemon=True) for c in self.clients]
        for thread in threads:
            thread.start()
        try:
            for n in range(FAIL_OVERS):
                world.fail_over({4: signal.SIGTERM, 9: signal.SIGKILL, 14: signal.SIGTERM, 19: signal.SIGKILL}.get(n))
        finally:
            for client in self.clients:
                client.stop.set()
            for thread in threads:
                thread.join(10)
        self.tries = [t for c in self.clients for t in c.tries]
        self.seen = world.seen()
        eventually("the audits are written", lambda: world.reigns()[-1].generation >= world.store.taken[-1])
        self.reigns = world.reigns()


@pytest.fixture(scope="module")
def runs(etcd: Etcd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    """All samples at once, since each mostly waits. A run that failed is an exception, for the tests of its sample."""
    directory = tmp_path_factory.mktemp("doors")
    worlds: list[World] = []

    def play(name: str, net: int) -> Run | Exception:
        try:
            world = World(name, etcd.endpoint, directory / name, net)
            worlds.append(world)
            world.open()
            return Run(world)
        except Exception as failure:  # noqa: BLE001: told by the tests of this sample
            return failure

    with ThreadPoolExecutor(len(SAMPLES)) as pool:
        played = {name: pool.submit(play, name, 11 + i) for i, name in enumerate(SAMPLES)}
    yield {name: done.result() for name, done in played.items()}
    for world in worlds:
        world.end()


@pytest.fixture(params=list(SAMPLES))
def played(request: pytest.FixtureRequest, runs: dict) -> Run:
    run = runs[request.param]
    if isinstance(run, Exception):
        raise run
    return run


@pytest.fixture
def world(played: Run) -> World:
    """The sample after its fail-overs, with three candidates of which one leads."""
    eventually("a write gets through", lambda: played.world.write(body=b"again").status == 201)
    return played.world


@pytest.mark.parametrize("name", SAMPLES)
def test_the_program_accepts_the_sample_as_it_is(name: str, tmp_path: Path):
    sample = SAMPLES[name]
    run(*command(name, tmp_path, sample.text(), sample.check), env=environment(tmp_path))


def test_only_the_leaders_application_gets_writes_through_20_fail_overs(played: Run):
    """A write is rightly there if its daemon led, with the very token that it carries, at an instant between the client's
    sending and the application's receiving. HAProxy asks no gate: there the time after the leadership is bounded."""
    asks_gate = played.world.sample.asks_gate
    late = []
    for seen in played.seen:
        mine = [r for r in played.reigns if r.id == seen.backend and (r.generation == seen.token or not asks_gate)]
        assert mine, f"{seen.backend} never led with token {seen.token}: {seen}"
        assert not asks_gate or seen.headers["fencing-holder"] == [seen.backend]
        assert seen.arrived >= mine[0].start - CLOCK, f"{seen} came before {mine[0]}"
        allowed = CLOCK if asks_gate else HAPROXY_WINDOW
        over = [r.end for r in mine if r.start - CLOCK <= seen.arrived][-1]
        assert seen.sent <= over + allowed, f"{seen} was sent after {mine}"
        late.append(max(0, seen.arrived - over))
    answers = dict(Counter(t.status for t in played.tries))
    ms = played.world.latency()
    print(
        f"{played.world.name}: {len(played.seen)} of {len(played.tries)} writes reached an application, answers {answers};"
        f" {sum(x > 0 for x in late)} came after the leadership, the last by {1000 * max(late):.0f} ms;"
        f" the store refused {sum(not s.stored for s in played.seen)};"
        f" a write takes {ms['write']:.2f} ms, a read {ms['read']:.2f}, one past the proxy {ms['direct']:.2f}"
    )


def test_writes_succeed_under_every_leadership(played: Run):
    stored = {s.token for s in played.seen if s.stored}
    assert len(stored) > FAIL_OVERS, "one before the first fail-over, one after each"
    assert len({r.id for r in played.reigns if r.generation in stored}) == len(IDS)


def test_nothing_stale_is_written_and_nothing_twice(played: Run):
    """What the store took has tokens that never fall; no write came to two applications, or to one twice;
    and what clients were told is what is stored."""
    taken = played.world.store.taken
    assert taken == sorted(taken)
    bodies = Counter(s.body for s in played.seen if b"-" in s.body)
    assert bodies and max(bodies.values()) == 1
    stored = {s.body for s in played.seen if s.stored} & set(bodies)
    acknowledged = {t.body for t in played.tries if t.status == 201}
    assert acknowledged <= stored
    assert stored - acknowledged <= {t.body for t in played.tries if t.status in played.world.sample.cut}


def test_clients_see_only_the_documented_answers(played: Run):
    """201 of the application, or 409 where its store refused; 403 and 503 of the door. Nothing else, unless a proxy cuts off
    what is under way when a leader falls: then at most one request of each client."""
    sample = played.world.sample
    assert {t.status for t in played.tries} <= {201, 409} | sample.closed | sample.cut
    assert sum(t.status in sample.cut for t in played.tries) <= len(played.clients) * FAIL_OVERS


def test_a_stale_token_is_stopped_at_the_door(world: World):
    newest = max(r.generation for r in world.reigns())
    for n, tokens in enumerate([[newest - 1], [1], [newest, newest - 1], [newest - 1, newest], ["no number"]]):
        body = f"stale {n}".encode()
        assert world.write(headers=[("Fencing-Token", str(t)) for t in tokens], body=body).status == 403
        assert world.seen(body) == []
    current = world.write(headers=[("Fencing-Token", str(newest))], body=b"current")
    assert current.status == (201 if world.sample.asks_gate else 403)


def test_a_dead_follower_changes_nothing(world: World):
    newest = max(r.generation for r in world.reigns())
    dead = next(id for id in IDS if id != world.leader().id)
    world.kill(dead)
    assert [world.write().status for _ in range(10)] == [201] * 10
    stale = [("Fencing-Token", str(newest - 1))]
    assert [world.write(headers=stale).status for _ in range(10)] == [403] * 10
    world.start(dead)


def test_no_header_of_a_client_speaks_for_the_gate(world: World):
    newest = max(r.generation for r in world.reigns())
    leader = world.leader().id
    forged = [("Fencing-Holder", "evil"), ("fencing_token", "7"), ("FENCING_HOLDER", "evil"), ("Fencing_Holder", "evil")]
    # What a proxy is told to drop on its way is dropped before the gate speaks, or not at all.
    forged.append(("Connection", "keep-alive, Fencing-Token, Fencing-Holder"))
    future = [("Fencing-Token", str(newest + 1000))] if world.sample.asks_gate else []
    for n, headers in enumerate([forged, forged + future, [("Fencing-Holder", id) for id in IDS]]):
        body = f"forged {n}".encode()
        assert world.write(headers=headers, body=body).status == 201
        [seen] = world.seen(body)
        assert seen.backend == leader
        fencing = {k: v for k, v in seen.headers.items() if k.replace("_", "-").startswith("fencing-")}
        assert fencing == ({"fencing-token": [str(newest)], "fencing-holder": [leader]} if world.sample.asks_gate else {})
    if not world.sample.asks_gate:
        assert world.write(headers=future or [("Fencing-Token", str(newest + 1000))]).status == 403


def test_reads_go_to_any_application_and_carry_no_badge(world: World):
    headers = {"Fencing-Holder": "evil", "Fencing_Token": "7"} | ({"Fencing-Token": "7"} if world.sample.asks_gate else {})
    answers = [world.read(f"/badge/{n}", headers) for n in range(30)]
    assert {a.status for a in answers} == {200}
    assert len({a.headers["backend"] for a in answers}) == len(IDS)
    for backend in world.backends.values():
        for seen in backend.seen:
            if seen.path.startswith("/badge/"):
                assert not [k for k in seen.headers if k.replace("_", "-").startswith("fencing-")]


def test_without_its_daemon_the_door_is_closed(world: World):
    """The leader's daemon hangs, then all are dead. Whatever a client claims, no write passes; reads go on."""
    leader = world.leader()
    forged = [("Fencing-Holder", leader.id)]

    def hang() -> None:
        leader.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, leader.pid, os.WSTOPPED)

    for n, stop in enumerate([hang, lambda: [world.kill(id) for id in IDS]]):
        stop()
        # Well before another daemon may take over from one that hangs.
        end = time.monotonic() + 1
        if not world.sample.asks_gate:
            eventually("HAProxy knows", lambda: world.write().status == 503, within=HAPROXY_WINDOW)
        body, statuses = f"closed {n}".encode(), set()
        while not statuses or time.monotonic() < end:
            statuses.add(world.write(headers=forged, body=body).status)
        assert statuses <= world.sample.closed
        assert world.seen(body) == []
        assert {world.read("/").status for _ in range(5)} == {200}
    for id in IDS:
        world.start(id)


def test_a_door_that_opens_while_nobody_leads_lets_nothing_through(world: World):
    """All daemons answer, and drain; the proxy starts, and is written to from its first instant."""
    for id in IDS:
        assert world.candidates[id].verb("/v1/drain").status == 202
    world.start_proxy()
    statuses, since = set(), None
    # Longer than any proxy takes to have checked everybody once.
    while since is None or time.monotonic() < since + 4:
        try:
            statuses.add(world.write(body=b"nobody").status)
            since = since or time.monotonic()
        except ConnectionError:
            assert since is None or world.proxy.running(), "the proxy ended"
    assert world.seen(b"nobody") == []
    assert statuses <= world.sample.closed
    for id in IDS:
        world.kill(id)
        world.start(id)


def test_the_traefik_sample_hangs_together(candidate):
    """Traefik is not run here: what refers to something refers to what is there, the gate is a path of the daemon, and the
    expression drops every name that a client could forge."""
    http = yaml.safe_load((ROOT / "deploy/traefik/tenure.yaml").read_text())["http"]
    for router in http["routers"].values():
        assert router["service"] in http["services"]
        assert set(router["middlewares"]) <= set(http["middlewares"])
    assert http["routers"]["writes"]["middlewares"] == ["tenure-gate"]
    assert http["routers"]["reads"]["priority"] > http["routers"]["writes"]["priority"]
    gate = http["middlewares"]["tenure-gate"]["forwardAuth"]
    headers = re.compile(gate["authResponseHeadersRegex"])
    for name in ["Fencing-Token", "Fencing-Holder", "Fencing_token", "FENCING_HOLDER"]:
        assert headers.match(name)
        assert name.title() in {h.title() for h in http["middlewares"]["no-fencing"]["headers"]["customRequestHeaders"]}
    path = urlsplit(gate["address"]).path
    assert candidate("pod-0", config={"elections": path.split("/")[3:4]}).get(path).status in (200, 403)
