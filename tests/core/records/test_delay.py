"""Whether a path delays what it is sent, from round trips that a test makes up."""

from __future__ import annotations

import pytest

from vpntun.core.records.delay import BASELINE_HOLDS, LEAST, SHORT, Delay

NOW = 1000.0
BASE = 0.02
LATE = BASE + 0.01
"""More than a record may take on a path whose shortest round trip is `BASE`."""


@pytest.fixture
def delay() -> Delay:
    """A path whose round trip of 20 ms is known from a PROBE."""
    delay = Delay()
    delay.note_probe(BASE, NOW)
    return delay


def take(delay: Delay, *round_trips: float, pause: float = 0.0) -> None:
    for number, each in enumerate(round_trips):
        delay.take(each, pause, NOW + number / 10)


def test_of_a_fresh_path_nothing_is_known(delay: Delay) -> None:
    assert Delay().seen_at == Delay().stood_at == -float("inf")
    assert Delay().is_empty
    assert not Delay().is_standing
    assert not Delay().is_short


def test_records_as_fast_as_the_probe_find_an_empty_queue(delay: Delay) -> None:
    take(delay, *[BASE + 0.003] * 10)
    assert delay.seen_at == -float("inf")
    assert delay.is_empty


def test_one_late_record_is_no_empty_queue_and_no_standing_one_but_the_third_in_a_row_is(delay: Delay) -> None:
    take(delay, LATE)
    assert (delay.is_empty, delay.is_standing) == (False, False)
    take(delay, LATE, LATE)
    assert (delay.is_empty, delay.is_standing) == (False, True)
    assert delay.stood_at == NOW + 0.1


def test_a_queue_that_ran_empty_once_in_three_does_not_stand_and_is_empty_after_three(delay: Delay) -> None:
    take(delay, LATE, LATE, BASE)
    assert (delay.is_empty, delay.is_standing) == (False, False)
    take(delay, BASE)
    assert not delay.is_empty
    take(delay, BASE)
    assert delay.is_empty


def test_a_delay_is_seen_once_the_smoothed_wait_exceeds_what_is_allowed_and_no_more_when_it_has_gone(
    delay: Delay,
) -> None:
    wait = LEAST + 0.02 * BASE
    delay.take(BASE + 4 * wait - 1e-6, 0.0, NOW)
    assert delay.seen_at == -float("inf"), "the newest weighs a quarter"
    delay.take(BASE + 2 * wait, 0.0, NOW + 1)
    assert delay.seen_at == NOW + 1
    for later in range(2, 12):
        delay.take(BASE, 0.0, NOW + later)
    assert delay.seen_at < NOW + 4


def test_what_the_peer_may_have_waited_is_no_delay(delay: Delay) -> None:
    take(delay, *[BASE + 0.033] * 5, pause=0.03)
    assert delay.is_empty
    assert delay.seen_at == -float("inf")


def test_on_a_long_path_two_hundredths_of_it_are_allowed_besides() -> None:
    for round_trip, allowed in ((BASE, LEAST + 0.02 * BASE), (0.5, LEAST + 0.02 * 0.5)):
        for wait, stands in ((allowed - 1e-6, False), (allowed + 1e-6, True)):
            delay = Delay()
            delay.note_probe(round_trip, NOW)
            take(delay, *[round_trip + wait] * 3)
            assert delay.is_standing is stands
            assert delay.is_empty is not stands


def test_the_shortest_round_trip_is_forgotten_after_one_to_two_periods(delay: Delay) -> None:
    """A route that has become longer must not look like a queue for ever."""
    seen = []
    for second in range(int(3 * BASELINE_HOLDS)):
        delay.take(LATE, 0.0, NOW + second)
        seen.append(delay.is_standing)
    assert all(seen[3:30])
    assert not any(seen[int(2 * BASELINE_HOLDS) + 3 :])


def test_a_shorter_round_trip_of_a_record_is_the_new_baseline(delay: Delay) -> None:
    take(delay, BASE / 2, *[BASE] * 3)
    assert delay.is_standing


def test_idleness_empties_the_queue_but_keeps_the_baseline(delay: Delay) -> None:
    take(delay, *[LATE] * 3)
    delay.idle()
    assert (delay.is_empty, delay.is_standing) == (True, False)
    assert delay.seen_at == delay.stood_at == -float("inf")
    take(delay, LATE, LATE)
    assert not delay.is_standing, "two after it are no three"
    take(delay, LATE)
    assert delay.is_standing


def test_another_path_has_another_baseline(delay: Delay) -> None:
    delay.moved()
    take(delay, *[LATE] * 3)
    assert delay.is_empty


def test_only_a_probe_tells_that_a_path_is_short(delay: Delay) -> None:
    delay.take(SHORT / 2, 0.0, NOW)
    assert not delay.is_short
    delay.note_probe(SHORT, NOW)
    assert not delay.is_short
    delay.note_probe(SHORT - 1e-6, NOW)
    assert delay.is_short
    delay.note_probe(1.0, NOW)
    assert delay.is_short
    delay.moved()
    assert not delay.is_short
