"""The image as `make image` builds it: small, the same twice, and a daemon in it leads as nobody in particular, with nothing to write to.

Needs root: buildah's chroot isolation does, and the mounts that stand for a container's.
"""

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.binary import refuses
from support.net import free_port, request
from support.tools import ROOT, run, tenure, tool
from support.waiting import eventually

USER = 65532
LIMIT = 12 * 1024 * 1024
# Of loopback too, and nobody else's.
NAME_SERVER = "127.42.0.53"


class Image:
    """The archive, unpacked as a runtime does it."""

    def __init__(self, directory: Path):
        tool("buildah"), tool("syft")
        run(ROOT / "dev/image", tenure(), directory, cwd=ROOT)
        self.archive = directory / "tenure.tar"
        self.sbom = json.loads((directory / "tenure.cdx.json").read_text())
        layout, self.root = directory / "layout", directory / "root"
        _extract(self.archive, layout)
        self.digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
        manifest = self._blob(layout, self.digest)
        self.config = self._blob(layout, manifest["config"]["digest"])["config"]
        for layer in manifest["layers"]:
            blob = layout / "blobs" / layer["digest"].replace(":", "/")
            with tarfile.open(blob) as tar:
                self.members = tar.getmembers()
            _extract(blob, self.root)

    @staticmethod
    def _blob(layout: Path, digest: str) -> dict:
        return json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())


def _extract(archive: Path, into: Path) -> None:
    # Not by tarfile, which wants to be told how from Python 3.12 on, and does not know that in Debian 12's.
    into.mkdir(exist_ok=True)
    run("tar", "--extract", "--file", archive, "--directory", into)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return Image(tmp_path_factory.mktemp("image"))


class Container:
    """The image's own command in a read-only root with a tmpfs on /run/tenure, as the image's user, without any capability."""

    def __init__(self, image: Image, env: dict[str, str], log: Path):
        root = image.root
        # What every runtime lays into a container.
        for directory in ("etc", "run/tenure", "proc"):
            (root / directory).mkdir(parents=True, exist_ok=True)
        (root / "etc/resolv.conf").write_text(f"nameserver {NAME_SERVER}\n")
        uid, gid = image.config["User"].split(":")
        mounts = (
            f'mount --bind "{root}" "{root}" && mount -t tmpfs -o uid={uid},gid={gid},mode=0750 tmpfs "{root}/run/tenure"'
            f' && mount -o remount,bind,ro "{root}" && exec "$@"'
        )
        command = [*image.config["Entrypoint"], *image.config["Cmd"]]
        args = ["unshare", "--mount", "sh", "-c", mounts, "sh", "chroot", f"--userspec={uid}:{gid}", "--groups=", str(root), *command]
        self.env = {"PATH": os.environ["PATH"], **env}
        self.log = log
        self.child = subprocess.Popen(args, env=self.env, stdin=subprocess.DEVNULL, stdout=log.open("wb"), stderr=subprocess.STDOUT)

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in the running container, as an exec probe or a hook runs it."""
        enter = ["nsenter", f"--target={self.child.pid}", "--mount", "--root", f"--setuid={USER}", f"--setgid={USER}", "--wd=/"]
        return run(*enter, "--", *command, check=False, env=self.env)

    def status(self) -> dict[str, str]:
        """The process as the kernel sees it."""
        lines = Path(f"/proc/{self.child.pid}/status").read_text().splitlines()
        return {k: v.strip() for k, _, v in (line.partition(":") for line in lines)}


@pytest.fixture
def container(image: Image, etcd, tmp_path: Path, spawn) -> Iterator[tuple[Container, str]]:
    public = f"127.0.0.1:{free_port()}"
    spawn([sys.executable, str(ROOT / "tests/deploy/support/dns.py"), NAME_SERVER], "dns.log")
    env = {
        "TENURE_ID": "pod-0",
        "TENURE_ELECTIONS": "orders",
        # By a name of a name server, which a static binary in an empty root has to ask by itself.
        "TENURE_ETCD__ENDPOINTS": etcd.endpoint.replace("127.0.0.1", "etcd.example"),
        "TENURE_HTTP__PUBLIC": public,
    }
    running = Container(image, env, tmp_path / "log")
    yield running, public
    if running.child.poll() is None:
        running.child.kill()
    running.child.wait(10)


def test_it_is_small_and_holds_one_program(image: Image):
    assert [m.name for m in image.members if m.isfile()] == ["tenure"]
    assert sum(m.size for m in image.members) < LIMIT
    assert image.archive.stat().st_size < LIMIT
    assert image.members[-1].mode & 0o777 == 0o555


def test_the_program_is_static(image: Image):
    headers = run("readelf", "--program-headers", "--wide", image.root / "tenure").stdout
    assert "INTERP" not in headers, headers


def test_what_a_runtime_reads_from_it(image: Image):
    assert image.config["User"] == f"{USER}:{USER}"
    assert image.config["Entrypoint"] == ["/tenure"]
    assert image.config["Cmd"] == ["run"]
    assert image.config["StopSignal"] == "SIGTERM"
    assert list(image.config["ExposedPorts"]) == ["4790/tcp"]
    labels = image.config["Labels"]
    assert run(tenure(), "--version").stdout.split()[1] == labels["org.opencontainers.image.version"]
    assert labels["org.opencontainers.image.revision"] == run("git", "rev-parse", "HEAD", cwd=ROOT).stdout.strip()
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_the_same_binary_gives_the_same_image(image: Image, tmp_path: Path):
    assert Image(tmp_path).digest == image.digest


def test_the_sbom_lists_what_it_is_built_from(image: Image):
    locked = {(c["name"], c["version"]) for c in image.sbom["components"]}
    names = {name for name, _ in locked}
    assert {"tokio", "etcd-client", "warp", "prometheus", "tenure"} <= names
    lock = (ROOT / "Cargo.lock").read_text()
    assert all(f'name = "{name}"\nversion = "{version}"' in lock for name, version in locked if "/" not in name)


def test_from_source_and_prebuilt_end_in_the_same_stage():
    last = {name: (ROOT / "deploy" / name).read_text().split("FROM scratch\n")[1] for name in ("Dockerfile", "Dockerfile.prebuilt")}
    assert last["Dockerfile"].replace("--from=build --chmod=0555 /out/tenure", "--chmod=0555 tenure") == last["Dockerfile.prebuilt"]


def test_hadolint_has_nothing_against_them():
    # DL3018: Alpine keeps no old versions, so a pinned one breaks the build some day for nothing.
    run(tool("hadolint"), "--ignore", "DL3018", ROOT / "deploy/Dockerfile", ROOT / "deploy/Dockerfile.prebuilt")


def test_the_binary_accepts_the_health_check():
    """OCI images carry none; Docker's own builder takes it from the file."""
    [check] = [line for line in (ROOT / "deploy/Dockerfile.prebuilt").read_text().splitlines() if line.startswith("HEALTHCHECK")]
    program, *args = json.loads(check[check.index("[") :])
    assert program == "/tenure" and refuses(args) == []


def test_a_build_from_source_gets_all_that_cargo_reads(tmp_path: Path):
    """The context that .dockerignore leaves is a workspace that cargo takes, with every file that the sources include."""
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    for kept in [r[1:] for r in rules if r.startswith("!")]:
        (tmp_path / kept).parent.mkdir(parents=True, exist_ok=True)
        run("cp", "-r", ROOT / kept, tmp_path / kept)
    metadata = json.loads(run("cargo", "metadata", "--locked", "--offline", "--no-deps", "--format-version=1", cwd=tmp_path).stdout)
    assert "tenure" in [p["name"] for p in metadata["packages"]]
    run("cargo", "tree", "--locked", "--offline", "--edges=normal", cwd=tmp_path)
    for source in (tmp_path / "src").rglob("*.rs"):
        for part in source.read_text().split('include_str!("')[1:]:
            assert (source.parent / part.split('"')[0]).exists(), f"{source.name} includes {part.split(chr(34))[0]}"


def test_it_leads_as_nobody_in_particular_with_nothing_to_write_to(container):
    running, public = container
    eventually("it leads", lambda: request(public, "/leader").status == 200)
    status = running.status()
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(USER)}
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert os.statvfs(f"/proc/{running.child.pid}/root").f_flag & os.ST_RDONLY
    assert running.inside("/tenure", "check", "--expect", "leader").returncode == 0
    assert running.inside("/tenure", "drain").returncode == 0
    assert running.inside("/tenure", "check", "--expect", "leader").returncode == 4
    assert running.inside("/tenure", "check", "--expect", "live").returncode == 0
    running.child.send_signal(signal.SIGTERM)
    assert running.child.wait(20) == 0, running.log.read_text()
