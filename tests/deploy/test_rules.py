"""Unit tests of the alerts, judged by the real promtool: each fires when it should, at no other time, and no test is idle.

`ALERTS`, with all labels, tells what fires in each of support/scenarios.py.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from support.scenarios import HOME, OF_AN_ELECTION, SCENARIOS, TOLD_BY, family
from support.tools import ROOT, run, tool

RULES = ROOT / "helm/tenure/files/rules/tenure.yaml"
SHIPPED: list[dict] = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in SHIPPED if "alert" in rule}
ALL = frozenset(name.removeprefix("Tenure") for name in ALERTS)

READABLE = {
    "name": "what people read is filled in, and labels that a scrape does not add are not missed",
    "interval": "1m",
    "input_series": [
        {"series": 'tenure_build_info{job="tenure",instance="i0"}', "values": "1x10"},
        {"series": 'tenure_session_ttl_seconds{job="tenure",instance="i0"}', "values": "10x10"},
        {"series": 'tenure_is_leader{job="tenure",instance="i0",election="orders"}', "values": "0x10"},
        {"series": 'tenure_leaderless_seconds_total{job="tenure",instance="i0",election="orders"}', "values": "0+60x10"},
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
                        "description": "Daemons run, and none of them has led election orders for 2 minutes. It is no fail-over, which takes one TTL:"
                        " the vacancy has lasted for more than 1.5, or etcd confirms nobody's renewals.",
                        "runbook_url": "https://github.com/tenure-dev/tenure/blob/main/docs/operations.md#tenurenoleader",
                    },
                }
            ],
        }
    ],
}


def labels_of(told: str) -> str:
    """The series of ALERTS that a scenario means, with all labels."""
    name, *values = told.split()
    apart = TOLD_BY.get(name, OF_AN_ELECTION)
    labels = {"alertname": f"Tenure{name}", "alertstate": "firing", "severity": ALERTS[f"Tenure{name}"]["labels"]["severity"]}
    if name != "Absent":
        labels |= HOME | apart | dict(zip(apart, values, strict=False))
    return family("ALERTS", labels)


def write(directory: Path, rules: list[dict], only: frozenset[str]) -> list[Path]:
    """promtool's tests of these rules, by the scenarios that are about these alerts."""
    directory.mkdir(exist_ok=True)
    named = {name for rule in rules for name in re.findall(r"\w+", rule["expr"])}
    (directory / "rules.yaml").write_text(json.dumps({"groups": [{"name": "tenure", "rules": rules}]}))
    units = defaultdict(list)
    for scenario in SCENARIOS:
        if only != ALL and scenario.name.partition(":")[0] not in only:
            continue
        test = {
            "name": scenario.name,
            "interval": f"{scenario.step}s",
            "input_series": [{"series": one, "values": values} for one, values in scenario.series.items() if one.partition("{")[0] in named],
            "promql_expr_test": [
                {
                    "expr": f'ALERTS{{alertstate="firing",alertname=~"Tenure({"|".join(only)})"}}',
                    "eval_time": f"{at * scenario.step}s",
                    "exp_samples": [{"labels": labels_of(told), "value": 1} for told in expected if told.split()[0] in only],
                }
                for at, expected in scenario.fires.items()
            ],
        }
        units[scenario.step].append(test)
    if only == ALL:
        units[60].append(READABLE)
    for step, tests in units.items():
        (directory / f"{step}.yaml").write_text(json.dumps({"rule_files": ["rules.yaml"], "evaluation_interval": f"{step}s", "tests": tests}))
    return [directory / f"{step}.yaml" for step in units]


def promtool(files: list[Path], check: bool = True) -> CompletedProcess[str]:
    """Its verdict. It lives for a moment, and collecting its garbage would take a third of that."""
    return run(tool("promtool"), "test", "rules", *files, check=check, env={**os.environ, "GOGC": "800"})


def less_and_more(number: str) -> list[str]:
    """A count by one, anything else by a quarter."""
    value = float(number)
    return [f"{n:g}" for n in ((value - 1, value + 1) if value < 10 and "." not in number else (value * 0.8, value * 1.25))]


def seconds(window: str) -> int:
    """Of a duration with one unit."""
    return int(window[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[window[-1]]


# The ways to break an expression: a pattern, and what to put for what it finds.
BREAKS: list[tuple[str, Callable[[re.Match], list[str]]]] = [
    (r"(?:by|on) \([^)]*\)", lambda m: [re.sub(rf"\b{label}\b(, )?", "", m[0]) for label in re.findall(r"\w+(?=[,)])", m[0])]),
    (r"\b(?:sum|min|max)(?= by )", lambda m: [other for other in ("sum", "min", "max") if other != m[0]]),
    (r"(?<= )(?:==|<|>)(?= )", lambda m: [{"==": "!=", ">": "<=", "<": ">="}[m[0]]]),
    (r"(?<=[<>=] )\d+(?=\s|\)|$)|\b\d+\.\d+(?= \*)", lambda m: less_and_more(m[0])),
    (r"(?<=\[)\d+[mhd](?=\])", lambda m: [f"{seconds(m[0]) // 2}s", f"{seconds(m[0]) * 2}s"]),
    (r"0\.99", lambda m: ["0.9", "0.999"]),
    # What a condition adds.
    (r'\{result=~"error\|refused"\}| and on \([^)]*\) tenure_is_leader == 1(?=\))| and tenure_leaderless_seconds_total', lambda m: [""]),
    (r"\n *(?:and on|unless|>).*|\n *and \([\s\S]*\)$|\n *or\n.*\n.*|\bmax by.*\n.*\n *or\n", lambda m: [""]),
]

# What makes no difference, and is not noticed.
HARMLESS: dict[str, set[str]] = {
    # Whether any of them grew.
    **dict.fromkeys(("TenureHistoryRewound", "TenureGenerationRaised", "TenureStaleTokens"), {"sum -> max"}),
    # Whether any grew, is more than none, or all are; and in how short a time lately.
    "TenureNoLeader": {"sum -> max", "max -> sum #3", "max -> sum #4", "max -> min #4", "0 -> 1 #4", "2m -> 60s"},
    # Whether all of them are 0.
    "TenureEtcdUnreachable": {"max -> sum"},
    # There is but one, and the aggregation takes away labels of the scrape.
    **dict.fromkeys(("cluster_job_namespace_instance:tenure_loop_lag_seconds:p99_10m", "TenureAuditDropped", "TenureLogDropped"), {"sum -> min", "sum -> max"}),
    # One of its results is enough.
    "TenureRouteFailing": {"sum -> max"},
    "TenureNoStandby": {"max -> sum", "max -> min"},
    # There is but one, and the aggregation takes away labels of the scrape.
    "TenureDrainForgotten": {"max -> sum", "max -> min"},
}


def broken(rule: dict) -> dict[str, dict]:
    """Each way to break a rule, by a name for it."""
    ways: dict[str, dict] = {}
    for pattern, replacements in BREAKS:
        for found in re.finditer(pattern, rule["expr"]):
            for new in replacements(found):
                name = f"{found[0].strip()} -> {new}"
                again = sum(other.startswith(name) for other in ways)
                ways[name + f" #{again + 1}" * (again > 0)] = rule | {"expr": rule["expr"][: found.start()] + new + rule["expr"][found.end() :]}
    if "for" in rule:
        wait = seconds(rule["for"])
        ways |= {f"for {wait}s -> {other}s": rule | {"for": f"{other}s"} for other in (0, wait // 2, wait * 2)}
    else:
        ways["never"] = rule | {"expr": f"({rule['expr']}) > 1e9"}
    return ways


def test_promtool_accepts_the_rules():
    run(tool("promtool"), "check", "rules", RULES)


def test_every_alert_fires_when_it_should_and_at_no_other_time(tmp_path):
    promtool(write(tmp_path, SHIPPED, ALL))


def test_rules_that_build_on_each_other_are_in_one_group():
    """Groups are evaluated at times of their own: an alert of another group than its record's judges an old value, and
    promtool evaluates groups in random order."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    for group in groups:
        records = {rule["record"] for other in groups if other is not group for rule in other["rules"] if "record" in rule}
        for rule in group["rules"]:
            assert not [r for r in records if r in rule["expr"]], rule


def test_every_alert_has_a_scenario_and_says_what_a_person_needs():
    tested = {f"Tenure{told.split()[0]}" for scenario in SCENARIOS for expected in scenario.fires.values() for told in expected}
    assert tested == set(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/operations.md#{name.lower()}"), name


@pytest.mark.parametrize("index", range(len(SHIPPED)), ids=[rule.get("alert") or rule["record"] for rule in SHIPPED])
def test_a_broken_rule_is_noticed(tmp_path, index):
    """Broken in any way that does not make it the same: judged by the alerts that build on it, without the others."""
    name = SHIPPED[index].get("alert") or SHIPPED[index]["record"]
    alerts = [i for i, rule in enumerate(SHIPPED) if "alert" in rule and (i == index or name in rule["expr"])]
    records = [i for i, rule in enumerate(SHIPPED) if "record" in rule and any(rule["record"] in SHIPPED[alert]["expr"] for alert in alerts)]
    only = frozenset(SHIPPED[i]["alert"].removeprefix("Tenure") for i in alerts)

    ways = broken(SHIPPED[index])

    def passes(number: int, rule: dict) -> bool:
        files = write(tmp_path / str(number), [rule if i == index else SHIPPED[i] for i in records + alerts], only)
        verdict = promtool(files, check=False)
        assert "parse error" not in verdict.stderr, verdict.stderr
        return verdict.returncode == 0

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        unnoticed = pool.map(passes, range(len(ways)), ways.values())
        assert {way for way, passed in zip(ways, unnoticed, strict=True) if passed} == HARMLESS.get(name, set())
