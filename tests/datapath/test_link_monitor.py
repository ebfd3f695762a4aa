"""Which links stand: told once for each change, at both ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.ends import ALICE, BOB, End, Wire, ipv4
from tests.machine import HandLoop
from vpntun.datapath.link import Link
from vpntun.datapath.link_monitor import LinkMonitor

PACKET = ipv4("10.0.0.1", "10.0.0.2", b"x")


class Watched:
    """Alice calls Bob; what is told of either's link."""

    def __init__(self, loop: HandLoop) -> None:
        self.loop = loop
        self.told: list[tuple[str, bool]] = []
        self.ends = {"alice": End(ALICE, loop), "bob": End(BOB, loop)}
        self.alice, self.bob = self.ends.values()
        self.alice.know(BOB.public)
        self.bob.know(ALICE.public)
        self.wire = Wire(self.alice, self.bob)
        self.alice.link.peer.endpoint = self.wire.to_right
        self.monitor = LinkMonitor(loop, self._changed)
        for end in self.ends.values():
            end.engine.monitor = self.monitor
            self.monitor.follow(end.link)

    def _changed(self, link: Link, stands: bool) -> None:
        name = "alice" if link is self.alice.link else "bob"
        self.told.append((name, stands))

    def news(self) -> set[tuple[str, bool]]:
        """What was told since the last time."""
        told, self.told = self.told, []
        assert len(told) == len(set(told)), "told twice"
        return set(told)

    def pass_time(self, seconds: float, *, step: float = 0.5, carried: bool = False) -> None:
        """Let it pass, have the deadlines handled, and what is sent carried, if it is to be."""
        for _ in range(round(seconds / step)):
            self.loop.pass_time(step)
            for end in self.ends.values():
                end.schedule.deadline()
                end.schedule.handle(self.loop.now)
            if carried:
                self.wire.run()


@pytest.fixture
def watched(loop: HandLoop) -> Iterator[Watched]:
    made = Watched(loop)
    yield made
    made.alice.close()
    made.bob.close()


@pytest.fixture
def up(watched: Watched) -> Watched:
    watched.wire.shake_hands()
    assert watched.news() == {("alice", True), ("bob", True)}
    return watched


def test_before_the_first_session_nothing_stands(watched: Watched) -> None:
    watched.alice.send(PACKET)
    watched.pass_time(120)
    assert watched.news() == set()
    assert watched.monitor.summary == "0 of 2 peers connected"


def test_with_the_first_session_the_link_stands_at_both_ends(up: Watched) -> None:
    assert up.monitor.summary == "2 of 2 peers connected"


def test_traffic_and_fresh_sessions_are_no_news(up: Watched) -> None:
    for _ in range(3):
        up.alice.send(PACKET)
        up.wire.run()
        up.pass_time(20, carried=True)
        up.wire.shake_hands()
    assert up.news() == set()


def test_what_is_unanswered_for_15_s_takes_the_link_down_where_it_was_sent(up: Watched) -> None:
    up.alice.send(PACKET)
    up.wire.to_right.take()
    up.pass_time(14)
    assert up.news() == set()
    up.pass_time(2)
    assert up.news() == {("alice", False)}
    assert up.monitor.summary == "1 of 2 peers connected"


def test_a_link_that_answers_again_stands_again(up: Watched) -> None:
    up.alice.send(PACKET)
    up.wire.to_right.take()
    up.pass_time(16)
    up.wire.to_right.take()
    up.wire.shake_hands()
    assert up.news() == {("alice", False)} | {("alice", True)}


def test_a_peer_that_falls_silent_is_down_when_its_session_is_too_old(up: Watched) -> None:
    up.pass_time(179, step=1)
    assert up.news() == set()
    up.pass_time(2, step=1)
    assert up.news() == {("alice", False), ("bob", False)}


def test_a_younger_session_keeps_it_standing_as_long(up: Watched) -> None:
    up.pass_time(100, step=1)
    up.wire.shake_hands()
    up.pass_time(179, step=1)
    assert up.news() == set()
    up.pass_time(2, step=1)
    assert up.news() == {("alice", False), ("bob", False)}


def test_a_link_that_is_taken_away_does_not_stand(up: Watched) -> None:
    link = up.bob.link
    up.monitor.forget(link)
    assert up.news() == {("bob", False)}
    up.wire.shake_hands()
    up.pass_time(200, step=1)
    assert up.news() == {("alice", False)}


def test_one_that_never_stood_goes_without_a_word(watched: Watched) -> None:
    watched.monitor.forget(watched.bob.link)
    assert watched.news() == set()


def test_a_link_that_flaps_arms_no_crowd_of_timers(up: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(up.loop, "call_later", lambda seconds, callback: asked.append(seconds))
    link = up.alice.link
    for stands in [False, True] * 20:
        monkeypatch.setattr("vpntun.datapath.link_monitor.is_up", lambda _, stands=stands: stands)
        up.monitor.look(link)
    assert asked == []
    assert len(up.told) == 40
