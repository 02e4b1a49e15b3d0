"""deploy/systemd by systemd's own tools and by the binary; what the daemon tells systemd is shown by tests/it/supervisor.rs."""

import os
import re
import shlex
from pathlib import Path

import pytest

from support.tools import ROOT, run, tenure, tool

HERE = ROOT / "deploy/systemd"
UNITS = [HERE / "tenure.service", HERE / "orders.service"]


def directives(unit: Path) -> list[tuple[str, str]]:
    """Every `Key=value` of a unit, in order."""
    return re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.M)


def commands(unit: Path) -> list[list[str]]:
    """Every command of ours that a unit runs."""
    found = [shlex.split(value.lstrip("-")) for key, value in directives(unit) if key.startswith("Exec")]
    return [c for c in found if c[0] == "/usr/local/bin/tenure"]


def test_systemd_accepts_the_units(tmp_path):
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    for program in ("tenure", "orders"):
        (tmp_path / "usr/local/bin" / program).touch(mode=0o755)
    # Whole and with the secrets that a user uncomments; the programs where this machine has them, since it has no such root.
    for unit in UNITS:
        text = unit.read_text().replace("/usr/local/bin", str(tmp_path / "usr/local/bin"))
        (tmp_path / unit.name).write_text(re.sub(r"^#(LoadCredential=)", r"\1", text, flags=re.M))
    said = run(tool("systemd-analyze"), "verify", "--man=no", *[tmp_path / u.name for u in UNITS], check=False)
    ours = [line for line in (said.stdout + said.stderr).splitlines() if "tenure.service" in line or "orders.service" in line]
    assert said.returncode == 0 and not ours, said.stdout + said.stderr


def test_the_daemon_is_hardened():
    run(tool("systemd-analyze"), "security", "--offline=true", "--threshold=15", HERE / "tenure.service")


@pytest.mark.parametrize("unit", UNITS, ids=lambda u: u.name)
def test_the_binary_accepts_what_a_unit_runs(unit):
    assert commands(unit)
    for command in commands(unit):
        verb = command[1]
        usage = run(tenure(), verb, "--help").stdout
        for flag in [a for a in command[2:] if a.startswith("-")]:
            assert re.search(rf"(^|\s){flag}(\s|,|$)", usage, re.M), f"{verb} has no {flag}"


def test_the_binary_accepts_the_configuration_and_the_units_make_its_directories():
    checked = run(tenure(), "config", "check", HERE / "tenure.yaml", env={**os.environ, "HOSTNAME": "host-a"})
    assert "orders" in checked.stdout + checked.stderr
    unit, text = dict(directives(HERE / "tenure.service")), (HERE / "tenure.yaml").read_text()
    assert f"unix:/run/{unit['RuntimeDirectory']}/" in text
    assert f"state_dir: /var/lib/{unit['StateDirectory']}" in text
    for other in UNITS:
        for command in commands(other):
            for word in command:
                assert not word.startswith("unix:") or word in text, f"{word} is not where the daemon listens"


@pytest.mark.parametrize("unit", UNITS, ids=lambda u: u.name)
def test_a_dynamic_user_has_a_name_that_is_no_group(unit):
    """systemd refuses another, and says so only when the unit starts."""
    said = dict(directives(unit))
    assert said["DynamicUser"] == "yes"
    assert said.get("User", unit.stem) != said.get("Group") and "tenure" != said.get("User", unit.stem)


def test_the_watchdog_and_the_stop_leave_the_daemon_time(tmp_path):
    unit = dict(directives(HERE / "tenure.service"))
    # Without it systemd hears of no readiness, no status, and no fed watchdog.
    assert unit["Type"] == "notify"
    watchdog, stop = (int(unit[k].removesuffix("s")) for k in ("WatchdogSec", "TimeoutStopSec"))
    # The loop feeds it at half of it or every 5 s; a stop takes the promise and three requests at the most.
    assert watchdog >= 10
    example = (ROOT / "config.example.yaml").read_text()
    promise, request = (int(re.search(rf"^  {key}: (\d+)s$", example, re.M)[1]) for key in ("promise", "request_timeout"))
    assert stop > promise + 3 * request


def test_the_readme_names_the_files_and_commands_that_there_are():
    text = (HERE / "README.md").read_text()
    assert {p.name for p in HERE.iterdir()} - {"README.md"} == set(re.findall(r"^\| `([\w.]+)` \|", text, re.M))
    for command in re.findall(r"^    tenure (.+)$", text, re.M):
        run(tenure(), command.split()[0], "--help")


def test_the_application_waits_until_its_host_leads_and_hands_over_when_it_ends(candidate):
    """The application's own commands, on real daemons, with the control socket where the test has it."""
    first = candidate("host-a", {"session": {"ttl": "2s"}})
    before, after = ([w.replace("/run/tenure/control.sock", "{socket}") for w in c[1:]] for c in commands(HERE / "orders.service"))
    run(tenure(), *[w.format(socket=first.control) for w in before], timeout=30)
    assert first.leads()
    second = candidate("host-b", {"session": {"ttl": "2s"}})
    run(tenure(), "wait", "--until", "follower", "--control", f"unix:{second.control}", timeout=30)
    run(tenure(), *[w.format(socket=first.control) for w in after], timeout=30)
    run(tenure(), *[w.format(socket=second.control) for w in before], timeout=30)
    assert second.leads() and not first.leads()
