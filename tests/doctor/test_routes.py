"""Routes of a tunnel, judged by facts. tests/netns/test_doctor.py has the kernel's."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from tests.doctor.fake_host import FakeHost
from tests.doctor.subjects import peer, tap, tunnel
from vpntun.doctor.finding import Finding
from vpntun.doctor.routes import examine_default, examine_endpoints, examine_mtu, examine_overlaps

CALLED = peer("10.9.0.2/32", at="203.0.113.2")


def only(found: object) -> Finding:
    (finding,) = list(found)  # type: ignore[call-overload]
    assert isinstance(finding, Finding)
    assert (finding.verdict == "ok") == (finding.remedy == "")
    return finding


def test_a_peer_beside_the_tunnel() -> None:
    finding = only(examine_endpoints(tunnel(CALLED), FakeHost()))
    assert (finding.verdict, finding.text) == ("ok", "office at 203.0.113.2:55555 is reached through eth0")


def test_peers_without_fault_share_a_line() -> None:
    peers = [peer(f"10.9.0.{number}/32", at=f"203.0.113.{number}") for number in range(2, 40)]
    assert only(examine_endpoints(tunnel(*peers), FakeHost())).text == "38 peers are reached through eth0"


def test_a_peer_without_any_route_has_failed() -> None:
    finding = only(examine_endpoints(tunnel(CALLED), FakeHost(leads={"10.0.0.0/8": "eth0"})))
    assert (finding.verdict, "no route leads" in finding.text) == ("failed", True)


def test_a_route_into_the_tunnel_itself_has_failed() -> None:
    host = FakeHost(leads={"0.0.0.0/0": "eth0", "203.0.113.0/24": "tun3"})
    finding = only(examine_endpoints(tunnel(CALLED), host))
    assert finding.verdict == "failed"
    assert "leads into the tunnel itself" in finding.text
    assert "ip route add 203.0.113.2" in finding.remedy


def test_the_mark_of_the_tunnels_own_packets_counts() -> None:
    host = FakeHost(leads={"0.0.0.0/0": "tun3"}, marked={"0.0.0.0/0": "eth0"})
    assert only(examine_endpoints(tunnel(CALLED, mark=0xCA6C), host)).verdict == "ok"
    assert only(examine_endpoints(tunnel(CALLED), host)).verdict == "failed"


def test_nothing_is_said_of_a_peer_that_has_not_called_yet() -> None:
    assert list(examine_endpoints(tunnel(peer("10.9.0.2/32")), FakeHost())) == []


@pytest.mark.parametrize(
    ("allowed", "at", "leads", "verdict"),
    [
        ("10.66.0.0/16", "10.66.0.9", {"0.0.0.0/0": "eth0"}, "failed"),
        ("10.66.0.0/16", "10.66.0.9", {"0.0.0.0/0": "eth0", "10.66.0.0/24": "eth0"}, "ok"),  # a longer route
        ("203.0.113.0/24", "203.0.113.2", {"0.0.0.0/0": "eth0"}, "ok"),  # public: kept out by rules
        ("10.0.0.0/8", "10.66.0.9", {"0.0.0.0/0": "eth0"}, "ok"),  # a whole private network: the same
        ("0.0.0.0/0", "203.0.113.2", {"0.0.0.0/0": "eth0"}, "ok"),
    ],
)
def test_what_up_would_make_of_a_file(allowed: str, at: str, leads: dict[str, str], verdict: str) -> None:
    subject = tunnel(peer(allowed, at=at), is_running=False)
    assert only(examine_endpoints(subject, FakeHost(leads=leads))).verdict == verdict


def test_a_route_of_the_tunnel_that_does_not_run_yet_covers_its_peer() -> None:
    subject = tunnel(CALLED, is_running=False, table="off", routes=(ip_network("203.0.113.0/24"),))
    assert only(examine_endpoints(subject, FakeHost())).verdict == "failed"


def test_nothing_overlaps() -> None:
    host = FakeHost(has={"eth0": ("192.168.1.7/24", "fe80::1/64"), "tun3": ("10.9.0.1/24",), "lo": ("127.0.0.1/8",)})
    subject = tunnel(peer("10.9.0.2/32", "fe80::/64"))
    assert only(examine_overlaps(subject, host)).verdict == "ok"


@pytest.mark.parametrize(
    ("allowed", "verdict", "word"),
    [
        ("192.168.1.0/24", "failed", "192.168.1.0/24 of office is the network of eth0, too"),
        ("192.168.1.128/25", "warning", "is a part of eth0's network"),
        ("192.168.0.0/16", "warning", "contains eth0's network"),
    ],
)
def test_a_network_behind_a_peer_overlaps_with_this_machines(allowed: str, verdict: str, word: str) -> None:
    host = FakeHost(has={"eth0": ("192.168.1.7/24",)})
    finding = only(examine_overlaps(tunnel(peer(allowed)), host))
    assert finding.verdict == verdict
    assert word in finding.text


def test_without_routes_for_them_allowed_ips_overlap_with_nothing() -> None:
    host = FakeHost(has={"eth0": ("192.168.1.7/24",)})
    assert only(examine_overlaps(tunnel(peer("192.168.1.0/24"), table="off"), host)).verdict == "ok"


def test_networks_of_a_run_overlap_with_nothing() -> None:
    host = FakeHost(has={"eth0": ("10.7.0.1/16",)})
    assert not list(examine_overlaps(tunnel(peer("10.7.0.0/16"), in_run=True), host))


def test_everything_overlaps_with_nothing() -> None:
    host = FakeHost(has={"eth0": ("192.168.1.7/24",)})
    assert only(examine_overlaps(tunnel(peer("0.0.0.0/0", "::/0")), host)).verdict == "ok"


def test_the_tunnels_own_network_and_address_may_be_another_devices() -> None:
    host = FakeHost(has={"eth0": ("10.9.0.1/24",)})
    same_address, same_network = examine_overlaps(tunnel(), host)
    assert same_address.text == "10.9.0.1 is the address of eth0, too"
    assert "10.9.0.0/24 of tun3 is the network of eth0" in same_network.text
    assert (same_address.verdict, same_network.verdict) == ("warning", "failed")


def test_a_network_may_be_routed_into_another_tunnel() -> None:
    host = FakeHost(
        devices={"eth0": 1500, "wg0": 1420},
        tunnels=("wg0",),
        leads={"0.0.0.0/0": "eth0", "10.7.0.0/16": "wg0", "10.8.0.0/16": "eth0"},
    )
    finding = only(examine_overlaps(tunnel(peer("10.7.0.0/16", "10.8.0.0/16")), host))
    assert "10.7.0.0/16 of office is the network of wg0, too" in finding.text


@pytest.mark.parametrize(
    ("leads", "verdict", "word"),
    [
        ({"0.0.0.0/0": "tun3"}, "ok", "leads into the tunnel"),
        ({}, "ok", "nothing over IPv4"),
        ({"0.0.0.0/0": "eth0"}, "failed", "IPv4 leaves by eth0, beside the tunnel"),
    ],
)
def test_a_full_tunnel_takes_everything(leads: dict[str, str], verdict: str, word: str) -> None:
    for allowed in (("0.0.0.0/0",), ("0.0.0.0/1", "128.0.0.0/1")):
        finding = only(examine_default(tunnel(peer(*allowed)), FakeHost(leads=leads)))
        assert finding.verdict == verdict
        assert word in finding.text


def test_a_tunnel_that_is_not_full_or_does_not_run_may_leave_the_default_route() -> None:
    for subject in (tunnel(CALLED), tunnel(peer("0.0.0.0/0"), table="off"), tunnel(peer("::/0"), is_running=False)):
        assert list(examine_default(subject, FakeHost())) == []


@pytest.mark.parametrize(
    ("mtu", "at", "is_vpntun", "verdict"),
    [
        (1440, "203.0.113.2", False, "ok"),
        (1441, "203.0.113.2", False, "warning"),
        (1441, "203.0.113.2", True, "ok"),
        (1420, "2001:db8::2", False, "ok"),
        (1421, "2001:db8::2", False, "warning"),
    ],
)
def test_a_packet_to_a_plain_wireguard_has_to_fit_one_datagram(
    mtu: int, at: str, is_vpntun: bool, verdict: str
) -> None:
    subject = tunnel(peer("10.9.0.2/32", at=at, is_vpntun=is_vpntun), mtu=mtu)
    finding = only(examine_mtu(subject, FakeHost()))
    assert finding.verdict == verdict
    if verdict == "warning":
        assert str(1500 - (80 if ":" in at else 60)) in finding.remedy


@pytest.mark.parametrize(("mtu", "text"), [(1421, "fit eth0"), (1422, "leave eth0 in several datagrams")])
def test_a_frame_takes_its_header_and_a_record_and_never_has_to_fit_one_datagram(mtu: int, text: str) -> None:
    finding = only(examine_mtu(tap(peer(at="203.0.113.2"), mtu=mtu), FakeHost()))
    assert finding.verdict == "ok"
    assert text in finding.text


def test_a_device_in_a_bridge_has_no_networks_that_could_overlap() -> None:
    assert list(examine_overlaps(tap(peer()), FakeHost())) == []


def test_the_mtu_of_a_device_that_is_not_there_is_not_checked() -> None:
    (finding,) = examine_mtu(tunnel(CALLED, mtu=None), FakeHost())
    assert finding.verdict == "skipped"
