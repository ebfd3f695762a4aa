"""The bridge of a TAP device, judged by facts. tests/netns/test_tap_shown.py has the kernel's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.doctor.fake_host import FakeHost
from tests.doctor.subjects import peer, tap, tunnel
from tests.doctor.test_ruleset import chain
from vpntun.doctor.bridge import examine_bridge
from vpntun.doctor.finding import Finding
from vpntun.doctor.subject import Subject
from vpntun.errors import PrivilegeError

THROUGH_THE_FILTER = {"net/bridge/bridge-nf-call-iptables": 1}


def host(*ports: str, mtus: dict[str, int] | None = None, **fields: Any) -> FakeHost:
    """Make a host with the bridges br0, which has these ports, and br1."""
    devices = {**dict.fromkeys(("eth0", "eth1", "tap3", "br0", "br1"), 1500), **(mtus or {})}
    return FakeHost(**{"devices": devices, "bridges": {"br0": ports, "br1": ()}, **fields})


def only(subject: Subject, host: FakeHost) -> Finding:
    (finding,) = examine_bridge(subject, host)
    assert finding.check == "bridge"
    return finding


def test_a_device_in_its_bridge_is_ok_and_the_other_ports_are_named() -> None:
    assert only(tap(), host("tap3", "eth0", "eth1")).text == "tap3 is in br0, with eth0, eth1"
    assert only(tap(), host("tap3")).text == "tap3 is in br0, which has no other port"
    assert only(tap(bridge=None), host("tap3", "eth0")).text == "tap3 is in br0, with eth0"


@pytest.mark.parametrize("subject", [tunnel(peer("10.9.0.2/32")), tap(bridge=None)])
def test_without_a_bridge_nothing_is_said(subject: Subject) -> None:
    assert list(examine_bridge(subject, host())) == []


@pytest.mark.parametrize(
    ("found", "text", "remedy"),
    [
        (FakeHost(), "the bridge br0 is not there", "ip link add br0 type bridge"),
        (host(bridges={"br1": ()}), "br0 is not a bridge", "name another device by Bridge"),
        (host("tap3", down=("br0",)), "the bridge br0 is down, so nothing passes it", "ip link set br0 up"),
        (host("eth0"), "tap3 is not in the bridge br0", "ip link set tap3 master br0"),
        (host(bridges={"br0": (), "br1": ("tap3",)}), "tap3 is not in the bridge br0, but in br1", "restart"),
    ],
)
def test_a_bridge_that_passes_nothing_is_a_fault(found: FakeHost, text: str, remedy: str) -> None:
    finding = only(tap(), found)
    assert (finding.verdict, finding.text) == ("failed", text)
    assert remedy in finding.remedy


def test_before_the_start_the_device_need_not_be_in_the_bridge() -> None:
    waiting = host("eth0")
    del waiting.devices["tap3"]
    assert only(tap(is_running=False), waiting).text == "tap3 joins br0, with eth0"
    assert only(tap(is_running=False), host("eth0")).text == "tap3 joins br0, with eth0"
    assert only(tap(is_running=False), host("tap3", "eth0")).text == "tap3 is in br0, with eth0"


def test_a_device_that_is_in_another_bridge_prevents_the_start() -> None:
    finding = only(tap(is_running=False), host(bridges={"br0": (), "br1": ("tap3",)}))
    assert (finding.verdict, finding.text) == ("failed", "tap3 is in br1, and cannot join br0")
    assert "ip link set tap3 nomaster" in finding.remedy


@pytest.mark.parametrize(
    ("mtus", "text", "remedy"),
    [
        ({"eth0": 1400}, "eth0 takes packets of 1400 bytes and tap3 of 1500", "ip link set tap3 mtu 1400"),
        ({"eth0": 9000}, "tap3 takes packets of 1500 bytes and eth0 of 9000", "ip link set eth0 mtu 1500"),
        ({"br0": 9000}, "tap3 takes packets of 1500 bytes and br0 of 9000", "ip link set br0 mtu 1500"),
    ],
)
def test_ports_of_different_mtus_drop_the_longer_packets(mtus: dict[str, int], text: str, remedy: str) -> None:
    finding = only(tap(), host("tap3", "eth0", mtus=mtus))
    assert finding.verdict == "warning"
    assert finding.text.startswith(text)
    assert remedy in finding.remedy


def test_a_bridge_of_a_smaller_mtu_passes_longer_frames_from_port_to_port() -> None:
    assert only(tap(), host("tap3", "eth0", mtus={"br0": 1400})).verdict == "ok"


def test_rules_about_forwarded_packets_drop_those_that_pass_the_bridge() -> None:
    rules = chain(hook="forward")
    finding = only(tap(), host("tap3", "eth0", rules=rules, settings=THROUGH_THE_FILTER))
    assert finding.verdict == "failed"
    assert finding.text.startswith("IPv4 packets from port to port of br0 are dropped by the chain")
    assert "sysctl -w net.bridge.bridge-nf-call-iptables=0" in finding.remedy
    assert only(tap(), host("tap3", "eth0", rules=rules)).verdict == "ok"
    unread = host("tap3", "eth0", rules=PrivilegeError("only root may: be root"), settings=THROUGH_THE_FILTER)
    assert only(tap(), unread).verdict == "skipped"
