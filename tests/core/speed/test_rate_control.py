"""The rate of a speed test on simulated paths (path.py): slow, long, lossy, fast, shared, and dead ones."""

from __future__ import annotations

import pytest

from tests.core.speed.path import Path

MBIT = 125_000


@pytest.mark.parametrize("delay", [0.001, 0.04, 0.1])
@pytest.mark.parametrize("rate", [1 * MBIT, 20 * MBIT, 200 * MBIT])
def test_a_path_with_a_deep_queue_is_filled_without_a_long_wait(rate: float, delay: float) -> None:
    path = Path(rate, delay, size=14_000)
    path.run(5)
    assert 0.88 <= path.rate_after(2) / rate <= 1.01
    assert path.longest_wait(2) < 0.25 + delay
    assert path.longest_wait(0) < 0.5 + 3 * delay  # while it looks for the rate


def test_a_path_with_a_long_round_trip_is_filled_in_the_part_that_counts() -> None:
    path = Path(100 * MBIT, 0.3)
    path.run(10)
    assert path.rate_after(4) / path.rate > 0.9
    assert path.longest_wait(5) < 0.3


def test_a_short_queue_overflows_in_few_rounds_only() -> None:
    path = Path(20 * MBIT, 0.03, queue=40 * 1400)
    path.run(5)
    assert path.rate_after(2) / path.rate > 0.9
    assert path.dropped / path.sent < 0.05


@pytest.mark.parametrize("loss", [0.01, 0.02, 0.1])
def test_random_loss_does_not_slow_the_test_down(loss: float) -> None:
    path = Path(10 * MBIT, 0.04, loss=loss)
    path.run(5)
    assert path.rate_after(2) / path.rate > 0.85
    assert path.dropped / path.sent == pytest.approx(loss, rel=0.3)


def test_a_path_faster_than_the_program_gets_all_that_the_program_can_send() -> None:
    path = Path(8000 * MBIT, 0.0003, sender=400e6, size=60_000)
    path.run(5)
    assert path.rate_after(2) > 0.95 * 400e6


def test_a_busy_machine_that_delays_probes_does_not_look_like_a_queue() -> None:
    path = Path(400 * MBIT, 0.001, size=14_000)
    path.noise = 0.02
    path.run(5)
    assert path.rate_after(2) / path.rate > 0.75


@pytest.mark.parametrize(("rate", "delay", "size"), [(400, 0.001, 14_000), (100, 0.03, 14_000), (20, 0.03, 1400)])
def test_ends_that_other_programs_keep_from_running_use_most_of_what_is_left(
    rate: float, delay: float, size: int
) -> None:
    """PROBEs, ECHOs and REPORTs wait, as in a queue, but no queue is there."""
    shares = []
    for seed in range(6):
        path = Path(rate * MBIT, delay, size=size, seed=seed)
        path.stalls = 0.4
        path.run(5)
        shares.append(path.rate_after(2) / path.rate)
    assert sum(shares) / len(shares) > 0.5, shares


def test_a_peer_that_reads_more_slowly_than_this_end_sends_loses_little() -> None:
    path = Path(300e6, 0.0003, sender=400e6, size=60_000, queue=4e6)
    path.run(5)
    assert path.rate_after(2) > 0.9 * path.rate
    assert path.dropped / path.sent < 0.03


def test_a_rate_that_is_known_saves_the_search() -> None:
    unknown, known = Path(100 * MBIT, 0.1), Path(100 * MBIT, 0.1, known_rate=100 * MBIT)
    for path in (unknown, known):
        path.run(1)
    assert known.rate_after(0) > 2 * unknown.rate_after(0)


def test_a_path_that_becomes_slower_gets_no_queue_of_seconds() -> None:
    path = Path(20 * MBIT, 0.03)
    path.run(3)
    path.rate /= 4
    path.run(4)
    assert path.longest_wait(5) < 0.3
    assert path.rate_after(5) / path.rate > 0.85


def test_the_test_yields_to_other_traffic_in_the_queue_but_does_not_starve() -> None:
    path = Path(20 * MBIT, 0.03)
    path.others = path.rate / 2
    path.run(5)
    assert path.longest_wait(3) < 0.2
    assert 0.3 < path.rate_after(3) / path.rate < 0.52


def test_a_dead_path_ends_the_sending() -> None:
    path = Path(20 * MBIT, 0.03)
    path.run(2)
    path.dead, sent = True, path.sent
    path.run(3)
    assert path.sent - sent < path.rate


def test_nothing_is_sent_while_other_traffic_takes_the_rate() -> None:
    path = Path(20 * MBIT, 0.03)
    path.run(2)
    assert path.control.allowance(path.sent + 10 * int(path.rate), path.now) == 0
    path.now += 0.1
    assert path.control.allowance(path.sent + 10 * int(path.rate), path.now) >= 0


def test_the_next_datagram_is_due_when_the_rate_allows_it() -> None:
    path = Path(1 * MBIT, 0.03)
    path.run(3)
    while path.control.allowance(path.sent, path.now) >= 1400:
        path.sent += 1400
    path.now += path.control.seconds_until(1400)
    assert path.control.allowance(path.sent, path.now) >= 1399
