"""The executor: the order in which events, and what they decide in turn, are carried out."""

from __future__ import annotations

from random import Random

import pytest

from tests.core.fakes import FakeEndpoint, FakeTimestamps
from tests.core.pair import CLIENT_KEYS, PSK, SERVER_KEYS
from vpntun.core.endpoint import Endpoint
from vpntun.core.events import (
    CloseConnection,
    Dial,
    DrainQueue,
    DropQueued,
    Established,
    Event,
    GiveUpDials,
    HandshakeWanted,
    KeptAlive,
    Moved,
    NothingArrives,
    PathVerified,
    RenewPort,
    Resolve,
    SendRecord,
    SessionDoubtful,
    Transmit,
)
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.selection.executor import Executor
from vpntun.core.selection.reason import Reason
from vpntun.core.wireguard.node import Node
from vpntun.core.wireguard.peer import Peer
from vpntun.types import NEVER, CarrierName
from vpntun.wire.record import TAKES_BURSTS

NOW = 1000.0
THERE = FakeEndpoint("there")
ELSEWHERE = FakeEndpoint("elsewhere")


class Selector:
    """A selector that answers as the test says: `answers` has the events by method."""

    searching = False
    deadline = NEVER
    reason = Reason("as the test says")

    def __init__(self, done: list[str]) -> None:
        self.answers: dict[str, list[Event]] = {}
        self._done = done

    def _answer(self, method: str) -> list[Event]:
        self._done.append(f"selector {method}")
        return self.answers.get(method, [])

    def start(self, now: float) -> list[Event]:
        return self._answer("start")

    def want(self, now: float) -> list[Event]:
        return self._answer("want")

    def handle_timer(self, now: float) -> list[Event]:
        return self._answer("timer")

    def established(self, source: Endpoint, now: float, *, initiator: bool) -> list[Event]:
        return self._answer("established")

    def verified(self, endpoint: Endpoint, now: float) -> list[Event]:
        return self._answer("verified")

    def undeliverable(self, endpoint: Endpoint, now: float) -> list[Event]:
        return self._answer("undeliverable")

    def lost(self, connection: Endpoint, now: float) -> list[Event]:
        return self._answer("lost")

    def rerouted(self, now: float, *, lost: bool) -> list[Event]:
        return self._answer("rerouted")

    def doubt_session(self, seconds: float, now: float) -> list[Event]:
        return self._answer("doubt_session")

    def nothing_arrives(self, now: float) -> list[Event]:
        return self._answer("nothing_arrives")

    def woken(self, now: float) -> list[Event]:
        return self._answer("woken")


class World:
    """Actions that only note what they are asked to do."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.can_deliver = True
        self.while_draining: list[Event] = []
        self.fails = False
        self.selector = Selector(self.done)
        self.peer = Peer(CLIENT_KEYS, SERVER_KEYS.public, PSK, Node(CLIENT_KEYS).indices, FakeTimestamps(), Random(1))
        self.records = RecordProtocol(TAKES_BURSTS, 1420, NOW, peer_is_vpntun=True)
        self.executor = Executor(self.peer, self.selector, self.records, self)

    def act(self, *events: Event) -> list[str]:
        self.executor.act(events, NOW)
        return self.done

    def transmit(self, endpoint: Endpoint, message: bytes) -> bool:
        self.done.append(f"transmit {message.decode()}")
        return self.can_deliver

    def send_record_alone(self, wanted: SendRecord) -> list[Event]:
        self.done.append("record")
        return []

    def established(self, source: Endpoint, *, initiator: bool) -> None:
        self.done.append("established")

    def moved(self, endpoint: Endpoint, former: Endpoint | None) -> None:
        self.done.append("moved")

    def nothing_arrives(self, endpoint: Endpoint) -> None:
        self.done.append("nothing arrives")

    def close_connection(self, endpoint: Endpoint) -> None:
        self.done.append("close")

    def resolve(self) -> None:
        self.done.append("resolve")

    def dial(self, carrier: CarrierName, candidate: Endpoint) -> None:
        self.done.append(f"dial {carrier}")

    def give_up_dials(self) -> None:
        self.done.append("give up dials")

    def renew_port(self) -> None:
        self.done.append("renew port")

    def drain_queue(self) -> None:
        self.done.append("drain")
        if self.fails:
            raise RuntimeError("a bug")
        wanted, self.while_draining = self.while_draining, []
        self.executor.act(wanted, NOW)
        self.done.append("drained")

    def drop_queued(self) -> None:
        self.done.append("drop")


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("event", "done"),
    [
        (Transmit(THERE, b"hello"), ["transmit hello"]),
        (SendRecord(b"record"), ["record"]),
        (HandshakeWanted(), ["selector want"]),
        (SessionDoubtful(2.0), ["selector doubt_session"]),
        (CloseConnection(THERE), ["close"]),
        (Resolve(), ["resolve"]),
        (Dial("tcp", THERE), ["dial tcp"]),
        (GiveUpDials(), ["give up dials"]),
        (RenewPort(), ["renew port"]),
        (DrainQueue(), ["drain", "drained"]),
        (DropQueued(), ["drop"]),
        (PathVerified(THERE), ["selector verified"]),
    ],
    ids=lambda given: type(given).__name__,
)
def test_an_event_is_an_action_or_a_question_to_the_selector(world: World, event: Event, done: list[str]) -> None:
    assert world.act(event) == done


def test_a_dead_path_is_noted_and_the_selector_is_asked_for_another(world: World) -> None:
    assert world.act(NothingArrives()) == []  # without an endpoint nothing was sent either
    world.peer.endpoint = THERE
    assert world.act(NothingArrives()) == ["nothing arrives", "selector nothing_arrives"]


def test_behind_a_keepalive_a_peer_that_takes_no_records_gets_no_probe(world: World) -> None:
    assert world.act(KeptAlive()) == []


def test_after_a_pause_the_selector_is_woken_if_there_was_a_session_or_a_search(world: World) -> None:
    world.executor.woken(NOW)
    assert world.done == []
    world.selector.searching = True
    world.executor.woken(NOW)
    assert world.done == ["selector woken"]


def test_consequences_come_before_the_events_behind_their_cause(world: World) -> None:
    world.selector.answers["want"] = [Transmit(THERE, b"initiation"), Resolve()]
    assert world.act(HandshakeWanted(), DropQueued()) == [
        "selector want",
        "transmit initiation",
        "resolve",
        "drop",
    ]


def test_a_session_settles_the_endpoint_before_the_queue_is_drained(world: World) -> None:
    world.selector.answers["established"] = [Moved(THERE, None), Transmit(THERE, b"keepalive")]
    assert world.act(Established(THERE, initiator=True)) == [
        "established",
        "selector established",
        "moved",
        "drain",
        "drained",
        "transmit keepalive",
        "drain",
        "drained",
    ]


def test_what_cannot_leave_is_tried_elsewhere(world: World) -> None:
    world.can_deliver = False
    assert world.act(Transmit(THERE, b"hello")) == ["transmit hello", "selector undeliverable"]


def test_what_an_action_decides_meanwhile_follows_when_the_rest_is_done(world: World) -> None:
    world.while_draining = [Resolve()]
    assert world.act(DrainQueue(), DropQueued()) == ["drain", "drained", "drop", "resolve"]


def test_a_bug_in_an_action_leaves_nothing_behind_for_the_next_events(world: World) -> None:
    world.fails = True
    with pytest.raises(RuntimeError, match="a bug"):
        world.act(DrainQueue(), DropQueued())
    world.fails = False
    world.done.clear()
    assert world.act(Resolve()) == ["resolve"]


def test_the_deadline_is_the_earliest_of_peer_selector_and_records(world: World) -> None:
    assert world.executor.deadline == NEVER
    world.selector.deadline = NOW + 7
    assert world.executor.deadline == NOW + 7
    world.peer.timers.data_sent(NOW - 10)
    assert world.executor.deadline < NOW + 7


def test_timers_are_handled_by_all_three(world: World) -> None:
    world.selector.answers["timer"] = [DropQueued()]
    world.executor.handle_timers(NOW, 0.0)
    assert world.done == ["selector timer", "drop"]
