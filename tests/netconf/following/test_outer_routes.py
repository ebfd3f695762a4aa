"""Route queries to the kernel that the tests run on, with its loopback device as the example."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import ip_address, ip_interface

import pytest

from tests.carriers.test_udp_socket import LOCALHOST, both_versions, free_port
from tests.machine import no_more_descriptors, ordinary_user
from tests.netconf.kernel import add_up, in_own_network
from vpntun.core.endpoint import Flow
from vpntun.core.outer_paths import OuterRoute
from vpntun.netconf.change_kinds import IFA_F_NODAD
from vpntun.netconf.following.outer_routes import OuterRoutes
from vpntun.netconf.netlink import Netlink
from vpntun.wire.checksum import TCP, UDP


@pytest.fixture
def device() -> Iterator[Callable[..., OuterRoutes]]:
    opened: list[OuterRoutes] = []

    def new(name: str, mark: int = 0) -> OuterRoutes:
        opened.append(OuterRoutes(name, mark))
        return opened[-1]

    yield new
    for each in opened:
        each.close()


def to(family: int, host: str = "", *, source: str = "", protocol: int = UDP, scope: int = 0) -> Flow:
    other = socket.inet_pton(family, host or LOCALHOST[family])
    return Flow(protocol, socket.inet_pton(family, source) if source else b"", 55555, other, 4444, scope)


@both_versions
@pytest.mark.parametrize("protocol", [UDP, TCP])
@pytest.mark.parametrize("mark", [0, 51820])
def test_packets_to_this_host_leave_through_the_loopback_device_and_no_other(
    device: Callable[..., OuterRoutes], family: int, protocol: int, mark: int
) -> None:
    free_port(family)  # skips where there is no such IP version
    assert device("lo", mark).leads_inside(to(family, protocol=protocol))
    assert device("lo", mark).leads_inside(to(family, protocol=protocol, source=LOCALHOST[family]))
    assert not device("tun77", mark).leads_inside(to(family, protocol=protocol))


def test_a_link_local_address_belongs_to_the_device_that_it_names(device: Callable[..., OuterRoutes]) -> None:
    number = socket.if_nametoindex("lo")
    assert device("lo").leads_inside(to(socket.AF_INET6, "fe80::1", scope=number))
    assert not device("lo").leads_inside(to(socket.AF_INET6, "fe80::1", scope=number + 1000))


def test_an_error_from_the_kernel_counts_as_no_and_the_next_query_is_answered(
    device: Callable[..., OuterRoutes],
) -> None:
    loopback = device("lo")
    assert not loopback.leads_inside(Flow(UDP, b"", 55555, bytes((127, 0, 1)), 4444))  # EINVAL
    assert loopback.leads_inside(to(socket.AF_INET))


def test_a_source_address_that_this_host_has_lost_is_left_out(device: Callable[..., OuterRoutes]) -> None:
    assert device("lo").leads_inside(to(socket.AF_INET, source="203.0.113.77"))


def test_an_ordinary_user_may_ask(device: Callable[..., OuterRoutes]) -> None:
    with ordinary_user():
        assert device("lo", 51820).leads_inside(to(socket.AF_INET))


def test_a_query_needs_no_free_descriptor(device: Callable[..., OuterRoutes]) -> None:
    loopback = device("lo")
    with no_more_descriptors():
        assert loopback.leads_inside(to(socket.AF_INET))


UPLINK, LAN, TUNNEL, OTHER_TUNNEL = "up9", "lan9", "tun9", "tun8"
SERVER = "2001:db8:1::2"
IFF_TUN, IFF_NO_PI = 0x1, 0x1000
TUNSETIFF, TUNSETLINK, ARPHRD_TUNNEL = 0x400454CA, 0x400454CD, 768


def address_on(netlink: Netlink, device: str, text: str, **more: int) -> None:
    interface = ip_interface(text)
    index, length = netlink.index_of(device), interface.network.prefixlen
    netlink.requests.addr("add", index=index, address=str(interface.ip), prefixlen=length, **more)


def tunnel(netlink: Netlink, name: str, *addresses: str) -> None:
    """Make a TUN device with these addresses, which is up."""
    netlink.requests.link("add", ifname=name, kind="tuntap", mode="tun")
    netlink.requests.link("set", index=netlink.index_of(name), state="up")
    for each in addresses:
        address_on(netlink, name, each, **({"flags": IFA_F_NODAD} if ":" in each else {}))


def default_route(netlink: Netlink, device: str, version: int = 6) -> None:
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    netlink.requests.route("add", family=family, dst="default", oif=netlink.index_of(device))


@in_own_network
def test_where_the_uplink_has_no_address_the_one_nearest_to_the_server_outside_tunnels_is_better() -> None:
    with Netlink() as netlink, closing(OuterRoutes(TUNNEL, 0)) as routes:
        add_up(netlink, UPLINK)
        add_up(netlink, LAN, "fd00::1/64", "2001:db8:f00::1/64")
        tunnel(netlink, TUNNEL, "2001:db8:1:8027::5/128")
        default_route(netlink, UPLINK)
        flow = to(socket.AF_INET6, SERVER)
        assert _source(routes, flow) == "2001:db8:1:8027::5", "the kernel's own choice"
        assert routes.better_source(flow) == ip_address("2001:db8:f00::1").packed
        tunnel(netlink, OTHER_TUNNEL, "2001:db8:1:9000::5/128")
        netlink.requests.link("del", index=netlink.index_of(TUNNEL))
        tunnel(netlink, TUNNEL)
        assert _source(routes, flow) == "2001:db8:1:9000::5", "an address inside another tunnel"
        assert routes.better_source(flow) == ip_address("2001:db8:f00::1").packed
        address_on(netlink, UPLINK, "2001:db8:7::1/64", flags=IFA_F_NODAD)
        assert _source(routes, flow) == "2001:db8:7::1"
        assert not routes.better_source(flow), "the kernel's choice is right"


@in_own_network
def test_over_ipv4_too_an_uplink_without_an_address_does_not_borrow_the_tunnels() -> None:
    with Netlink() as netlink, closing(OuterRoutes(TUNNEL, 0)) as routes:
        tunnel(netlink, TUNNEL, "10.9.0.2/24")
        add_up(netlink, UPLINK)
        default_route(netlink, UPLINK, 4)
        flow = to(socket.AF_INET, "203.0.113.2")
        assert _source(routes, flow) == "10.9.0.2"
        assert not routes.better_source(flow), "there is no other address"
        add_up(netlink, LAN, "192.168.7.1/24")
        assert _source(routes, flow) == "10.9.0.2"
        assert routes.better_source(flow) == ip_address("192.168.7.1").packed


@in_own_network
def test_a_tunnel_is_known_by_the_kind_of_its_device_whatever_link_layer_that_claims() -> None:
    with Netlink() as netlink, closing(OuterRoutes(TUNNEL, 0)) as routes, open("/dev/net/tun", "r+b", 0) as opened:
        tunnel(netlink, TUNNEL)
        fcntl.ioctl(opened, TUNSETIFF, struct.pack("16sH22x", OTHER_TUNNEL.encode(), IFF_TUN | IFF_NO_PI))
        fcntl.ioctl(opened, TUNSETLINK, ARPHRD_TUNNEL)  # as the kernel's ipip devices have it
        netlink.requests.link("set", index=netlink.index_of(OTHER_TUNNEL), state="up")
        address_on(netlink, OTHER_TUNNEL, "10.9.0.2/24")
        add_up(netlink, UPLINK)
        default_route(netlink, UPLINK, 4)
        add_up(netlink, LAN, "192.168.7.1/24")
        flow = to(socket.AF_INET, "203.0.113.2")
        assert _source(routes, flow) == "10.9.0.2"
        assert routes.better_source(flow) == ip_address("192.168.7.1").packed


@in_own_network
def test_a_route_is_its_device_gateway_and_source() -> None:
    with Netlink() as netlink, closing(OuterRoutes(TUNNEL, 0)) as routes:
        add_up(netlink, UPLINK, "192.168.7.1/24", "192.168.7.2/24")
        netlink.requests.route("add", dst="default", gateway="192.168.7.254")
        uplink = netlink.index_of(UPLINK)
        gateway, flow = ip_address("192.168.7.254").packed, to(socket.AF_INET, "203.0.113.2")
        assert routes.find(flow) == OuterRoute(uplink, gateway, ip_address("192.168.7.1").packed)
        other = to(socket.AF_INET, "203.0.113.2", source="192.168.7.2")
        assert routes.find(other) == OuterRoute(uplink, gateway, other.source)
        assert routes.find(to(socket.AF_INET, "192.168.7.9")) == OuterRoute(
            uplink, b"", ip_address("192.168.7.1").packed
        )
        assert routes.find(to(socket.AF_INET, "203.0.113.2", source="192.168.7.3")) is None
        assert routes.find(to(socket.AF_INET6, SERVER)) is None


@in_own_network
def test_a_route_of_ipv6_from_an_address_that_this_host_has_lost_is_none() -> None:
    with Netlink() as netlink, closing(OuterRoutes(TUNNEL, 0)) as routes:
        add_up(netlink, UPLINK, "2001:db8:7::2/64")
        address_on(netlink, UPLINK, "2001:db8:7::1/64", flags=IFA_F_NODAD)
        default_route(netlink, UPLINK)
        kept, lost = (to(socket.AF_INET6, SERVER, source=f"2001:db8:7::{number}", protocol=TCP) for number in (2, 1))
        uplink = netlink.index_of(UPLINK)
        for flow in (kept, lost):
            assert routes.find(flow) == OuterRoute(uplink, b"", flow.source)
        netlink.requests.addr("del", index=uplink, address="2001:db8:7::1", prefixlen=64)
        assert routes.find(kept) == OuterRoute(uplink, b"", kept.source)
        assert routes.find(lost) is None


def _source(routes: OuterRoutes, flow: Flow) -> str:
    route = routes.find(flow)
    assert route
    return str(ip_address(route.source))
