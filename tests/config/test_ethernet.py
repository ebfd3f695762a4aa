"""Kinds of device: what a file and the options say of them, and what has no meaning on one kind is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_interface
from typing import Any

import pytest

from tests.config.examples import CLIENT, INTERFACE, PEER, SERVER, networks
from vpntun.config.file import read_file, read_peers
from vpntun.config.keys import derived_keys
from vpntun.config.tunnel import DEFAULT_MTU_OF_TAP, Tunnel, to_one_peer
from vpntun.errors import ConfigurationError

TAP = [*INTERFACE, "Device = tap"]


def refused_replacement(tunnel: Tunnel, **changes: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        replace(tunnel, **changes)
    return str(caught.value)


@pytest.mark.parametrize("by", [read_file, read_peers])
def test_a_file_has_a_tun_device_unless_it_says_tap(read: Callable[..., Tunnel], by: object) -> None:
    assert read(*INTERFACE, *PEER, by=by).device == "tun"
    assert read(*INTERFACE, "Device = TUN", by=by).device == "tun"
    assert read(*INTERFACE, "device = Tap", *PEER, by=by).device == "tap"


def test_a_tap_device_has_the_mtu_of_ethernet_and_no_allowed_ips_whatever_the_keys(
    read: Callable[..., Tunnel],
) -> None:
    with_key_pairs = read(*TAP, *PEER)
    server = read(*SERVER, "Device = tap")
    client = read(*CLIENT, "Device = tap", "[Peer]", "Endpoint = vpn.example.org:55555")
    by_options = to_one_peer("tap3", None, 55555, "auto", derived_keys("server", bytes(32)), device="tap")
    for tunnel in (with_key_pairs, server, client, by_options):
        assert (tunnel.device, tunnel.default_mtu) == ("tap", DEFAULT_MTU_OF_TAP)
        assert [peer.allowed for peer in tunnel.peers] == [()]
        assert tunnel.routing.table == "off"
    assert server.derived_addresses == derived_keys("server", bytes(range(100, 132))).derived_addresses


@pytest.mark.parametrize("line", ["Table = auto", "Table = off", "Table =", "Relay = no"])
def test_lines_that_change_nothing_are_accepted_on_a_tap_device(read: Callable[..., Tunnel], line: str) -> None:
    assert read(*TAP, line, *PEER, "AllowedIPs =") == read(*TAP, *PEER)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([*TAP, *PEER, "AllowedIPs = 10.0.0.1"], "wg7.conf:6: AllowedIPs have no meaning on a TAP device"),
        ([*SERVER, "Device = tap", "[Peer]", "AllowedIPs = ::/0"], "wg7.conf:6: AllowedIPs have no meaning on a TAP"),
        ([*INTERFACE, "Relay = yes", "Device = tap"], "wg7.conf:3: Relay has no meaning on a TAP device"),
        ([*TAP, "Table = 77"], "wg7.conf:1: Table has no meaning on a TAP device"),
        ([*INTERFACE, "MAC = 02:00:00:00:00:01"], "wg7.conf:3: MAC is for a TAP device"),
        ([*INTERFACE, "Bridge = br0", "Device = tun"], "wg7.conf:3: Bridge is for a TAP device"),
        ([*INTERFACE, *PEER, "AllowedMACs = 02:00:00:00:00:01"], "wg7.conf:5: AllowedMACs are for a TAP device"),
        (
            [*TAP, "Bridge = br0", "Address = 10.9.0.1/24"],
            "wg7.conf:1: a device in a bridge gets no addresses and no routes, since they belong on the bridge: leave",
        ),
    ],
)
def test_lines_that_have_no_meaning_on_the_device_are_refused(
    refusal: Callable[..., str], lines: list[str], said: str
) -> None:
    assert refusal(*lines).startswith(said)


@pytest.mark.parametrize("by", [read_file, read_peers])
def test_the_mac_address_the_bridge_and_the_allowed_macs_hold_however_the_file_is_run(
    read: Callable[..., Tunnel], by: object
) -> None:
    lines = ["MAC = 02:00:00:00:00:01", "Bridge = br0", *PEER, "AllowedMACs = 02:00:00:00:00:02"]
    tunnel = read(*TAP, *lines, by=by)
    assert (tunnel.mac, tunnel.bridge) == (bytes([2, 0, 0, 0, 0, 1]), "br0")
    assert tunnel.peers[0].allowed_macs == (bytes([2, 0, 0, 0, 0, 2]),)


def test_in_a_bridge_the_addresses_derived_from_a_shared_key_are_not_the_devices(read: Callable[..., Tunnel]) -> None:
    alone, in_bridge = read(*SERVER, "Device = tap"), read(*SERVER, "Device = tap", "Bridge = br0")
    assert alone.own_addresses == alone.derived_addresses == in_bridge.derived_addresses != ()
    assert in_bridge.own_addresses == ()
    assert read(*TAP, "Address = 10.9.0.1/24").own_addresses == (ip_interface("10.9.0.1/24"),)


def test_a_table_is_ignored_where_only_keys_and_peers_are_read(read: Callable[..., Tunnel]) -> None:
    assert read(*TAP, "Table = 77", by=read_peers) == read(*TAP, by=read_peers)


def test_a_tunnel_whose_settings_contradict_its_device_cannot_be_made(read: Callable[..., Tunnel]) -> None:
    tap = read(*TAP, *PEER)
    peer = tap.peers[0]
    allowed = replace(peer, allowed=networks("10.0.0.0/8"))
    assert "AllowedIPs have no meaning" in refused_replacement(tap, peers=(allowed,))
    assert "Relay has no meaning" in refused_replacement(tap, relay=True)
    tun = read(*INTERFACE, *PEER)
    assert "MAC is for a TAP device" in refused_replacement(tun, mac=b"\x02abcde")
    assert "Bridge is for a TAP device" in refused_replacement(tun, bridge="br0")
    limited = replace(peer, allowed_macs=(b"\x02abcde",))
    assert "AllowedMACs are for a TAP device" in refused_replacement(tun, peers=(limited,))
    assert "leave --route out" in refused_replacement(tap, bridge="br0", routes=networks("10.0.0.0/8"))
