"""Fifteen minutes of traffic over both carriers with intermittent losses: no daemon ends, no memory grows."""

from __future__ import annotations

import time

import pytest

from tests.netns.lab import STARTED, Daemon, Lab, Machine, firewall
from tests.netns.test_steadiness import memory

CYCLES = 4
CLEAN_OVER_UDP = 170.0
"""Seconds. An estimate that shrank with every report would have fallen to 1e-300 by then."""
CLEAN_OVER_TCP, LOSSY = 15.0, 20.0
GROWTH = 2_000_000
"""Bytes by which the memory of a process may grow between the first and the last cycle."""


class Tunnel:
    """A pair of daemons over one carrier."""

    def __init__(self, lab: Lab, carrier: str, number: int) -> None:
        self.lab = lab
        self.names = f"tun{number}", f"tun{number + 1}"
        key = lab.new_key(f"{carrier}.key")
        options = ("--transport", carrier, "-p", str(55550 + number), "-k", key)
        self.server = lab.b.vpntun("-s", "-i", self.names[0], *options)
        self.server.wait_for(STARTED)
        self.client = lab.a.vpntun("-c", lab.b.four, "-i", self.names[1], *options)
        self.client.wait_for("connected")
        self.far = lab.b.address_of(self.names[0])

    def carry(self, seconds: float, nbytes: int) -> None:
        """Repeat transfers of `nbytes` for this many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.lab.transfer(nbytes, self.far)

    def internal_errors(self) -> int:
        ends = (self.lab.b, self.names[0]), (self.lab.a, self.names[1])
        return sum(self._drops(machine, name).get("internal error", 0) for machine, name in ends)

    @staticmethod
    def _drops(machine: Machine, name: str) -> dict[str, int]:
        drops: dict[str, int] = machine.status(name)["drops"]
        return drops

    @property
    def daemons(self) -> tuple[Daemon, Daemon]:
        return self.server, self.client


def lose(lab: Lab, percent: float, action: str) -> None:
    """Add (-A) or delete (-D) a rule that drops this share of the packets arriving from the wire, on all machines."""
    rule = ("INPUT", "-i", "veth0", "-m", "statistic", "--mode", "random", "--probability", str(percent / 100))
    for machine in lab.machines:
        machine.run(firewall()[0], "-w", action, *rule, "-j", "DROP")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_quarter_of_an_hour_with_intermittent_losses_ends_no_daemon_and_grows_no_memory(lab: Lab) -> None:
    udp, tcp = Tunnel(lab, "udp", 3), Tunnel(lab, "tcp", 5)
    daemons = (*udp.daemons, *tcp.daemons)
    sizes: list[list[int]] = []
    for _ in range(CYCLES):
        for percent in (0.5, 2.0):
            lose(lab, percent, "-A")
            udp.carry(LOSSY / 2, 5_000_000)
            tcp.carry(LOSSY / 2, 5_000_000)
            lose(lab, percent, "-D")
        lose(lab, 100, "-A")
        time.sleep(3)
        lose(lab, 100, "-D")
        udp.carry(CLEAN_OVER_UDP, 500_000_000)
        tcp.carry(CLEAN_OVER_TCP, 500_000_000)
        assert all(daemon.running for daemon in daemons), lab.logs()
        sizes.append([memory(daemon) for daemon in daemons])
    assert udp.internal_errors() + tcp.internal_errors() == 0
    grown = [last - first for first, last in zip(sizes[0], sizes[-1], strict=True)]
    assert max(grown) < GROWTH, sizes
    assert [daemon.stop() for daemon in daemons] == [0] * 4
