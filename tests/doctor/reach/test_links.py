"""Links of a running tunnel: each state that a status may show is judged, and answers are awaited a moment."""

from __future__ import annotations

from typing import Any

import pytest

from vpntun.doctor.reach import links
from vpntun.doctor.reach.links import examine_links, judge_links
from vpntun.doctor.reach.other_carrier import Trials
from vpntun.errors import RequestRefused, VpntunError


def peer(state: str = "connected", name: str = "office", **fields: Any) -> dict[str, Any]:
    given = {"carrier": "udp", "carrier_reason": "it answered first", "round_trip": 0.0123, "data_verified": True}
    return {"name": name, "public_key": f"key of {name}", "state": state, **given, **fields}


def no_trials() -> Trials:
    """The trials of a tunnel that knows none."""

    def refuse(method: str, target: str) -> dict[str, Any]:
        raise VpntunError(f"there is no {target}")

    return Trials(refuse)


@pytest.mark.parametrize(
    ("given", "silent", "verdict", "words"),
    [
        (peer(), False, "ok", "office is connected by UDP, with a round trip of 12.3 ms"),
        (peer(round_trip=None), False, "ok", "office is connected by UDP"),
        (peer(), True, "failed", "answers no probe"),
        (peer("one-way"), False, "failed", "nothing that this end sends arrives at office"),
        (peer("connecting", carrier_reason="no answer over UDP or TCP"), False, "failed", "no answer over UDP or TCP"),
        (peer(carrier="tcp", carrier_reason="no UDP answer"), False, "warning", "UDP was tried and not answered"),
        (peer("waiting"), False, "ok", "office has not called lately"),
        (peer("waiting", ""), False, "ok", "the peer has not called lately"),
    ],
)
def test_each_state_has_its_finding(given: dict[str, Any], silent: bool, verdict: str, words: str) -> None:
    (finding,) = judge_links([given], {given["public_key"]} if silent else set())
    assert (finding.check, finding.verdict) == ("link", verdict)
    assert words in finding.text
    assert (verdict == "ok") == (not finding.remedy)


def test_many_healthy_peers_share_a_line() -> None:
    peers = [peer(name=str(number)) for number in range(20)] + [peer("waiting", str(number)) for number in range(3)]
    assert [finding.text for finding in judge_links(peers, set())] == [
        "20 peers are connected",
        "3 peers have not called lately",
    ]


@pytest.mark.parametrize(("answers_after", "verdict"), [(0, "ok"), (3, "ok"), (10**9, "failed")])
def test_peers_are_asked_until_they_answer_or_time_is_over(
    answers_after: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That data arrived some seconds before is no answer: the path may have died since."""
    monkeypatch.setattr(links, "SECONDS_BETWEEN", 0.001)
    monkeypatch.setattr(links, "SECONDS_TO_VERIFY", 30 if verdict == "ok" else 0.05)
    asked = []

    def request(method: str, target: str) -> dict[str, Any]:
        asked.append(f"{method} {target}")
        if method == "POST":
            return {"awaited": ["key of office"] if len(asked) <= answers_after else []}
        return {"peers": [peer(data_verified=True)]}  # by a proof before the path broke

    assert [finding.verdict for finding in examine_links(request, no_trials())] == [verdict]
    assert len(asked) > 2 or answers_after == 0
    assert asked[-2:] == ["POST /v1/verify", "GET /v1/status"]


def test_a_peer_that_has_answered_is_not_silent_because_it_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "SECONDS_BETWEEN", 0.0)
    keys = ["key of office", "key of laptop"]
    answers = iter([keys, keys[:1], keys[1:]])

    def request(method: str, target: str) -> dict[str, Any]:
        return {"awaited": next(answers)} if method == "POST" else {"peers": [peer(), peer(name="laptop")]}

    assert [finding.verdict for finding in examine_links(request, no_trials())] == ["ok"]
    assert list(answers) == []


def test_a_tunnel_that_cannot_verify_is_judged_by_its_status() -> None:
    def request(method: str, target: str) -> dict[str, Any]:
        if method == "POST":
            raise RequestRefused("there is no /v1/verify")
        return {"peers": [peer(data_verified=None)]}

    assert [finding.verdict for finding in examine_links(request, no_trials())] == ["ok"]


def test_a_trial_that_may_move_a_link_is_awaited_before_the_link_is_judged() -> None:
    moved = []

    def request(method: str, target: str) -> dict[str, Any]:
        if target == "/v1/doctor":
            return {"peers": [{"public_key": "key of office", "endpoint": "192.0.2.1:55555"}]}
        if target.startswith("/v1/tried"):
            moved.append(target)
            report = {"carrier": "udp", "used": "tcp", "endpoint": "192.0.2.1:55555", "round_trip": 0.02}
            return {**report, "state": "answered" if len(moved) > 1 else "trying"}
        if method == "POST":
            return {"awaited": []}
        return {"peers": [peer() if len(moved) > 1 else peer(carrier="tcp", carrier_reason="no UDP answer")]}

    assert [(each.check, each.verdict) for each in examine_links(request, Trials(request))] == [
        ("link", "ok"),
        ("UDP reach", "ok"),
    ]
