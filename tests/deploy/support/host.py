"""A machine with a systemd of its own, in namespaces: the real one is process 1 there, and starts real units. Needs root."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from .cluster import Process
from .tools import Missing, run, tool
from .waiting import eventually

# /etc, /usr/local/bin and /var are this machine's with a layer above that goes with the namespaces; of its units, none.
BOOT = """
mount -t tmpfs none {dir}/layers
for path in etc usr/local/bin var; do
    mkdir -p {dir}/layers/$path/upper {dir}/layers/$path/work
    mount -t overlay -o lowerdir=/$path,upperdir={dir}/layers/$path/upper,workdir={dir}/layers/$path/work overlay /$path
done
rm -rf /etc/systemd/system/*
cp -r {files}/. /
mount -t tmpfs none /run
mount -t sysfs none /sys
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up
# As systemd itself makes it where it boots a machine: secrets are mounted in one namespace and seen in others.
mount --make-rshared /
exec {systemd} --system --unit=idle.target --log-target=console --show-status=no
"""

# In a group of its own, which is removed afterwards.
GROUPED = """
mkdir {dir}/cgroup; mount -t cgroup2 none {dir}/cgroup
own={dir}/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/{name}
mkdir "$own"; echo $$ > "$own/cgroup.procs"
exec unshare --pid --fork --kill-child --mount-proc --mount --uts --ipc --net --cgroup bash -ec "$1"
"""

UNGROUPED = """
mount -t cgroup2 none {dir}/cgroup
find {dir}/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/{name} -depth -type d -exec rmdir {{}} +
"""


class Host:
    """`files` are laid over its root before it boots."""

    def __init__(self, directory: Path, files: Path, spawn: Callable[..., Process]):
        if os.geteuid() != 0:
            raise Missing("a systemd as process 1 of its namespaces needs root: run these tests as root")
        self.dir, self.name = directory, f"tenure-host-{os.getpid()}"
        (directory / "layers").mkdir()
        units = files / "etc/systemd/system"
        units.mkdir(parents=True, exist_ok=True)
        (units / "idle.target").write_text("[Unit]\nDefaultDependencies=no\n")
        systemd = next((p for p in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if Path(p).exists()), None)
        if systemd is None:
            raise Missing("systemd is missing: apt-get install systemd")
        boot = BOOT.format(dir=directory, files=files, systemd=systemd)
        command = [tool("unshare"), "--mount", "bash", "-ec", self._filled(GROUPED), "boot", boot]
        self.outside = spawn(command, "systemd.log", env={"container": "test", "PATH": os.environ["PATH"]})
        children = Path(f"/proc/{self.outside.pid}/task/{self.outside.pid}/children")
        try:
            eventually("systemd is process 1", lambda: Path(f"/proc/{self._first(children)}/comm").read_text() == "systemd\n")
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.outside.text()}") from e
        self.first = self._first(children)
        eventually("systemd answers", lambda: self.run("systemctl is-active idle.target", check=False).returncode == 0)

    def _filled(self, script: str) -> str:
        return script.format(dir=self.dir, name=self.name)

    @staticmethod
    def _first(children: Path) -> str:
        return (children.read_text().split() or ["none"])[0]

    def run(self, command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of its root user."""
        inside = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--wd=/"]
        return run(tool("nsenter"), f"--target={self.first}", *inside, "bash", "-ec", command, check=check)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run(f"systemctl show --property={name} --value {unit}").stdout.strip()

    def end(self) -> None:
        self.outside.end()
        eventually("its control group is gone", lambda: run("unshare", "--mount", "bash", "-ec", self._filled(UNGROUPED), check=False).returncode == 0)
