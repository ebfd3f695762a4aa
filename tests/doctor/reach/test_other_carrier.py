"""Reach by the carrier that a link does not use: which peers are tried, and what each outcome means."""

from __future__ import annotations

from typing import Any

import pytest

from vpntun.doctor.reach import other_carrier
from vpntun.doctor.reach.other_carrier import MOST_TRIED, Trials, judge_trial
from vpntun.errors import VpntunError

WHERE = "192.0.2.1:55555"


def report(carrier: str, state: str, **fields: Any) -> dict[str, Any]:
    used = "udp" if carrier == "tcp" else "tcp"
    return {"state": state, "carrier": carrier, "used": used, "endpoint": WHERE, "round_trip": None, **fields}


@pytest.mark.parametrize(
    ("given", "verdict", "words"),
    [
        (report("tcp", "answered", round_trip=0.0123), "ok", "answers over TCP in 12 ms, too, beside UDP"),
        (report("tcp", "answered", round_trip=0.0009), "ok", "answers over TCP in 0.9 ms"),
        (report("udp", "answered", round_trip=0.0123), "ok", "answers over UDP in 12 ms: the link has left TCP for it"),
        (report("tcp", "refused"), "warning", f"{WHERE} refuses TCP: if UDP is blocked one day, the link to office"),
        (report("tcp", "silent"), "warning", f"no answer over TCP from {WHERE}: if UDP is blocked"),
        (report("tcp", "unreachable"), "warning", f"{WHERE} cannot be reached over TCP"),
        (report("tcp", "forbidden"), "warning", f"let no TCP out to {WHERE}"),
        (report("tcp", "open"), "warning", "takes TCP connections, but no vpntun"),
    ],
)
def test_each_outcome_has_its_finding(given: dict[str, Any], verdict: str, words: str) -> None:
    finding = judge_trial("office", given)
    assert finding is not None
    assert (finding.check, finding.verdict) == (f"{given['carrier'].upper()} reach", verdict)
    assert words in finding.text
    assert ("55555" in finding.remedy) == (verdict == "warning")


@pytest.mark.parametrize("state", ["silent", "unreachable"])
def test_udp_that_does_not_answer_is_left_to_the_finding_about_the_link(state: str) -> None:
    assert judge_trial("office", report("udp", state)) is None


def test_a_trial_that_a_reload_has_removed_is_no_finding() -> None:
    assert judge_trial("office", {"state": "none"}) is None


class FakeTunnel:
    """A running tunnel with peers. `calling`: the numbers of those that call it. `refusal`: its answer to a trial."""

    def __init__(self, peers: int, calling: set[int] | None = None, refusal: str = "", name: str = "peer") -> None:
        self.asked: list[str] = []
        self.state = "answered"
        self.refusal = refusal
        self.peers = [
            {
                "public_key": f"k{number}/+=",
                "name": f"{name}{number}" if name else "",
                "state": "connected",
                "carrier": "udp",
            }
            for number in range(peers)
        ]
        self.calling = {f"k{number}/+=" for number in calling or ()}

    def request(self, method: str, target: str) -> dict[str, Any]:
        self.asked.append(f"{method} {target}")
        if target == "/v1/doctor":
            ends = {each["public_key"]: None if each["public_key"] in self.calling else WHERE for each in self.peers}
            return {"peers": [{"public_key": key, "endpoint": endpoint} for key, endpoint in ends.items()]}
        if target == "/v1/status":
            return {"peers": self.peers}
        if target.startswith("/v1/try?") and self.refusal:
            raise VpntunError(f"tun11 refuses: {self.refusal}")
        return report("tcp", self.state if method == "GET" else "trying", round_trip=0.01)


def test_all_trials_are_begun_before_one_is_awaited() -> None:
    tunnel = FakeTunnel(2)
    trials = Trials(tunnel.request)
    assert tunnel.asked[2:] == ["POST /v1/try?peer=k0%2F%2B%3D", "POST /v1/try?peer=k1%2F%2B%3D"]
    assert not trials.may_move_a_link
    assert {finding.text.split()[0] for finding in trials.findings()} == {"peer0", "peer1"}


def test_a_peer_that_calls_or_is_not_connected_is_not_tried() -> None:
    tunnel = FakeTunnel(3, calling={0})
    tunnel.peers[1]["state"] = "waiting"
    (finding,) = Trials(tunnel.request).findings()
    assert finding.text.startswith("peer2 ")


def test_few_of_many_peers_are_tried() -> None:
    assert len(list(Trials(FakeTunnel(MOST_TRIED + 5).request).findings())) == MOST_TRIED


def test_the_reason_of_a_refusal_is_reported_without_the_way_it_came() -> None:
    (finding,) = Trials(FakeTunnel(1, refusal="nothing to try", name="").request).findings()
    assert (finding.check, finding.verdict, finding.text) == ("TCP reach", "skipped", "not checked: nothing to try")


def test_a_trial_that_never_ends_is_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_carrier, "SECONDS", 0.05)
    monkeypatch.setattr(other_carrier, "SECONDS_BETWEEN", 0.001)
    tunnel = FakeTunnel(1)
    tunnel.state = "trying"
    assert list(Trials(tunnel.request).findings()) == []
