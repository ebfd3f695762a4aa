"""The end that asks for a speed test: three phases, their results, and every way in which a test can fail."""

from __future__ import annotations

from typing import Any

import pytest

from tests.machine import HandLoop
from tests.speed.ends import Ends
from vpntun.errors import CannotAsk
from vpntun.speed.asking import SpeedTest
from vpntun.wire.inside.request import SPEED


def complete(ends: Ends, seconds: int = 2) -> SpeedTest:
    """Run a test to its end."""
    test = ends.asking.start(ends.alice.link, seconds)
    ends.run(40, until=lambda: not test.is_running)
    return test


def test_both_directions_reach_the_rate_of_the_path(ends: Ends) -> None:
    test = complete(ends)
    assert (test.status, test.error) == ("done", None)
    assert set(test.result) == {"idle", "up", "down"}
    for direction in ("up", "down"):
        found = test.result[direction]
        assert 0.75e6 < found["rate"] < 1.02e6, test.result
        assert found["loss"] == 0
        assert 0 < found["round_trip"] < 0.2
        assert found["bytes"] > found["rate"]
    assert test.result["idle"]["round_trip"] <= test.result["up"]["round_trip"]
    assert not ends.alice.drops + ends.bob.drops
    assert ends.alice.link.test is ends.bob.link.test is None


def test_the_loss_of_each_direction_is_shown(ends: Ends) -> None:
    ends.loss = 0.02
    test = complete(ends, 4)
    assert test.status == "done"
    assert test.result["up"]["loss"] == pytest.approx(0.02, abs=0.01)
    assert test.result["down"]["loss"] == pytest.approx(0.02, abs=0.01)


def test_a_connection_has_no_loss(loop: HandLoop) -> None:
    ends = Ends(loop, carrier="tcp")
    test = complete(ends)
    assert test.status == "done"
    assert test.result["up"]["loss"] is test.result["down"]["loss"] is None
    assert test.result["up"]["rate"] > 0.7e6
    ends.close()


def test_the_progress_of_each_phase_goes_from_0_to_1(ends: Ends) -> None:
    test = ends.asking.start(ends.alice.link, 2)
    seen: dict[str, list[float]] = {"idle": [], "up": [], "down": []}
    rates: list[float | None] = []

    def look() -> bool:
        seen[test.phase].append(test.progress)
        rates.append(test.rate)
        return not test.is_running

    ends.run(40, until=look)
    for progress in seen.values():
        assert progress[0] < 0.1
        assert progress[-1] > 0.9
    assert max(rate for rate in rates if rate) == pytest.approx(1e6, rel=0.2)


def test_a_peer_that_is_no_vpntun_is_not_tested(loop: HandLoop) -> None:
    ends = Ends(loop, plain=True)
    with pytest.raises(CannotAsk, match="not a vpntun"):
        ends.asking.start(ends.alice.link, 2)
    assert ends.alice.link.test is None
    assert not ends.asking.is_asking
    ends.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"refused": "busy"}, "runs another speed test"),
        ({"refused": "too often"}, "too many speed tests"),
        ({"refused": "this vpntun does not know the request"}, "does not take part"),
        ({"refused": ["\x1b[2J"]}, "does not take part"),
    ],
)
def test_a_peer_that_refuses_ends_the_test(ends: Ends, answer: dict[str, Any], said: str) -> None:
    ends.bob.engine.answers.add(SPEED, lambda link, content: answer)
    test = complete(ends)
    assert test.status == "failed"
    assert test.error is not None
    assert said in test.error


def test_a_peer_that_does_not_answer_ends_the_test(ends: Ends) -> None:
    test = ends.asking.start(ends.alice.link, 2)
    ends.rate = 0
    ends.run(12)
    assert (test.status, test.error) == ("failed", "the peer has not answered within 10 s: see 'vpntun show'")


def test_a_path_that_dies_while_this_end_sends_ends_the_test(ends: Ends) -> None:
    test = ends.asking.start(ends.alice.link, 8)
    ends.run(3)
    assert test.phase == "up"
    ends.rate = 0
    ends.run(3)
    assert test.status == "failed"
    assert test.error is not None
    assert test.error.startswith("nothing that was sent for 2 s has arrived")


def test_a_path_that_dies_while_the_peer_sends_ends_the_test(ends: Ends) -> None:
    test = ends.asking.start(ends.alice.link, 5)
    ends.run(10, until=lambda: test.phase == "down" and test.progress > 0.5)
    ends.rate = 0
    ends.run(15)
    assert test.status == "failed"


def test_a_path_that_is_dead_for_a_while_gives_no_figure_of_the_rest(ends: Ends) -> None:
    test = ends.asking.start(ends.alice.link, 10)
    ends.run(20, until=lambda: test.phase == "down" and test.progress > 0.5)
    ends.rate = 0
    ends.run(2.5)
    ends.rate = 1e6
    ends.run(10, until=lambda: not test.is_running)
    assert test.status == "failed"
    assert test.error is not None
    assert test.error.startswith("the peer has stopped sending too early")
    assert "down" not in test.result


@pytest.mark.parametrize(
    ("phase", "reason"), [("idle", "nothing that was sent"), ("up", "there is no link"), ("down", "there is no link")]
)
def test_a_peer_that_is_removed_meanwhile_ends_the_test(ends: Ends, phase: str, reason: str) -> None:
    test = ends.asking.start(ends.alice.link, 5)
    ends.run(20, until=lambda: test.phase == phase and test.progress > 0.3)
    ends.alice.link.stop()
    ends.run(10)
    assert (test.status, ends.alice.link.test) == ("failed", None)
    assert test.error is not None
    assert test.error.startswith(reason)
    carried = ends.carried
    ends.run(1)
    assert ends.carried - carried < 2000


def test_a_stop_ends_both_ends_at_once(ends: Ends) -> None:
    test = ends.asking.start(ends.alice.link, 20)
    ends.run(30, until=lambda: test.phase == "down" and test.progress > 0.1)
    test.stop()
    ends.run(1)
    assert test.status == "stopped"
    carried = ends.carried
    ends.run(2)
    assert ends.carried - carried < 2000
    assert complete(ends).status == "done"


def test_a_session_that_is_renewed_meanwhile_does_not_disturb(ends: Ends) -> None:
    test = ends.asking.start(ends.alice.link, 2)
    for _ in range(5):
        ends.run(1)
        ends.wire.shake_hands()
    ends.run(20, until=lambda: not test.is_running)
    assert test.status == "done"
    assert test.result["up"]["rate"] > 0.6e6


def test_an_answer_that_makes_no_sense_is_ignored(ends: Ends) -> None:
    answer = ends.answering.answer

    def mad(link: Any, content: dict[str, Any]) -> Any:
        answered = answer(link, content)
        return answered if content["do"] != "state" else {"running": "x", "bytes": -1, "lost": {}}

    ends.bob.engine.answers.add(SPEED, mad)
    assert complete(ends).status == "done"
