"""What a running tunnel has met: each reason of drops that somebody can mend is explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.doctor.subjects import peer, tap, tunnel
from vpntun.doctor.running import REASONS, examine_device, examine_drops, examine_kinds

DOCS = (Path(__file__).parents[2] / "docs" / "control.rst").read_text()


def test_every_reason_is_documented() -> None:
    [rows] = re.findall(r"^\.\. reasons\n\n=.*\n.*\n=.*\n((?:.+\n)+?)=", DOCS, re.MULTILINE)
    assert REASONS.keys() <= {row.split("  ")[0] for row in rows.splitlines()}


@pytest.mark.parametrize("reason", list(REASONS))
def test_each_reason_is_explained_with_a_remedy(reason: str) -> None:
    (finding,) = examine_drops(tunnel(peer(name="laptop", drops={reason: 1, "queue full": 9})))
    assert finding.verdict in ("warning", "failed")
    assert finding.remedy
    assert "{" not in finding.text + finding.remedy
    assert "(" not in finding.text


def test_peers_are_told_apart_and_counted() -> None:
    one, other = peer(name="laptop", drops={"old timestamp": 3}), peer(name="phone", drops={"source not allowed": 1200})
    clock, source = examine_drops(tunnel(one, other))
    assert "a handshake of laptop had an older timestamp" in clock.text
    assert clock.text.endswith("(3 times)")
    assert "vpntun reset tun3 laptop" in clock.remedy
    assert source.text.startswith("phone sent packets")
    assert source.text.endswith("(1,200 times)")


def test_drops_of_nobody_are_named_too() -> None:
    unknown, old = examine_drops(tunnel(peer(), drops={"unknown peer": 2, "old timestamp": 1, "no route": 0}))
    assert "not configured here (2 times)" in unknown.text
    assert "a handshake of a peer had" in old.text
    assert "vpntun reset tun3 PEER" in old.remedy


def test_frames_that_came_back_to_this_side_are_not_said_to_come_from_a_peer() -> None:
    (finding,) = examine_drops(tap(peer(), drops={"frame came back": 4}))
    assert finding.text.startswith("frames came in from this side although")
    assert "stp_state 1" in finding.remedy


def test_devices_of_different_kinds_are_a_fault_and_those_of_one_kind_are_not_mentioned() -> None:
    (finding,) = examine_kinds(tap(peer(name="laptop", device="tun"), peer(device="tap"), peer()))
    assert (finding.verdict, finding.text) == (
        "failed",
        "laptop has a TUN device, and this end a TAP device: nothing passes",
    )
    (finding,) = examine_kinds(tunnel(peer(name="laptop", device="tap")))
    assert finding.text.startswith("laptop has a TAP device")


def test_a_name_in_a_command_is_quoted() -> None:
    (finding,) = examine_drops(tunnel(peer(name="rack 7; reboot", drops={"old timestamp": 1})))
    assert "vpntun reset tun3 'rack 7; reboot'" in finding.remedy


def test_ordinary_drops_are_nothing_to_mend() -> None:
    (finding,) = examine_drops(tunnel(peer(drops={"queue full": 10, "neighbor discovery": 3})))
    assert finding.verdict == "ok"


def test_a_device_without_offloads_is_slower() -> None:
    kinds = [(True, True), (True, False), (False, False), (None, None)]
    found = [list(examine_device(tunnel(takes_tcp=tcp, takes_udp=udp))) for tcp, udp in kinds]
    assert [[each.verdict for each in findings] for findings in found] == [["ok"], ["warning"], ["warning"], []]
