"""Many peers on one server: all connect at once and exchange packets, and a day of new sessions leaks no memory.

The test sets the clock, so that a day takes only as long as its handshakes. `scripts/load` measures the cost.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.carriers.test_udp_socket import free_port
from tests.machine import HandLoop
from tests.many import Crowd, Server, memory, network_of, networks_behind, settings_of, write_file
from vpntun.config.file import read_file
from vpntun.core.wireguard.timers import REKEY_TIMEOUT
from vpntun.crypto.session import REKEY_AFTER_TIME

STEP = 0.02
"""Seconds from turn to turn: the delay of every datagram. A turn reads some 60 datagrams from a socket."""
LONG_STEP = 0.25
"""The same while little is sent, so that a day passes in fewer turns."""
AT_ONCE = 25
"""Members that send in one turn: no more than a socket's buffer holds."""
LONGEST_SESSION = 150
"""Seconds. After 120 the next keepalive asks for a new session, and keepalives are 25 apart."""
HELLO = b"hello"


class Town:
    """A server, its crowd, and the clock of both."""

    def __init__(self, count: int, loop: HandLoop, state: Path) -> None:
        port = free_port(2)
        self.count = count
        self.loop = loop
        self.server = Server(loop, port, map(settings_of, range(count)), state)
        self.crowd = Crowd(loop, port, count)
        loop.deadline = lambda: min(self.server.schedule.deadline(), self.crowd.schedule.deadline())
        loop.on_deadline = self._handle_deadlines
        self.server.start()

    def pass_time(self, seconds: float, step: float = STEP) -> None:
        for _ in range(round(seconds / step)):
            self.loop.pass_time(step)

    def connect_one_by_one(self) -> None:
        """Connect the members one by one, spread over the interval at which they then renew their sessions."""
        for member in self.crowd.members:
            member.start()
            self.pass_time(REKEY_AFTER_TIME / self.count)
        self.pass_time(REKEY_TIMEOUT)

    def renewals(self, minutes: int) -> int:
        """Let time pass without traffic; return how many new sessions there were."""
        renewals = 0
        last = self._handshakes()
        for _ in range(minutes):
            self.pass_time(60, LONG_STEP)
            former, last = last, self._handshakes()
            renewals += sum(now != before for now, before in zip(last, former, strict=True))
        return renewals

    def talk(self) -> None:
        """Send a packet from every member and one to every member, and check that they arrive and nobody moved."""
        members = self.crowd.members
        got = [member.got for member in members]
        self.server.device.packets.clear()
        for first in range(0, self.count, AT_ONCE):
            few = members[first : first + AT_ONCE]
            self.crowd.send(few, HELLO)
            self.server.send([member.number for member in few], HELLO)
            self.pass_time(0.5)
        assert sorted(self.server.device.packets) == sorted(member.packet(HELLO) for member in members)
        assert [member.got - before for member, before in zip(members, got, strict=True)] == [1] * self.count
        assert not self.server.all_drops()
        assert sorted(self.server.moves.values()) == [1] * self.count, "each member has one address"

    def close(self) -> None:
        self.crowd.close()
        self.server.close()

    def _handle_deadlines(self) -> None:
        self.server.schedule.handle(self.loop.now)
        self.crowd.schedule.handle(self.loop.now)

    def _handshakes(self) -> list[float | None]:
        return [link.peer.last_handshake for link in self.server.engine.links.values()]


@pytest.fixture
def new_town(tmp_path: Path) -> Iterator[Callable[[int], Town]]:
    loop = HandLoop()
    towns: list[Town] = []

    def new(count: int) -> Town:
        towns.append(Town(count, loop, tmp_path))
        return towns[-1]

    yield new
    for town in towns:
        town.close()
    loop.close()


def blocks() -> int:
    """Return how many blocks of memory Python has allocated."""
    gc.collect()
    return sys.getallocatedblocks()


def test_a_thousand_peers_that_call_at_once_are_all_connected_and_exchange_packets(
    new_town: Callable[[int], Town],
) -> None:
    town = new_town(1000)
    for member in town.crowd.members:
        member.start()
    town.pass_time(4 * REKEY_TIMEOUT)  # members whose first call found the socket's buffer full call again
    assert town.server.connected() == town.crowd.connected() == 1000
    town.talk()


@pytest.mark.parametrize(
    ("count", "minutes"),
    [
        pytest.param(50, 60, id="50 for an hour"),
        pytest.param(1000, 24 * 60, id="1000 for a day", marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)
def test_after_many_new_sessions_all_peers_exchange_packets_and_no_memory_is_leaked(
    count: int, minutes: int, new_town: Callable[[int], Town]
) -> None:
    town = new_town(count)
    town.connect_one_by_one()
    town.talk()
    town.renewals(10)  # state of a session is kept for at most nine minutes
    in_use, kilobytes = blocks(), memory()
    assert town.renewals(minutes) > count * minutes * 60 // LONGEST_SESSION
    assert blocks() < in_use + 10 * count
    assert memory() < 1.1 * kilobytes
    assert len(town.server.engine.node.indices) <= 3 * count
    town.talk()


def test_130000_allowed_ips_are_set_up_and_a_change_of_one_peer_does_not_affect_the_others(
    new_town: Callable[[int], Town], tmp_path: Path
) -> None:
    town = new_town(1000)
    links = town.server.links
    path = write_file(tmp_path, 1000, 129)
    peers = read_file(path, "many0").peers
    assert links.change(peers) == (0, 0, 1000)
    assert len(town.server.engine.routes) == 130_000
    for number in (0, 499, 999):
        for network in (network_of(number), *networks_behind(number, 129)):
            assert town.server.engine.routes.find(network[7].packed) is town.server.link(number)
    again = read_file(path, "many0").peers
    assert links.change(again) == (0, 0, 0)
    assert links.change([replace(again[0], allowed=again[1].allowed), *again[1:]]) == (0, 0, 1)
    assert len(town.server.engine.routes) == 130_000 - 130
