"""Speed tests of running links between two namespaces, over UDP and TCP, from both ends.

The link between the namespaces is as fast as the machine, so what it carries tells nothing: it may be busy. Rates are
compared on a path that is far slower.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns.lab import STARTED, Lab, Machine, until
from tests.netns.test_wan import Wan
from tests.netns.wireguard import (
    OURS_DEVICE,
    Keys,
    as_client,
    latest_handshake,
    missing_tool,
    start_vpntun,
    start_wireguard,
)
from tests.terminal import CTRL_C, Terminal

OF_HERE, OF_THERE = "tun11", "tun3"
ATTEMPTS = 3
"""Measurements on a machine that others use, too: one of them has to be good."""


class Link:
    """A tunnel between two machines, the client `here` and the server `there`."""

    def __init__(self, lab: Lab, here: Machine, there: Machine, transport: str = "auto") -> None:
        self.lab, self.here, self.there = lab, here, there
        self.server = there.vpntun("-v", "-s", "-i", OF_THERE, "-k", lab.key)
        self.server.wait_for(STARTED)
        self.client = here.vpntun("-v", "-c", there.four, "-i", OF_HERE, "-k", lab.key, "--transport", transport)
        self.client.wait_for("connected to", 20)
        for machine, interface in ((here, OF_HERE), (there, OF_THERE)):
            assert until(lambda: peer_of(machine, interface)["vpntun"], 10), lab.logs()  # noqa: B023

    def speed(self, *options: str, there: bool = False) -> dict[str, Any]:
        """Run a test from one end, and return its result."""
        machine, interface = (self.there, OF_THERE) if there else (self.here, OF_HERE)
        done = machine.run(sys.executable, "-m", "vpntun", "speed", interface, "--json", *options, timeout=90)
        report: dict[str, Any] = json.loads(done.stdout)
        assert report["state"] == "done"
        return report

    def sent_by(self, machine: Machine) -> int:
        """Bytes that a machine has sent on its cable."""
        return int(machine.run("cat", "/sys/class/net/veth0/statistics/tx_bytes").stdout)


@pytest.fixture
def link(lab: Lab) -> Link:
    return Link(lab, lab.a, lab.b)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    """A link that all tests use which leave it as it was."""
    lab = Lab(tmp_path_factory.mktemp("shared"))
    try:
        yield Link(lab, lab.a, lab.b)
    finally:
        lab.close()


def peer_of(machine: Machine, interface: str) -> dict[str, Any]:
    peer: dict[str, Any] = machine.status(interface)["peers"][0]
    return peer


@pytest.mark.parametrize("there", [False, True])
def test_either_end_measures_both_directions(shared: Link, there: bool) -> None:
    check(shared, shared.speed("--seconds", "1", there=there), "udp")


def test_a_connection_is_measured(lab: Lab) -> None:
    link = Link(lab, lab.a, lab.b, "tcp")
    check(link, link.speed("--seconds", "1"), "tcp")


def check(link: Link, report: dict[str, Any], carrier: str) -> None:
    """Check what holds for any link, however busy the machine is."""
    assert report["carrier"] == carrier
    assert report["idle"]["round_trip"] > 0
    for direction in ("up", "down"):
        found = report[direction]
        assert found["rate"] > 0, report
        assert (found["loss"] is None) == (carrier == "tcp")
        assert 0 < found["round_trip"] <= found["round_trip_95"]
    for machine, interface in ((link.here, OF_HERE), (link.there, OF_THERE)):
        assert "load without a test" not in peer_of(machine, interface)["drops"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.skipif(shutil.which("iperf3") is None, reason="no iperf3")
def test_both_directions_are_near_what_iperf3_finds_in_the_tunnel(lab: Lab) -> None:
    wan = Wan(lab)
    wan.lay("--rate", "20", "--delay", "15", "--queue", "200")
    link, ratios = Link(lab, wan.a, wan.b), []
    for _ in range(ATTEMPTS):
        report, right = link.speed("--seconds", "2"), rate_of_iperf(link, 2)
        ratios.append([report[direction]["rate"] / right for direction in ("up", "down")])
        if all(0.7 < ratio < 1.4 for ratio in ratios[-1]):
            return
    raise AssertionError(f"speed / iperf3: {ratios}\n{link.lab.logs()}")


def rate_of_iperf(link: Link, seconds: int) -> float:
    """Bytes a second that iperf3 sends through the tunnel over TCP."""
    address = link.there.address_of(OF_THERE)
    server = link.there.popen("iperf3", "-s", "-1")
    assert until(lambda: link.there.listens(5201), 10), server
    said = link.here.run("iperf3", "-J", "-c", address, "-t", str(seconds), timeout=60).stdout
    server.wait()
    rate: float = json.loads(said)["end"]["sum_received"]["bits_per_second"] / 8
    return rate


@pytest.mark.long
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize(
    ("transport", "rate", "delay", "queue", "loss"),
    [("udp", 20, 15, 200, 0), ("udp", 10, 20, 200, 1), ("udp", 2, 5, 100, 0), ("tcp", 20, 15, 200, 0)],
)
def test_a_slow_path_shows_its_rate_its_loss_and_a_bounded_delay(
    lab: Lab, transport: str, rate: int, delay: int, queue: int, loss: int
) -> None:
    wan = Wan(lab)
    wan.lay("--rate", str(rate), "--delay", str(delay), "--queue", str(queue), "--loss", str(loss))
    link, reports = Link(lab, wan.a, wan.b, transport), []
    for _ in range(ATTEMPTS):
        reports.append(report := link.speed("--seconds", "5"))
        both = report["up"], report["down"]
        if (
            abs(report["idle"]["round_trip"] - 2 * delay / 1000) < 0.03
            and all(0.6 < found["rate"] * 8 / (rate * 1e6) < 1.02 for found in both)
            and all(found["round_trip"] < 2 * delay / 1000 + 0.2 for found in both)
            and all(transport == "tcp" or abs(found["loss"] - loss / 100) < 0.01 for found in both)
        ):
            return
    raise AssertionError(reports)


def test_a_ping_beside_the_test_loses_nothing(shared: Link) -> None:
    address = shared.there.address_of(OF_THERE)
    shared.lab.ping(shared.here, address)
    ping = shared.here.popen("ping", "-n", "-i0.1", "-c40", address)
    shared.speed("--seconds", "1")
    assert ping.wait(30) == 0
    assert " 0% packet loss" in ping.log, ping


def test_a_plain_wireguard_is_refused_in_one_clear_line(lab: Lab, keys: Keys) -> None:
    if tool := missing_tool():
        pytest.skip(f"{tool} is not installed")
    start_wireguard(lab, keys)
    start_vpntun(lab, keys, *as_client(lab))
    assert until(lambda: latest_handshake(lab) > 0, 10), lab.logs()
    status, said = lab.a.ask("speed", OURS_DEVICE)
    assert status == 1
    assert said.count("\n") == 1
    assert "the peer is not a vpntun" in said


def test_a_peer_that_does_not_exist_is_refused(shared: Link) -> None:
    status, said = shared.here.ask("speed", OF_HERE, "nobody")
    assert status == 1
    assert "no peer has this name" in said


def on_terminal(machine: Machine, *arguments: str) -> Terminal:
    return Terminal(machine.enter([sys.executable, "-m", "vpntun", *arguments]))


def test_a_terminal_shows_bars_and_at_last_the_result(shared: Link) -> None:
    with on_terminal(shared.here, "speed", OF_HERE, "--seconds", "3") as terminal:
        terminal.until(lambda: re.search(r"^up .*[1-9]\d*%.*bit/s", terminal.text, re.MULTILINE), "for the bar")
        assert [line.split()[0] for line in terminal.lines if line.strip()] == ["idle", "up", "down"], "a line each"
        terminal.until(lambda: re.search(r"^down .*[1-9]\d*%.*bit/s", terminal.text, re.MULTILINE), "for the bar")
        assert terminal.wait() == 0
        assert "throughput" in terminal.text
        assert re.search(r"^up +[\d.]+ [kMG]bit/s +\d+\.\d\d% +[\d.]+ ms +[\d.]+ ms$", terminal.text, re.MULTILINE)
        assert "━" not in terminal.text, "the bars are still there"
        assert terminal.modes() == terminal.modes_before


@pytest.mark.parametrize("direction", ["up", pytest.param("down", marks=pytest.mark.long)])
def test_an_interrupt_ends_the_test_at_both_ends(shared: Link, direction: str) -> None:
    with on_terminal(shared.here, "speed", OF_HERE, "--seconds", "20") as terminal:
        if direction == "down":
            terminal.until(lambda: re.search(r"^down .*[1-9]%", terminal.text, re.MULTILINE), "for down", 40)
        else:
            terminal.until(lambda: re.search(r"^up .*[1-9]%", terminal.text, re.MULTILINE), "for up")
        terminal.type(CTRL_C)
        assert terminal.wait() == 1
        assert "interrupted: the test has ended at both ends" in terminal.text
        assert terminal.modes() == terminal.modes_before
    assert_quiet(shared, 3)
    assert shared.speed("--seconds", "1", there=True)["state"] == "done", "both ends are free again"


@pytest.mark.long
def test_a_killed_asker_ends_the_test_at_the_other_end(link: Link) -> None:
    link.here.run("curl", "-s", "-X", "POST", *request("/v1/speed/run?seconds=20"))
    assert until(lambda: (report := report_of(link))["phase"] == "down" and report["rate"], 40)
    link.client.kill()
    assert_quiet(link, 5)


def request(path: str) -> tuple[str, ...]:
    return "--unix-socket", f"/run/vpntun/{OF_HERE}.sock", f"http://vpntun{path}"


def report_of(link: Link) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(link.here.run("curl", "-s", *request("/v1/speed")).stdout)
    return report


def assert_quiet(link: Link, seconds: float) -> None:
    """Assert that both ends stop sending within this time."""
    counts = [0, link.sent_by(link.here) + link.sent_by(link.there)]

    def is_quiet() -> bool:
        counts.append(link.sent_by(link.here) + link.sent_by(link.there))
        return counts[-1] - counts[-2] < 20_000

    assert until(is_quiet, seconds, interval=0.5), counts
