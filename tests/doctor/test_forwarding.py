"""Forwarding, judged by facts. tests/netns/test_doctor.py has the kernel's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.doctor.fake_host import FakeHost
from tests.doctor.subjects import peer, tap, tunnel
from tests.doctor.test_ruleset import ACCEPT, DPORT, chain, meta
from vpntun.doctor.finding import Finding
from vpntun.doctor.forwarding import examine_filter, examine_firewall, examine_forwarding
from vpntun.doctor.subject import Subject
from vpntun.errors import PrivilegeError

LAPTOP, PHONE = peer("10.9.0.2/32", name="laptop"), peer("10.9.0.3/32", name="phone")
SITE = peer("10.9.0.4/32", "192.168.7.0/24", name="site")
FORWARD = {"net/ipv4/ip_forward": 1}


def only(found: Any) -> Finding:
    (finding,) = list(found)
    assert isinstance(finding, Finding)
    return finding


@pytest.mark.parametrize(
    "subject",
    [
        tunnel(LAPTOP),
        tunnel(LAPTOP, PHONE, relay=True),
        tunnel(peer("10.0.0.0/8", at="203.0.113.2")),  # a client
        tunnel(peer("0.0.0.0/0", "::/0")),  # the server of a shared key
    ],
)
def test_most_tunnels_need_no_forwarding(subject: Subject) -> None:
    finding = only(examine_forwarding(subject, FakeHost()))
    assert finding.verdict == "ok"
    assert "needs none" in finding.text


@pytest.mark.parametrize(
    ("subject", "word", "relay"),
    [
        (tunnel(LAPTOP, PHONE), "peers cannot reach each other", True),
        (tunnel(SITE), "192.168.7.0/24 of site is reached by this machine alone", False),
    ],
)
def test_a_kernel_that_should_forward_and_does_not_is_a_warning(subject: Subject, word: str, relay: bool) -> None:
    finding = only(examine_forwarding(subject, FakeHost()))
    assert finding.verdict == "warning"
    assert word in finding.text
    assert "sysctl -w net.ipv4.ip_forward=1" in finding.remedy
    assert ("Relay" in finding.remedy) == relay
    assert only(examine_forwarding(subject, FakeHost(settings=FORWARD))).verdict == "ok"


def test_frames_of_a_tap_are_not_forwarded_by_the_kernel_but_the_port_has_to_be_open() -> None:
    strict = FakeHost(settings={**FORWARD, "net/ipv4/conf/all/rp_filter": 1}, rules=chain(hook="forward"))
    subject = tap(peer(name="one"), peer(name="other"), port=55555, carriers=("udp",))
    assert list(examine_forwarding(subject, strict)) == []
    assert list(examine_filter(subject, strict)) == []
    assert only(examine_firewall(subject, strict)).verdict == "ok"
    assert only(examine_firewall(subject, FakeHost(rules=chain()))).verdict == "failed"


def test_each_ip_version_is_forwarded_by_itself() -> None:
    six = peer("fd09::3/128", name="phone")
    four, other = examine_forwarding(tunnel(LAPTOP, six), FakeHost(settings=FORWARD))
    assert (four.verdict, other.verdict) == ("ok", "warning")
    assert "net.ipv6.conf.all.forwarding=1" in other.remedy


STRICT = {"net/ipv4/conf/all/rp_filter": 1}


def test_a_strict_filter_drops_what_has_no_route_back() -> None:
    host = FakeHost(leads={"0.0.0.0/0": "eth0", "10.9.0.0/24": "tun3"}, settings=STRICT)
    finding = only(examine_filter(tunnel(SITE, table="off"), host))
    assert finding.verdict == "failed"
    assert "192.168.7.0/24 of site are dropped" in finding.text
    assert "through eth0" in finding.text
    assert "rp_filter=2" in finding.remedy


@pytest.mark.parametrize(
    "settings", [{}, {"net/ipv4/conf/all/rp_filter": 2}, {**STRICT, "net/ipv4/conf/tun3/rp_filter": 2}]
)
def test_a_filter_that_is_not_strict_drops_nothing(settings: dict[str, int]) -> None:
    assert only(examine_filter(tunnel(SITE), FakeHost(settings=settings))).verdict == "ok"


def test_settings_of_the_machine_do_not_matter_to_a_run() -> None:
    run = tunnel(peer("192.168.7.0/24", at="203.0.113.2"), LAPTOP, in_run=True)
    host = FakeHost(settings={"net/ipv4/conf/all/rp_filter": 1, **FORWARD})
    assert not [*examine_filter(run, host), *examine_forwarding(run, host)]
    assert "forwards nothing" in only(examine_firewall(run, host)).text


def test_a_strict_filter_is_fine_with_routes_back() -> None:
    host = FakeHost(leads={"0.0.0.0/0": "tun3"}, settings=STRICT)
    assert only(examine_filter(tunnel(SITE), host)).verdict == "ok"


def test_a_part_of_a_network_that_does_not_lead_back_is_no_fault() -> None:
    """This machine's own address is one, and a network of its own, which a peer's network contains."""
    host = FakeHost(leads={"10.0.0.0/8": "tun3", "10.9.0.1/32": "lo", "10.0.0.0/24": "eth0"}, settings=STRICT)
    for allowed in ("10.9.0.0/24", "10.9.0.0/31", "10.0.0.0/8", "10.9.0.1/32"):
        assert only(examine_filter(tunnel(peer(allowed)), host)).verdict == "ok", allowed
    assert only(examine_filter(tunnel(peer("10.0.0.0/24")), host)).verdict == "failed"


def test_a_strict_filter_outside_a_full_tunnel_has_to_mind_marks() -> None:
    subject = tunnel(peer("0.0.0.0/0", at="203.0.113.2"), mark=1)
    host = FakeHost(leads={"0.0.0.0/0": "tun3"}, marked={"0.0.0.0/0": "eth0"}, settings=STRICT)
    outer, inner = examine_filter(subject, host)
    assert (outer.verdict, inner.verdict) == ("failed", "ok")
    assert "src_valid_mark=1" in outer.remedy
    host.settings = {**STRICT, "net/ipv4/conf/all/src_valid_mark": 1}
    assert only(examine_filter(subject, host)).verdict == "ok"


LISTENING = tunnel(LAPTOP, port=55555, carriers=("udp", "tcp"))


def test_rules_that_drop_all_calls_have_failed() -> None:
    udp, tcp = examine_firewall(LISTENING, FakeHost(rules=chain()))
    assert (udp.verdict, tcp.verdict) == ("failed", "failed")
    assert tcp.text == "calls to TCP port 55555 are dropped by the chain inet filter base"
    assert tcp.remedy == "have the firewall accept tcp port 55555"


def test_calls_that_are_dropped_are_no_fault_where_others_come_in_or_none_have_to() -> None:
    (tcp,) = examine_firewall(LISTENING, FakeHost(rules=chain([DPORT, ACCEPT])))
    assert (tcp.verdict, tcp.text) == ("warning", "calls to TCP port 55555 are dropped by the chain inet filter base")
    assert tcp.remedy
    called = tunnel(peer("10.9.0.2/32", at="203.0.113.2"), port=55555, carriers=("udp",))
    assert only(examine_firewall(called, FakeHost(rules=chain()))).verdict == "warning"


def test_calls_may_be_dropped_over_one_version_alone() -> None:
    found = list(examine_firewall(LISTENING, FakeHost(rules=chain(family="ip6"))))
    assert [each.text.partition(" are")[0] for each in found] == [
        "calls to UDP port 55555 over IPv6",
        "calls to TCP port 55555 over IPv6",
    ]


def test_a_version_that_this_host_has_no_address_of_does_not_matter() -> None:
    host = FakeHost(rules=chain(family="ip6"), has={"eth0": ("203.0.113.7/24", "fe80::1/64"), "tun3": ("fd09::1/64",)})
    assert only(examine_firewall(LISTENING, host)).verdict == "ok"
    host.rules = chain(family="ip")
    assert [each.text.partition(" are")[0] for each in examine_firewall(LISTENING, host)] == [
        "calls to UDP port 55555",
        "calls to TCP port 55555",
    ]


def test_a_client_needs_no_rule() -> None:
    subject = tunnel(peer("10.9.0.2/32", at="203.0.113.2"))
    assert only(examine_firewall(subject, FakeHost(rules=chain(), settings=FORWARD))).verdict == "ok"


def test_rules_that_this_user_may_not_read_are_not_checked() -> None:
    finding = only(examine_firewall(LISTENING, FakeHost(rules=PrivilegeError("only root may: run it as root"))))
    assert (finding.verdict, finding.text, finding.remedy) == (
        "skipped",
        "not checked: only root may",
        "run it as root",
    )


def test_rules_of_iptables_legacy_are_not_checked() -> None:
    skipped, good = examine_firewall(LISTENING, FakeHost(legacy=True))
    assert (skipped.verdict, good.verdict) == ("skipped", "ok")


@pytest.mark.parametrize("rules", [[], [[meta("iifname", "docker0"), ACCEPT]], [[meta("iifname", "tun3"), ACCEPT]]])
def test_a_rule_that_drops_what_is_forwarded_is_a_warning(rules: list[Any]) -> None:
    host = FakeHost(rules=chain(*rules, hook="forward"), settings=FORWARD)
    finding = only(examine_firewall(tunnel(SITE), host))
    assert finding.verdict == "warning"
    assert "dropped by the chain inet filter base" in finding.text


def test_rules_that_forward_both_ways_are_fine() -> None:
    both = [[meta("iifname", "tun3"), ACCEPT], [meta("oifname", "tun3"), ACCEPT]]
    host = FakeHost(rules=chain(*both, hook="forward"), settings=FORWARD)
    assert only(examine_firewall(tunnel(SITE, LAPTOP), host)).verdict == "ok"


def test_rules_for_forwarding_do_not_matter_while_the_kernel_does_not_forward() -> None:
    assert only(examine_firewall(tunnel(SITE), FakeHost(rules=chain(hook="forward")))).verdict == "ok"
