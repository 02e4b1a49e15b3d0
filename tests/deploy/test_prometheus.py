"""A real Prometheus scrapes real daemons: the dashboard's every query returns data, and alerts fire on a real outage and end.

The rules are the shipped ones, with their waits shortened: 1 s for each minute.
"""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from support.cluster import Candidate, Etcd, Process, leader_of
from support.net import free_port, request
from support.tools import ROOT, run, tool
from support.waiting import eventually

RULES = ROOT / "helm/tenure/files/rules/tenure.yaml"
DASHBOARD = ROOT / "helm/tenure/files/dashboards/tenure.json"


class Scene:
    """Three daemons on an etcd, and a Prometheus that scrapes them every second."""

    def __init__(self, directory: Path):
        self.etcd = Etcd(directory)
        audit = {"audit": {"file": str(directory / "audit.log")}, "session": {"ttl": "2s"}}
        self.candidates = [Candidate(directory, f"pod-{i}", self.etcd.endpoint, audit if i == 0 else {"session": {"ttl": "2s"}}) for i in range(3)]
        self.port = free_port()
        (directory / "rules.yaml").write_text(yaml.safe_dump(hurried(RULES.read_text())))
        config = self.config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())
        config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(directory / "rules.yaml")]
        self.file = directory / "prometheus.yaml"
        self.target(self.candidates)
        self.prometheus = Process(
            [
                tool("prometheus"),
                f"--config.file={self.file}",
                f"--storage.tsdb.path={directory}/tsdb",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            directory / "prometheus.log",
        )

    def target(self, candidates: list[Candidate]) -> None:
        """Writes which daemons are to be scraped."""
        self.config["scrape_configs"][0]["static_configs"][0]["targets"] = [c.public for c in candidates]
        self.file.write_text(yaml.safe_dump(self.config))

    def query(self, expr: str) -> list[dict]:
        """An instant query; what it returns."""
        answer = request(f"127.0.0.1:{self.port}", f"/api/v1/query?query={quote(expr)}").json()
        assert answer["status"] == "success", f"{expr}: {answer}"
        return answer["data"]["result"]

    def firing(self) -> set[str]:
        """The alerts that fire."""
        return {s["metric"]["alertname"] for s in self.query('ALERTS{alertstate="firing"}')}

    def end(self) -> None:
        for process in [self.prometheus, *self.candidates, self.etcd]:
            process.end()


def hurried(rules: str) -> dict:
    """The rules with a second for each minute."""
    loaded = yaml.safe_load(rules)
    for group in loaded["groups"]:
        for rule in group["rules"]:
            if rule.get("for", "").endswith("m"):
                rule["for"] = f"{rule['for'][:-1]}s"
    return loaded


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("prometheus"))
    yield made
    made.end()


def queries() -> list[tuple[str, str]]:
    """Every query of the dashboard, with the title of its panel."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", [])]


def filled(expr: str) -> str:
    """A query as Grafana sends it with everything selected. What matches everything matches targets without the label, too."""
    expr = re.sub(r"\$(cluster|job|namespace|instance|election)\b", ".*", expr).replace("$__rate_interval", "30s")
    assert "$" not in expr, expr
    return expr


def test_promtool_accepts_the_configuration():
    run(tool("promtool"), "check", "config", ROOT / "deploy/prometheus/prometheus.yaml")


def pod(port: str, phase: str = "Running", **labels: str) -> dict[str, str]:
    """What Prometheus finds out about a container's port in Kubernetes."""
    meta = {"pod_container_port_number": port, "pod_phase": phase, "namespace": "prod", "pod_name": "shop-0"}
    meta |= {f"pod_label_app_kubernetes_io_{k}": v for k, v in labels.items()}
    return {f"__meta_kubernetes_{k}": v for k, v in meta.items()}


def test_in_kubernetes_the_daemons_ports_are_kept_with_labels_that_the_rules_group_by(tmp_path: Path):
    """Debian's promtool is built without Kubernetes: found pods are given to it, and it does the rest."""
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus-kubernetes.yaml").read_text())
    config["rule_files"] = [str(RULES)]
    (scrape,) = config["scrape_configs"]
    assert scrape.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    found = [
        pod("4790", name="web", instance="shop"),
        pod("4790"),
        pod("8080", name="web", instance="shop"),
        pod("4790", phase="Succeeded", name="web", instance="shop"),
    ]
    scrape["static_configs"] = [{"targets": [f"10.0.0.{i}:4790"], "labels": labels} for i, labels in enumerate(found)]
    file = tmp_path / "prometheus.yaml"
    file.write_text(yaml.safe_dump(config))
    run(tool("promtool"), "check", "config", file)
    judged = json.loads(run(tool("promtool"), "check", "service-discovery", "--timeout=1s", file, "tenure").stdout)
    kept = {t["labels"]["instance"]: (t["labels"]["job"], t["labels"]["namespace"], t["labels"]["pod"]) for t in judged if t["labels"]}
    assert kept == {"10.0.0.0:4790": ("web-shop", "prod", "shop-0"), "10.0.0.1:4790": ("tenure", "prod", "shop-0")}


def test_rules_name_only_metrics_that_the_daemon_exposes(scene: Scene):
    """An alert on a name that does not exist is silent for ever. Families of routing exist only in Kubernetes: the source has those."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    named = {name for rule in rules for name in re.findall(r"(?<![\w:])(?:tenure|process)_\w+", rule["expr"])}
    assert len(named) > 10
    source = (ROOT / "src/metrics/routing.rs").read_text()
    for name in named:
        if name.startswith("tenure_kubernetes_"):
            assert f'"{name.removeprefix("tenure_")}"' in source, name
        else:
            eventually(f"{name} is exposed", lambda name=name: scene.query(name), within=20)


def test_every_query_of_the_dashboard_returns_data(scene: Scene):
    leader = leader_of(scene.candidates)
    eventually("all are scraped", lambda: len(scene.query("tenure_is_leader")) == 3)
    # What a quiet cluster has no series of: a hand-over, a token that is out of date.
    assert leader.verb("/v1/elections/orders/resign").status == 200
    other = leader_of([c for c in scene.candidates if c is not leader])
    assert other.get("/gate", headers={"Fencing-Token": "1"}).status == 403
    for title, expr in queries():
        eventually(f"{title}: {expr}", lambda expr=expr: scene.query(filled(expr)), within=20)


def test_a_healthy_cluster_is_quiet_but_for_the_stale_token(scene: Scene):
    leader_of(scene.candidates)
    eventually("the rules have been judged", lambda: scene.query('ALERTS{alertname="TenureStaleTokens"}'))
    eventually("nothing else fires", lambda: scene.firing() <= {"TenureStaleTokens", "TenureLeaderless"})


def test_a_leader_that_is_not_scraped_is_no_outage(scene: Scene):
    """Before the outage, whose vacancy counts for ten minutes."""
    leader = leader_of(scene.candidates)
    scene.target([c for c in scene.candidates if c is not leader])
    scene.prometheus.signal(signal.SIGHUP)
    eventually("TenureLeaderUnseen fires", lambda: "TenureLeaderUnseen" in scene.firing(), within=40)
    assert "TenureNoLeader" not in scene.firing()
    scene.target(scene.candidates)
    scene.prometheus.signal(signal.SIGHUP)
    eventually("it ends", lambda: "TenureLeaderUnseen" not in scene.firing(), within=20)


def test_an_outage_of_etcd_is_told_and_its_end_too(scene: Scene):
    scene.etcd.signal(signal.SIGSTOP)
    told = {"TenureEtcdUnreachable", "TenureEtcdMemberDown", "TenureNoLeader"}
    eventually(f"{told} fire", lambda: told <= scene.firing(), within=40)
    scene.etcd.signal(signal.SIGCONT)
    leader_of(scene.candidates)
    eventually("they end", lambda: not told & scene.firing(), within=40)


def test_a_dead_daemon_is_told(scene: Scene):
    leader = leader_of(scene.candidates)
    leader.signal(signal.SIGKILL)
    eventually("TenureTargetDown fires", lambda: "TenureTargetDown" in scene.firing(), within=30)
    leader_of(scene.candidates)
    assert "TenureNoLeader" not in scene.firing(), "a fail-over of one TTL is no outage"


def test_an_application_that_is_gone_is_told(scene: Scene):
    """The last test: it leaves no daemon."""
    for candidate in scene.candidates:
        candidate.end()
    eventually("TenureElectionGone fires", lambda: "TenureElectionGone" in scene.firing(), within=30)
