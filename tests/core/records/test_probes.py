"""Probes out, echoes in."""

from __future__ import annotations

import pytest

from vpntun.core.records.probes import LONGEST_TIMEOUT, MOST_OUT, SHORTEST_TIMEOUT, Asked, Probes
from vpntun.types import NEVER


def test_an_echo_answers_its_probe_once() -> None:
    probes = Probes()
    token = probes.asked("udp", "carrier", 41, 1.0)
    assert probes.waiting("carrier")
    assert not probes.waiting("size")
    assert probes.echoed(token ^ 1, "udp", 1.1) is None
    assert probes.echoed(token, "udp", 1.1) == Asked("udp", "carrier", 41, 1.0)
    assert probes.echoed(token, "udp", 1.2) is None
    assert not probes.waiting("carrier")


def test_an_echo_on_another_carrier_is_no_answer_and_measures_nothing() -> None:
    probes = Probes()
    token = probes.asked("udp", "carrier", 41, 1.0)
    assert probes.echoed(token, "tcp", 1.1) is None
    assert probes.round_trip == 0.0
    assert probes.echoed(token, "udp", 1.2) is not None


def test_the_round_trip_is_smoothed() -> None:
    probes = Probes()
    for number in range(100):
        token = probes.asked("udp", "health", 41, float(number))
        probes.echoed(token, "udp", number + 0.02)
    assert probes.round_trip == pytest.approx(0.02)
    token = probes.asked("udp", "health", 41, 200.0)
    probes.echoed(token, "udp", 200.1)
    assert probes.round_trip == pytest.approx(0.03)
    assert probes.last == pytest.approx(0.1)
    assert probes.measured_at == 200.1
    probes.moved()
    assert probes.round_trip == 0.0


def test_an_unanswered_probe_is_given_up_once() -> None:
    probes = Probes()
    assert probes.deadline == NEVER
    probes.asked("udp", "size", 1472, 1.0)
    assert probes.deadline == 1.0 + LONGEST_TIMEOUT
    probes.give_up_late(5.9)
    assert probes.waiting("size")
    probes.give_up_late(6.0)
    assert not probes.waiting("size")
    assert probes.deadline == NEVER


def test_a_known_round_trip_shortens_the_wait_but_not_below_a_second() -> None:
    probes = Probes()
    probes.echoed(probes.asked("udp", "health", 41, 0.0), "udp", 0.02)
    assert probes.timeout == SHORTEST_TIMEOUT
    probes.moved()
    probes.echoed(probes.asked("udp", "health", 41, 0.0), "udp", 3.0)
    assert probes.timeout == LONGEST_TIMEOUT


def test_no_more_than_a_bounded_number_are_out_and_the_oldest_goes_first() -> None:
    probes = Probes()
    tokens = [probes.asked("udp", "size", 1000 + number, 1.0) for number in range(1000)]
    answered = [asked.size for token in tokens if (asked := probes.echoed(token, "udp", 1.1)) is not None]
    assert answered == list(range(2000 - MOST_OUT, 2000))


@pytest.mark.parametrize("at", [1010.1781670336894, 1024.634875275267, 0.1, 1e9 / 7])
def test_what_is_due_at_the_deadline_is_given_up_at_the_deadline(at: float) -> None:
    for tenth in range(200):
        probes = Probes()
        probes.asked("udp", "size", 1200, at + tenth / 10)
        probes.give_up_late(probes.deadline)
        assert probes.deadline == NEVER
