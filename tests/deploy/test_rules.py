"""Unit tests of the alerts, judged by the real promtool: each fires when it should, at no other time, and no test is idle.

Every scenario is three daemons that are well, but for what it overrides; `ALERTS` then tells what fires. Samples and
evaluations are a minute apart.
"""

import re
from pathlib import Path

import pytest
import yaml

from support.tools import ROOT, run, tool

RULES = ROOT / "helm/tenure/files/rules/tenure.yaml"

# What each alert's rules may contain that a mutation turns round.
OPPOSITE = {"==": "!=", ">": "<=", "<": ">="}


def daemon(number: int, **different: str | None) -> dict[str, str]:
    """The series of one daemon: 0 leads, all are well for 130 minutes.

    `different` overrides a family, or with `family__part` those of its series whose labels contain the part; None takes it away.
    """
    instance = f'job="tenure",namespace="prod",instance="i{number}:4790"'
    election = f'{instance},election="orders"'
    series = {
        f"up{{{instance}}}": "1x130",
        f'tenure_build_info{{{instance},version="0.1.0"}}': "1x130",
        f"tenure_is_leader{{{election}}}": "1x130" if number == 0 else "0x130",
        f"tenure_observed_generation{{{election}}}": "42x130",
        f"tenure_candidates{{{election}}}": "3x130",
        f"tenure_guard_remaining_seconds{{{election}}}": "9x130" if number == 0 else "0x130",
        f"tenure_session_ttl_seconds{{{instance}}}": "10x130",
        f"tenure_leaderless_seconds_total{{{election}}}": "0x130",
        f"tenure_leader_changes_observed_total{{{election}}}": "0x130",
        f"tenure_store_identity_changes_total{{{instance}}}": "0x130",
        f"tenure_generation_raised_total{{{election}}}": "0x130",
        f"tenure_audit_dropped_total{{{instance}}}": "0x130",
        f'tenure_fenced_total{{{election},door="gate"}}': "0x130",
        f'tenure_kubernetes_writes_total{{{instance},object="pod",result="error"}}': "0x130",
        f'tenure_keepalive_seconds_bucket{{{instance},le="0.1"}}': "0+30x130",
        f'tenure_keepalive_seconds_bucket{{{instance},le="2.5"}}': "0+30x130",
        f'tenure_keepalive_seconds_bucket{{{instance},le="+Inf"}}': "0+30x130",
        f'tenure_loop_lag_seconds_bucket{{{instance},le="0.01"}}': "0+60x130",
        f'tenure_loop_lag_seconds_bucket{{{instance},le="2.5"}}': "0+60x130",
        f'tenure_loop_lag_seconds_bucket{{{instance},le="+Inf"}}': "0+60x130",
    }
    for member in ("a", "b"):
        series[f'tenure_etcd_endpoint_up{{{instance},endpoint="http://{member}:2379"}}'] = "1x130"
        series[f'tenure_keepalive_failures_total{{{instance},endpoint="http://{member}:2379"}}'] = "0x130"
    for key, values in different.items():
        family, _, part = key.partition("__")
        meant = [name for name in series if name.startswith(family + "{") and part in name]
        assert meant, f"no series of a daemon is {key}"
        for name in meant:
            if values is None:
                del series[name]
            else:
                series[name] = values
    return series


def three(*different: dict[str, str | None]) -> dict[str, str]:
    """Three daemons; overrides for the first, the second, the third."""
    series: dict[str, str] = {}
    for number in range(3):
        series |= daemon(number, **(different[number] if number < len(different) else {}))
    return series


def gone(at: int, number: int) -> dict[str, str | None]:
    """A daemon whose scrapes fail from this minute on: all its series but `up` end."""
    steady = [(name, values) for name, values in daemon(number).items() if "+" not in values]
    ended = {name.partition("{")[0]: f"{values.partition('x')[0]}x{at - 1} stale" for name, values in steady}
    return ended | {"up": f"1x{at - 1} 0x{130 - at}"}


# Name, series, and what fires at which minute. A number counts alerts of one name.
SCENARIOS: list[tuple[str, dict[str, str], dict[int, list[str] | dict[str, int]]]] = [
    ("three healthy daemons are quiet", three(), {5: [], 70: [], 125: []}),
    (
        "a hand-over shows two leaders for a scrape, a crash none for two, and nobody is woken",
        three(
            {"tenure_is_leader": "1x21 0x110", "tenure_guard_remaining_seconds": "9x21 0x110"},
            gone(40, 1) | {"tenure_is_leader": "0x20 1x18 stale", "tenure_guard_remaining_seconds": "0x20 9x18 stale", "up": "1x39 0x2 1x87"},
            {"tenure_is_leader": "0x41 1x89", "tenure_guard_remaining_seconds": "0x41 9x89"},
        ),
        {21: [], 22: [], 40: [], 41: [], 44: [], 60: []},
    ),
    ("Absent: no daemon at all", {'up{job="other",instance="x"}': "1x130"}, {4: [], 5: ["Absent"], 60: ["Absent"]}),
    (
        "TargetDown: it answered before, and has not for five minutes; after an hour it was taken away",
        three({}, {}, gone(20, 2)) | {'up{job="other",instance="x"}': "0x130"},
        {24: [], 26: ["TargetDown"], 60: ["TargetDown"], 95: []},
    ),
    (
        "NoLeader: after two minutes, until there is one",
        three({"tenure_is_leader": "1x20 0x19 1x90", "tenure_guard_remaining_seconds": "9x20 0x19 9x90"}),
        {22: [], 23: ["NoLeader"], 39: ["NoLeader"], 42: []},
    ),
    ("NoLeader: a leader that died takes its series with it", three(gone(20, 0) | {"up": "1x19 0x4 1x106"}), {21: [], 23: ["NoLeader"]}),
    (
        "MultipleLeaders: two for minutes",
        three({}, {"tenure_is_leader": "0x20 1x110", "tenure_guard_remaining_seconds": "0x20 9x110"}),
        {20: [], 22: [], 23: ["MultipleLeaders"]},
    ),
    ("HistoryRewound: at once, for a quarter of an hour", three({}, {"tenure_store_identity_changes_total": "0x20 1x110"}), {20: [], 22: ["HistoryRewound"], 40: []}),
    (
        "GenerationRegressed: every daemon knows less than an hour ago",
        three(*[{"tenure_observed_generation": "42x20 7x110"}] * 3),
        {20: [], 22: [], 23: ["GenerationRegressed"], 100: []},
    ),
    ("GenerationRegressed: not because one daemon starts", three({}, {}, {"tenure_observed_generation": "42x20 0x10 42x100"}), {25: [], 30: []}),
    ("GenerationRaised: at once, for a quarter of an hour", three({}, {"tenure_generation_raised_total": "0x20 1x110"}), {20: [], 22: ["GenerationRaised"], 40: []}),
    (
        "LeaderFlapping: six changes in a quarter of an hour",
        three(*[{"tenure_leader_changes_observed_total": "0x20 1 2 3 4 5 6 6x103"}] * 3),
        {22: [], 26: [], 32: ["LeaderFlapping"], 60: []},
    ),
    ("LeaderFlapping: three are a rolling update", three(*[{"tenure_leader_changes_observed_total": "0x20 1 2 3 3x107"}] * 3), {26: [], 33: []}),
    (
        "Leaderless: more than a minute in an hour, by every daemon's count",
        three(*[{"tenure_leaderless_seconds_total": "0x60 40 80 80x68"}] * 3),
        {61: [], 63: ["Leaderless"], 128: []},
    ),
    ("Leaderless: one daemon without etcd knows of no leader; others do", three({}, {}, {"tenure_leaderless_seconds_total": "0x60 0+60x70"}), {63: [], 90: []}),
    (
        "GuardNearExpiry: less than half of the TTL for half a minute",
        three({"tenure_guard_remaining_seconds": "9x20 4x10 9x100"}),
        {20: [], 21: [], 22: ["GuardNearExpiry"], 32: []},
    ),
    (
        "KeepaliveSlow: p99 over a tenth of the TTL for ten minutes",
        three(*[{'tenure_keepalive_seconds_bucket__le="0.1"': "0+30x30 900x100"}] * 3),
        {30: [], 40: [], 45: ["KeepaliveSlow"]},
    ),
    (
        "KeepaliveFailing: a member that misses renewals again and again",
        three({"tenure_keepalive_failures_total__a:": "0x20 0+1x110"}),
        {20: [], 30: [], 40: ["KeepaliveFailing"]},
    ),
    ("KeepaliveFailing: four in ten minutes wake nobody", three({"tenure_keepalive_failures_total__a:": "0x20 1 2 3 4 4x106"}), {22: [], 35: []}),
    (
        "EtcdMemberDown: for five minutes, seen by one daemon",
        three({}, {"tenure_etcd_endpoint_up__a:": "1x20 0x110"}),
        {24: [], 26: ["EtcdMemberDown"]},
    ),
    (
        "EtcdUnreachable: a daemon that reaches none",
        three({}, {"tenure_etcd_endpoint_up": "1x20 0x110"}),
        {21: [], 22: ["EtcdUnreachable"], 27: {"EtcdMemberDown": 2, "EtcdUnreachable": 1}},
    ),
    ("NoStandby: by the leader's count, for a quarter of an hour", three({"tenure_candidates": "3x20 1x110"}), {34: [], 36: ["NoStandby"]}),
    ("NoStandby: two suffice, and a follower's count may be old", three({"tenure_candidates": "2x130"}, {"tenure_candidates": "1x130"}), {36: []}),
    (
        "LoopLag: a twentieth of the TTL late for ten minutes",
        three({}, {'tenure_loop_lag_seconds_bucket__le="0.01"': "0+60x30 1800x100"}),
        {30: [], 40: [], 46: ["LoopLag"]},
    ),
    ("AuditDropped: at once, for a quarter of an hour", three({}, {"tenure_audit_dropped_total": "0x20 3x110"}), {20: [], 22: ["AuditDropped"], 40: []}),
    ("StaleTokens: at once, for a quarter of an hour", three({}, {"tenure_fenced_total": "0x20 1x110"}), {20: [], 22: ["StaleTokens"], 40: []}),
    ("RouteFailing: again and again", three({}, {"tenure_kubernetes_writes_total": "0x20 0+1x110"}), {25: [], 33: ["RouteFailing"]}),
    ("RouteFailing: two errors pass", three({}, {"tenure_kubernetes_writes_total": "0x20 1 2 2x108"}), {25: [], 33: []}),
]


def fires(minute: int, alerts: list[str] | dict[str, int]) -> dict:
    """promtool's test that exactly these fire."""
    counts = alerts if isinstance(alerts, dict) else dict.fromkeys(alerts, 1)
    return {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{minute}m",
        "exp_samples": [{"labels": f'{{alertname="Tenure{name}"}}', "value": count} for name, count in counts.items()],
    }


READABLE = {
    "name": "what people read is filled in",
    "interval": "1m",
    "input_series": [
        {"series": 'tenure_build_info{job="tenure",instance="i0"}', "values": "1x10"},
        {"series": 'tenure_is_leader{job="tenure",instance="i0",election="orders"}', "values": "0x10"},
    ],
    "alert_rule_test": [
        {
            "alertname": "TenureNoLeader",
            "eval_time": "5m",
            "exp_alerts": [
                {
                    "exp_labels": {"job": "tenure", "election": "orders", "severity": "critical"},
                    "exp_annotations": {
                        "summary": "Nobody leads orders.",
                        "description": "Daemons run, and none of them has led election orders for 2 minutes: a fail-over takes one TTL.",
                        "runbook_url": "https://github.com/tenure-dev/tenure/blob/main/docs/operations.md#tenurenoleader",
                    },
                }
            ],
        }
    ],
}


def judge(directory: Path, rules: dict, about: str = "", check: bool = True):
    """promtool's verdict on all scenarios under these rules, or on those that concern one alert: its own, and the quiet ones."""
    (directory / "rules.yaml").write_text(yaml.safe_dump(rules))
    tests = [
        {
            "name": name,
            "interval": "1m",
            "input_series": [{"series": s, "values": v} for s, v in series.items()],
            "promql_expr_test": [fires(minute, alerts) for minute, alerts in expected.items()],
        }
        for name, series, expected in SCENARIOS
        if ":" not in name or name.startswith(about)
    ]
    unit = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [*tests, READABLE]}
    (directory / "unit.yaml").write_text(yaml.safe_dump(unit))
    return run(tool("promtool"), "test", "rules", directory / "unit.yaml", check=check)


def alerts() -> dict[str, dict]:
    """The alerts by name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def mutations() -> list[tuple[str, str]]:
    """Each way to break each alert."""
    found = []
    for name, rule in alerts().items():
        found += [(name, "for")] if "for" in rule else []
        found += [(name, "comparison")] if re.search(r" (==|<|>) ", rule["expr"]) else [(name, "never")]
    return found


def test_promtool_accepts_the_rules():
    run(tool("promtool"), "check", "rules", RULES)


def test_every_alert_fires_when_it_should_and_at_no_other_time(tmp_path):
    judge(tmp_path, yaml.safe_load(RULES.read_text()))


def test_rules_that_build_on_each_other_are_in_one_group():
    """Groups are evaluated at times of their own: an alert of another group than its record's judges an old value, and
    promtool evaluates groups in random order."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    for group in groups:
        records = {rule["record"] for other in groups if other is not group for rule in other["rules"] if "record" in rule}
        for rule in group["rules"]:
            assert not [r for r in records if r in rule["expr"]], rule


def test_every_alert_has_a_scenario_and_says_what_a_person_needs():
    tested = {f"Tenure{name}" for _, _, expected in SCENARIOS for fired in expected.values() for name in fired}
    assert tested == set(alerts())
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/operations.md#{name.lower()}"), name


@pytest.mark.parametrize(("name", "how"), mutations())
def test_a_broken_alert_is_noticed(tmp_path, name, how):
    rules = yaml.safe_load(RULES.read_text())
    rule = next(rule for group in rules["groups"] for rule in group["rules"] if rule.get("alert") == name)
    if how == "for":
        del rule["for"]
    elif how == "never":
        rule["expr"] = f"({rule['expr']}) > 1e9"
    else:
        rule["expr"] = re.sub(r" (==|<|>) ", lambda m: f" {OPPOSITE[m[1]]} ", rule["expr"], count=1)
    verdict = judge(tmp_path, rules, name.removeprefix("Tenure"), check=False)
    assert verdict.returncode != 0
    assert f'alertname="{name}"' in verdict.stdout + verdict.stderr, "it failed for another reason than this alert"
