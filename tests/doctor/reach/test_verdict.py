"""Verdicts on calls: a carrier that fails is a fault unless another one works, and every reason has a remedy."""

from __future__ import annotations

from typing import get_args

import pytest

from vpntun.doctor.finding import Finding
from vpntun.doctor.reach.call import Called, Outcome
from vpntun.doctor.reach.verdict import judge_calls, judge_path


def judged(*outcomes: tuple[str, Outcome]) -> list[Finding]:
    carriers = {"udp": "udp", "tcp": "tcp"}
    return list(
        judge_calls(55555, [("192.0.2.1", Called(carriers[name], outcome, 0.012, "why")) for name, outcome in outcomes])  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("outcome", sorted(set(get_args(Outcome)) - {"answered"}))
def test_a_failure_matters_unless_another_way_works(outcome: Outcome) -> None:
    alone, beside = judged(("udp", outcome))[0], judged(("udp", outcome), ("tcp", "answered"))[0]
    assert (alone.verdict, beside.verdict) == ("failed", "warning")
    assert alone.remedy
    assert beside.remedy
    assert "192.0.2.1 port 55555" in alone.text
    assert beside.text.endswith("but another way works")


def test_all_outcomes_are_told_apart() -> None:
    texts = {judged(("tcp", outcome))[0].text for outcome in get_args(Outcome)}
    assert len(texts) == len(get_args(Outcome))


def test_an_answer_says_how_long_it_took() -> None:
    (finding,) = judged(("udp", "answered"))
    assert (finding.verdict, finding.text) == (
        "ok",
        "192.0.2.1 port 55555 answers a handshake in 12 ms: the keys fit",
    )


def test_silence_by_udp_suspects_the_keys_if_tcp_is_open_and_the_way_if_tcp_answers() -> None:
    assert "keys may differ" in judged(("udp", "silent"), ("tcp", "open"))[0].text
    assert "a firewall on the way drops it" in judged(("udp", "silent"), ("tcp", "answered"))[0].text
    assert "the machine is off" in judged(("udp", "silent"), ("tcp", "silent"))[0].text


@pytest.mark.parametrize(
    ("path", "verdict", "words"),
    [
        (1500, "ok", "all that this machine sends"),
        (1400, "warning", "longer ones do not"),
        (1000, "warning", "records are fragmented"),
        (None, "warning", "came back"),
    ],
)
def test_a_path_narrower_than_the_route_is_warned_of(path: int | None, verdict: str, words: str) -> None:
    finding = judge_path(1500, path, probed=True)
    assert finding.verdict == verdict
    assert words in finding.text
