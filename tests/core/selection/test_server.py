"""The server's choice of carriers: it asks only where its peer was last seen, 18 times, and never dials."""

from __future__ import annotations

from random import Random

from tests.core.fakes import FakeEndpoint
from tests.core.pair import AT_LEFT, AT_RIGHT, Pair, only, sent
from vpntun.core.events import DropQueued, Established, Event, Moved, Transmit
from vpntun.core.selection.server import ServerCarriers
from vpntun.types import NEVER
from vpntun.wire.message import DATA, INITIATION, kind_of

OVER_TCP = FakeEndpoint("left", "tcp")


def serving(endpoint: FakeEndpoint | None = AT_LEFT) -> tuple[Pair, ServerCarriers]:
    """A pair whose right end is a server that remembers an endpoint."""
    pair = Pair()
    pair.right.peer.endpoint = endpoint
    return pair, ServerCarriers(pair.right.peer, Random(3))


def test_the_remembered_endpoint_is_asked_at_the_start() -> None:
    pair, selector = serving()
    assert not selector.searching
    (event,) = selector.start(pair.now)
    assert selector.searching
    assert isinstance(event, Transmit)
    assert event.endpoint == AT_LEFT
    assert kind_of(event.message) == INITIATION


def test_nobody_is_asked_while_no_endpoint_is_known() -> None:
    pair, selector = serving(None)
    assert selector.start(pair.now) == selector.want(pair.now) == []
    assert not selector.searching


def test_waiting_packets_are_dropped_after_90_seconds_without_an_endpoint() -> None:
    pair, selector = serving(None)
    begun = pair.now
    selector.want(begun)
    assert selector.handle_timer(begun + 89.9) == selector.want(begun + 89.9) == []
    assert selector.deadline == begun + 90
    assert selector.handle_timer(begun + 90) == [DropQueued()]
    assert selector.deadline == NEVER


def test_a_client_that_came_back_meanwhile_loses_nothing_and_can_be_asked() -> None:
    pair, selector = serving(None)
    selector.want(pair.now)
    pair.shake_hands()
    pair.now += 90
    assert selector.handle_timer(pair.now) == []
    assert sent(selector.want(pair.now))


def test_on_a_new_connection_a_small_message_precedes_the_data() -> None:
    pair = Pair()
    pair.shake_hands()
    dialled = FakeEndpoint("left", "tcp")
    events = pair.to_right(only(pair.left.peer.keepalive(AT_RIGHT, pair.now)), dialled)
    assert [type(event) for event in events] == [Transmit, Moved]
    assert len(only(events)) == 32


def test_it_asks_18_times_in_90_seconds_and_gives_up() -> None:
    pair, selector = serving()
    asked = len(sent(selector.want(pair.now)))
    start = pair.now
    events: list[Event] = []
    while not events or not isinstance(events[-1], DropQueued):
        assert selector.want(pair.now) == []
        assert selector.handle_timer(selector.deadline - 0.001) == []
        pair.now = selector.deadline
        events = selector.handle_timer(pair.now)
        asked += len(sent(events))
    assert asked in (17, 18)
    assert 90 <= pair.now - start <= 96
    assert selector.deadline == NEVER
    assert sent(selector.want(pair.now + 1))


def test_an_answer_ends_the_asking_and_is_confirmed_at_once() -> None:
    pair, selector = serving()
    initiation = only(selector.start(pair.now))
    elsewhere = FakeEndpoint("where the answer came from")
    (event,) = pair.to_right(only(pair.to_left(initiation)), elsewhere)
    assert event == Established(elsewhere, initiator=True)
    moved, keepalive = selector.established(elsewhere, pair.now, initiator=True)
    assert moved == Moved(elsewhere, AT_LEFT)
    assert selector.deadline == NEVER
    assert pair.to_left(only([keepalive])) == [Established(AT_RIGHT, initiator=False)]
    pair.assert_data_flows()


def test_the_peers_own_handshake_ends_the_asking() -> None:
    pair, selector = serving()
    selector.start(pair.now)
    pair.shake_hands()
    assert selector.established(AT_LEFT, pair.now, initiator=False) == []
    assert selector.deadline == NEVER
    assert selector.handle_timer(pair.now + 100) == []


def test_closing_the_connection_in_use_makes_the_endpoint_unknown() -> None:
    pair, selector = serving(OVER_TCP)
    assert sent(selector.want(pair.now))
    selector.lost(OVER_TCP, pair.now)
    assert pair.right.peer.endpoint is None
    assert selector.deadline == NEVER
    assert selector.want(pair.now + 10) == []
    # The handshake on the closed connection is dropped, so a new connection is asked at once.
    pair.right.peer.endpoint = FakeEndpoint("another", "tcp")
    assert sent(selector.want(pair.now + 1))


def test_closing_any_other_connection_changes_nothing() -> None:
    pair, selector = serving()
    selector.want(pair.now)
    selector.lost(OVER_TCP, pair.now)
    assert pair.right.peer.endpoint == AT_LEFT
    assert selector.deadline < NEVER


def test_after_a_restart_the_session_is_back_in_one_round_trip() -> None:
    pair = Pair()
    pair.shake_hands()
    old = pair.left.current()
    pair.now += 50
    fresh = Pair()
    pair.right, pair.right.peer.endpoint = fresh.right, AT_LEFT
    selector = ServerCarriers(pair.right.peer, Random(3))
    response = only(pair.to_left(only(selector.start(pair.now))))
    pair.to_right(response)
    keepalive = only(selector.established(AT_LEFT, pair.now, initiator=True))
    assert kind_of(keepalive) == DATA
    pair.to_left(keepalive)
    assert pair.left.current() is not old
    pair.assert_data_flows()


def test_the_reason_for_having_no_carrier_follows_the_call() -> None:
    pair = Pair()
    selector, peer = ServerCarriers(pair.right.peer, Random(3)), pair.right.peer
    assert selector.reason.text == "the peer has not called"
    peer.timers.authenticated_received(pair.now)  # an initiation, which moves no endpoint
    assert selector.reason.text == "the peer's handshake is incomplete"
    peer.endpoint = OVER_TCP
    assert selector.reason.text == "the peer called by it"
    selector.lost(OVER_TCP, pair.now)
    assert selector.reason.text == "the peer's connection has closed"
