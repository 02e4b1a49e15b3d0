"""The README's commands, as written: each is run here, or checked as far as it can be without a cluster or a registry.

A command that is new in the README fails this until it is said here what shows that it is right.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from support import binary, manifests
from support.cluster import Process
from support.tools import ROOT, run, tenure, tool
from support.waiting import eventually

README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    """Every indented line outside of fences, without the comment at its end."""
    text = re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S)
    return [re.sub(r" {2,}#.*$", "", line[4:]).strip() for line in text.splitlines() if line.startswith("    ")]


def the(start: str) -> str:
    """The one command that begins so."""
    (found,) = [c for c in commands() if c.startswith(start)]
    return found


class Machine:
    """Namespaces that look like a machine of one's own: fixed ports are free, /tmp and /run are empty, and all that is started
    ends with it. The repository is the working directory, and tenure and etcd are on the PATH."""

    def __init__(self, directory: Path):
        self.dir = directory
        etcd = Path(run(ROOT / "dev/etcd", "path", cwd=ROOT, timeout=600).stdout.strip())
        namespaces = ["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        first = ["bash", "-c", "echo there; exec sleep infinity"]
        self.init = Process([tool("unshare"), *namespaces, *first], directory / "machine.log")
        eventually("the machine is there", lambda: "there" in self.init.text())
        (self.pid,) = Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text().split()
        # What is needed is put aside before the directories that it may be in are hidden.
        self._sh(
            f"""
            ip link set lo up
            mount -t tmpfs none /mnt; mkdir /mnt/bin /mnt/repository
            cp {shlex.quote(tenure())} /mnt/bin/tenure; cp {etcd}/etcd {etcd}/etcdctl /mnt/bin/
            mount --rbind {shlex.quote(str(ROOT))} /mnt/repository
            mount -t tmpfs none /tmp; mount -t tmpfs none /run
            """,
            cwd="/",
        )

    def _enter(self, command: str, cwd: str) -> list[str]:
        within = ["--user", "--net", "--mount", "--pid", "--preserve-credentials", f"--wdns={cwd}"]
        return [tool("nsenter"), f"--target={self.pid}", *within, "bash", "-ec", command]

    def _sh(self, command: str, cwd: str = "/mnt/repository", check: bool = True) -> subprocess.CompletedProcess[str]:
        # Its own etcd, not one that the environment names.
        env = {k: v for k, v in os.environ.items() if k != "ETCD_BIN" and not k.startswith("TENURE_")}
        return run(*self._enter(command, cwd), check=check, env={**env, "PATH": f"/mnt/bin:{env['PATH']}"})

    def run(self, command: str, check: bool = True, cwd: str = "/mnt/repository") -> subprocess.CompletedProcess[str]:
        return self._sh(command, cwd, check)

    def start(self, command: str, cwd: str = "/mnt/repository") -> Process:
        env = {**os.environ, "PATH": f"/mnt/bin:{os.environ['PATH']}"}
        return Process(self._enter(f"exec {command}", cwd), self.dir / "started.log", env=env)

    def end(self) -> None:
        self.init.end()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    one = Machine(tmp_path)
    yield one
    one.end()


def walk_through() -> list[str]:
    return [
        "$(dev/etcd quick)/etcd --data-dir /tmp/etcd",
        "tenure run -c tenure.yaml",
        the("curl -i"),
        the("tenure status"),
        the("tenure resign"),
        the("curl --unix-socket"),
    ]


def test_using_it_goes_as_written(machine, tmp_path):
    etcd, daemon, leader, status, resign, token = walk_through()
    assert f"`{etcd}`" in README
    machine.start(etcd)
    eventually("etcd answers", lambda: machine.run("etcdctl endpoint health", check=False).returncode == 0)

    (config,) = re.findall(r"^```yaml\n(id: .*?)^```$", README, re.M | re.S)
    machine.run(f"mkdir /tmp/walk; cat > /tmp/walk/tenure.yaml <<'EOF'\n{config}EOF")
    here = "/tmp/walk"
    for inline in ("tenure config check tenure.yaml", "tenure doctor -c tenure.yaml", "tenure config example"):
        assert f"`{inline}`" in README
        machine.run(inline, cwd=here)

    machine.start(daemon, cwd=here)
    eventually("it leads", lambda: machine.run(f"{leader} --silent --max-time 5", check=False).stdout.startswith("HTTP/1.1 200"))
    assert "orders" in machine.run(status).stdout
    said = json.loads(machine.run(f"{token} --silent").stdout)
    assert said["token"] >= 1 and 0 < said["valid_for_ms"] <= 1000
    machine.run(resign)
    again = eventually("it leads again", lambda: json.loads(machine.run(f"{token} --silent").stdout)["token"])
    assert again > said["token"]


def test_the_container_runs_with_the_settings_that_are_given_to_it(machine):
    """What the image's entry point gets: the variables and arguments of the command, a /run/tenure to write to, and no other environment."""
    words = shlex.split(the("docker run"))
    image = words.index(next(w for w in words if w.startswith("ghcr.io/")))
    assert words[image] == f"ghcr.io/tenure-dev/tenure:{app_version()}"
    env = [words[i + 1] for i, w in enumerate(words[:image]) if w == "-e"]
    assert "--tmpfs /run/tenure" in the("docker run") and "--network host" in the("docker run")
    machine.start(walk_through()[0])
    machine.run("mkdir /run/tenure")
    machine.start(shlex.join(["env", "-i", *env, "/mnt/bin/tenure", *(words[image + 1 :] or ["run"])]), cwd="/")
    eventually("it leads", lambda: machine.run("tenure check --expect leader", check=False).returncode == 0)


def app_version() -> str:
    return yaml.safe_load((ROOT / "helm/tenure/Chart.yaml").read_text())["appVersion"]


# On Kubernetes


def kubectl(*args: str) -> subprocess.CompletedProcess[str]:
    return run(tool("kubectl"), "--server=http://127.0.0.1:1", *args, check=False)


def objects() -> list[dict]:
    """What the README's `helm install` from a checkout makes, hooks too, by the real helm with the very arguments."""
    words = shlex.split(the("helm install tenure helm/tenure"))
    text = run(tool("helm"), "template", *words[2:], cwd=ROOT).stdout
    return manifests.parse(text)


def test_both_ways_to_install_are_the_same_chart():
    local, remote = shlex.split(the("helm install tenure helm/tenure")), shlex.split(the("helm install tenure oci:"))
    chart = yaml.safe_load((ROOT / "helm/tenure/Chart.yaml").read_text())
    assert remote[3] == f"oci://ghcr.io/tenure-dev/charts/{chart['name']}"
    assert remote[4:6] == ["--version", chart["version"]]
    assert remote[6:] == local[4:]
    done = run(tool("helm"), *local[1:], "--dry-run=client", cwd=ROOT).stdout
    assert "STATUS: pending-install" in done
    manifests.validate(objects())
    manifests.check_references(objects())


def test_the_etcd_to_try_with_is_the_one_that_the_chart_asks(machine):
    words = shlex.split(the("kubectl create deployment"))
    split = words.index("--")
    text = run(tool("kubectl"), *words[1:split], "--dry-run=client", "-o=yaml", "--", *words[split + 1 :]).stdout
    (deployment,) = manifests.parse(text)
    manifests.validate([deployment])
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    name, port = deployment["metadata"]["name"], container["ports"][0]["containerPort"]
    assert the("kubectl expose").split() == ["kubectl", "expose", "deployment", name]
    assert f"etcd.endpoints={{http://{name}:{port}}}" in the("helm install tenure helm/tenure")
    pinned = re.search(r"server/v3 (v\S+)", (ROOT / "dev/etcd-3.7/go.mod").read_text())[1]
    assert container["image"].endswith(f":{pinned}")
    assert container["command"][0] == "/usr/local/bin/etcd", "the image's only etcd"
    machine.start(shlex.join(["etcd", *container["command"][1:]]), cwd="/tmp")
    eventually("it answers", lambda: machine.run(f"etcdctl --endpoints=http://127.0.0.1:{port} endpoint health", check=False).returncode == 0)


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("kubectl ") and " create " not in c])
def test_kubectl_takes_the_command_and_it_names_what_is_there(command):
    """Without a cluster kubectl comes as far as the connection; a wrong verb, flag or kind it refuses before."""
    words = shlex.split(command)
    done = kubectl(*words[1:])
    assert "connection refused" in done.stderr and "unknown" not in done.stderr, done.stderr
    kind, name = "deployment", next(w.removeprefix("deployment/") for w in words if w.startswith("deployment/") or w == "etcd")
    assert name == "etcd" or manifests.of_kind(objects(), kind.capitalize(), name)
    if "--" in words:
        program, *args = words[words.index("--") + 1 :]
        assert program == "/tenure" and not binary.refuses(args)


def test_the_line_that_includes_the_sidecar_is_one_that_the_examples_have():
    (line,) = re.findall(r"`(\{\{.*?\}\})`", README)
    assert any(line in template.read_text() for template in (ROOT / "helm/examples").glob("*/templates/*.yaml"))


def test_the_binary_is_about_as_big_as_it_says():
    (said,) = re.findall(r"one binary of about (\d+) MB", README)
    assert abs(Path(tenure()).stat().st_size / 1e6 - int(said)) <= 1


def test_helm_test_has_something_to_run():
    assert the("helm test") == "helm test tenure"
    hooks = [o for o in objects() if o["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"]
    assert hooks


def test_every_other_command_is_known():
    """What is neither run nor checked above, with the reason."""
    above = {*walk_through(), the("docker run"), the("helm test"), *(c for c in commands() if c.startswith(("kubectl ", "helm install ")))}
    reasons = {
        "make demo": "a target of make",
        "make test": "a target of make",
        "cargo build --release && PATH=$PWD/target/release:$PATH": "built the binary that these tests run, by `make test-deploy`",
    }
    targets = run("make", "help", cwd=ROOT).stdout
    for command in reasons:
        if command.startswith("make "):
            assert f"  {command} " in targets
    assert shutil.which("make")
    new = [c for c in commands() if c not in above and c not in reasons]
    assert not new, f"say in this file what shows that these are right: {new}"
    assert set(reasons) <= set(commands())


def test_paths_that_it_names_are_there():
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]+|[\w-]+\.(?:md|yaml))`", README)
    made = {"tenure.yaml"}
    missing = [p for p in named if p not in made and not (ROOT / p).exists() and not (ROOT / "deploy" / p).exists()]
    assert named and not missing, missing
