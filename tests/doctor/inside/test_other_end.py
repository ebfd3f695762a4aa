"""Findings about the other end: made of an untrusted answer, or of none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun import __version__
from vpntun.doctor.finding import Finding, Verdict
from vpntun.doctor.inside import other_end
from vpntun.doctor.inside.half import LONGEST_TEXT
from vpntun.doctor.inside.other_end import MOST_ASKED, MOST_FINDINGS, checks_of_other_ends, judge
from vpntun.errors import CannotAsk, VpntunError

GOOD: dict[str, Any] = {
    "version": __version__,
    "time": 1000.0,
    "findings": [{"check": "AEAD", "verdict": "ok", "text": "fast", "remedy": ""}],
    "link": {"endpoint": "192.0.2.7:4000", "carrier": "tcp", "loss": 0.001, "path_mtu": 1492},
}


def judged(answer: Mapping[str, Any], asked_at: float = 999.0, answered_at: float = 1001.0) -> dict[str, Finding]:
    return {finding.check: finding for finding in judge(answer, asked_at, answered_at)}


def test_a_healthy_end_is_fine_in_every_respect() -> None:
    found = judged(GOOD)
    assert {finding.verdict for finding in found.values()} == {"ok"}
    assert found["way back"].text == (
        "it reaches this end at 192.0.2.7:4000 by TCP, in datagrams of up to 1492 bytes, and 0.1% of them are lost"
    )


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (1001.0 + 5, ""),
        (1001.0 + 90, "90 s ahead of"),
        (999.0 - 600, "10 minutes behind"),
        (1000.0 - 86400 * 400, "400 days behind"),
        (1000.0 + 3600 * 5, "5 hours ahead of"),
    ],
)
def test_clocks_are_compared_as_far_as_the_time_of_asking_allows(there: float, words: str) -> None:
    finding = judged({**GOOD, "time": there})["clock"]
    assert finding.verdict == ("warning" if words else "ok")
    assert words in finding.text


def test_loss_and_another_version_are_warned_of() -> None:
    found = judged({**GOOD, "version": "0.0.9", "link": {**GOOD["link"], "loss": 0.05}})
    assert found["other end"].text == f"it runs vpntun 0.0.9, and this end {__version__}"
    assert (found["other end"].verdict, found["way back"].verdict) == ("warning", "warning")


def test_a_loss_of_next_to_nothing_is_not_mentioned() -> None:
    assert "lost" not in judged({**GOOD, "link": {**GOOD["link"], "loss": 0.0004}})["way back"].text
    assert "0.1% of them are lost" in judged({**GOOD, "link": {**GOOD["link"], "loss": 0.0005}})["way back"].text


def test_a_refusal_is_passed_on() -> None:
    assert [finding.text for finding in judge({"refused": "no"}, 0.0, 1.0)] == ["not checked: it refuses: no"]


def test_numbers_that_no_machine_has_are_left_out() -> None:
    found = judged({**GOOD, "time": 10**400, "link": {**GOOD["link"], "loss": -(10**400), "path_mtu": 10**400}})
    assert "clock" not in found
    assert found["way back"].text == "it reaches this end at 192.0.2.7:4000 by TCP"


def test_words_of_any_length_are_cut() -> None:
    long = "x" * 5000
    words: dict[str, Any] = {"check": long, "verdict": "failed", "text": long, "remedy": long}
    found = list(judge({**GOOD, "version": long, "findings": [words], "link": {"endpoint": long}}, 0.0, 1.0))
    found += judge({"refused": long}, 0.0, 1.0)
    assert {finding.verdict for finding in found} >= {"failed", "skipped", "warning"}
    assert all(len(text) < 3 * LONGEST_TEXT for each in found for text in (each.check, each.text, each.remedy))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
names = st.sampled_from(["refused", "version", "time", "link", "findings", "x"])
finding_like = st.dictionaries(
    st.sampled_from(["check", "verdict", "text", "remedy"]), st.text(max_size=3) | json_values
)
link_like = st.dictionaries(st.sampled_from(["endpoint", "carrier", "loss", "path_mtu"]), json_values)


@given(st.dictionaries(names, json_values | st.lists(finding_like) | link_like))
def test_whatever_the_other_end_answers_the_findings_are_well_formed_and_few(answer: dict[str, Any]) -> None:
    found = list(judge(answer, 0.0, 1.0))
    assert len(found) <= MOST_FINDINGS + 3
    for finding in found:
        assert finding.verdict in get_args(Verdict)
        assert isinstance(finding.text, str)
        assert len(finding.text) < 3 * LONGEST_TEXT
        assert isinstance(finding.remedy, str)


class FakeTunnel:
    """The control socket of a tunnel whose peers answer as a test says: None is silence."""

    def __init__(self, answers: dict[str, dict[str, Any] | None], **fields: Any) -> None:
        self._answers = answers
        self._fields = fields
        self.requests: list[str] = []

    def __call__(self, method: str, target: str) -> dict[str, Any]:
        self.requests.append(f"{method} {target}")
        if target == "/v1/status":
            given = {
                "state": "connected",
                "vpntun": True,
                "data_verified": True,
                "public_key": "key+/=",
                **self._fields,
            }
            return {"peers": [{"name": name, **given} for name in self._answers]}
        if target.startswith("/v1/verify"):
            return {}
        if method == "POST":
            return {"id": sum(each.startswith("POST /v1/examine") for each in self.requests)}
        if sum(each == f"{method} {target}" for each in self.requests) < 3:
            return {"state": "asked", "answer": None}
        answer = list(self._answers.values())[int(target.partition("=")[2]) - 1]
        state = "silent" if answer is None else "answered"
        return {"state": state, "asked": 999.0, "answered": 1001.0, "answer": answer}


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_end, "SECONDS_BETWEEN", 0.0)


def findings(tunnel: FakeTunnel) -> list[tuple[str, Finding]]:
    return [(check.about, finding) for check in checks_of_other_ends("tun3", tunnel) for finding in check.look()]


def test_all_connected_peers_are_asked_before_the_first_answer_is_awaited() -> None:
    tunnel = FakeTunnel({"office": GOOD, "laptop": None})
    found = findings(tunnel)
    assert tunnel.requests[1:3] == ["POST /v1/examine?peer=key%2B/%3D"] * 2
    assert found[0][0] == "tun3: the other end, office"
    about, last = found[-1]
    assert (about, last.verdict, last.text) == (
        "tun3: the other end, laptop",
        "failed",
        "it has not answered within 10 s",
    )


class DeadTunnel(FakeTunnel):
    """A tunnel whose link turns out to carry nothing, so that an answer would be awaited for ever."""

    def __init__(self, *before_and_after: dict[str, Any]) -> None:
        super().__init__({"office": GOOD})
        self._statuses = iter(before_and_after)

    def __call__(self, method: str, target: str) -> dict[str, Any]:
        if target == "/v1/status":
            self._fields = next(self._statuses)
        return {"state": "asked"} if "examined" in target else super().__call__(method, target)


@pytest.mark.parametrize("after", [{"data_unanswered_for": 3}, {"state": "one-way"}])
def test_a_link_that_carries_no_data_is_known_to_carry_no_answer_either(
    monkeypatch: pytest.MonkeyPatch, after: dict[str, Any]
) -> None:
    monkeypatch.setattr(other_end, "SECONDS_BETWEEN_LOOKS", 0.0)
    tunnel = DeadTunnel({}, {"data_unanswered_for": None}, {"data_unanswered_for": 2}, after)
    ((_, finding),) = findings(tunnel)
    assert (finding.verdict, finding.text) == ("skipped", "not checked: the link carries no data")
    assert tunnel.requests.count("POST /v1/verify?peer=key%2B%2F%3D") == 3


def test_peers_that_are_not_connected_are_not_asked_and_plain_ones_cannot_answer() -> None:
    assert findings(FakeTunnel({"office": GOOD}, state="waiting")) == []
    ((_, finding),) = findings(FakeTunnel({"office": GOOD}, vpntun=False))
    assert (finding.verdict, finding.text) == (
        "skipped",
        "not checked: it is a plain WireGuard, which answers no questions",
    )


def test_a_tunnel_of_before_an_update_cannot_ask() -> None:
    def older(method: str, target: str) -> dict[str, Any]:
        assert (method, target) == ("GET", "/v1/status")
        return {"peers": [{"name": "office", "public_key": "key", "state": "connected", "vpntun": True}]}

    (check,) = checks_of_other_ends("tun3", older)
    (finding,) = check.look()
    assert (finding.verdict, finding.remedy) == ("skipped", "restart the tunnel")


def test_many_peers_are_not_all_asked() -> None:
    found = findings(FakeTunnel({f"peer{number}": GOOD for number in range(MOST_ASKED + 3)}))
    assert found[-1][1].text == "not checked: 3 more connected peers, of which none was asked"


def test_a_tunnel_that_refuses_to_ask_says_why() -> None:
    tunnel = FakeTunnel({"": GOOD})

    def refusing(method: str, target: str) -> dict[str, Any]:
        if method == "POST":
            raise CannotAsk("the peer is a vpntun too old to answer: update the program at the other end")
        return tunnel(method, target)

    (check,) = checks_of_other_ends("tun3", refusing)
    assert [finding.text for finding in check.look()] == [
        "not checked: the peer is a vpntun too old to answer: update the program at the other end"
    ]


def test_a_tunnel_that_answers_nothing_has_no_other_ends() -> None:
    def dead(method: str, target: str) -> dict[str, Any]:
        raise VpntunError("it ended")

    assert checks_of_other_ends("tun3", dead) == []
