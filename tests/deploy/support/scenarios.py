"""Situations that alerts are judged in: three daemons that are well, but for what a scenario overrides, beside neighbours that stay
well: another cluster, another job, another namespace, another election of the same daemons. Samples and evaluations are a minute
apart, where a scenario does not say otherwise.
"""

import re
from dataclasses import dataclass

HOME = {"cluster": "east", "job": "tenure", "namespace": "prod"}

# What tells alerts of one name apart, in the order in which a scenario names it, with the value where it names none.
TOLD_BY: dict[str, dict[str, str]] = {
    "TargetDown": {"instance": ""},
    "GuardNearExpiry": {"instance": "i0", "election": "orders"},
    "KeepaliveFailing": {"endpoint": "a"},
    "EtcdMemberDown": {"endpoint": "a"},
    "EtcdUnreachable": {"instance": ""},
    "LoopLag": {"instance": ""},
    "AuditDropped": {"instance": ""},
    "LogDropped": {"instance": ""},
    "DrainForgotten": {"instance": ""},
    "StaleTokens": {"election": "orders", "door": "gate"},
    "RouteFailing": {"instance": "", "object": "pod"},
    "HistoryRewound": {},
    "KeepaliveSlow": {},
}
OF_AN_ELECTION = {"election": "orders"}


def family(name: str, labels: dict[str, str]) -> str:
    """A series as promtool writes it."""
    return name + "{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}"


def of_election(labels: dict[str, str], election: str, leads: bool, guard: int, generation: int) -> dict[str, str]:
    """What a daemon that is well says of an election."""
    labels = labels | {"election": election}
    return {
        family("tenure_is_leader", labels): f"{int(leads)}x130",
        family("tenure_observed_generation", labels): f"{generation}x130",
        family("tenure_candidates", labels): "3x130",
        family("tenure_guard_remaining_seconds", labels): f"{guard if leads else 0}x130",
        family("tenure_leaderless_seconds_total", labels): "0x130",
        family("tenure_leader_changes_observed_total", labels): "0x130",
        family("tenure_generation_raised_total", labels): "0x130",
        family("tenure_fenced_total", labels | {"door": "gate"}): "0x130",
    }


def of_daemon(labels: dict[str, str], ttl: int) -> dict[str, str]:
    """What a daemon that is well says of itself."""
    series = {
        family("up", labels): "1x130",
        family("tenure_build_info", labels): "1x130",
        family("tenure_session_ttl_seconds", labels): f"{ttl}x130",
        family("tenure_store_identity_changes_total", labels): "0x130",
        family("tenure_audit_dropped_total", labels): "0x130",
        family("tenure_log_dropped_total", labels): "0x130",
        family("tenure_draining", labels): "0x130",
        family("tenure_kubernetes_writes_total", labels | {"object": "pod", "result": "ok"}): "0+1x130",
        family("tenure_kubernetes_writes_total", labels | {"object": "pod", "result": "error"}): "0x130",
        family("tenure_kubernetes_writes_total", labels | {"object": "pod", "result": "refused"}): "0x130",
        family("tenure_keepalive_seconds_count", labels): "0+30x130",
    }
    # The bounds lie on either side of what the alerts compare with, at a TTL of 10 s.
    series |= {family("tenure_keepalive_seconds_bucket", labels | {"le": le}): "0+30x130" for le in ("0.1", "0.9", "1.1", "+Inf")}
    series |= {family("tenure_loop_lag_seconds_bucket", labels | {"le": le}): "0+60x130" for le in ("0.01", "0.45", "0.55", "+Inf")}
    for endpoint in ("a", "b"):
        series[family("tenure_etcd_endpoint_up", labels | {"endpoint": endpoint})] = "1x130"
        series[family("tenure_keepalive_failures_total", labels | {"endpoint": endpoint})] = "0x130"
    return series


def daemon(number: int, **different: str | None) -> dict[str, str]:
    """The series of one daemon: 0 leads, all are well for 130 minutes.

    `different` overrides a family, or with `family__part` those of its series whose labels contain the part; None takes it away.
    """
    labels = HOME | {"instance": f"i{number}"}
    series = of_daemon(labels, 10) | of_election(labels, "orders", number == 0, 9, 42)
    for key, values in different.items():
        name, _, part = key.partition("__")
        meant = [one for one in series if one.startswith(name + "{") and part in one]
        assert meant, f"no series of a daemon is {key}"
        for one in meant:
            if values is None:
                del series[one]
            else:
                series[one] = values
    return series


def beside() -> dict[str, str]:
    """The neighbours. Number 1 leads there: who forgets a label when it matches takes a follower of ours for a leader."""
    series: dict[str, str] = {}
    for number in range(2):
        series |= of_election(HOME | {"instance": f"i{number}"}, "parts", number == 1, 99, 900)
        for other in ({"cluster": "west"}, {"job": "shop"}, {"namespace": "test"}):
            labels = HOME | other | {"instance": f"i{number}"}
            series |= of_daemon(labels, 30) | of_election(labels, "orders", number == 1, 28, 900)
    return series


def three(*different: dict[str, str | None]) -> dict[str, str]:
    """Three daemons, and the neighbours; overrides for the first, the second, the third."""
    series = beside()
    for number in range(3):
        series |= daemon(number, **(different[number] if number < len(different) else {}))
    return series


def gone(at: int, number: int, target: bool = True) -> dict[str, str | None]:
    """A daemon whose scrapes fail from this minute on: all its series end, and `up` says so, if Prometheus still looks for it."""
    ended: dict[str, str | None] = {}
    for one, values in daemon(number).items():
        first, step, _ = re.split(r"(\+\d+)?x", values)
        ended[one.partition("{")[0]] = f"{first}{step or ''}x{at - 1} stale"
    return ended | {"up": f"1x{at - 1} 0x{130 - at}"} if target else ended


def replaced(at: int, counts: str) -> dict[str, str]:
    """A rolling update at this minute: three new daemons in place of the old ones. `counts`: their time without a leader from then on."""
    series = three(*[gone(at, number, target=False) for number in range(3)])
    for number in range(3):
        for one, values in daemon(number, tenure_leaderless_seconds_total=counts).items():
            series[one.replace(f'"i{number}"', f'"new{number}"')] = f"_x{at} {values}"
    return series


@dataclass
class Scenario:
    """What happens, and what fires at which sample: names of alerts, with what tells them apart. All but the quiet are about one alert."""

    name: str
    series: dict[str, str]
    fires: dict[int, list[str]]
    step: int = 60


# What several scenarios override: a TTL of two minutes, with its guard; renewals as few as that; nobody leading; no renewal confirmed;
# and daemons that were started while etcd is out of reach.
LONG = {"tenure_session_ttl_seconds": "120x130", "tenure_guard_remaining_seconds": "99x130"}
RARE = {"tenure_keepalive_seconds_count": "0+0.09x130"}
OBSERVES = {"tenure_is_leader": "0x130", "tenure_keepalive_seconds_count": "0x130", "tenure_keepalive_seconds_bucket": None, "tenure_guard_remaining_seconds": "0x130"}
VACANT = {"tenure_is_leader": "1x20 0x109", "tenure_guard_remaining_seconds": "9x20 0x109"}
NO_ETCD = {"tenure_keepalive_seconds_count": "0+30x19 570x110", "tenure_keepalive_seconds_bucket": None}
RESTARTED = NO_ETCD | {"tenure_etcd_endpoint_up": "1x19 0x110", "tenure_observed_generation": "42x19 0x110"}
NOTHING_ANSWERS = ["NoLeader", "EtcdMemberDown a", "EtcdMemberDown b", *[f"EtcdUnreachable i{n}" for n in range(3)]]

SCENARIOS: list[Scenario] = [
    Scenario("three healthy daemons are quiet", three(), {5: [], 20: [], 70: []}),
    Scenario(
        "a hand-over shows two leaders for a scrape, a crash none for two, and nobody is woken",
        three(
            {"tenure_is_leader": "1x21 0x110", "tenure_guard_remaining_seconds": "9x21 0x110"},
            gone(40, 1) | {"tenure_is_leader": "0x20 1x18 stale", "tenure_guard_remaining_seconds": "0x20 9x18 stale", "up": "1x39 0x2 1x87"},
            {"tenure_is_leader": "0x41 1x89", "tenure_guard_remaining_seconds": "0x41 9x89"},
        ),
        {21: [], 22: [], 40: [], 41: [], 44: [], 53: []},
    ),
    Scenario("Absent: no daemon at all", {'up{job="other",instance="x"}': "1x130"}, {4: [], 5: ["Absent"], 60: ["Absent"]}),
    Scenario(
        "TargetDown: it answered before, and has not for five minutes; after an hour it was taken away",
        three({}, gone(20, 1)) | {'up{job="other",instance="x"}': "0x130"},
        {24: [], 25: ["TargetDown i1"], 78: ["TargetDown i1"], 81: []},
    ),
    Scenario(
        "ElectionGone: an application is scaled to zero, beside others",
        three(*[gone(20, n, target=False) for n in range(3)]),
        {24: [], 25: ["ElectionGone"], 110: ["ElectionGone"]},
    ),
    Scenario(
        "ElectionGone: all daemons of an application die, and are forgotten after an hour",
        three(*[gone(20, n) for n in range(3)]),
        {24: [], 25: ["ElectionGone", *[f"TargetDown i{n}" for n in range(3)]], 90: ["ElectionGone"]},
    ),
    Scenario(
        "ElectionGone: for a day, in half hours",
        {family("tenure_is_leader", HOME | {"instance": f"i{n}", "election": "orders"}): "1x2 stale" for n in range(3)}
        | {family("tenure_build_info", HOME | {"instance": "other"}): "1x130"},
        {3: [], 4: ["ElectionGone"], 49: ["ElectionGone"], 52: []},
        step=1800,
    ),
    Scenario(
        "NoLeader: the leader lost etcd, counts, and the others take it for the leader still",
        three(
            {"tenure_is_leader": "1x20 0x12 1x96", "tenure_guard_remaining_seconds": "9x20 0x12 9x96", "tenure_leaderless_seconds_total": "0x20 30+60x12 750x96"}
        ),
        {22: [], 23: ["NoLeader"], 33: ["NoLeader"], 34: []},
    ),
    Scenario(
        "NoLeader: not by a vacancy of less than one and a half TTL, be it of a daemon with a shorter one",
        three(
            VACANT | {"tenure_leaderless_seconds_total": "0x20 14+0.05x109"},
            {"tenure_leaderless_seconds_total": "0x20 10+0.05x109"},
            {"tenure_session_ttl_seconds": "5x130"},
        ),
        {24: [], 30: []},
    ),
    Scenario(
        "NoLeader: by one of more, as long as that is in the last ten minutes",
        three(VACANT | {"tenure_leaderless_seconds_total": "0x20 18+0.05x109"}),
        {22: [], 23: ["NoLeader"], 29: ["NoLeader"], 32: []},
    ),
    Scenario(
        "NoLeader: not by one that is over, where the next leader's scrape fails",
        three(VACANT | {"tenure_leaderless_seconds_total": "0x20 18x109"}),
        {23: [], 29: []},
    ),
    Scenario("NoLeader: not where all only observe a leader of another job", three(OBSERVES, OBSERVES, OBSERVES), {4: [], 14: [], 30: ["LeaderUnseen"]}),
    Scenario(
        "NoLeader: not at a crash with a TTL of two minutes, though the leader is back at once and counts, and one has no etcd",
        three(
            LONG | RARE | {"tenure_is_leader": "1x20 0x109", "tenure_leaderless_seconds_total": "0x20 60 120 120x107"},
            LONG | RARE | {"tenure_is_leader": "0x23 1x106"},
            LONG | {"tenure_keepalive_seconds_count": "0x130"},
        ),
        {21: [], 22: [], 23: [], 24: [], 30: []},
    ),
    Scenario(
        "NoLeader: the leader died, and etcd has no quorum: the others take it for the leader, and are confirmed nothing",
        three(gone(20, 0), NO_ETCD, NO_ETCD),
        {25: ["TargetDown i0"], 26: ["NoLeader", "TargetDown i0"]},
    ),
    Scenario(
        "NoLeader: all restarted while etcd is out of reach; and no generation is known, which is no lower one",
        three(RESTARTED | VACANT, RESTARTED, RESTARTED),
        {24: [f"EtcdUnreachable i{n}" for n in range(3)], 30: NOTHING_ANSWERS, 36: [*NOTHING_ANSWERS, "LeaderUnseen"]},
    ),
    Scenario(
        "LeaderUnseen: the leader leads, and only its scrape fails",
        three(gone(20, 0)),
        {23: [], 24: [], 34: ["TargetDown i0"], 35: ["LeaderUnseen", "TargetDown i0"]},
    ),
    Scenario(
        "MultipleLeaders: two for minutes",
        three({}, {"tenure_is_leader": "0x20 1x110", "tenure_guard_remaining_seconds": "0x20 9x110"}),
        {20: [], 22: [], 23: ["MultipleLeaders"]},
    ),
    Scenario(
        "HistoryRewound: at once, for a quarter of an hour",
        three({}, {"tenure_store_identity_changes_total": "0x20 1x110"}),
        {20: [], 22: ["HistoryRewound"], 34: ["HistoryRewound"], 37: []},
    ),
    Scenario(
        "GenerationRegressed: every daemon knows less than an hour ago",
        three(*[{"tenure_observed_generation": "42x20 1x110"}] * 3),
        {20: [], 22: [], 23: ["GenerationRegressed"], 78: ["GenerationRegressed"], 82: []},
    ),
    Scenario(
        "GenerationRegressed: not because one daemon starts, or lags",
        three({}, {"tenure_observed_generation": "42x20 41x110"}, {"tenure_observed_generation": "42x20 0x10 42x100"}),
        {25: [], 30: []},
    ),
    Scenario("GenerationRegressed: not because all start while etcd is out of reach", three(*[{"tenure_observed_generation": "42x20 0x110"}] * 3), {25: []}),
    Scenario(
        "GenerationRaised: at once, for a quarter of an hour",
        three({}, {"tenure_generation_raised_total": "0x20 1x110"}),
        {20: [], 22: ["GenerationRaised"], 34: ["GenerationRaised"], 37: []},
    ),
    Scenario(
        "LeaderFlapping: four changes in a quarter of an hour, by the count of whoever saw most",
        three(*[{"tenure_leader_changes_observed_total": "0x20 1 1 2 2 2 3 3 3 4x101"}] * 2),
        {32: [], 34: ["LeaderFlapping"], 40: []},
    ),
    Scenario("LeaderFlapping: three are a rolling update", three(*[{"tenure_leader_changes_observed_total": "0x20 1 2 3 3x107"}] * 3), {26: [], 33: []}),
    Scenario(
        "LeaderFlapping: four in more than a quarter of an hour wake nobody",
        three(*[{"tenure_leader_changes_observed_total": "0x20 1 1 1 1 1 2 2 2 2 2 3 3 3 3 3 3 4x94"}] * 3),
        {36: [], 42: [], 45: []},
    ),
    Scenario("Leaderless: less than a minute in an hour", three(*[{"tenure_leaderless_seconds_total": "0x6 40 55 55x122"}] * 3), {9: [], 46: []}),
    Scenario(
        "Leaderless: more, by every daemon's count",
        three(*[{"tenure_leaderless_seconds_total": "0x6 40 65 65x122"}] * 3),
        {7: [], 9: ["Leaderless"], 61: ["Leaderless"], 70: []},
    ),
    Scenario(
        "Leaderless: with a TTL of two minutes, less than one and a half of it",
        three(*[LONG | {"tenure_leaderless_seconds_total": "0x6 60 120 160x122"}] * 2, {"tenure_leaderless_seconds_total": "0x6 60 120 160x122"}),
        {9: [], 46: []},
    ),
    Scenario("Leaderless: with a TTL of two minutes, more", three(*[LONG | {"tenure_leaderless_seconds_total": "0x6 60 120 200x122"}] * 3), {8: [], 9: ["Leaderless"]}),
    Scenario("Leaderless: one daemon without etcd knows of no leader; others do", three({}, {}, {"tenure_leaderless_seconds_total": "0x6 0+60x124"}), {9: [], 36: []}),
    Scenario("Leaderless: of daemons that were replaced just now", replaced(20, "0x4 15+15x100"), {27: [], 32: ["Leaderless"], 60: ["Leaderless"]}),
    Scenario(
        "GuardNearExpiry: less than half of the TTL for half a minute, in quarters of it",
        three({"tenure_guard_remaining_seconds": "9x20 4.5x10 9x100"}),
        {20: [], 22: [], 23: ["GuardNearExpiry"], 31: ["GuardNearExpiry"], 32: []},
        step=15,
    ),
    Scenario("GuardNearExpiry: more than half of it", three({"tenure_guard_remaining_seconds": "5.5x130"}), {22: []}),
    Scenario(
        "KeepaliveSlow: p99 over a tenth of the TTL for ten minutes",
        three(*[{f'tenure_keepalive_seconds_bucket__le="{le}"': "0+30x12 360x19 390+30x98" for le in ("0.1", "0.9")}] * 3),
        {22: [], 24: ["KeepaliveSlow"], 39: ["KeepaliveSlow"], 45: []},
    ),
    Scenario("KeepaliveSlow: p99 just under it", three(*[{'tenure_keepalive_seconds_bucket__le="0.1"': "0+30x12 360x118"}] * 3), {27: []}),
    Scenario(
        "KeepaliveSlow: of one daemon, by the shortest TTL",
        three({f'tenure_keepalive_seconds_bucket__le="{le}"': "0x130" for le in ("0.1", "0.9")}, {}, {"tenure_session_ttl_seconds": "30x130"}),
        {20: ["KeepaliveSlow"]},
    ),
    Scenario(
        "KeepaliveSlow: four renewals in a hundred",
        three(*[{f'tenure_keepalive_seconds_bucket__le="{le}"': "0+28.8x130" for le in ("0.1", "0.9")}] * 3),
        {20: ["KeepaliveSlow"]},
    ),
    Scenario(
        "KeepaliveSlow: less than one in a hundred of all, though three in a hundred of one daemon's, wakes nobody",
        three(*[{f'tenure_keepalive_seconds_bucket__le="{le}"': f"0+{fast}x130" for le in ("0.1", "0.9")} for fast in (29.13, 30, 30)]),
        {20: []},
    ),
    Scenario(
        "KeepaliveFailing: a member that misses six renewals in ten minutes, again and again, of two daemons together",
        three(*[{'tenure_keepalive_failures_total__"a"': "0x20 0+0.29x110"}] * 2),
        {30: [], 38: [], 41: ["KeepaliveFailing"]},
    ),
    Scenario("KeepaliveFailing: less than five in ten minutes", three({'tenure_keepalive_failures_total__"a"': "0x20 0+0.48x110"}), {41: [], 60: []}),
    Scenario(
        "EtcdMemberDown: for five minutes, seen by one daemon",
        three({}, {'tenure_etcd_endpoint_up__"a"': "1x20 0x110"}),
        {25: [], 26: ["EtcdMemberDown"]},
    ),
    Scenario(
        "EtcdUnreachable: a daemon that reaches none for a minute, in quarters of it",
        three({}, {"tenure_etcd_endpoint_up": "1x20 0x110"}),
        {24: [], 25: ["EtcdUnreachable i1"], 42: ["EtcdMemberDown a", "EtcdMemberDown b", "EtcdUnreachable i1"]},
        step=15,
    ),
    Scenario("EtcdUnreachable: not while another answers", three({}, {'tenure_etcd_endpoint_up__"a"': "1x20 0x110"}), {24: []}),
    Scenario("NoStandby: by the leader's count, for a quarter of an hour", three({"tenure_candidates": "3x20 1x110"}), {35: [], 36: ["NoStandby"]}),
    Scenario("NoStandby: two suffice, and a follower's count may be old", three({"tenure_candidates": "2x130"}, {"tenure_candidates": "1x130"}), {36: []}),
    Scenario(
        "LoopLag: a twentieth of the TTL late for ten minutes",
        three({}, {f'tenure_loop_lag_seconds_bucket__le="{le}"': "0+60x12 720x19 780+60x98" for le in ("0.01", "0.45")}),
        {22: [], 24: ["LoopLag i1"], 39: ["LoopLag i1"], 45: []},
    ),
    Scenario("LoopLag: just under it", three({}, {'tenure_loop_lag_seconds_bucket__le="0.01"': "0+60x12 720x118"}), {27: []}),
    Scenario("LoopLag: four times in a hundred", three({}, {f'tenure_loop_lag_seconds_bucket__le="{le}"': "0+57.6x130" for le in ("0.01", "0.45")}), {20: ["LoopLag i1"]}),
    Scenario("LoopLag: once in two hundred wakes nobody", three({}, {f'tenure_loop_lag_seconds_bucket__le="{le}"': "0+59.7x130" for le in ("0.01", "0.45")}), {20: []}),
    Scenario(
        "AuditDropped: at once, for a quarter of an hour",
        three({}, {"tenure_audit_dropped_total": "0x20 1x110"}),
        {20: [], 22: ["AuditDropped i1"], 34: ["AuditDropped i1"], 37: []},
    ),
    Scenario(
        "LogDropped: at once, for a quarter of an hour",
        three({}, {"tenure_log_dropped_total": "0x20 1x110"}),
        {20: [], 22: ["LogDropped i1"], 34: ["LogDropped i1"], 37: []},
    ),
    Scenario(
        "DrainForgotten: for a quarter of an hour, and until it ends",
        three({}, {"tenure_draining": "0x20 1x80 0x30"}),
        {28: [], 35: [], 37: ["DrainForgotten i1"], 99: ["DrainForgotten i1"], 103: []},
    ),
    Scenario("DrainForgotten: a stop that takes ten minutes is none", three({}, {"tenure_draining": "0x20 1x10 0x99"}), {30: [], 37: []}),
    Scenario(
        "StaleTokens: at once, for a quarter of an hour",
        three({}, {"tenure_fenced_total": "0x20 1x110"}),
        {20: [], 22: ["StaleTokens"], 34: ["StaleTokens"], 37: []},
    ),
    Scenario("RouteFailing: again and again", three({}, {'tenure_kubernetes_writes_total__"error"': "0x20 0+0.35x110"}), {33: [], 36: ["RouteFailing i1"]}),
    Scenario("RouteFailing: refused for good", three({}, {'tenure_kubernetes_writes_total__"refused"': "0x20 0+3x110"}), {24: [], 30: ["RouteFailing i1"]}),
    Scenario("RouteFailing: less than three errors in ten minutes pass", three({}, {'tenure_kubernetes_writes_total__"error"': "0x20 0+0.28x110"}), {40: []}),
]
