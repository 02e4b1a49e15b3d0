"""docs/operations.md is true: a heading for each alert, figures that the binary prints, commands that it accepts."""

import re
import shlex

import pytest
import yaml

from support.cluster import leader_of
from support.tools import ROOT, run, tenure
from support.waiting import eventually

TEXT = (ROOT / "docs/operations.md").read_text()
RULES = yaml.safe_load((ROOT / "helm/tenure/files/rules/tenure.yaml").read_text())
ALERTS = [rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]


def test_every_alert_has_its_page_and_every_page_its_alert():
    assert re.findall(r"^### (\w+)$", TEXT, re.M) == ALERTS, "in the order of the rules"


@pytest.mark.parametrize("alert", ALERTS)
def test_a_page_says_what_to_know_and_what_to_do(alert):
    page = TEXT.split(f"### {alert}\n")[1].split("\n### ")[0]
    assert [w for w in re.findall(r"\*\*(\w+)\.\*\*", page)] == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    for other in re.findall(r"\bTenure[A-Z]\w+", page):
        assert other in ALERTS, f"{other} is no alert"


def rows() -> list[list[str]]:
    """The table of TTLs."""
    table = TEXT.split("| `session.ttl` |")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_the_table_of_ttls_is_what_the_binary_prints(tmp_path, row):
    ttl, worst, guard, renewal = row
    config = tmp_path / "tenure.yaml"
    config.write_text(f"id: pod-0\nelections: [orders]\nsession: {{ttl: {ttl}}}\n")
    printed = run(tenure(), "config", "check", config)
    text = printed.stdout + printed.stderr
    assert re.search(rf"worst-case fail-over\s+{worst} ", text), text
    assert re.search(rf"guard\s+{guard} ", text), text
    assert re.search(rf"renewal\s+every {renewal};", text), text


def commands() -> list[str]:
    """Everything that is written as a command of ours, in blocks and in the text."""
    blocks = re.findall(r"^    (tenure .+)$", TEXT, re.M)
    inline = re.findall(r"`/?(tenure [^`]+)`", TEXT)
    return sorted({*blocks, *inline})


@pytest.mark.parametrize("command", commands())
def test_a_command_exists_with_its_flags(command):
    subcommands, flags = [], []
    for word in shlex.split(command, comments=True)[1:]:
        if word.startswith("-"):
            flags.append(word)
        elif not flags and not re.search(r"[\d./:]", word):
            subcommands.append(word)
    usage = run(tenure(), *subcommands, "--help").stdout
    for flag in flags:
        assert re.search(rf"(^|\s){flag}(\s|,|$)", usage, re.M), f"{flag} is not in:\n{usage}"


def test_reasons_in_the_table_are_those_of_the_binary():
    named = set(re.findall(r"`(\w+)`", TEXT.split("| reason in the log |")[1].split("\n\n")[0]))
    source = (ROOT / "src/election/role.rs").read_text() + (ROOT / "src/election/event.rs").read_text()
    known = set(re.findall(r'=> "([a-z_]+)"', source))
    assert named <= known, named - known


def test_the_restore_as_written_restores(etcd, tmp_path):
    """Of the first of three members, from a snapshot of a real one."""
    [command] = re.findall(r"^    (etcdutl snapshot restore .+)$", TEXT, re.M)
    program, *args = shlex.split(command)
    binaries = run(ROOT / "dev/etcd", "path", cwd=ROOT).stdout.strip()
    run(f"{binaries}/etcdctl", "--endpoints", etcd.endpoint, "snapshot", "save", tmp_path / "snapshot.db")
    here = str(tmp_path / "restored")
    run(f"{binaries}/{program}", *[here if a == "/var/lib/etcd-restored" else a for a in args], cwd=tmp_path)
    assert (tmp_path / "restored/member/snap/db").exists()


def test_a_pause_as_written_keeps_the_leader_and_lets_nobody_follow(etcd, candidate):
    pause, unpause = [shlex.split(c)[1:] for c in re.findall(r"^    (etcdctl (?:put|del) .+)$", TEXT, re.M)]
    etcdctl = run(ROOT / "dev/etcd", "path", cwd=ROOT).stdout.strip() + "/etcdctl"

    def written(command: list[str]) -> None:
        run(etcdctl, "--endpoints", etcd.endpoint, *[word.replace("NAME", "orders") for word in command])

    def says(one, part: str) -> bool:
        return part in run(tenure(), "status", "--output", "json", "--control", f"unix:{one.control}").stdout

    both = [candidate(id, {"etcd": {"prefix": "/tenure"}, "session": {"ttl": "2s"}}) for id in ("pod-0", "pod-1")]
    leader = leader_of(both)
    (other,) = [c for c in both if c is not leader]
    written(pause)
    eventually("the pause is seen", lambda: says(leader, '"paused":true'))
    assert leader.leads()
    assert leader.verb("/v1/elections/orders/resign").json()["leader"] is None
    eventually("the other is first in the queue", lambda: says(other, '"queue_position":0'))
    assert not any(c.leads() for c in both)
    written(unpause)
    leader_of(both)
