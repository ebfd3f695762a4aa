"""Notifications to systemd: readiness, status, watchdog, reloads and the end."""

from __future__ import annotations

import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.daemons import configured
from tests.netns.lab import Lab, far, start_client, start_server, until


class FakeSystemd:
    """A notification socket in systemd's place. A thread reads it, because the kernel queues few unread datagrams."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while said := self._socket.recv(4096):
            self.said += said.decode().split("\n")

    def hears(self, text: str, seconds: float = 20) -> bool:
        """Whether a message with a line that begins so has arrived or arrives within this time."""
        return until(lambda: any(said.startswith(text) for said in self.said), seconds)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RD)
        self._reader.join()
        self._socket.close()


@pytest.fixture
def systemd(lab: Lab) -> Iterator[FakeSystemd]:
    systemd = FakeSystemd(lab.folder / "notify")
    yield systemd
    systemd.close()


def test_systemd_is_notified_of_a_servers_start_link_and_end(lab: Lab, systemd: FakeSystemd) -> None:
    environment = {**systemd.environment, "WATCHDOG_USEC": "200000"}
    server = lab.b.vpntun("-s", "-i", "tun3", "-k", lab.key, env=environment)
    assert systemd.hears("READY=1"), server
    assert systemd.hears("STATUS=not connected since ", 0)
    start_client(lab)
    assert systemd.hears("STATUS=connected by UDP since "), server
    systemd.said.clear()
    assert systemd.hears("WATCHDOG=1", 2)
    assert server.stop() == 0
    assert systemd.hears("STOPPING=1")


def test_systemd_considers_a_client_ready_once_its_link_is_up(lab: Lab, systemd: FakeSystemd) -> None:
    client = lab.a.vpntun("-c", lab.b.four, "-i", "tun11", "-k", lab.key, env=systemd.environment)
    assert systemd.hears("STATUS=not connected"), client
    assert not systemd.hears("READY=1", 1)
    start_server(lab)
    assert systemd.hears("READY=1"), client
    assert systemd.hears("STATUS=connected by ", 0)


def test_systemd_is_notified_of_each_reload(lab: Lab, systemd: FakeSystemd) -> None:
    server = lab.b.vpntun("up", configured(lab, lab.b, "server"), env=systemd.environment)
    assert systemd.hears("READY=1"), server
    systemd.said.clear()
    server.process.send_signal(signal.SIGHUP)
    assert systemd.hears("RELOADING=1"), server
    assert systemd.hears("READY=1"), server


def test_systemd_is_notified_of_the_end_of_a_reload_that_failed_unexpectedly(lab: Lab, systemd: FakeSystemd) -> None:
    path = configured(lab, lab.b, "server")
    server = lab.b.popen(sys.executable, "-c", FAILS_TO_RELOAD, "up", path, env=systemd.environment)
    server.expects_bugs = True
    assert systemd.hears("READY=1"), server
    systemd.said.clear()
    server.process.send_signal(signal.SIGHUP)
    assert systemd.hears("RELOADING=1"), server
    assert systemd.hears("READY=1"), server


FAILS_TO_RELOAD = """
import vpntun.daemon
from vpntun.cli import main

def fail(daemon):
    raise RuntimeError("a bug")

vpntun.daemon._Daemon.reload = fail
main()
"""


def test_the_end_after_a_deleted_device_runs_hooks_and_notifies_systemd(lab: Lab, systemd: FakeSystemd) -> None:
    path = configured(lab, lab.b, "server", "PreDown = echo before", "PostDown = echo behind")
    server = lab.b.vpntun("up", path, env=systemd.environment)
    assert systemd.hears("READY=1"), server
    lab.b.run("ip", "link", "del", "office")
    assert server.wait() == 5
    assert server.log.index("before") < server.log.index("behind")
    assert systemd.hears("STOPPING=1")


def test_a_reload_during_the_start_does_not_make_systemd_think_it_is_ready(lab: Lab, systemd: FakeSystemd) -> None:
    path = configured(lab, lab.b, "server", "PostUp = echo begun; sleep 1; exit 3")
    server = lab.b.vpntun("up", path, env=systemd.environment)
    server.wait_for("begun")
    server.process.send_signal(signal.SIGHUP)
    assert server.wait() == 10
    assert "read the configuration again" in server.log
    assert systemd.hears("STOPPING=1")
    assert "READY=1" not in systemd.said


def test_systemds_line_says_why_tcp_is_used_and_when_data_is_verified_no_longer(lab: Lab, systemd: FakeSystemd) -> None:
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d"
    lab.block("udp")
    start_server(lab)
    client = lab.a.vpntun("-c", lab.b.four, "-i", "tun11", "-k", lab.key, env=systemd.environment)
    lab.ping(lab.a, far(lab), within=8)
    wanted = rf"STATUS=connected by TCP since {date} \(no UDP answer since {date}\), data verified"
    assert until(lambda: any(re.fullmatch(wanted, said) for said in systemd.said), 40), f"{systemd.said}\n{client}"


def test_data_of_an_idle_link_is_verified_for_half_a_minute_and_its_status_says_so(
    lab: Lab, systemd: FakeSystemd
) -> None:
    server = lab.b.vpntun("-s", "-i", "tun3", "-k", lab.key, env=systemd.environment)
    assert systemd.hears("READY=1"), server
    start_client(lab)
    lab.ping(lab.a, far(lab))
    assert until(lambda: systemd.said[-1].endswith("(the peer called by it), data verified"), 20), systemd.said
    systemd.said.clear()
    assert until(lambda: any("data last verified" in said for said in systemd.said), 45, interval=0.5), systemd.said
