"""State messages to systemd, received on a socket of the test's own; the variables are removed, and nothing fails."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine import HandLoop
from vpntun.process.notify import Notifier


class Systemd:
    """A service manager that listens on $NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(address.replace("@", "\0", 1))

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(str(tmp_path / "notify") if request.param == "path" else f"@vpntun-test-{os.getpid()}")
    yield made
    made.close()


def test_each_message_is_a_datagram(systemd: Systemd) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": systemd.address})
    notifier.status("waiting for the network")
    notifier.ready("connected to 203.0.113.2:55555 over UDP")
    notifier.ready("2 peers")
    notifier.stopping()
    assert systemd.heard() == [
        "STATUS=waiting for the network",
        "READY=1\nSTATUS=connected to 203.0.113.2:55555 over UDP",
        "READY=1\nSTATUS=2 peers",
        "STOPPING=1",
    ]


def test_a_reload_is_reported_with_the_clock_that_systemd_compares(systemd: Systemd) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Notifier.from_environment({"NOTIFY_SOCKET": systemd.address}).reloading()
    (message,) = systemd.heard()
    words, _, microseconds = message.rpartition("=")
    assert words == "RELOADING=1\nMONOTONIC_USEC"
    assert before <= int(microseconds) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_text_from_a_peer_cannot_add_an_assignment(systemd: Systemd) -> None:
    Notifier.from_environment({"NOTIFY_SOCKET": systemd.address}).status("up\nMAINPID=1\x00" + "x" * 9000)
    [said] = systemd.heard()
    assert said.startswith(r"STATUS=up\nMAINPID=1\x00")
    assert "\n" not in said
    assert len(said) < 600


def test_all_variables_are_removed_from_the_environment(systemd: Systemd) -> None:
    environment = {
        "NOTIFY_SOCKET": systemd.address,
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    Notifier.from_environment(environment)
    assert environment == {"PATH": "/bin"}


def test_the_watchdog_is_reset_at_half_its_interval(systemd: Systemd, loop: HandLoop) -> None:
    environment = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier.from_environment(environment)
    assert notifier.watchdog_interval == 1.5
    notifier.keep_alive(loop)
    assert systemd.heard() == ["WATCHDOG=1"]
    loop.pass_time(1.4)
    assert systemd.heard() == []
    loop.pass_time(0.2)
    loop.pass_time(1.6)
    assert systemd.heard() == ["WATCHDOG=1"] * 2


@pytest.mark.parametrize(
    "watchdog",
    [
        {},
        {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-3"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "9" * 400},
    ],
)
def test_without_a_watchdog_nothing_is_sent(systemd: Systemd, loop: HandLoop, watchdog: dict[str, str]) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": systemd.address, **watchdog})
    assert notifier.watchdog_interval is None
    notifier.keep_alive(loop)
    loop.pass_time(3600)
    assert systemd.heard() == []


def test_a_watchdog_without_a_process_id_is_for_this_process(systemd: Systemd) -> None:
    environment = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "60000000"}
    assert Notifier.from_environment(environment).watchdog_interval == 30


@pytest.mark.parametrize(
    "name", ["", "@", "/", "relative", "vsock:2:1234", "/no/such/folder/notify", "/" + "x" * 200, "@" + "x" * 200]
)
def test_an_address_where_nobody_listens_is_no_error(name: str) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": name})
    notifier.ready("up")
    notifier.stopping()


def test_without_systemd_nothing_is_sent() -> None:
    notifier = Notifier.from_environment({})
    assert notifier.watchdog_interval is None
    notifier.ready("up")


def test_a_service_manager_that_does_not_read_does_not_block(systemd: Systemd) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": systemd.address})
    for number in range(5000):
        notifier.status(f"number {number}")
    assert systemd.heard()
