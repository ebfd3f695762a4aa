"""scripts/wan, the program that carries the benchmark's grid: delay, rate, queue length in packets, random loss."""

from __future__ import annotations

import re
import shutil
import socket
import time

import pytest

from namespaces import inside
from tests.netns.lab import CHECKOUT, Daemon, Lab

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
PORT = 9  # nobody listens


class Wan:
    """A path that scripts/wan carries between two machines, which have no other connection."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.a, self.b = lab.add("c", "10.0.9.1", "fd09::1"), lab.add("d", "10.0.9.2", "fd09::2")
        self._daemon: Daemon | None = None

    def lay(self, *options: str) -> None:
        self._daemon = self.a.popen(CHECKOUT / "scripts" / "wan", *options, self.a.name, self.b.name)
        self._daemon.wait_for("ready")
        for machine in (self.a, self.b):
            machine.run("ip", "address", "add", f"{machine.four}/24", "dev", "wan0")

    def send(self, sizes: list[int]) -> None:
        """Send datagrams of these sizes from a to b at once, after a ping has resolved the link-layer addresses."""
        self.a.run("ping", "-c1", "-W5", self.b.four)
        with inside(self.a.name), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for size in sizes:
                out.sendto(bytes(size), (self.b.four, PORT))

    def end(self) -> tuple[int, int, int]:
        """End the program; return how many packets from a to b it has carried, lost and dropped."""
        assert self._daemon is not None
        self._daemon.stop()
        found = re.search(rf"{self.a.name} to \S+: (\d+) carried, (\d+) lost, (\d+) dropped", self._daemon.log)
        assert found, self._daemon
        return int(found[1]), int(found[2]), int(found[3])


@pytest.fixture
def wan(lab: Lab) -> Wan:
    return Wan(lab)


def test_each_direction_has_the_delay(wan: Wan) -> None:
    wan.lay("--delay", "30", "--rate", "0")
    said = wan.a.run("ping", "-n", "-c4", "-i0.1", wan.b.four).stdout
    times = [float(found) for found in re.findall(r"time=([\d.]+)", said)]
    assert 60 <= min(times) < 75
    assert wan.end()[1:] == (0, 0)


def test_the_queue_counts_packets_whatever_their_size(wan: Wan) -> None:
    wan.lay("--delay", "0", "--rate", "1", "--queue", "20")
    wan.send([1400] * 20 + [10] * 20)  # 11 ms each at this rate, so all arrive before the third has been sent
    time.sleep(0.5)
    _, lost, dropped = wan.end()
    assert lost == 0
    assert 15 <= dropped <= 21  # one was on the wire


def test_a_small_packet_finds_room_in_a_queue_that_is_not_full(wan: Wan) -> None:
    wan.lay("--delay", "0", "--rate", "1", "--queue", "20")
    wan.send([1400] * 15 + [10] * 4)
    time.sleep(0.5)
    assert wan.end()[1:] == (0, 0)


def test_random_loss_has_the_share_that_is_asked_for(wan: Wan) -> None:
    wan.lay("--delay", "0", "--rate", "0", "--loss", "20")
    for machine, other in ((wan.a, wan.b), (wan.b, wan.a)):
        address = machine.run("cat", "/sys/class/net/wan0/address").stdout.strip()
        other.run("ip", "neighbour", "replace", machine.four, "lladdr", address, "dev", "wan0")
    with inside(wan.a.name), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for _ in range(3000):
            out.sendto(bytes(100), (wan.b.four, PORT))
    time.sleep(0.2)
    carried, lost, dropped = wan.end()
    assert dropped == 0
    assert 500 <= lost <= 700
    assert carried + lost >= 3000


def test_the_devices_disappear_with_the_program(wan: Wan) -> None:
    wan.lay()
    assert wan.a.has_device("wan0")
    wan.end()
    assert not wan.a.has_device("wan0")
