"""Another machine as a target: its name is looked up first, and keys in use are left alone."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import pytest

from tests.datapath.ends import ALICE, BOB, CAROL, PSK
from vpntun.config.keys import Keys
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.doctor.examination import examine
from vpntun.doctor.finding import Finding
from vpntun.doctor.reach import target
from vpntun.doctor.reach.target import Target, checks_of_target, judge_failed_name, judge_name, targets_of
from vpntun.errors import KeyFileError

KEYS = Keys(ALICE, BOB.public, PSK)
Used = tuple[str, Mapping[str, Any]]


def found(host: str, *, used: Used | None = None, keys: Keys | None = KEYS) -> list[Finding]:
    def read() -> Keys:
        if keys is None:
            raise KeyFileError("there is no key: make one")
        return keys

    return list(examine(checks_of_target(Target(host, 9, "udp", True), read, lambda _: used)))


def test_a_name_is_reported_with_its_addresses() -> None:
    assert judge_name("a.example", ["192.0.2.1", "2001:db8::1"], 0.0123).text == (
        "a.example is 192.0.2.1, 2001:db8::1, found in 12 ms"
    )
    assert judge_name("a.example", ["192.0.2.1"], 5.1).verdict == "warning"


def test_a_missing_name_is_told_from_name_servers_that_do_not_answer() -> None:
    missing = judge_failed_name("a.example", socket.gaierror(socket.EAI_NONAME, "unknown"), 0.1)
    silent = judge_failed_name("a.example", socket.gaierror(socket.EAI_AGAIN, "try again"), 10.0)
    assert "there is no address for the name a.example" in missing.text
    assert silent.text == "no name server has answered for a.example within 10 s"
    assert (missing.verdict, silent.verdict) == ("failed", "failed")


def test_without_an_address_nothing_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(target, "lookup", fail)
    assert [(finding.check, finding.verdict) for finding in found("a.example")] == [
        ("name", "failed"),
        ("reach", "skipped"),
    ]


@pytest.mark.parametrize(("state", "verdict"), [("connected", "ok"), ("waiting", "skipped"), ("one-way", "skipped")])
def test_keys_of_a_running_tunnel_are_not_used(state: str, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("it was called")

    monkeypatch.setattr(target, "call_by_udp", fail)
    peer = {"state": state, "endpoint": "192.0.2.1:9", "carrier": "udp"}
    (finding,) = found("192.0.2.1", used=("tun11", peer))
    assert finding.verdict == verdict
    assert finding.text.removeprefix("not checked: ").startswith("tun11 uses these keys")


def test_bad_keys_are_a_finding() -> None:
    (finding,) = found("192.0.2.1", keys=None)
    assert (finding.verdict, finding.text, finding.remedy) == ("failed", "there is no key", "make one")
    assert finding.about == "192.0.2.1 port 9"


def test_the_peers_that_a_tunnel_calls_are_its_targets() -> None:
    called = PeerSettings(BOB.public, (), PSK, host="office.example", port=7, transport="auto", is_vpntun=True)
    waiting = PeerSettings(CAROL.public, ())
    tunnel = Tunnel("tun3", ALICE, (waiting, called), None, None)
    assert list(targets_of(tunnel)) == [(Target("office.example", 7, "auto", True), KEYS)]
    assert list(targets_of(Tunnel("tun3", None, (called,), None, None))) == []
