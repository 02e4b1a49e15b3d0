"""Programs from outside. One that is missing is an error that says how to get it, never a skipped test."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

# Where each comes from. `make deploy-tools` gets those that are not Debian packages.
_SOURCES = {
    "helm": "make deploy-tools",
    "kubectl": "make deploy-tools",
    "actionlint": "make deploy-tools",
    "admit": "make deploy-tools",
    "envoy": "make deploy-tools",
    "syft": "make deploy-tools",
    "shellcheck": "make deploy-tools",
    "hadolint": "make deploy-tools",
    "yamllint": "make deploy-tools",
    "check-jsonschema": "make deploy-tools",
    "promtool": "apt-get install prometheus",
    "prometheus": "apt-get install prometheus",
    "nginx": "apt-get install nginx-light",
    "haproxy": "apt-get install haproxy",
    "caddy": "apt-get install caddy",
    "buildah": "apt-get install buildah",
    "unshare": "apt-get install util-linux",
    "nsenter": "apt-get install util-linux",
    "setpriv": "apt-get install util-linux",
    "sudo": "apt-get install sudo",
    "systemd-analyze": "apt-get install systemd",
}


class Missing(Exception):
    """A program that the tests need is not there; the message says how to get it."""


def tool(name: str) -> str:
    """The path of a program, from `target/tools`, the tests' own environment or the `PATH`."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"{name} is missing, and these tests need the real one: {_SOURCES.get(name, 'install it')}")
    return found


def run(*args: str | Path, check: bool = True, timeout: float = 120, **options) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; fails with what it printed."""
    command = [str(a) for a in args]
    done = subprocess.run(command, text=True, capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def tenure() -> str:
    """The binary under test: `$TENURE_BIN`, which `make test-deploy` builds and sets."""
    path = os.environ.get("TENURE_BIN")
    if not path or not os.access(path, os.X_OK):
        raise Missing("TENURE_BIN does not name a tenure binary: run these tests by `make test-deploy`")
    return path
