"""A rolling update of three candidates: one hand-over, hardly any time without a leader, no probe fails."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from support.manifests import of_kind, parse, render
from support.net import request
from support.rollout import Pod, Rollout
from support.tools import ROOT, run, tool
from support.waiting import eventually


@dataclass
class Play:
    """What one update was like."""

    rollout: Rollout
    old: list[Pod]
    new: list[Pod]
    history: list[dict]

    @property
    def turns(self) -> list[tuple[Pod, float, float]]:
        return self.rollout.leaders()

    @property
    def leaderless(self) -> list[float]:
        """Seconds from the last question that one leader answered with 200 to the first such answer of the next."""
        return [then[1] - now[2] for now, then in zip(self.turns, self.turns[1:])]


@pytest.fixture
def update(etcd, tmp_path_factory, request: pytest.FixtureRequest) -> Iterator[Callable[..., Play]]:
    """Plays an update from some objects to others. `leader_goes`: whether the ReplicaSet deletes the leader first or last of its
    three, which a cluster leaves to chance: pods of about the same age are deleted in the order of their uids."""
    rollouts: list[Rollout] = []
    # The pods share one network here, with an address each.
    own = {"TENURE_HTTP__PUBLIC": "$(POD_IP):4790", "TENURE_ETCD__ENDPOINTS": etcd.endpoint, "TENURE_ETCD__PREFIX": f"/test/{request.node.name}"}

    def here(objects: list[dict]) -> list[dict]:
        (deployment,) = of_kind(objects, "Deployment")
        deployment["spec"]["template"]["spec"]["containers"][0]["env"] += [{"name": k, "value": v} for k, v in own.items()]
        return objects

    def play(before: list[dict], after: list[dict], leader_goes: str, settled: bool = False) -> Play:
        rollout = Rollout(tmp_path_factory.mktemp("r"))
        rollouts.append(rollout)
        before = here(before)
        old = [rollout.start(before, "old", uid="9" if leader_goes == "last" else "0")]
        eventually("the oldest leads", lambda: rollout.led)
        old += [rollout.start(before, "old", uid=str(n)) for n in (1, 2)]
        eventually("all are ready", lambda: all(p.ready_since for p in old))
        if settled:
            # Or it would have to look for a successor in any case.
            eventually("the leader knows of the others", lambda: b"tenure_candidates{election=\"orders\"} 3" in metrics(old[0]))
        rollout.replace(here(after), "new")
        assert sorted(old, key=lambda p: p.deleted)[0 if leader_goes == "first" else 2] is old[0]
        new = rollout.pods[3:]
        told = new[0].run(["/tenure", "history", "--output", "json"], timeout=10)
        return Play(rollout, old, new, json.loads(told.stdout)["history"])

    yield play
    for rollout in rollouts:
        rollout.end()


def metrics(pod: Pod) -> bytes:
    return request(f"{pod.address}:4790", "/metrics").body


def chart(revision: int) -> list[dict]:
    """A revision of a release. Its number is the candidates' priority; `helm template` knows only revision 1, so it is said here."""
    values = {"elections": [{"name": "orders", "priority": revision}], "etcd": {"endpoints": ["http://etcd:2379"]}}
    return render(ROOT / "helm/tenure", values)


def kustomized() -> list[dict]:
    return parse(run(tool("kubectl"), "kustomize", ROOT / "deploy/kustomize/base").stdout)


def holds(play: Play) -> None:
    """What every update must keep, whoever goes first."""
    summary = f"{len(play.turns) - 1} hand-overs, leaderless {[f'{s * 1000:.1f} ms' for s in play.leaderless]}"
    print(summary, f"; longest pause of the observer {play.rollout.longest_pause * 1000:.0f} ms")
    assert [p.failed_probes() for p in play.rollout.pods] == [[]] * 6
    assert [p.restarts for p in play.rollout.pods] == [0] * 6
    assert all(p.exit[0] == 0 and p.exit[1] < p.grace for p in play.old), [p.exit for p in play.old]
    assert all(gap > 0 for gap in play.leaderless), f"two led at once: {summary}"
    assert sum(play.leaderless) < 1.0, summary
    # etcd tells the same story: nobody led twice, nobody unseen.
    assert [r["holder"] for r in reversed(play.history)] == [pod.name for pod, _, _ in play.turns]
    assert [r["cause"] for r in reversed(play.history)] == ["elected"] + ["handed_over"] * (len(play.turns) - 1)
    assert play.turns[-1][0] in play.new


def test_with_the_chart_leadership_moves_once_whoever_goes_first(update):
    """New pods are preferred, by a leader that has not heard of them before, too."""
    play = update(chart(1), chart(2), leader_goes="first", settled=True)
    eventually("every probe of every new pod was asked", lambda: all(asked for pod in play.new for asked in pod.asked.values()))
    assert len(play.turns) == 2
    holds(play)


def test_helm_rollback_moves_leadership_up_to_once_per_old_pod(update):
    """It applies the old objects with their lower priority, so that the pods that go are preferred."""
    play = update(chart(2), chart(1), leader_goes="first", settled=True)
    assert 2 < len(play.turns) <= 4
    holds(play)


def test_with_kustomize_leadership_moves_once_when_the_leader_is_the_last_to_go(update):
    play = update(kustomized(), kustomized(), leader_goes="last")
    assert len(play.turns) == 2
    holds(play)


def test_with_kustomize_leadership_moves_three_times_at_worst(update):
    """The leader goes first, and nobody is preferred: each old pod may lead in turn."""
    play = update(kustomized(), kustomized(), leader_goes="first")
    assert len(play.turns) <= 4
    holds(play)
