"""What is estimated of a path stays within bounds, whatever the path does, however long."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from vpntun.core.queue import MOST_BYTES, MOST_ENTRIES, PacketQueue
from vpntun.core.records.pathmtu import BASE, LARGEST, PathMtu
from vpntun.core.records.probes import LONGEST_TIMEOUT, SHORTEST_TIMEOUT, Probes
from vpntun.core.records.span import MOST, Span
from vpntun.wire.record import LARGEST_RECORD, Report

WEEK = 7 * 86_400
RECORDS_PER_REPORT = 6
U64 = 2**64 - 1


@dataclass(frozen=True)
class Step:
    """One report's time on a path. `gap`: seconds until the next; `loss`: of datagrams; `delay`: until the report."""

    gap: float = 0.05
    loss: float = 0.0
    delay: float = 0.02
    datagrams: int = 44


Path = Callable[[float, random.Random], Step]
"""How a path behaves at a time, in seconds since it was first used."""


def clean(at: float, rng: random.Random) -> Step:
    return Step()


def lossy_at_random(at: float, rng: random.Random) -> Step:
    return Step(loss=0.01)


def lossy_now_and_then(at: float, rng: random.Random) -> Step:
    """Some loss, then none for days."""
    return Step(loss=0.02 if at % 300_000 < 2000 else 0.0)


def full_queue(at: float, rng: random.Random) -> Step:
    """Delay rises until the queue drops, and falls again."""
    filled = at % 10 / 10
    return Step(delay=0.02 + 0.2 * filled, loss=0.05 if filled > 0.9 else 0.0)


def outages(at: float, rng: random.Random) -> Step:
    return Step(loss=1.0 if at % 3600 < 60 else 0.0)


def idle_mostly(at: float, rng: random.Random) -> Step:
    return Step(gap=rng.choice((0.05, 0.05, 30.0, 3600.0)), loss=rng.choice((0.0, 0.0, 0.001)), datagrams=1)


def erratic(at: float, rng: random.Random) -> Step:
    return Step(rng.choice((0.001, 0.05, 2.0)), rng.random() ** 8, rng.expovariate(10), rng.randrange(1, 45))


PATHS: list[Path] = [clean, lossy_at_random, lossy_now_and_then, full_queue, outages, idle_mostly, erratic]
SOMETIMES = pytest.mark.parametrize("speed", [100, pytest.param(20, marks=pytest.mark.long)])
"""Simulated seconds between two reports: what an estimator does at each report it does 6,000 times, or 30,000 times."""


def check(span: Span) -> None:
    estimator = span.estimator
    assert 0 <= estimator.loss <= 1
    assert not 0 < estimator.loss < 1e-6
    assert 0 <= estimator.rate < 1e12
    assert 1 <= span.span <= MOST
    assert 0 < span.largest_record <= LARGEST_RECORD
    assert not math.isnan(span.deadline)


def run(path: Path, speed: float, report_of: Callable[[Report, random.Random], Report] | None = None) -> Span:
    """Use a path for a week of its time, with a report each `speed` seconds of it; `report_of` forges the reports.

    The span's own clock sees the time between two reports as the path has it, so that no report comes late for that.
    """
    rng = random.Random(7)
    now = at = 0.0
    span = Span(1472, now)
    span.new_session(now)
    span.protection.possible = True
    counter, opened, seen = -1, 0, 0
    while at < WEEK:
        at += speed
        step = path(at, rng)
        for _ in range(RECORDS_PER_REPORT):
            if now >= span.deadline:
                span.handle_deadline(now)
            counter += 1
            count = min(step.datagrams, span.span) * 10  # as if ten times as many were sent, to be judged soon
            span.sent(counter, count, count * 1456, now)
            came = sum(rng.random() >= step.loss for _ in range(count)) if step.loss else count
            opened += came == count
            seen += came
            now += step.gap / RECORDS_PER_REPORT
            if rng.random() < 0.5:
                span.bottleneck.backlogged += 1
        now += step.delay
        report = Report(counter, opened, seen, counter + 1 - opened)
        span.reported(report_of(report, rng) if report_of else report, counter + 1, now)
        check(span)
    return span


@SOMETIMES
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_a_week_on_any_path_leaves_every_estimate_within_its_bounds(path: Path, speed: float) -> None:
    run(path, speed)


@SOMETIMES
def test_a_loss_that_is_over_is_forgotten_wholly(speed: float) -> None:
    def lossy_at_first(at: float, rng: random.Random) -> Step:
        return Step(loss=0.02 if at < 50 * speed else 0.0)

    span = run(lossy_at_first, speed)
    assert span.estimator.loss == 0
    assert not span.protection.wanted


@SOMETIMES
def test_a_peer_that_reports_nonsense_leaves_every_estimate_within_its_bounds(speed: float) -> None:
    def nonsense(report: Report, rng: random.Random) -> Report:
        return Report(
            rng.choice((report.highest, report.highest - 1, U64, 0)),
            rng.choice((report.opened, report.highest + 1, U64, 0)),
            rng.choice((report.datagrams, U64, 0, 1)),
            rng.choice((0, U64)),
        )

    run(erratic, speed, nonsense)


def test_a_week_of_round_trips_leaves_the_timeout_of_probes_within_its_bounds() -> None:
    rng, now, probes = random.Random(7), 0.0, Probes()
    while now < WEEK:
        token = probes.asked("path", "health", 41, now)
        now += rng.choice((1e-9, 0.02, 4.0, 86_400.0))
        probes.echoed(token, "path", now)
        assert SHORTEST_TIMEOUT <= probes.timeout <= LONGEST_TIMEOUT
        now += 20.0


def test_a_week_of_searches_leaves_the_length_of_a_path_within_its_bounds() -> None:
    rng, now = random.Random(7), 0.0
    path = PathMtu(now)
    while now < WEEK:
        size = path.probe(now)
        if size is not None:
            rng.choice((path.echoed, path.refused, lambda size, now: None))(size, now)
        if rng.random() < 0.01:
            path.vanished(now)
        assert BASE <= path.payload <= LARGEST
        now = max(now + rng.choice((0.001, 1.0)), min(path.deadline, now + 600))


def test_a_week_of_packets_leaves_a_queue_within_its_bounds() -> None:
    rng, now, queue = random.Random(7), 0.0, PacketQueue()
    while now < WEEK:
        queue.follow(rng.choice((0.0, 1e-300, 1e3, 1e9, 1e300)))
        for _ in range(rng.choice((0, 1, 300))):
            queue.push(bytes(rng.choice((20, 1500, 65_535))), 0, now)
        for _ in range(rng.choice((0, 1, 300))):
            queue.take(now)
        assert 0 <= queue.size <= MOST_BYTES
        assert len(queue) <= MOST_ENTRIES
        now += rng.choice((0.001, 1.0, 3000.0))
