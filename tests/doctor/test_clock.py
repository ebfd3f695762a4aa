"""The clock, judged by facts, and that the kernel can be asked for them."""

from __future__ import annotations

import pytest

from vpntun.doctor.clock import ClockFacts, examine_clock, judge


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (ClockFacts(2026, True), "ok"),
        (ClockFacts(2026, False), "warning"),
        (ClockFacts(2026, None), "skipped"),
        (ClockFacts(1970, True), "failed"),
        (ClockFacts(2038, True), "ok"),
        (ClockFacts(2106, True), "failed"),
    ],
)
def test_a_clock(facts: ClockFacts, verdict: str) -> None:
    (finding,) = judge(facts)
    assert finding.verdict == verdict
    assert bool(finding.remedy) == (verdict in ("warning", "failed"))


def test_this_machines_clock_can_be_asked() -> None:
    (finding,) = examine_clock()
    assert finding.verdict in ("ok", "warning")
