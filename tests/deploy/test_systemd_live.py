"""deploy/systemd under a real systemd: installed as its README says, on a machine of its own, beside a real etcd."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.host import Host
from support.tools import ROOT, run, tenure
from support.waiting import eventually

HERE = ROOT / "deploy/systemd"
SOCKET = "unix:/run/tenure/control.sock"
# Says when it starts and when it is told to stop, and what the daemon is then.
ORDERS = f"""#!/bin/bash
trap 'tenure check --expect leader --control {SOCKET} && echo stopped-as-leader; exit 0' TERM
echo started
while :; do sleep 0.1; done
"""


@pytest.fixture
def host(tmp_path: Path, spawn) -> Iterator[Host]:
    files = tmp_path / "files"
    for directory in ("usr/local/bin", "etc/systemd/system", "etc/tenure", "var/install"):
        (files / directory).mkdir(parents=True)
    etcd = Path(run(ROOT / "dev/etcd", "path", cwd=ROOT, timeout=600).stdout.strip())
    shutil.copy(tenure(), files / "usr/local/bin/tenure")
    for program in ("etcd", "etcdctl"):
        shutil.copy(etcd / program, files / "usr/local/bin")
    (files / "usr/local/bin/orders").write_text(ORDERS)
    (files / "usr/local/bin/orders").chmod(0o755)
    for own in HERE.iterdir():
        # Units that users write wait for the rest of a machine, which this one does not have.
        text = own.read_text().replace("[Unit]\n", "[Unit]\nDefaultDependencies=no\n", 1)
        (files / "var/install" / own.name).write_text(text)
    # There is no journal to look at.
    (files / "etc/systemd/system/orders.service.d").mkdir()
    (files / "etc/systemd/system/orders.service.d/test.conf").write_text("[Service]\nStandardOutput=append:/var/said\n")
    (files / "etc/systemd/system/etcd.service").write_text(
        "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/usr/local/bin/etcd --data-dir=/var/etcd --unsafe-no-fsync\n"
    )
    one = Host(tmp_path, files, spawn)
    yield one
    one.end()


def test_the_units_do_what_the_readme_says(host):
    host.run("systemctl start etcd.service")
    commands = re.findall(r"^    (.+)$", (HERE / "README.md").read_text(), re.M)
    assert any(c.startswith("systemctl enable --now") for c in commands)
    for command in commands:
        # `status` of a unit would page.
        host.run(f"cd /var/install; export SYSTEMD_PAGER=cat PATH=/usr/local/bin:$PATH HOSTNAME=host-a; {command}")

    eventually("systemd is told that it leads", lambda: "orders: leader, generation 1" in host.show("tenure", "StatusText"))
    main = host.show("tenure", "MainPID")
    confined = dict(re.findall(r"^(\w+):\t(.*)$", host.run(f"cat /proc/{main}/status").stdout, re.M))
    assert "0" not in confined["Uid"].split() and int(confined["CapEff"], 16) == int(confined["CapBnd"], 16) == 0
    assert (confined["NoNewPrivs"], confined["Seccomp"]) == ("1", "2")
    assert host.run("stat --format=%a:%G /run/tenure/control.sock").stdout.strip() == "660:tenure"
    metrics = host.run("curl --silent http://127.0.0.1:4790/metrics").stdout
    assert float(re.search(r"^process_start_time_seconds (\S+)$", metrics, re.M)[1]) > 1e9, "hidden by the unit"

    # The application starts because this host leads, and as a user of its own that may use the socket.
    host.run("cp /var/install/orders.service /etc/systemd/system; systemctl daemon-reload; systemctl start orders.service")
    eventually("the application runs", lambda: "started" in host.run("cat /var/said").stdout)
    # The daemon stops last, and still leads while the application stops.
    host.run("systemctl stop tenure.service")
    assert "stopped-as-leader" in host.run("cat /var/said").stdout
    for unit in ("tenure", "orders"):
        assert (host.show(unit, "ActiveState"), host.show(unit, "Result")) == ("inactive", "success"), unit


def test_a_daemon_that_hangs_is_started_again(host):
    host.run("systemctl start etcd.service; groupadd --system tenure; cp /var/install/tenure.yaml /etc/tenure/")
    # Sooner than in the unit, so that this does not take as long.
    sooner = "sed 's/^WatchdogSec=.*/WatchdogSec=2s/' /var/install/tenure.service > /etc/systemd/system/tenure.service"
    host.run(f"{sooner}; systemctl daemon-reload; systemctl start tenure.service")
    first = host.show("tenure", "MainPID")
    host.run(f"kill -STOP {first}")
    eventually("another process runs", lambda: host.show("tenure", "MainPID") not in (first, "0"))
    eventually("it is ready", lambda: host.show("tenure", "ActiveState") == "active")
    assert host.show("tenure", "NRestarts") == "1"


def test_a_secret_that_only_root_may_read_reaches_the_daemon(host):
    host.run(
        """
        systemctl start etcd.service
        until etcdctl endpoint health; do sleep 0.05; done
        etcdctl user add root:secret; etcdctl user grant-role root root; etcdctl auth enable
        groupadd --system tenure
        install -m 0600 <(echo secret) /etc/tenure/etcd-password
        sed 's/^#\\(LoadCredential=etcd-password:\\)/\\1/' /var/install/tenure.service > /etc/systemd/system/tenure.service
        sed 's|^etcd:|etcd:\\n  username: root\\n  password_file: ${CREDENTIALS_DIRECTORY}/etcd-password|' /var/install/tenure.yaml > /etc/tenure/tenure.yaml
        systemctl daemon-reload; systemctl start tenure.service || { systemctl status tenure.service; exit 1; }
        """
    )
    eventually("it leads", lambda: "orders: leader" in host.show("tenure", "StatusText"))


def test_the_application_comes_back_with_a_daemon_that_died(host):
    host.run("systemctl start etcd.service; groupadd --system tenure; cp /var/install/tenure.yaml /etc/tenure/")
    host.run("echo 'session: {ttl: 2s}' >> /etc/tenure/tenure.yaml")
    host.run("cp /var/install/*.service /etc/systemd/system; systemctl enable tenure.service orders.service; systemctl start tenure.service orders.service")
    assert "orders.service" not in host.show("multi-user.target", "Wants"), "on a host that does not lead, its boot would not end"
    first = host.show("orders", "MainPID")
    host.run(f"kill -KILL {host.show('tenure', 'MainPID')}")
    # It waits for the leadership, which the daemon gets again after one TTL.
    eventually("the application runs again", lambda: host.show("orders", "MainPID") not in (first, "0"))
    assert host.show("tenure", "NRestarts") == "1"
