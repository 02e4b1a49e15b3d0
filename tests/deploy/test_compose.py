"""deploy/compose/compose.yaml against the specification's schema, and its very processes on loopback: a leader, its death, another."""

import os
import re
import signal
from pathlib import Path

import pytest
import yaml

from support.cluster import Process
from support.net import free_port, request
from support.tools import ROOT, run, tenure, tool
from support.waiting import eventually

FILE = ROOT / "deploy/compose/compose.yaml"
SERVICES = yaml.safe_load(FILE.read_text())["services"]
MEMBERS = [name for name, s in SERVICES.items() if "etcd:" in s["image"]]
CANDIDATES = [name for name, s in SERVICES.items() if "tenure:" in s["image"]]


class Stack:
    """The file's processes. Each `host:port` of the file becomes a port of loopback; the rest is as it is written."""

    def __init__(self, directory: Path, spawn):
        etcd = run(ROOT / "dev/etcd", "path", cwd=ROOT, timeout=600).stdout.strip()
        ports: dict[str, str] = {}

        def placed(text: str, own: str) -> str:
            """With the addresses of this machine; `0.0.0.0` is the service's own."""
            text = text.replace("0.0.0.0", own)
            return re.sub(r"\b((?:etcd|pod)-\d):(\d+)\b", lambda m: ports.setdefault(m[0], f"127.0.0.1:{free_port()}"), text)

        for name in MEMBERS:
            program, *args = [placed(a, name) for a in SERVICES[name]["command"]]
            args = [a.replace("/etcd-data", str(directory / name)) for a in args]
            assert program == "/usr/local/bin/etcd"
            spawn([f"{etcd}/etcd", *args, "--unsafe-no-fsync"], f"{name}.log")
        self.candidates: dict[str, tuple[Process, str, str]] = {}
        for name in CANDIDATES:
            # Where compose says nothing, the image does: `/tenure run`, and the default listeners.
            service = SERVICES[name]
            assert "command" not in service and "entrypoint" not in service
            env = {k: placed(v, name) for k, v in service["environment"].items()}
            socket, public = f"unix:{directory}/{name}.sock", placed(f"{name}:4790", name)
            env |= {"TENURE_HTTP__PUBLIC": public, "TENURE_HTTP__CONTROL": socket}
            clean = {k: v for k, v in os.environ.items() if not k.startswith("TENURE_")}
            self.candidates[name] = (spawn([tenure(), "run"], f"{name}.log", env=clean | env), public, socket)

    def leader(self) -> str | None:
        """Who says that it leads."""
        alive = [(name, public) for name, (process, public, _) in self.candidates.items() if process.running()]
        return next((name for name, public in alive if request(public, "/leader").status == 200), None)


def test_it_follows_the_specification():
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", FILE)


def test_its_processes_elect_a_leader_and_another_when_that_one_dies(tmp_path, spawn):
    stack = Stack(tmp_path, spawn)
    first = eventually("somebody leads", stack.leader, within=60)
    for name, (_, _, socket) in stack.candidates.items():
        # The container's own health check, on the socket where this test has it.
        check = SERVICES[name]["healthcheck"]["test"]
        assert check[:2] == ["CMD", "/tenure"]
        # A follower of the first leader is ready as soon as it has been in the queue.
        eventually(f"{name} is well", lambda c=check, s=socket: run(tenure(), *c[2:], "--control", s))
    stack.candidates[first][0].signal(signal.SIGKILL)
    stack.candidates[first][0].wait()
    second = eventually("another leads", stack.leader)
    assert second != first
    assert int(run(tenure(), "token", "--control", stack.candidates[second][2]).stdout.split()[0]) == 2


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_rights_that_it_does_not_need(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_candidate_is_not_root_and_not_open_to_the_world(name):
    service = SERVICES[name]
    assert service["user"] == "65532:65532"
    assert service["ports"][0].startswith("127.0.0.1:"), "not on every interface of the machine that tries it"


def test_it_names_the_versions_that_the_rest_names():
    version = run(tenure(), "--version").stdout.split()[1]
    assert {SERVICES[c]["image"] for c in CANDIDATES} == {f"ghcr.io/tenure-dev/tenure:{version}"}
    built = re.search(r"etcd/server/v3 v(\S+)", (ROOT / "dev/etcd-3.7/go.mod").read_text())
    assert {SERVICES[m]["image"] for m in MEMBERS} == {f"quay.io/coreos/etcd:v{built[1]}"}


def test_the_readme_s_commands_exist():
    for service, command in re.findall(r"docker compose exec (\S+) /tenure (.+)", (FILE.parent / "README.md").read_text()):
        assert service in CANDIDATES
        run(tenure(), command.split()[0], "--help")
