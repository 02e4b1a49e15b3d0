"""Fixtures: a real etcd for a module, candidates and processes that go with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cluster import Candidate, Etcd, Process


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    member = Etcd(tmp_path_factory.mktemp("etcd"))
    yield member
    member.end()


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a program; it ends with the test: `spawn(["nginx", …], "nginx.log")`."""
    started: list[Process] = []

    def start(args: list[str], log: str, **options) -> Process:
        started.append(Process(args, tmp_path / log, **options))
        return started[-1]

    yield start
    for process in reversed(started):
        process.end()


@pytest.fixture
def candidate(tmp_path: Path, etcd: Etcd, request: pytest.FixtureRequest) -> Iterator[Callable[..., Candidate]]:
    """Starts a candidate: `candidate("pod-0", config={…})`. Elections of different tests have prefixes of their own."""
    started: list[Candidate] = []
    prefix = f"/test/{request.node.name}"

    def start(id: str, config: dict | None = None, **options) -> Candidate:
        config = {**(config or {})}
        config["etcd"] = {"prefix": prefix, **config.get("etcd", {})}
        started.append(Candidate(tmp_path, id, etcd.endpoint, config, **options))
        return started[-1]

    yield start
    for one in reversed(started):
        one.end()
