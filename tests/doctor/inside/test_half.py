"""This end's half of an examination: what a peer gets to know, and what it never does."""

from __future__ import annotations

import json
import threading
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.doctor.fake_host import FakeHost
from tests.doctor.subjects import peer, tunnel
from tests.netns.lab import until
from vpntun.doctor.finding import Finding
from vpntun.doctor.inside.half import (
    KEPT_FOR,
    MOST_NETWORKS,
    PATIENCE,
    Examiner,
    checks_of_half,
    examine_wanted,
    networks_in,
)

STATUS: dict[str, Any] = {
    "interface": "tun3",
    "addresses": ["10.9.0.1/24"],
    "mtu": 1400,
    "waits": "auto",
    "listen_port": 55555,
    "relay": False,
    "drops": {},
    "peers": [
        {
            "name": "laptop",
            "public_key": "A" * 43 + "=",
            "endpoint": "192.0.2.7:4000",
            "allowed_ips": ["10.9.0.2/32"],
            "preshared_key": True,
            "vpntun": True,
            "path_mtu": 1500,
            "drops": {},
            "loss": 0.25,
            "carrier": "udp",
        }
    ],
}


class WaitingHost(FakeHost):
    """A host whose packet filter answers when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = threading.Event()

    def has_legacy_rules(self) -> bool:
        self.may_answer.wait(1)
        return False


def answer_of(examiner: Examiner, who: object, asked: dict[str, Any] | None = None) -> Any:
    found: list[Any] = []

    def has_come() -> bool:
        found[:] = [examiner.answer(who, asked or {}, STATUS, {})]
        return found[0] is not None

    until(has_come, 10)
    return found[0]


def test_an_examination_runs_beside_the_loop_and_its_result_is_fetched_by_asking_again() -> None:
    host = WaitingHost()
    examiner = Examiner(host)
    assert examiner.answer("laptop", {}, STATUS, {}) is None
    assert examiner.answer("laptop", {}, STATUS, {}) is None, "the packet filter has not answered yet"
    host.may_answer.set()
    answer = answer_of(examiner, "laptop")
    assert {each["check"] for each in answer["findings"]} >= {"AEAD", "clock", "forwarding", "firewall"}
    assert answer["link"] == {
        "endpoint": "192.0.2.7:4000",
        "carrier": "udp",
        "loss": 0.25,
        "path_mtu": 1500,
        "drops": {},
    }


def test_one_peer_is_examined_at_a_time_and_a_result_that_nobody_fetches_is_no_obstacle() -> None:
    host = WaitingHost()
    examiner = Examiner(host)
    assert examiner.answer("laptop", {}, STATUS, {}) is None
    assert examiner.answer("phone", {}, STATUS, {}) is None
    assert examinations() == 1
    host.may_answer.set()
    assert answer_of(examiner, "phone")["findings"]
    assert examiner.answer("laptop", {}, STATUS, {}) is not None, "the result was kept meanwhile"


def examinations() -> int:
    return sum(thread.name == "examination" for thread in threading.enumerate())


def test_a_peer_that_asks_all_the_time_takes_no_turn_of_another() -> None:
    now = 0.0
    examiner = Examiner(FakeHost(), lambda: now)
    assert answer_of(examiner, "greedy")
    assert examiner.answer("greedy", {}, STATUS, {}) is None
    assert examiner.answer("laptop", {}, STATUS, {}) is None
    assert answer_of(examiner, "greedy")
    for _ in range(3):
        now += 0.5
        assert examiner.answer("greedy", {}, STATUS, {}) is None, "it is the laptop's turn"
    assert answer_of(examiner, "laptop")
    assert answer_of(examiner, "greedy")


def test_a_peer_that_has_given_up_is_not_waited_for() -> None:
    now = 0.0
    host = WaitingHost()
    examiner = Examiner(host, lambda: now)
    for who in ("laptop", "gone", "phone"):
        assert examiner.answer(who, {}, STATUS, {}) is None
    host.may_answer.set()
    now = PATIENCE
    assert answer_of(examiner, "phone")
    assert answer_of(examiner, "laptop")
    assert examiner.answer("laptop", {}, STATUS, {}) is None
    until(lambda: examinations() == 0, 10)
    now += KEPT_FOR
    assert examiner.answer("gone", {}, STATUS, {}) is None
    now += KEPT_FOR
    assert answer_of(examiner, "gone")


def test_an_examination_that_cannot_begin_is_no_obstacle_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    examiner = Examiner(FakeHost())
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError):
            examiner.answer("laptop", {}, STATUS, {})
    assert answer_of(examiner, "laptop")


def test_an_answer_has_no_path_of_the_interpreter_and_no_keys() -> None:
    text = json.dumps(answer_of(Examiner(FakeHost()), "laptop"))
    assert "/python" not in text
    assert "preshared" not in text
    assert "allowed" not in text


ONE_PEER = tunnel(peer("10.9.0.2/32", name="laptop"))


def wanted(*networks: str, host: FakeHost, **fields: Any) -> list[tuple[str, str]]:
    subject = tunnel(peer("10.9.0.2/32", name="laptop"), **fields)
    return [(finding.verdict, finding.text) for finding in examine_wanted(subject, map(ip_network, networks), host)]


def test_forwarding_matters_for_what_the_peer_routes_here_beyond_the_tunnel() -> None:
    off = FakeHost()
    on = FakeHost(settings={"net/ipv4/ip_forward": 1})
    assert wanted("10.9.0.0/24", host=off) == [("ok", "nothing beyond the other end is routed to it")]
    assert wanted("10.9.0.0/24", "192.168.7.0/24", host=off) == [
        ("failed", "packets to 192.168.7.0/24 end there: the kernel does not forward IPv4")
    ]
    assert wanted("192.168.7.0/24", host=on) == [("ok", "the kernel forwards IPv4, to 192.168.7.0/24")]
    six = ("10.9.0.1/24", "fd09::1/64")
    assert [verdict for verdict, _ in wanted("0.0.0.0/0", "::/0", host=on, addresses=six)] == ["ok", "failed"]
    assert wanted("10.8.0.0/24", host=off, relay=True)[0][0] == "ok"


def test_what_needs_no_forwarding_is_no_fault() -> None:
    on = FakeHost(settings={"net/ipv4/ip_forward": 1})
    only_four = wanted("0.0.0.0/0", "::/0", host=on)
    assert [verdict for verdict, _ in only_four] == ["ok", "warning"], "IPv6 is taken in, so that it does not leak"
    office = FakeHost(has={"eth0": ("192.168.7.5/24",)})
    assert wanted("192.168.7.5/32", host=office)[0][0] == "ok", "this machine itself"
    assert wanted("192.168.7.0/24", host=office)[0][0] == "failed"


def test_on_a_tap_nothing_is_said_about_forwarding() -> None:
    assert wanted("192.168.7.0/24", host=FakeHost(), device="tap") == []


def test_the_checks_examine_only_the_way_to_the_peer() -> None:
    names = {check.name for check in checks_of_half(ONE_PEER, [], FakeHost())}
    assert names == {
        *("program", "kernel", "offloads", "clock", "route to peer", "MTU", "device", "bridge"),
        *("forwarding", "rp_filter", "firewall"),
    }


def test_a_fault_on_the_way_to_the_peer_is_found() -> None:
    subject = tunnel(peer("10.9.0.2/32", at="192.0.2.7", name="laptop"))
    host = FakeHost(leads={})
    findings: list[Finding] = []
    for check in checks_of_half(subject, [], host):
        findings.extend(check.look())
    assert ("route to peer", "failed") in {(finding.check, finding.verdict) for finding in findings}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("10.0.0.0/8"),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["networks", "time", "x"]), json_values))
def test_no_request_raises_and_few_networks_are_read(asked: dict[str, Any]) -> None:
    assert len(networks_in(asked)) <= MOST_NETWORKS


@pytest.mark.parametrize("asked", [{}, {"networks": "10.0.0.0/8"}, {"networks": [1.5, None, "x", {}]}])
def test_what_is_no_network_is_ignored(asked: dict[str, Any]) -> None:
    assert networks_in(asked) == []
    assert networks_in({"networks": ["10.0.0.1/8", "fd00::/8", "x"]}) == [
        ip_network("10.0.0.0/8"),
        ip_network("fd00::/8"),
    ]
