"""This machine: what each fact about the kernel and the process means, and that the facts can be read here.

tests/netns/test_doctor.py takes the device and the capability away.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.machine import needs_root
from vpntun.doctor.finding import Finding
from vpntun.doctor.machine import TRIAL, MachineFacts, judge, read_facts
from vpntun.errors import DeviceError
from vpntun.tun.device import TCP_OFFLOADS, UDP_OFFLOADS

GOOD = MachineFacts(
    is_root=True,
    may_administer=True,
    problem=None,
    has_header=True,
    offloads=TCP_OFFLOADS | UDP_OFFLOADS,
    cuts=True,
    coalesces=True,
)


def found(facts: MachineFacts, check: str) -> Finding:
    (finding,) = [each for each in judge(facts) if each.check == check]
    return finding


def test_a_good_machine_has_nothing_to_mend() -> None:
    findings = list(judge(GOOD))
    assert {each.verdict for each in findings} == {"ok"}
    assert len(findings) == 6


@pytest.mark.parametrize(
    ("facts", "check", "verdict", "word"),
    [
        (GOOD._replace(problem=DeviceError("it is missing: load it")), "TUN device", "failed", "missing"),
        (GOOD._replace(may_administer=False), "capability", "failed", "root lacks CAP_NET_ADMIN"),
        (GOOD._replace(may_administer=False, is_root=False), "capability", "warning", "this user"),
        (GOOD._replace(has_header=False), "vnet header", "failed", "no virtio_net_hdr"),
        (GOOD._replace(offloads=TCP_OFFLOADS), "offloads", "warning", "not of UDP"),
        (GOOD._replace(offloads=0), "offloads", "warning", "no superpackets"),
        (GOOD._replace(offloads=None), "offloads", "skipped", "only root"),
        (GOOD._replace(cuts=False), "UDP_SEGMENT", "warning", "each datagram takes a call"),
        (GOOD._replace(coalesces=False), "UDP_GRO", "warning", "does not coalesce"),
    ],
)
def test_each_fault_is_found_with_a_remedy(facts: MachineFacts, check: str, verdict: str, word: str) -> None:
    finding = found(facts, check)
    assert finding.verdict == verdict
    assert word in finding.text
    assert finding.remedy
    assert [each for each in judge(facts) if each.check != check and each.verdict != "ok"] == []


def test_nothing_is_said_of_a_device_that_does_not_open() -> None:
    checks = [each.check for each in judge(GOOD._replace(problem=DeviceError("it is missing: load it")))]
    assert "offloads" not in checks
    assert "vnet header" not in checks


@needs_root
def test_the_facts_are_read_and_no_device_is_made_in_this_namespace() -> None:
    before, namespace = set(os.listdir("/sys/class/net")), os.readlink("/proc/self/ns/net")
    facts = read_facts()
    assert facts.problem is None
    assert facts.may_administer
    assert facts.has_header
    assert facts.offloads is not None
    assert facts.offloads & TCP_OFFLOADS == TCP_OFFLOADS
    assert set(os.listdir("/sys/class/net")) == before
    assert TRIAL not in before
    assert os.readlink("/proc/thread-self/ns/net") == namespace
    assert Path("/dev/net/tun").exists()
