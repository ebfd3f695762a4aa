"""Two peers: every row of WireGuard's timers, limits on a session's use, rate of handshakes, roaming."""

from __future__ import annotations

import pytest

from tests.core.fakes import FakeEndpoint, FakeTimestamps
from tests.core.pair import AT_LEFT, AT_RIGHT, CLIENT_KEYS, SERVER_KEYS, Pair, Side, only, refusal, sent
from vpntun.core.endpoint import Endpoint
from vpntun.core.events import Established, Event, HandshakeWanted, Moved, Transmit
from vpntun.core.wireguard.timers import LARGEST_JITTER
from vpntun.crypto.session import REJECT_AFTER_MESSAGES
from vpntun.types import NEVER
from vpntun.wire.message import DATA_HEADER, DATA_OVERHEAD, receiver_of

OVER_TCP = FakeEndpoint("right", "tcp")


def ready(keepalive: float = 0.0) -> Pair:
    """A pair with a session, and no timer pending on the left."""
    pair = Pair(keepalive=keepalive)
    pair.shake_hands()
    return pair


def wanted(events: list[Event]) -> bool:
    return HandshakeWanted() in events


def test_a_handshake_gives_both_ends_a_session_and_data_flows_both_ways() -> None:
    pair = Pair()
    response = only(pair.to_right(pair.initiation()))
    assert pair.to_left(response) == [Established(AT_RIGHT, initiator=True)]
    assert pair.confirm() == [Established(AT_LEFT, initiator=False), Moved(AT_LEFT, None)]
    pair.assert_data_flows()
    assert pair.left.peer.last_handshake == pair.right.peer.last_handshake == pair.now


def test_either_end_may_ask() -> None:
    pair = Pair()
    response = only(pair.to_left(only(pair.right.peer.initiate(AT_LEFT, pair.now)), AT_RIGHT))
    assert pair.to_right(response) == [Established(AT_LEFT, initiator=True)]
    keepalive = only(pair.right.peer.keepalive(AT_LEFT, pair.now))
    assert pair.to_left(keepalive) == [Established(AT_RIGHT, initiator=False)]
    pair.right.peer.move_to(AT_LEFT)
    pair.assert_data_flows()


def test_the_responder_sends_nothing_before_the_first_data_message() -> None:
    pair = Pair()
    pair.to_left(only(pair.to_right(pair.initiation())))
    assert pair.right.peer.sending_session(pair.now) is None
    assert pair.right.peer.keepalive(AT_LEFT, pair.now) == []
    pair.to_right(pair.left.data(b"first", pair.now))
    assert pair.right.received == [b"first"]
    assert pair.right.peer.sending_session(pair.now) is not None


def test_both_ends_ask_at_once_and_data_flows() -> None:
    pair = Pair()
    to_right = pair.initiation()
    to_left = only(pair.right.peer.initiate(AT_LEFT, pair.now))
    answer_to_right = only(pair.to_left(to_left))
    answer_to_left = only(pair.to_right(to_right))
    pair.to_left(answer_to_left)
    pair.to_right(answer_to_right)
    pair.assert_data_flows()


def test_a_rekey_loses_nothing_that_is_under_way() -> None:
    pair = ready()
    late_to_right, late_to_left = pair.left.data(b"a", pair.now), pair.right.data(b"b", pair.now)
    pair.now += 121
    pair.shake_hands()
    pair.to_right(late_to_right)
    pair.to_left(late_to_left)
    assert pair.right.received == [b"a"]
    assert pair.left.received == [b"b"]
    pair.assert_data_flows()


def test_sessions_that_are_dropped_give_their_indices_back() -> None:
    pair = ready()
    for _ in range(10):
        pair.now += 121
        pair.shake_hands()
    assert len(pair.left.node.indices) == len(pair.left.peer.keys.all()) == 2
    assert len(pair.right.node.indices) == len(pair.right.peer.keys.all()) == 2


def test_an_answer_given_before_the_other_end_was_restarted_does_not_replace_the_session_in_use() -> None:
    pair = Pair()
    late = only(pair.to_left(only(pair.right.peer.initiate(AT_LEFT, pair.now))))
    pair.left = Side(CLIENT_KEYS, SERVER_KEYS.public, pair.rng, timestamps=FakeTimestamps(100))
    pair.now += 1
    pair.shake_hands()
    pair.to_right(late)
    pair.assert_data_flows()


# The timers


def test_data_received_is_answered_by_a_keepalive_10_seconds_later() -> None:
    pair = ready()
    pair.to_right(pair.left.data(b"x", pair.now))
    assert pair.right.peer.timers.earliest() == pair.now + 10
    assert pair.right.peer.handle_timers(pair.now + 9.9) == []
    keepalive = only(pair.right.peer.handle_timers(pair.now + 10))
    assert len(keepalive) == DATA_OVERHEAD
    assert pair.right.peer.handle_timers(pair.now + 100) == []


def test_data_that_came_while_a_keepalive_was_pending_asks_for_another_10_seconds_after_it() -> None:
    pair = ready()
    start = pair.now
    for _ in range(3):
        pair.to_right(pair.left.data(b"x", pair.now))
        pair.now += 2
    assert sent(pair.right.peer.handle_timers(start + 10))
    assert pair.right.peer.handle_timers(start + 19.9) == []
    assert sent(pair.right.peer.handle_timers(start + 20))
    assert pair.right.peer.handle_timers(start + 100) == []


def test_any_send_cancels_the_keepalive_and_the_need_for_another() -> None:
    pair = ready()
    pair.to_right(pair.left.data(b"x", pair.now))
    pair.to_right(pair.left.data(b"y", pair.now))
    pair.right.data(b"z", pair.now + 5)
    assert sent(pair.right.peer.handle_timers(pair.now + 15)) == []


def test_a_keepalive_is_not_answered() -> None:
    pair = ready()
    assert pair.right.peer.timers.keepalive == NEVER
    assert sent(pair.right.peer.handle_timers(pair.now + 100)) == []


def test_data_that_stays_unanswered_for_15_seconds_asks_for_a_handshake() -> None:
    pair = ready()
    pair.left.data(b"x", pair.now)
    pair.left.data(b"y", pair.now + 5)
    assert not wanted(pair.left.peer.handle_timers(pair.now + 14.9))
    assert wanted(pair.left.peer.handle_timers(pair.now + 15 + LARGEST_JITTER))
    assert not wanted(pair.left.peer.handle_timers(pair.now + 100))


def test_a_peer_is_silent_if_nothing_arrived_for_15_seconds_after_data_was_sent() -> None:
    pair = ready()
    start, timers = pair.now, pair.left.peer.timers
    assert timers.heard_at == start
    assert not timers.is_silent(start + 100)
    pair.left.data(b"x", start)
    pair.left.data(b"y", start + 5)
    assert not timers.is_silent(start + 14.9)
    assert timers.is_silent(start + 15)
    assert wanted(pair.left.peer.handle_timers(start + 16))
    pair.left.data(b"z", start + 17)
    assert timers.is_silent(start + 17)
    pair.now = start + 18
    pair.to_left(only(pair.right.peer.keepalive(AT_LEFT, pair.now)))
    assert timers.heard_at == pair.now
    assert not timers.is_silent(pair.now + 100)


def test_a_handshake_measures_the_round_trip_at_both_ends() -> None:
    pair = Pair()
    assert pair.left.peer.round_trip == pair.right.peer.round_trip == 0
    initiation = pair.initiation()
    pair.now += 0.2
    response = only(pair.to_right(initiation))
    pair.now += 0.1
    pair.to_left(response)
    pair.now += 0.15
    pair.confirm()
    assert pair.left.peer.round_trip == pytest.approx(0.3)
    assert pair.right.peer.round_trip == pytest.approx(0.25)


def test_anything_received_cancels_the_new_handshake() -> None:
    pair = ready()
    pair.left.data(b"x", pair.now)
    pair.to_left(only(pair.right.peer.keepalive(AT_LEFT, pair.now)))
    assert pair.left.peer.handle_timers(pair.now + 100) == []


def test_keepalives_alone_never_ask_for_a_handshake() -> None:
    pair = ready()
    pair.left.peer.keepalive(AT_RIGHT, pair.now)
    assert pair.left.peer.handle_timers(pair.now + 100) == []


def test_every_key_is_wiped_540_seconds_after_the_last_handshake() -> None:
    pair = ready()
    start = pair.now
    pair.now += 200
    pair.shake_hands()
    sessions = pair.left.peer.keys.all()
    pair.left.peer.initiate(AT_RIGHT, start + 300)
    pair.left.peer.handle_timers(start + 200 + 539)
    assert pair.left.peer.keys.all() == sessions
    pair.left.peer.handle_timers(start + 200 + 540)
    assert pair.left.peer.keys.all() == []
    assert len(pair.left.node.indices) == 0
    for session in sessions:
        assert not session.may_send(session.created)


def test_the_persistent_keepalive_goes_out_when_the_path_was_quiet() -> None:
    pair = ready(keepalive=25)
    start = pair.now
    assert sent(pair.left.peer.handle_timers(start + 24.9)) == []
    assert sent(pair.left.peer.handle_timers(start + 25))
    pair.now = start + 40
    pair.to_left(only(pair.right.peer.keepalive(AT_LEFT, pair.now)))
    assert sent(pair.left.peer.handle_timers(start + 64.9)) == []
    assert sent(pair.left.peer.handle_timers(start + 65))


def test_the_persistent_keepalive_asks_for_a_handshake_where_there_is_no_session() -> None:
    pair = Pair(keepalive=25)
    pair.initiation()
    assert pair.left.peer.handle_timers(pair.now + 25) == [HandshakeWanted()]
    assert pair.left.peer.handle_timers(pair.now + 26) == []
    assert pair.left.peer.handle_timers(pair.now + 50) == [HandshakeWanted()]


def test_no_persistent_keepalive_unless_asked_for() -> None:
    pair = ready()
    assert pair.left.peer.handle_timers(pair.now + 400) == []


# The limits on a session's use


def test_the_initiator_renews_a_session_that_it_sends_with_after_120_seconds() -> None:
    pair = ready()
    session = pair.left.current()
    assert not pair.left.peer.is_due_for_renewal(session, pair.now + 120)
    assert pair.left.peer.is_due_for_renewal(session, pair.now + 120.1)
    assert wanted(pair.left.peer.keepalive(AT_RIGHT, pair.now + 120.1))


def test_the_responder_leaves_renewal_to_the_initiator() -> None:
    pair = ready()
    session = pair.right.current()
    assert not pair.right.peer.is_due_for_renewal(session, pair.now + 179)
    assert not wanted(pair.right.peer.keepalive(AT_LEFT, pair.now + 179))
    pair.now += 179
    assert not wanted(pair.to_right(pair.left.data(b"x", pair.now)))


def test_the_initiator_renews_on_receiving_after_165_seconds_once_a_session() -> None:
    pair = ready()
    messages = [pair.right.data(b"x", pair.now) for _ in range(4)]
    start = pair.now
    pair.now = start + 165
    assert not wanted(pair.to_left(messages[0]))
    pair.now = start + 165.1
    assert wanted(pair.to_left(messages[1]))
    assert not wanted(pair.to_left(messages[2]))
    pair.shake_hands()
    pair.now += 166
    assert wanted(pair.to_left(pair.right.data(b"y", pair.now)))


def test_late_data_on_the_session_before_does_not_renew_the_fresh_one() -> None:
    pair = ready()
    late = pair.right.data(b"late", pair.now)
    pair.now += 166
    pair.shake_hands()
    assert not wanted(pair.to_left(late))


def test_a_session_is_refused_at_180_seconds_both_ways() -> None:
    pair = ready()
    message = pair.left.data(b"x", pair.now)
    start = pair.now
    assert pair.left.peer.sending_session(start + 179.9) is not None
    assert pair.left.peer.sending_session(start + 180) is None
    assert pair.left.peer.keepalive(AT_RIGHT, start + 180) == []
    assert refusal(pair.right, message, AT_LEFT, start + 180) == "expired session"


@pytest.mark.parametrize("side", ["left", "right"])
def test_either_end_renews_past_2_to_the_60_messages(side: str) -> None:
    pair = ready()
    end = getattr(pair, side)
    end.current().send_counter = 2**60 - 1
    assert not wanted(end.peer.keepalive(AT_RIGHT, pair.now))
    assert wanted(end.peer.keepalive(AT_RIGHT, pair.now))


def test_the_last_counter_is_used_and_then_packets_wait_for_a_handshake() -> None:
    pair = ready()
    session = pair.left.current()
    session.send_counter = REJECT_AFTER_MESSAGES - 1
    message = pair.left.data(b"last", pair.now)
    assert DATA_HEADER.unpack_from(message)[2] == REJECT_AFTER_MESSAGES - 1
    pair.to_right(message)
    assert pair.right.received == [b"last"]
    assert pair.left.peer.sending_session(pair.now) is None
    assert pair.left.peer.keepalive(AT_RIGHT, pair.now) == []
    pair.now += 5
    pair.shake_hands()
    pair.assert_data_flows()


# The rate of handshakes


def test_an_initiation_goes_out_at_most_every_5_seconds_on_each_carrier() -> None:
    pair = Pair()
    peer = pair.left.peer
    assert sent(peer.initiate(AT_RIGHT, pair.now))
    assert sent(peer.initiate(OVER_TCP, pair.now))
    for endpoint in (AT_RIGHT, FakeEndpoint("another"), OVER_TCP):
        assert peer.initiate(endpoint, pair.now + 4.9) == []
    assert sent(peer.initiate(FakeEndpoint("another"), pair.now + 5))
    assert sent(peer.initiate(OVER_TCP, pair.now + 5))


def test_a_response_sent_counts_as_an_initiation_on_its_carrier_alone() -> None:
    pair = Pair()
    pair.to_right(pair.initiation())
    assert pair.right.peer.initiate(AT_LEFT, pair.now + 4.9) == []
    assert sent(pair.right.peer.initiate(FakeEndpoint("left", "tcp"), pair.now + 4.9))
    assert sent(pair.right.peer.initiate(AT_LEFT, pair.now + 5))


def test_the_two_carriers_handshakes_are_different_messages_and_both_are_answered() -> None:
    pair = Pair()
    over_udp, over_tcp = pair.initiation(), pair.initiation(OVER_TCP)
    assert over_udp[8:] != over_tcp[8:]
    answer_over_udp = only(pair.to_right(over_udp))
    pair.now += 0.03
    answer_over_tcp = only(pair.to_right(over_tcp, FakeEndpoint("left", "tcp")))
    assert pair.to_left(answer_over_tcp, OVER_TCP) == [Established(OVER_TCP, initiator=True)]
    pair.confirm()
    assert pair.to_left(answer_over_udp) == [Established(AT_RIGHT, initiator=True)]
    pair.assert_data_flows()


def test_a_new_initiation_supersedes_the_last_on_its_carrier() -> None:
    pair = Pair()
    first = only(pair.to_right(pair.initiation()))
    pair.now += 5
    pair.initiation()
    assert refusal(pair.left, first, AT_RIGHT, pair.now) == "unknown index"
    assert len(pair.left.node.indices) == 1


def test_copies_of_an_initiation_are_one_handshake_and_the_round_trip_is_that_of_the_copy_answered() -> None:
    pair = Pair()
    elsewhere = FakeEndpoint("right, at another address")
    assert pair.left.peer.initiate_also(elsewhere, pair.now) == []
    first = only(pair.left.peer.initiate(AT_RIGHT, pair.now))
    pair.now += 0.25
    [copy] = pair.left.peer.initiate_also(elsewhere, pair.now)
    assert copy == Transmit(elsewhere, first)
    pair.now += 0.125
    response = only(pair.to_right(first))
    assert refusal(pair.right, first, AT_LEFT, pair.now) == "old timestamp"
    assert pair.to_left(response, elsewhere) == [Established(elsewhere, initiator=True)]
    assert pair.left.peer.round_trip == 0.125
    assert pair.left.peer.initiate_also(elsewhere, pair.now) == []


def test_no_second_initiation_goes_into_a_connection_that_has_not_sent_the_first() -> None:
    pair = Pair()
    clogged = FakeEndpoint("right", "tcp", unsent=True)
    first = only(pair.left.peer.initiate(clogged, pair.now))
    pair.now += 60
    assert pair.left.peer.initiate(clogged, pair.now) == []
    response = only(pair.to_right(first))
    assert pair.to_left(response, clogged) == [Established(clogged, initiator=True)]


def test_a_busy_connection_can_be_asked_for_a_new_session() -> None:
    # An upload at full speed always has unsent bytes in the socket; the rekey must not wait until it ends.
    pair = ready()
    clogged = FakeEndpoint("right", "tcp", unsent=True)
    pair.now += 121
    assert sent(pair.left.peer.initiate(clogged, pair.now))


# The peer's endpoint


def test_the_server_follows_its_peer_to_a_new_address() -> None:
    pair = ready()
    new: Endpoint = FakeEndpoint("left's new address")
    assert pair.to_right(pair.left.data(b"x", pair.now), new) == [Moved(new, AT_LEFT)]
    assert pair.right.peer.endpoint == new
    assert receiver_of(pair.right.data(b"y", pair.now)) == pair.left.current().local_index


def test_a_handshake_message_moves_nothing() -> None:
    pair = ready()
    pair.now += 5
    response = only(pair.to_right(pair.initiation(), FakeEndpoint("elsewhere")))
    assert pair.right.peer.endpoint == AT_LEFT
    pair.to_left(response, FakeEndpoint("elsewhere"))
    assert pair.left.peer.endpoint == AT_RIGHT


def test_only_the_newest_message_moves_the_endpoint() -> None:
    pair = ready()
    early, late = pair.left.data(b"early", pair.now), pair.left.data(b"late", pair.now)
    pair.to_right(late)
    assert pair.to_right(early, FakeEndpoint("old queue", "tcp")) == []
    assert pair.right.received == [b"late", b"early"]
    assert pair.right.peer.endpoint == AT_LEFT


def test_only_the_newest_session_moves_the_endpoint() -> None:
    pair = ready()
    early = pair.left.data(b"early", pair.now)
    pair.now += 121
    pair.shake_hands()
    assert pair.to_right(early, FakeEndpoint("old queue", "tcp")) == []
    assert pair.right.received == [b"early"]
    assert pair.right.peer.endpoint == AT_LEFT


def test_any_authentic_message_sets_the_endpoint_of_a_peer_without_one() -> None:
    # The connection in use has closed, and the peer goes on with the session before the newest.
    pair = ready()
    early = pair.left.data(b"early", pair.now)
    pair.now += 121
    pair.shake_hands()
    pair.right.peer.endpoint = None
    assert pair.to_right(early) == [Moved(AT_LEFT, None)]


# Changes by the operator


def test_other_keys_of_this_end_end_every_session_and_the_next_handshake_is_made_with_them() -> None:
    pair = ready()
    session = pair.left.peer.keys.current
    assert session is not None
    pair.left.peer.identify(SERVER_KEYS, FakeTimestamps())
    assert pair.left.peer.keys.all() == []
    assert not session.may_send(pair.now)
    assert refusal(pair.right, pair.initiation(), AT_LEFT, pair.now) == "own key"


def test_another_preshared_key_keeps_the_session_and_begins_the_handshake_again() -> None:
    pair = ready()
    pair.now += 6
    asked = pair.initiation()
    pair.left.peer.change_psk(b"k" * 32)
    pair.right.peer.change_psk(b"k" * 32)
    pair.assert_data_flows()
    answer = only(pair.to_right(asked))
    assert refusal(pair.left, answer, AT_RIGHT, pair.now) == "unknown index"
    pair.now += 6
    pair.shake_hands()
    pair.assert_data_flows()


def test_ends_with_different_preshared_keys_have_no_new_session() -> None:
    pair = Pair()
    pair.left.peer.change_psk(b"k" * 32)
    response = only(pair.to_right(pair.initiation()))
    assert refusal(pair.left, response, AT_RIGHT, pair.now) == "bad tag"
