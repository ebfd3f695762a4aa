"""Handshakes beside data: when they are processed, what they may take of the time, and who gets in under load."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import ExpectedErrors
from tests.datapath.ends import ALICE, BOB, CAROL, PSK, STRANGER, End, TwoEnds, ipv4, sealed
from tests.machine import HandLoop, logged
from vpntun.carriers.fake import FakeEndpoint, FakeSource
from vpntun.core.endpoint import Reachable
from vpntun.core.wireguard.admission import MANY
from vpntun.crypto.cookies import CookieJar
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.noise import Initiator
from vpntun.wire.message import COOKIE_REPLY, RESPONSE

HERE, THERE = "10.0.1.1", "10.0.2.2"
MAC2 = slice(-16, None)
NO_MAC = bytes(16)
SLOW = 0.0003
"""Seconds that a handshake takes on a slow machine."""


def initiation(identity: KeyPair = STRANGER, stamp: int = 10) -> bytes:
    return Initiator(identity, BOB.public, PSK).initiation(77, stamp.to_bytes(12, "big"))


def kinds(endpoint: FakeEndpoint) -> list[int]:
    return [message[0] for message in endpoint.sent]


class Town(TwoEnds):
    """Alice and Bob. A crowd sends what Bob must compute something for, from an address of its own."""

    def __init__(self, loop: HandLoop) -> None:
        super().__init__(End(ALICE, loop), End(BOB, loop))
        self.to_bob, self.to_alice = self.alice.link, self.bob.link
        self.crowd = FakeEndpoint("the crowd")
        self.crowd.origin = bytes((198, 51, 100, 1, 0, 7))
        self.queue = self.bob.node.admission

    def load(self) -> None:
        """Put Bob under load."""
        self.bob.take_together([initiation()] * MANY, self.crowd)
        self.loop.until(lambda: not self.queue)
        assert self.queue.is_loaded(self.loop.now)
        self.bob.drops.clear()

    def ask(self) -> bytes:
        """Let Alice ask Bob for a session again; return her initiation."""
        self.to_bob.peer.forget_handshake("udp")
        self.to_bob.act(self.to_bob.peer.initiate(self.wire.to_right, self.loop.now))
        (asked,) = self.wire.to_right.sent
        return asked

    @property
    def has_session(self) -> bool:
        return self.to_bob.peer.sending_session(self.loop.now) is not None


class Slow(FakeEndpoint):
    """The source of handshakes that take Bob a while each: `takes` seconds."""

    def __init__(self, town: Town) -> None:
        self._clock = town.loop.clock
        self.takes = SLOW
        super().__init__("slow")

    @property
    def is_open(self) -> bool:
        self._clock.now += self.takes
        return True

    @is_open.setter
    def is_open(self, is_open: bool) -> None: ...


def share_beside_data(town: Town, descriptors: int, data: float) -> float:
    """Return the share of half a second that Bob spends on waiting messages of `Slow` sources.

    `descriptors`: those with data to read in each turn, each for `data` seconds.
    """
    clock = town.loop.clock

    def read() -> None:
        clock.now += data
        town.bob.engine.read_datagrams(FakeSource())

    with busy_descriptors(town, descriptors, read):
        begun_at, before = clock(), len(town.queue)
        while clock() < begun_at + 0.5:
            town.loop.poll()
        processed = before - len(town.queue)
    assert town.queue, "not enough messages waited"
    return processed * SLOW / (clock() - begun_at)


@contextmanager
def busy_descriptors(town: Town, number: int, read: Callable[[], None]) -> Iterator[None]:
    """Watch descriptors that are always readable, and call `read` for each in each turn."""
    descriptors = [os.eventfd(1) for _ in range(number)]
    for descriptor in descriptors:
        town.loop.watch(descriptor, read)
    try:
        yield
    finally:
        for descriptor in descriptors:
            town.loop.forget(descriptor)
            os.close(descriptor)


@pytest.fixture
def town(loop: HandLoop) -> Iterator[Town]:
    made = Town(loop)
    yield made
    made.close()


# Order


def test_a_message_that_comes_alone_is_answered_in_the_turn_in_which_it_came(town: Town) -> None:
    turns = town.loop.turns
    town.bob.take(initiation(ALICE), town.wire.to_left)
    assert kinds(town.wire.to_left) == [RESPONSE]
    assert town.loop.turns == turns


def test_data_of_the_same_read_is_delivered_first(town: Town) -> None:
    town.wire.shake_hands()
    town.loop.pass_time(1.0)
    data = sealed(town.to_bob, ipv4(HERE, THERE, b"data"))
    delivered: list[int] = []
    town.wire.to_left.expect = lambda peer: delivered.append(len(town.bob.device.packets))  # type: ignore[method-assign]
    town.bob.take_together([initiation(ALICE, 1000), data], town.wire.to_left)
    assert delivered == [1]


@pytest.mark.parametrize("descriptors", [1, 8, 32])
@pytest.mark.parametrize("data", [0.00005, 0.001, 0.004])
def test_while_data_flows_handshakes_take_a_fifth_of_the_time(town: Town, descriptors: int, data: float) -> None:
    town.loop.clock.ticks = 0.000001
    town.bob.take_together([initiation()] * 600, Slow(town))
    assert 0.18 <= share_beside_data(town, descriptors, data) <= 0.22


def test_a_flood_from_many_addresses_that_all_have_cookies_takes_no_more_than_that(town: Town) -> None:
    town.load()
    town.loop.clock.ticks = 0.000001
    for number in range(600):
        source, jar = Slow(town), CookieJar(BOB.public)
        source.origin = bytes((203, 0, number // 250, number % 250, 0, 7))
        town.bob.take(jar.protect(initiation(), "path", town.loop.now), source)
        (reply,) = source.take()
        jar.take(reply, "path", town.loop.now)
        town.bob.take(jar.protect(initiation(), "path", town.loop.now), source)
    assert town.bob.drops["under load"] == 600
    assert share_beside_data(town, descriptors=8, data=0.001) <= 0.22


def test_without_data_handshakes_take_all_the_time_even_while_more_come(town: Town) -> None:
    """Three more come in each millisecond, which is as long as three of them take."""
    clock = town.loop.clock
    clock.ticks = 0.000001
    slow = Slow(town)
    town.bob.take_together([initiation()] * 900, slow)
    begun_at, came = clock(), 0
    while clock() < begun_at + 0.5:
        town.loop.poll()
        if clock() - begun_at > (came + 1) * 0.001:
            town.bob.take_together([initiation()] * 3, slow)
            came += 1
    processed = 900 + 3 * came - len(town.queue)
    assert processed * slow.takes >= 0.9 * (clock() - begun_at)


def test_after_many_handshakes_without_data_the_next_ones_have_their_share_beside_data(town: Town) -> None:
    town.loop.clock.ticks = 0.000001
    slow = Slow(town)
    town.bob.take_together([initiation()] * 500, slow)
    town.loop.until(lambda: not town.queue)

    def read() -> None:
        town.loop.clock.now += 0.001
        town.bob.engine.read_datagrams(FakeSource())

    with busy_descriptors(town, 1, read):
        town.loop.poll()
        town.bob.take_together([initiation()] * 20, slow)
        for _ in range(10):
            town.loop.poll()
    assert 5 <= 20 - len(town.queue) <= 15


def test_a_message_that_comes_after_a_rest_is_answered_in_its_turn_whatever_the_last_one_took(town: Town) -> None:
    town.loop.clock.ticks = 0.000001
    slow = Slow(town)
    slow.takes = 0.1
    town.bob.take(initiation(), slow)
    assert not town.queue
    town.loop.pass_time(0.5)
    town.bob.take(initiation(ALICE), town.wire.to_left)
    assert kinds(town.wire.to_left) == [RESPONSE]


def test_after_a_long_rest_handshakes_still_leave_time_for_data(town: Town) -> None:
    town.loop.pass_time(1000.0)
    town.loop.clock.ticks = 0.001
    town.bob.take_together([initiation()] * 40, town.crowd)
    assert 30 < len(town.queue) < 40


def test_the_loop_does_not_sleep_while_messages_wait(town: Town) -> None:
    town.loop.clock.ticks = 0.001
    town.bob.take_together([initiation()] * 20, town.crowd)
    while town.queue:
        town.loop.turn(lambda _: float("inf"), lambda _: None)
    assert town.bob.drops == {"unknown peer": 20}


# What may have changed meanwhile


def delayed(town: Town, message: bytes, source: FakeEndpoint) -> None:
    """Deliver a message to Bob that waits behind others."""
    town.loop.clock.ticks = 0.001
    town.bob.take_together([initiation()] * 20, town.crowd)
    town.bob.take(message, source)
    assert len(town.queue) > 1


def test_a_connection_that_has_closed_while_its_message_waited_gets_nothing(town: Town) -> None:
    connection = FakeEndpoint("a connection", "tcp")
    delayed(town, initiation(ALICE), connection)
    connection.close()
    town.loop.until(lambda: not town.queue)
    assert town.bob.drops["closed connection"] == 1
    assert connection.sent == []
    assert connection.expected_peer is None


def test_a_message_of_a_peer_that_was_removed_meanwhile_is_dropped(town: Town) -> None:
    delayed(town, initiation(ALICE), town.wire.to_left)
    town.bob.engine.remove(town.to_alice)
    town.loop.until(lambda: not town.queue)
    assert town.bob.drops == {"unknown peer": 21}
    assert town.wire.to_left.sent == []


def test_a_response_for_a_peer_that_was_removed_meanwhile_is_dropped(town: Town) -> None:
    town.bob.take(town.ask(), town.wire.to_left)
    (answer,) = town.wire.to_left.take()
    town.loop.clock.ticks = 0.001
    to_alice = [Initiator(STRANGER, ALICE.public, PSK).initiation(9, bytes(12))] * 9
    town.alice.take_together([*to_alice, answer], town.wire.to_right)
    town.alice.engine.remove(town.to_bob)
    town.loop.until(lambda: not town.alice.node.admission)
    assert town.alice.drops["unknown index"] == 1


def test_a_bug_in_one_handshake_does_not_hold_up_the_next(town: Town, expected_errors: ExpectedErrors) -> None:
    class Buggy(FakeEndpoint):
        def expect(self, peer: Reachable) -> None:
            raise RuntimeError("a bug")

    town.bob.know(CAROL.public, ["10.0.3.0/24"])
    delayed(town, initiation(CAROL), Buggy("buggy"))
    town.bob.take(initiation(ALICE), town.wire.to_left)
    town.loop.until(lambda: not town.queue)
    assert expected_errors.take() == ["RuntimeError('a bug')"]
    assert kinds(town.wire.to_left) == [RESPONSE]


# Load


def test_under_load_a_peer_gets_a_cookie_and_gets_in_with_its_next_message(town: Town) -> None:
    town.load()
    asked = town.ask()
    assert asked[MAC2] == NO_MAC
    town.wire.run()
    assert not town.has_session
    assert town.bob.drops == {"under load": 1}
    town.loop.pass_time(0.5)
    assert town.ask()[MAC2] != NO_MAC
    town.wire.run()
    assert town.has_session
    packet = ipv4(HERE, THERE, b"in")
    town.alice.send(packet)
    town.wire.run()
    assert town.bob.device.packets == [packet]


def test_the_answer_of_a_peer_to_a_loaded_end_brings_a_cookie_too(town: Town) -> None:
    """Alice is loaded, and calls Bob. The second response in her queue is asked for a cookie; Bob's next one has it."""
    to_alice = Initiator(STRANGER, ALICE.public, PSK).initiation(9, bytes(12))
    town.alice.take_together([to_alice] * MANY, town.crowd)
    town.loop.until(lambda: not town.alice.node.admission)
    town.bob.take(town.ask(), town.wire.to_left)
    town.wire.to_right.take()
    (answer,) = town.wire.to_left.take()
    assert answer[MAC2] == NO_MAC
    town.alice.take_together([answer, answer], town.wire.to_right)
    (cookie,) = (message for message in town.wire.to_right.take() if message[0] == COOKIE_REPLY)
    town.bob.take(cookie, town.wire.to_left)
    town.loop.pass_time(0.5)
    town.bob.take(town.ask(), town.wire.to_left)
    (answer,) = town.wire.to_left.take()
    assert answer[MAC2] != NO_MAC


def test_a_cookie_reply_has_nothing_repeated_and_moves_no_endpoint(town: Town) -> None:
    town.load()
    town.bob.take(town.ask(), town.wire.to_left)
    town.wire.to_right.take()
    (cookie,) = town.wire.to_left.take()
    assert cookie[0] == COOKIE_REPLY
    elsewhere = FakeEndpoint("elsewhere")
    endpoint, heard_at = town.to_bob.endpoint, town.to_bob.peer.timers.heard_at
    with logged() as lines:
        town.alice.take_together([cookie, cookie], elsewhere)
    assert town.to_bob.endpoint is endpoint
    assert town.to_bob.peer.timers.heard_at == heard_at
    assert elsewhere.expected_peer is None
    assert elsewhere.sent == town.wire.to_right.sent == []
    assert town.alice.drops == {"unasked cookie": 1}
    assert len([line for line in lines if "is under load" in line]) == 1


def test_under_load_no_stranger_costs_more_than_a_cookie_reply(town: Town) -> None:
    town.load()
    town.bob.take_together([initiation()] * 50, town.crowd)
    assert not town.queue
    assert kinds(town.crowd) == [COOKIE_REPLY] * 50
    assert town.bob.drops == {"under load": 50}


def test_no_cookie_reply_is_sent_while_the_socket_is_full_and_data_waits(town: Town) -> None:
    town.load()
    town.crowd.is_ready = False
    town.bob.take(initiation(), town.crowd)
    assert town.crowd.urgent == []
    assert town.bob.drops == {"under load": 1}


def test_under_load_a_connection_gets_its_answer_at_once(town: Town) -> None:
    town.load()
    connection = FakeEndpoint("a connection", "tcp")
    town.bob.take(initiation(ALICE), connection)
    assert kinds(connection) == [RESPONSE]


def test_a_load_is_logged_once(town: Town) -> None:
    with logged() as lines:
        town.load()
        town.bob.take_together([initiation()] * 50, town.crowd)
    assert len([line for line in lines if line.startswith("under load")]) == 1


def test_a_session_goes_on_under_load(town: Town) -> None:
    town.wire.shake_hands()
    town.load()
    for number in range(20):
        packet = ipv4(HERE, THERE, b"packet %d" % number)
        town.alice.send(packet)
        message, *_ = town.wire.to_right.take()  # a PARITY may follow
        flood = [(memoryview(bytearray(initiation_)), 0, 1, town.crowd, 0) for initiation_ in [initiation()] * 20]
        town.bob.engine.read_datagrams(FakeSource(*flood, (memoryview(bytearray(message)), 0, 1, town.wire.to_left, 0)))
        assert town.bob.device.packets[-1] == packet
