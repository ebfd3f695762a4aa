"""Check of a tunnel's peers: which state is missing decides the exit status, and every faulty peer has a line."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.sample_status import PEER
from vpntun.cli.link_check import faults_of
from vpntun.errors import CarrierDown, LinkError, NoFreshHandshake, NotVerified

SILENT = {"data_verified": False, "data_verified_for": 3, "data_verified_age": 33}
STALE = {**SILENT, "handshake_fresh": False, "handshake_fresh_for": 7}
DOWN = {**STALE, "carrier_up": False, "carrier_reason": "no answer over UDP or TCP", "carrier_reason_for": 60}


def peer(name: str, **changes: Any) -> dict[str, Any]:
    return {**PEER, "name": name, **changes}


def test_peers_whose_data_is_verified_are_in_order() -> None:
    assert faults_of([peer("a"), peer("b", state="connecting")]) == ([], 0)
    assert faults_of([]) == ([], 0)


UDP = "a: UDP for 2 hours (it answered first)"


@pytest.mark.parametrize(
    ("changes", "kind", "status", "line"),
    [
        (SILENT, NotVerified, 13, f"{UDP}; data not verified for 3 seconds, last proof 33 seconds ago"),
        (STALE, NoFreshHandshake, 14, f"{UDP}; handshake not fresh for 7 seconds"),
        (DOWN, CarrierDown, 15, "a: no carrier (no answer over UDP or TCP for 1 minute)"),
    ],
)
def test_the_state_that_is_missing_decides(
    changes: dict[str, Any], kind: type[LinkError], status: int, line: str
) -> None:
    assert faults_of([peer("a", **changes), peer("b")]) == ([line], status)
    assert kind.exit_status == status


def test_the_worst_of_several_decides_and_each_has_its_line() -> None:
    lines, status = faults_of([peer("a", **SILENT), peer("", **DOWN), peer("c"), peer("d", **STALE)])
    assert status == CarrierDown.exit_status
    assert [line.split(":")[0] for line in lines] == ["a", PEER["public_key"], "d"]
