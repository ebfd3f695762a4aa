"""This host's network: what the device gets, and which allowed IPs and name servers wait for a peer's name."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from tests.machine import logged, no_more_descriptors
from tests.netconf.kernel import add, add_bridge, add_up, in_own_network
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import DEFAULT_MTU_TO_WIREGUARD, Routing, Tunnel, to_be_set_by_wg
from vpntun.crypto.keys import KeyPair
from vpntun.errors import DeviceError
from vpntun.netconf import dns
from vpntun.netconf.host import HostNetwork
from vpntun.netconf.journal import Journal
from vpntun.netconf.netlink import MAIN, Netlink
from vpntun.netconf.route_plan import Table
from vpntun.netconf.routing import HostRoutes
from vpntun.runtime.loop import Loop
from vpntun.tun.fake import FakeDevice
from vpntun.wire.ethernet.mac import derived_mac

FULL, OFFICE, PUBLIC = "0.0.0.0/0", "10.9.0.0/24", "198.51.100.0/24"


def peer(name: str, allowed: str, host: str | None = "") -> PeerSettings:
    """A peer that is called by its name, unless another host, or None for a peer that calls, is given."""
    networks = tuple(ip_network(each) for each in allowed.split())
    return PeerSettings(name.encode(), networks, host=name if host == "" else host, port=1, name=name)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


class Bench:
    """Answers which peers are awaited. The names in `found` were found."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack

    def awaited(
        self, *peers: PeerSettings, found: str = "", dns: str = "", table: Table = "auto", mark: int = 0
    ) -> str:
        host = self.host(*peers, dns=dns, routing=Routing(table, mark))
        return " ".join(each.name for each in host.awaited(peers, lambda name, _: name in found.split()))

    def host(self, *peers: PeerSettings, dns: str = "", routing: Routing | None = None) -> HostNetwork:
        tunnel = Tunnel(
            "tun3", KeyPair.generate(), peers, None, None, routing=routing or Routing(), dns=tuple(dns.split())
        )
        return self.host_of(tunnel)

    def host_of(self, tunnel: Tunnel, *, created: bool = True) -> HostNetwork:
        self.device = FakeDevice(kind=tunnel.device)
        self.device.created = created
        self._stack.callback(self.device.close)
        loop = Loop()
        self._stack.callback(loop.close)
        return HostNetwork(tunnel, self.device, Journal("tun3", self._folder), self._stack, lambda _: None, loop)


@pytest.fixture
def bench(tmp_path: Path, stack: ExitStack) -> Bench:
    return Bench(tmp_path, stack)


@pytest.mark.parametrize("allowed", [FULL, "::/0", "0.0.0.0/1 128.0.0.0/1", PUBLIC, f"{OFFICE} {PUBLIC}"])
def test_a_peer_with_a_default_route_or_a_public_network_is_awaited_until_its_name_is_found(
    bench: Bench, allowed: str
) -> None:
    assert bench.awaited(peer("home", allowed), peer("office", OFFICE, "192.0.2.1"), found="192.0.2.1") == "home"
    assert bench.awaited(peer("home", allowed), peer("office", OFFICE, "192.0.2.1"), found="192.0.2.1 home") == ""


def test_a_peer_with_private_networks_is_not_awaited_beside_one_whose_name_is_known(bench: Bench) -> None:
    assert bench.awaited(peer("home", FULL), peer("office", OFFICE), found="home") == ""
    assert bench.awaited(peer("home", FULL, None), peer("office", OFFICE)) == ""


def test_if_all_names_are_unknown_all_are_awaited(bench: Bench) -> None:
    assert bench.awaited(peer("home", FULL), peer("office", OFFICE)) == "home office"
    assert bench.awaited(peer("office", OFFICE), dns="10.9.0.1") == "office"


def test_a_peer_behind_which_a_name_server_of_the_tunnel_is_is_awaited(bench: Bench) -> None:
    office, lab = peer("office", OFFICE), peer("lab", "10.44.0.0/16", "192.0.2.1")
    assert bench.awaited(office, lab, found="192.0.2.1", dns="10.9.0.1 corp.example") == "office"
    assert bench.awaited(office, lab, found="192.0.2.1", dns="10.44.0.1") == ""


def test_nothing_is_awaited_where_nothing_leads_look_ups_into_the_tunnel(bench: Bench) -> None:
    assert bench.awaited(peer("office", OFFICE)) == ""
    assert bench.awaited(peer("home", FULL), table="off") == ""
    assert bench.awaited(peer("home", FULL), table=99) == ""


def test_with_rules_of_the_operators_own_only_the_last_name_is_awaited(bench: Bench) -> None:
    home, office = peer("home", FULL), peer("office", OFFICE)
    assert bench.awaited(home, office, table="off", mark=7) == "home office"
    assert bench.awaited(home, office, table="off", mark=7, found="office") == ""


@in_own_network
def test_routes_and_name_servers_follow_names_and_a_set_up_that_fails_may_be_repeated(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(dns.HostDns, "apply", lambda _: calls.append("apply"))
    peers = [peer("home", "10.44.0.0/16"), peer("office", OFFICE, "192.0.2.1")]
    host = bench.host(*peers, dns="10.44.0.1", routing=Routing("auto"))
    known = {"192.0.2.1"}

    def awaited() -> str:
        return " ".join(each.name for each in host.apply(peers, lambda name, _: name in known))

    with Netlink() as netlink:
        add_up(netlink, bench.device.name)
        with no_more_descriptors(), pytest.raises(DeviceError):
            awaited()
        assert awaited() == "home"
        assert calls == []
        assert [str(each) for each in netlink.routes(4, MAIN, bench.device.name)] == [OFFICE]
        known.add("home")
        with no_more_descriptors(), pytest.raises(DeviceError):
            awaited()
        assert awaited() == ""
        assert calls == ["apply"]
        assert {str(each) for each in netlink.routes(4, MAIN, bench.device.name)} == {OFFICE, "10.44.0.0/16"}


def test_a_kernel_that_cannot_be_asked_is_an_error_of_the_device(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: HostRoutes, networks: object) -> None:
        raise OSError(errno.ENOBUFS, "No buffer space available")

    monkeypatch.setattr(HostRoutes, "apply", refuse)
    host = bench.host(peer("office", OFFICE))
    with pytest.raises(DeviceError, match="No buffer space available"):
        host.apply([peer("office", OFFICE)], lambda host, port: True)


# The device


ADDRESS = ip_interface("10.44.0.1/24")
TUNNEL = Tunnel("tun3", KeyPair.generate(), (), None, None, addresses=(ADDRESS,), mtu=1380)


def settings_of(device: str) -> tuple[int, bool, list[str]]:
    """The MTU of a device, whether it is up, and its IPv4 addresses."""
    with Netlink() as netlink:
        link = netlink.link(device)
        addresses = [each.address for each in netlink.addresses() if each.device == device]
        return link.mtu, link.is_up, [str(each) for each in addresses if ":" not in str(each)]


@in_own_network
def test_a_device_that_was_there_gets_its_settings_which_are_kept_and_taken_back_at_the_end(
    bench: Bench, stack: ExitStack
) -> None:
    host = bench.host_of(TUNNEL, created=False)
    with Netlink() as netlink:
        add(netlink, bench.device.name)
    before, parts = settings_of(bench.device.name), len(host.parts)
    assert host.set_up_device() == [ADDRESS]
    assert settings_of(bench.device.name) == (1380, True, ["10.44.0.1"])
    assert len(host.parts) == parts + 1
    stack.close()
    assert settings_of(bench.device.name) == before


@in_own_network
def test_a_device_that_was_there_and_needs_no_settings_is_left_down_with_a_notice(bench: Bench) -> None:
    host = bench.host_of(replace(TUNNEL, addresses=(), mtu=None), created=False)
    bench.device.is_up = False
    with logged() as lines:
        assert host.set_up_device() == []
    assert lines == ["the device is down and is left as it was found: 'ip link set fake0 up' brings it up"]


TAP = Tunnel("tun3", KeyPair.generate(), (), None, None, device="tap")


@pytest.mark.parametrize("bridge", ["br0", None])
@in_own_network
def test_a_new_tap_device_has_the_mac_address_of_its_key_and_a_link_local_address_unless_in_a_bridge(
    bench: Bench, bridge: str | None
) -> None:
    with Netlink() as netlink:
        add(netlink, "fake0")
        add_bridge(netlink, "br0")
        bench.host_of(replace(TAP, bridge=bridge)).set_up_device()
        link = netlink.link("fake0")
        assert TAP.identity is not None
        assert (link.mac, link.is_up) == (derived_mac(TAP.identity.public), True)
        assert link.master == (netlink.index_of("br0") if bridge is not None else 0)
        addresses = [each for each in netlink.addresses() if each.device == "fake0" and ":" in each.address]
    assert [each.address[:6] for each in addresses] == ([] if bridge is not None else ["fe80::"])


@pytest.mark.parametrize("created", [True, False])
@in_own_network
def test_a_mac_address_that_is_given_is_set_on_any_tap_device(bench: Bench, stack: ExitStack, created: bool) -> None:
    mac = bytes.fromhex("020000000007")
    with Netlink() as netlink:
        add(netlink, "fake0")
        before = netlink.link("fake0").mac
        bench.host_of(replace(TAP, mac=mac), created=created).set_up_device()
        assert netlink.link("fake0").mac == mac
        stack.close()
        assert created or netlink.link("fake0").mac == before


@pytest.mark.parametrize(("created", "identity"), [(False, TAP.identity), (True, None)])
@in_own_network
def test_a_tap_device_that_was_there_or_whose_key_comes_later_keeps_the_mac_address_that_it_has(
    bench: Bench, created: bool, identity: KeyPair | None
) -> None:
    with Netlink() as netlink:
        add(netlink, "fake0")
        before = netlink.link("fake0").mac
        bench.host_of(replace(TAP, mtu=1400, identity=identity), created=created).set_up_device()
        assert netlink.link("fake0").mac == before


@in_own_network
def test_a_bridge_that_is_down_is_worth_a_line_and_the_device_leaves_it_at_the_end(
    bench: Bench, stack: ExitStack
) -> None:
    with Netlink() as netlink:
        add(netlink, "fake0")
        add_bridge(netlink, "br0")
        netlink.requests.link("set", index=netlink.index_of("br0"), state="down")
        with logged() as lines:
            bench.host_of(replace(TAP, bridge="br0"), created=False).set_up_device()
        assert lines == ["the bridge is down, and nothing passes: 'ip link set br0 up' brings it up"]
        link = netlink.link("fake0")
        assert (link.master, link.is_up) == (netlink.index_of("br0"), True)
        stack.close()
        link = netlink.link("fake0")
        assert (link.master, link.is_up) == (0, False)


@in_own_network
def test_a_device_for_wg_gets_an_mtu_and_all_else_is_left_to_others(bench: Bench) -> None:
    host = bench.host_of(to_be_set_by_wg("tun3"))
    with Netlink() as netlink:
        add(netlink, bench.device.name)
    parts = host.parts
    assert host.set_up_device() == []
    assert settings_of(bench.device.name) == (DEFAULT_MTU_TO_WIREGUARD, False, [])
    assert host.parts == parts, "nothing is put back that others change"
