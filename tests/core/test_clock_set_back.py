"""A server asks a peer whose clock was set back for a handshake in return. So replays get answers, which do no harm.

Cases 7, 8 and 14 of test_attacks.py are about the same messages while the peer is heard.
"""

from __future__ import annotations

import pytest

from tests.core.fakes import FakeEndpoint, FakeTimestamps
from tests.core.pair import AT_LEFT, AT_RIGHT, CLIENT_KEYS, ELSEWHERE, SERVER_KEYS, Pair, Side, only, sent
from tests.core.simulation import World
from vpntun.core.endpoint import Endpoint
from vpntun.core.events import Established, Event, Moved, Transmit
from vpntun.errors import BadPacket, OldTimestamp
from vpntun.wire.message import INITIATION, kind_of

SILENCE = 30.0
OVER_TCP = FakeEndpoint("left", "tcp")


class SetBack(Pair):
    """A pair that has shaken hands; then left has lost all state and its clock has been set back.

    `recorded` are initiations that right has answered, oldest first.
    """

    def __init__(self, *, silent_for: float = SILENCE) -> None:
        super().__init__()
        self.left = Side(CLIENT_KEYS, SERVER_KEYS.public, self.rng, timestamps=FakeTimestamps(1000))
        self.recorded = []
        for _ in range(2):
            self.recorded.append(self.initiation())
            self.to_left(only(self.to_right(self.recorded[-1])))
            self.confirm()
            self.now += 6
        self.now += silent_for - 6
        self.left = Side(CLIENT_KEYS, SERVER_KEYS.public, self.rng, timestamps=FakeTimestamps(1))
        self.left.peer.endpoint = AT_RIGHT

    def refused(self, message: bytes, source: Endpoint = AT_LEFT) -> list[Event]:
        """Deliver an initiation to right, which refuses it, and return what right does then."""
        with pytest.raises(BadPacket, match="old timestamp") as caught:
            self.to_right(message, source)
        if isinstance(caught.value, OldTimestamp):
            return self.right.peer.ask_in_return(source, self.now)
        return []


def test_a_silent_peer_with_an_old_timestamp_is_asked_where_it_is_and_its_answer_moves_the_endpoint() -> None:
    pair = SetBack()
    (event,) = pair.refused(pair.initiation(), ELSEWHERE)
    assert isinstance(event, Transmit)
    assert event.endpoint == ELSEWHERE
    assert kind_of(event.message) == INITIATION
    assert pair.right.peer.endpoint == AT_LEFT
    assert pair.to_right(only(pair.to_left(event.message)), ELSEWHERE) == [Established(ELSEWHERE, initiator=True)]
    assert pair.right.peer.move_to(ELSEWHERE) == [Moved(ELSEWHERE, AT_LEFT)]
    pair.to_left(only(pair.right.peer.keepalive(ELSEWHERE, pair.now)))
    pair.assert_data_flows()


@pytest.mark.parametrize("source", [AT_LEFT, ELSEWHERE, OVER_TCP])
def test_a_peer_that_was_heard_less_than_30_seconds_ago_is_not_asked(source: Endpoint) -> None:
    pair = SetBack(silent_for=SILENCE - 0.1)
    assert pair.refused(pair.initiation(), source) == []
    pair.now += 5.1
    assert sent(pair.refused(pair.initiation(), source))


def test_replays_cannot_have_a_peer_asked_that_sends_persistent_keepalives() -> None:
    pair = SetBack(silent_for=6)
    for second in range(500):
        pair.now += 1
        if second % 25 == 0:
            pair.right.peer.timers.authenticated_received(pair.now)
        assert pair.refused(pair.recorded[0], ELSEWHERE) == []


def test_a_relay_of_the_answer_to_a_replay_is_the_path_until_the_peer_sends_from_its_own_address() -> None:
    pair = SetBack()
    pair.left = Side(CLIENT_KEYS, SERVER_KEYS.public, pair.rng, timestamps=FakeTimestamps(2000))
    pair.left.peer.endpoint = AT_RIGHT
    asked = only(pair.refused(pair.recorded[0], ELSEWHERE))
    assert pair.to_right(only(pair.to_left(asked)), ELSEWHERE) == [Established(ELSEWHERE, initiator=True)]
    pair.right.peer.move_to(ELSEWHERE)
    pair.to_left(only(pair.right.peer.keepalive(ELSEWHERE, pair.now)))
    assert pair.to_right(only(pair.left.peer.keepalive(AT_RIGHT, pair.now)), AT_LEFT) == [Moved(AT_LEFT, ELSEWHERE)]


def test_a_copy_of_the_newest_initiation_is_never_answered() -> None:
    pair = SetBack(silent_for=3600)
    assert pair.refused(pair.recorded[1], ELSEWHERE) == []


def test_an_address_inside_the_tunnel_is_not_asked() -> None:
    pair = SetBack()
    pair.right.peer._may_be_at = lambda endpoint: endpoint == AT_LEFT
    assert pair.refused(pair.recorded[0], ELSEWHERE) == []


def test_a_client_is_not_made_to_ask_by_it() -> None:
    pair = SetBack()
    pair.right.peer._chooses_carrier = True
    assert pair.refused(pair.recorded[0]) == []


def test_replays_get_one_message_in_five_seconds_however_many_and_wherever_from() -> None:
    pair = SetBack()
    answers = []
    for number in range(1000):
        answers += sent(pair.refused(pair.recorded[0], FakeEndpoint(f"place {number}")))
        pair.now += 0.02
    assert len(answers) == 4
    assert sum(map(len, answers)) <= 1000 * len(pair.recorded[0])


def test_replays_leave_session_endpoint_and_timers_alone_and_no_index_behind() -> None:
    pair = SetBack()
    peer, timers = pair.right.peer, pair.right.peer.timers
    current, indices = pair.right.current(), len(pair.right.node.indices)
    deadlines = timers.keepalive, timers.new_handshake, timers.zero_keys, timers.persistent
    for _ in range(10):
        assert sent(pair.refused(pair.recorded[0], ELSEWHERE))
        pair.now += 5
    assert pair.right.current() is current
    assert peer.endpoint == AT_LEFT
    assert (timers.keepalive, timers.new_handshake, timers.zero_keys, timers.persistent) == deadlines
    assert len(pair.right.node.indices) == indices + 1
    peer.forget()
    assert len(pair.right.node.indices) == 0


def test_replays_do_not_keep_this_end_from_asking_its_peer_nor_the_peer_from_answering() -> None:
    pair = SetBack()
    pair.left = Side(CLIENT_KEYS, SERVER_KEYS.public, pair.rng, timestamps=FakeTimestamps(2000))
    pair.left.peer.endpoint = AT_RIGHT
    assert sent(pair.refused(pair.recorded[0], ELSEWHERE))
    asked = only(pair.right.peer.initiate(AT_LEFT, pair.now))
    assert sent(pair.refused(pair.recorded[0], ELSEWHERE)) == []
    pair.to_right(only(pair.to_left(asked)))
    pair.to_left(only(pair.right.peer.keepalive(AT_LEFT, pair.now)))
    pair.assert_data_flows()
    pair.now += 121
    pair.shake_hands()


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("transport", ["udp", "tcp", "auto"])
def test_a_client_whose_clock_starts_in_1970_at_each_boot_gets_in(plain: bool, transport: str) -> None:
    world = World(transport, plain=plain)  # type: ignore[arg-type]
    for boot in range(3):
        world._timestamps = FakeTimestamps(1000 if boot == 0 else 1), world._timestamps[1]
        world.restart_client()
        world.until_through(40)
        assert world.talk(100) == 0
