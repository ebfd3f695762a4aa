"""Announcement: the log of a tunnel that has been set up names its addresses, and where it waits for whom."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface
from logging import INFO

from tests.machine import logged
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.crypto.keys import KeyPair
from vpntun.process.announcement import announce

PEERS = tuple(PeerSettings(KeyPair.generate().public, ()) for _ in range(2))
TUNNEL = Tunnel("tun3", KeyPair.generate(), PEERS[:1], 55555, "auto")
OWN, OTHER = ip_interface("100.86.122.57/30"), ip_address("100.86.122.58")


def announced(tunnel: Tunnel, *addresses: str) -> list[str]:
    with logged(INFO) as lines:
        announce(tunnel, tuple(map(ip_interface, addresses)))
    return lines


def test_a_server_says_on_which_port_it_waits_and_a_client_does_not() -> None:
    assert announced(TUNNEL) == ["waiting for the peer on UDP and TCP port 55555"]
    assert announced(replace(TUNNEL, peers=PEERS, listen_on="udp")) == ["waiting for 2 peers on UDP port 55555"]
    assert announced(replace(TUNNEL, listen_on=None)) == []


def test_derived_addresses_are_named_with_those_of_the_other_end_and_given_ones_without() -> None:
    derived = replace(TUNNEL, listen_on=None, derived_addresses=(OWN,), derived_peer_addresses=(OTHER,))
    assert announced(derived, str(OWN)) == ["this end 100.86.122.57, the other end 100.86.122.58"]
    assert announced(derived, "10.0.0.1/24", "fd00::1/64") == ["this end 10.0.0.1/24 and fd00::1/64"]


def test_a_device_in_a_bridge_names_it_in_place_of_addresses() -> None:
    bridged = replace(TUNNEL, listen_on=None, device="tap", bridge="br0")
    assert announced(bridged) == ["this end is a port of the bridge br0"]
