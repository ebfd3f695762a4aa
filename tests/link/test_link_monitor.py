"""Link monitor: each change between up and down is reported once, at both ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.ends import ALICE, BOB, End, TwoEnds, ipv4
from tests.machine import HandLoop
from vpntun.link.link import Link
from vpntun.link.link_monitor import LinkMonitor
from vpntun.link.link_states import INTERVAL

PACKET = ipv4("10.0.0.1", "10.0.0.2", b"x")


class Watched(TwoEnds):
    """Alice, who calls Bob, and the reported changes of both links."""

    def __init__(self, loop: HandLoop) -> None:
        super().__init__(End(ALICE, loop), End(BOB, loop))
        self.changes: list[tuple[str, bool]] = []
        self.states: list[tuple[str | None, bool, bool]] = []
        self.alice.link.peer.endpoint = self.wire.to_right
        self.monitor = LinkMonitor(loop, self)
        for end in (self.alice, self.bob):
            end.engine.monitor = self.monitor
            self.monitor.follow(end.link)

    def link_moved(self, link: Link) -> None:
        """Not of interest here."""

    def link_changed(self, link: Link, *, up: bool) -> None:
        name = "alice" if link is self.alice.link else "bob"
        self.changes.append((name, up))

    def states_changed(self, link: Link) -> None:
        if link is self.alice.link:
            states = link.states
            self.states.append((states.carrier, states.handshake_fresh, states.data_verified))

    def new_changes(self) -> set[tuple[str, bool]]:
        """Return the changes since the last call."""
        changes, self.changes = self.changes, []
        assert len(changes) == len(set(changes)), "a change was reported twice"
        return set(changes)

    def pass_time(self, seconds: float, *, step: float = 0.5, carried: bool = False) -> None:
        """Let time pass and handle the deadlines. `carried`: deliver the sent messages."""
        for _ in range(round(seconds / step)):
            self.loop.pass_time(step)
            for end in (self.alice, self.bob):
                end.schedule.deadline()
                end.schedule.handle(self.loop.now)
            if carried:
                self.wire.run()


@pytest.fixture
def watched(loop: HandLoop) -> Iterator[Watched]:
    made = Watched(loop)
    yield made
    made.close()


@pytest.fixture
def up(watched: Watched) -> Watched:
    watched.wire.shake_hands()
    assert watched.new_changes() == {("alice", True), ("bob", True)}
    return watched


def test_before_the_first_session_no_link_is_up(watched: Watched) -> None:
    watched.alice.send(PACKET)
    watched.pass_time(120)
    assert watched.new_changes() == set()
    assert watched.monitor.summary.startswith("0 of 2 peers connected;")


def test_with_the_first_session_the_link_is_up_at_both_ends(up: Watched) -> None:
    assert up.monitor.summary.startswith("2 of 2 peers connected;")


def test_traffic_and_new_sessions_are_not_changes(up: Watched) -> None:
    for _ in range(3):
        up.alice.send(PACKET)
        up.wire.run()
        up.pass_time(20, carried=True)
        up.wire.shake_hands()
    assert up.new_changes() == set()


def test_a_packet_without_an_answer_for_15_s_takes_the_senders_link_down(up: Watched) -> None:
    up.alice.send(PACKET)
    up.wire.to_right.take()
    up.pass_time(14)
    assert up.new_changes() == set()
    up.pass_time(2)
    assert up.new_changes() == {("alice", False)}
    assert up.monitor.summary.startswith("1 of 2 peers connected;")


def test_a_link_that_answers_again_up_again(up: Watched) -> None:
    up.alice.send(PACKET)
    up.wire.to_right.take()
    up.pass_time(16)
    up.wire.to_right.take()
    up.wire.shake_hands()
    assert up.new_changes() == {("alice", False)} | {("alice", True)}


def test_a_link_on_which_nothing_arrives_is_down_though_the_peer_is_heard_until_something_does(up: Watched) -> None:
    for _ in range(40):
        up.bob.send(ipv4("10.0.0.2", "10.0.0.1", b"x"))
        up.alice.send(PACKET)
        up.wire.to_right.take()
        up.wire.run()
        up.pass_time(0.5)
    assert ("alice", False) in up.new_changes()
    up.pass_time(6, carried=True)
    assert ("alice", True) in up.new_changes()


def test_a_peer_that_falls_silent_is_down_when_its_session_is_too_old(up: Watched) -> None:
    up.pass_time(179, step=1)
    assert up.new_changes() == set()
    up.pass_time(2, step=1)
    assert up.new_changes() == {("alice", False), ("bob", False)}


def test_a_younger_session_keeps_it_standing_as_long(up: Watched) -> None:
    up.pass_time(100, step=1)
    up.wire.shake_hands()
    up.pass_time(179, step=1)
    assert up.new_changes() == set()
    up.pass_time(2, step=1)
    assert up.new_changes() == {("alice", False), ("bob", False)}


def test_a_link_that_is_taken_away_does_not_stand(up: Watched) -> None:
    link = up.bob.link
    up.monitor.forget(link)
    assert up.new_changes() == {("bob", False)}
    up.wire.shake_hands()
    up.pass_time(200, step=1)
    assert up.new_changes() == {("alice", False)}


def test_removing_a_link_that_was_never_up_is_not_a_change(watched: Watched) -> None:
    watched.monitor.forget(watched.bob.link)
    assert watched.new_changes() == set()


def test_a_link_that_flaps_sets_no_additional_timers(up: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(up.loop, "call_later", lambda seconds, callback: asked.append(seconds))
    link = up.alice.link
    for state in [False, True] * 20:
        monkeypatch.setattr("vpntun.link.link_monitor.is_up", lambda _, state=state: state)
        up.monitor.look(link)
    assert asked == []
    assert len(up.changes) == 40


def test_the_states_are_reported_as_they_come_and_go_and_nothing_is_sent_to_find_that_out(watched: Watched) -> None:
    alice = watched.alice.link
    alice.start()
    watched.wire.run()
    alice.act(alice.records.verify(watched.loop.now))
    watched.wire.run()
    assert watched.states[-1] == ("udp", True, True)
    watched.states.clear()
    watched.pass_time(20, step=1, carried=True)  # the search for the path's MTU ends, and proves the same
    proven = alice.records.verification.proven_at
    sent = alice.peer.sent_bytes
    watched.pass_time(175, step=1, carried=True)
    assert watched.states == [("udp", True, False), ("udp", False, False)]
    assert alice.states.data_since - proven == pytest.approx(INTERVAL, abs=1.0)
    assert alice.peer.sent_bytes == sent


def test_a_younger_proof_moves_the_check_and_sets_no_second_timer(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = watched.alice.link
    alice.start()
    watched.wire.run()
    watched.pass_time(5, step=1, carried=True)
    timers: list[float] = []
    monkeypatch.setattr(watched.loop, "call_later", lambda seconds, callback: timers.append(seconds))
    for _ in range(20):
        watched.pass_time(1, step=1)
        alice.act(alice.records.verify(watched.loop.now))
        watched.wire.run()
    assert timers == []
    assert alice.states.data_verified


def test_missing_answers_are_noticed_while_somebody_asks_not_only_when_the_next_probe_is_due(watched: Watched) -> None:
    alice = watched.alice.link
    alice.start()
    watched.wire.run()
    alice.verify()
    watched.wire.run()
    watched.pass_time(2, step=1)
    for pause in (1.0, 1.0, 0.6):
        alice.verify()
        watched.wire.to_right.take()
        watched.loop.pass_time(pause)
    assert watched.states[-1] == ("udp", True, True)
    alice.verify()
    assert watched.states[-1] == ("udp", True, False)


def test_the_removal_of_a_link_that_was_not_up_is_reported_too(watched: Watched) -> None:
    watched.alice.link.start()
    assert watched.new_changes() == set()
    watched.states.clear()
    watched.monitor.forget(watched.alice.link)
    assert len(watched.states) == 1
    assert watched.new_changes() == set()


def test_a_removed_link_is_no_longer_counted(up: Watched) -> None:
    up.monitor.forget(up.bob.link)
    up.monitor.follow(up.bob.link)
    up.monitor.look(up.bob.link)
    assert up.monitor.summary.startswith("2 of 2 peers connected; carrier up: 2 UDP; handshake fresh: 2;")
