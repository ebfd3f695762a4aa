"""TCP through the tunnel, compared with TCP through a plain tunnel, over modelled paths (the package `model`).

Every assertion compares two runs of one model, so most of the model's own errors cancel out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from tests.core.records.model.control import Bbr, Control, Cubic, LinuxCubic
from tests.core.records.model.experiment import Outcome, run
from tests.core.records.model.line import Line
from tests.core.records.model.tunnels import Processor

Kind = Callable[[], Control]

LOSSLESS = [
    Line(50, 10, 100),
    Line(100, 25, 400),
    Line(300, 1, 400),
    Line(300, 10, 400),
    Line(300, 10, 1500),
    Line(20, 40, 60),
]
SLIGHTLY_LOSSY = Line(100, 25, 400, 0.001)
LOSSY = [SLIGHTLY_LOSSY, Line(300, 10, 400, 0.01)]
CONTROLS: list[type[Cubic] | type[Bbr]] = [Cubic, LinuxCubic, Bbr]


def cases(lines: list[Line], controls: list[type[Cubic] | type[Bbr]] = CONTROLS) -> list[Any]:
    """Return each line with each congestion control."""
    return [pytest.param(line, control, id=f"{line} {control.__name__}") for line in lines for control in controls]


def outcome(line: Line, control: Kind, seed: int = 1, *, plain: bool = False) -> Outcome:
    """Run one flow for six seconds, or for three where there are many packets; each run is made once."""
    return _outcome(line, control, seed, plain)


@cache
def _outcome(line: Line, control: Kind, seed: int, plain: bool) -> Outcome:
    return run(line, control, 6.0 if line.rate < 300 else 3.0, plain=plain, seed=seed)


def seeds_of(line: Line, control: Kind) -> range:
    """Seeds to try: with CUBIC the time of the first random loss decides a whole run."""
    return range(1, 7) if line.loss and control is not Bbr else range(1, 2)


def speed_up(line: Line, control: Kind) -> float:
    """Return the ratio of the tunnel's throughput to that of a plain tunnel."""
    seeds = seeds_of(line, control)
    plain = sum(outcome(line, control, seed, plain=True).throughput[0] for seed in seeds)
    return sum(outcome(line, control, seed).throughput[0] for seed in seeds) / plain


@pytest.mark.parametrize(("line", "control"), cases(LOSSLESS + LOSSY))
def test_nowhere_is_it_slower_than_a_plain_tunnel(line: Line, control: Kind) -> None:
    assert speed_up(line, control) >= 0.95


@pytest.mark.parametrize(("line", "control"), cases(LOSSY, [Cubic, LinuxCubic]))
def test_cubic_is_twice_as_fast_where_datagrams_are_lost_at_random(line: Line, control: Kind) -> None:
    assert speed_up(line, control) >= 2


@pytest.mark.parametrize(("line", "control"), cases(LOSSLESS))
def test_no_parity_follows_the_first_seconds_where_nothing_is_lost_at_random(line: Line, control: Kind) -> None:
    """Parities protect a path's first 1,000 datagrams that tell of losses, and give way to a queue."""
    (tunnel,) = outcome(line, control).tunnels
    assert tunnel.parities
    assert max(tunnel.parities) <= (1 if line.rate >= 100 else 3)


@pytest.mark.parametrize(("line", "control"), cases(LOSSLESS))
def test_no_burst_is_sent_where_the_path_is_the_limit(line: Line, control: Kind) -> None:
    (tunnel,) = outcome(line, control).tunnels
    assert tunnel.bursts == 0


@pytest.mark.parametrize(("line", "control"), cases(LOSSLESS))
def test_it_sends_hardly_more_than_a_plain_tunnel_where_nothing_is_lost_at_random(line: Line, control: Kind) -> None:
    assert outcome(line, control).overhead <= outcome(line, control, plain=True).overhead + 0.02


@pytest.mark.parametrize(("line", "control"), cases([SLIGHTLY_LOSSY]))
def test_it_sends_at_most_a_quarter_more_than_arrives_where_little_is_lost(line: Line, control: Kind) -> None:
    for seed in seeds_of(line, control):
        assert outcome(line, control, seed).overhead <= 1.25


@pytest.mark.parametrize(("line", "control"), cases(LOSSLESS + LOSSY))
def test_the_queue_drops_hardly_more_than_with_a_plain_tunnel(line: Line, control: Kind) -> None:
    """The plain tunnel's path has no random loss here: slowed down by that, the flow would never fill the queue."""
    lossless = Line(line.rate, line.delay, line.queue)
    plain = outcome(lossless, control, plain=True).dropped
    seeds = seeds_of(line, control)
    assert sum(outcome(line, control, seed).dropped for seed in seeds) <= len(seeds) * (1.3 * plain + 20)


@pytest.mark.parametrize("control", [Cubic, Bbr])
@pytest.mark.parametrize("delay", [0.5, 5])
def test_records_are_long_within_half_a_second_where_the_program_is_the_limit_and_stay_so(
    control: Kind, delay: float
) -> None:
    line, slow = Line(2000, delay, 4000), Processor(record=100e-6, datagram=10e-6)
    plain = run(line, control, 1.0, plain=True, processor=slow)
    outcome = run(line, control, 2.0, processor=slow)
    (tunnel,) = outcome.tunnels
    assert {span for time, span in tunnel.spans if time >= 0.5} == {45}
    assert outcome.throughput[0] >= 4 * plain.throughput[0]
    assert outcome.dropped == 0


@pytest.mark.parametrize("offset", [0.1, 1.7])
def test_two_tunnels_share_a_queue_fairly(offset: float) -> None:
    """Only the time after 40 s counts: CUBIC takes that long to converge, through plain tunnels as well."""
    shares = run(Line(20, 20, 100), Cubic, 100.0, begins=(0.0, offset), since=40.0).throughput
    assert min(shares) >= 0.7 * max(shares)
