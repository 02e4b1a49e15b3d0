"""The chart's README: its commands, executed as written as far as that needs no cluster."""

import re
import shlex
from pathlib import Path

import pytest

from support.chart import CHART
from support.cluster import Process
from support.manifests import check_references, matches, of_kind, parse, render, validate
from support.net import free_port, request
from support.tools import ROOT, run, tool
from support.waiting import eventually

LINES = [line.strip() for line in (CHART / "README.md").read_text().splitlines() if line.startswith("    ")]
COMMANDS = [shlex.split(line, comments=True) for line in LINES]


def creates(what: str) -> list[list[str]]:
    return [c for c in COMMANDS if c[:3] == ["kubectl", "create", what]]


def made(command: list[str], tmp_path: Path) -> list[dict]:
    """What a `kubectl create` makes; files that it reads are there."""
    at = command.index("--") if "--" in command else len(command)
    for option in command[:at]:
        if option.startswith("--from-file="):
            (tmp_path / option.removeprefix("--from-file=")).write_text("secret")
    command = [tool("kubectl"), *command[1:at], "--dry-run=client", "-o", "yaml", *command[at:]]
    return parse(run(*command, cwd=tmp_path).stdout)


def test_every_command_is_known_here():
    """So that one that is added is tested too."""
    assert {tuple(c[:2]) for c in COMMANDS} == {("kubectl", "create"), ("kubectl", "wait"), ("helm", "install"), ("helm", "upgrade"), ("helm", "test")}


def test_the_etcd_for_a_try_is_one_that_its_service_finds_and_that_starts(tmp_path: Path, spawn):
    objects = [o for what in ("deployment", "service") for c in creates(what) for o in made(c, tmp_path)]
    validate(objects)
    check_references(objects)
    (etcd,) = of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"]
    program, *args = etcd["command"]
    assert program == "/usr/local/bin/etcd"
    client, peer = free_port(), free_port()
    here = [a.replace("0.0.0.0:2379", f"127.0.0.1:{client}") for a in args]
    assert here != args
    peers = [f"--listen-peer-urls=http://127.0.0.1:{peer}", f"--data-dir={tmp_path}/data"]
    binary = run(ROOT / "dev/etcd", "path", cwd=ROOT, timeout=600).stdout.strip()
    member: Process = spawn([f"{binary}/etcd", *here, *peers], "etcd.log")
    eventually("etcd is healthy", lambda: member.running() and request(f"127.0.0.1:{client}", "/health").json()["health"] == "true")


def test_the_install_command_installs(tmp_path: Path):
    (command,) = [c for c in COMMANDS if c[:2] == ["helm", "install"]]
    (place,) = [a for a in command if a.startswith("oci://")]
    assert place == "oci://ghcr.io/tenure-dev/charts/tenure"
    here = [tool("helm"), *(str(CHART) if a == place else a for a in command[1:]), "--dry-run=client"]
    printed = run(*here).stdout
    for url in re.findall(r"http://[^ ,]+:2379", " ".join(command)):
        name = url.removeprefix("http://").partition(":")[0]
        assert of_kind([o for c in creates("service") for o in made(c, tmp_path)], "Service", name), f"nothing makes {name}"
    assert "kubectl -n default exec deployment/orders-tenure" in printed


def test_the_commands_for_another_prefix_stop_all_wait_for_them_and_start_all():
    (install,) = [c for c in COMMANDS if c[:2] == ["helm", "install"]]
    steps = [c for c in COMMANDS if c[:2] in (["helm", "upgrade"], ["kubectl", "wait"])]
    assert [c[0] for c in steps] == ["helm", "kubectl", "helm"]

    def upgraded(*commands: list[str]) -> list[dict]:
        """The objects after these; `--reset-then-reuse-values` keeps what the ones before have said."""
        assert all(c[2:4] == install[2:4] and c[4] == "--reset-then-reuse-values" for c in commands)
        said = [word for c in (install, *commands) for word in c[4:] if word != "--reset-then-reuse-values"]
        return parse(run(tool("helm"), "template", install[2], CHART, *said).stdout)

    (stopped,), (started,) = (of_kind(upgraded(*c), "Deployment") for c in (steps[:1], steps[::2]))
    assert (stopped["spec"]["replicas"], started["spec"]["replicas"]) == (0, 3)
    assert stopped["spec"]["template"] == of_kind(upgraded(), "Deployment")[0]["spec"]["template"], "nothing may start while all stop"
    assert stopped["spec"]["template"] != started["spec"]["template"]
    selector = dict(pair.split("=") for pair in steps[1][steps[1].index("-l") + 1].split(","))
    assert matches(selector, stopped["spec"]["template"]["metadata"]["labels"])


@pytest.mark.parametrize("line", [line for line in LINES if "create secret" in line])
def test_the_secret_has_what_the_values_beside_it_need(line: str, tmp_path: Path):
    command, _, values = line.partition("#")
    (secret,) = made(shlex.split(command), tmp_path)
    given: dict = {"elections": ["orders"], "etcd": {"endpoints": ["https://etcd:2379" if "tls" in values else "http://etcd:2379"]}}
    for name, value in (v.split("=") for v in values.split()):
        at = given
        *path, last = name.split(".")
        for key in path:
            at = at.setdefault(key, {})
        at[last] = True if value == "true" else value
    (deployment,) = of_kind(render(CHART, given), "Deployment")
    mounted = [v["secret"] for v in deployment["spec"]["template"]["spec"]["volumes"] if "secret" in v]
    assert [m["secretName"] for m in mounted] == [secret["metadata"]["name"]]
    assert {i["key"] for m in mounted for i in m["items"]} == set(secret["data"])
