"""What the chart says after an installation: commands that work, and warnings where they belong."""

import json
import subprocess

import pytest

from support import binary
from support.chart import CHART, over
from support.manifests import of_kind, render
from support.tools import tool


def notes(*layers: dict) -> str:
    command = [tool("helm"), "install", "t", str(CHART), "--dry-run=client", "-f", "-"]
    done = subprocess.run(command, input=json.dumps(over(*layers)), text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


@pytest.mark.parametrize("mode", ["gate", "label", "endpointSlice"])
def test_the_notes_name_commands_that_work(mode: str):
    objects = render(CHART, over({"routing": {"mode": mode}}))
    text = notes({"routing": {"mode": mode}})
    said = [line.strip() for line in text.splitlines() if line.startswith("  ")]
    commands = [line.partition("/tenure ")[2].split(";")[0].split() for line in said if "/tenure " in line]
    assert commands and [p for c in commands for p in binary.refuses(c)] == []
    urls = [word for line in said for word in line.split() if word.startswith("http://")]
    assert urls
    for url in urls:
        host, _, path = url.removeprefix("http://").partition("/")
        assert of_kind(objects, "Service", host.split(".")[0]), url
        assert binary.serves(f"/{path}".rstrip("/")), url
    assert any("deployment/t-tenure" in line for line in said) and of_kind(objects, "Deployment", "t-tenure")


TLS = {"http": {"tls": {"existingSecret": "a"}}}
CONTROL = {"control": {"tcp": {"enabled": True, "adminTokenSecret": {"name": "a"}, "service": {"enabled": True}}}}


def test_the_redirect_is_named_only_where_its_target_is_in_a_certificate():
    assert "/redirect/ " in notes() and "/redirect/ " in notes(TLS, {"http": {"advertiseUrl": "https://orders.example"}})
    assert "/redirect/ " not in notes(TLS)


def test_the_notes_say_that_only_the_leader_has_tokens_where_others_are_behind_the_same_service():
    assert "any other answers 503" in notes(CONTROL)
    assert "any other answers" not in notes(CONTROL, {"routing": {"mode": "label"}})


WARNINGS = {
    "no candidate": ({"replicaCount": 0}, {"replicaCount": 2}, "nobody leads"),
    "one candidate": ({"replicaCount": 1}, {"replicaCount": 2}, "no fail-over"),
    "etcd without TLS": ({}, {"etcd": {"endpoints": ["https://a:1", "https://b:1"], "tls": {"existingSecret": "etcd-client"}}}, "without TLS"),
    "monitoring off": ({}, {"metrics": {"podMonitor": {"enabled": True}}}, "scrapes /metrics"),
    "alerts off": ({"metrics": {"podMonitor": {"enabled": True}}}, {"metrics": {"prometheusRule": {"enabled": True}}}, "No alerts"),
    "a Prometheus without trust": (
        {**TLS, "metrics": {"podMonitor": {"enabled": True}}},
        {"metrics": {"podMonitor": {"tlsConfig": {"serverName": "t-tenure.default.svc"}}}},
        "set ca and serverName (t-tenure.default.svc) in metrics.podMonitor.tlsConfig",
    ),
    "no rights": ({"routing": {"mode": "label"}, "rbac": {"create": False}}, {"rbac": {"create": True}}, "rbac.create"),
    "one member": ({"etcd": {"endpoints": ["http://a:1"]}}, {"etcd": {"endpoints": ["http://a:1", "http://b:1"]}}, "One etcd endpoint"),
}


@pytest.mark.parametrize("case", WARNINGS.values(), ids=WARNINGS)
def test_the_notes_warn_of(case: tuple[dict, dict, str]):
    bad, good, words = case
    assert words in notes(bad)
    assert words not in notes(bad, good)
