"""Tunnels to examine, as tests of several checks use them."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from vpntun.doctor.subject import Peer, Subject


def peer(*allowed: str, at: str | None = None, name: str = "office", **fields: Any) -> Peer:
    """Make a peer at an address, or one that calls."""
    return Peer(
        name,
        tuple(map(ip_network, allowed)),
        endpoint=at and f"{at}:55555",
        address=ip_address(at) if at else None,
        calls=at is None,
        **fields,
    )


def tap(*peers: Peer, **fields: Any) -> Subject:
    """Make a tunnel that runs on tap3 and is to be in the bridge br0."""
    given = {"interface": "tap3", "device": "tap", "mtu": 1500, "table": "off", "bridge": "br0", **fields}
    return tunnel(*peers, addresses=(), **given)


def tunnel(*peers: Peer, addresses: tuple[str, ...] = ("10.9.0.1/24",), **fields: Any) -> Subject:
    """Make a tunnel that runs on tun3, with routes for all allowed IPs."""
    given = {"interface": "tun3", "is_running": True, "mtu": 1400, "table": "auto", **fields}
    return Subject(addresses=tuple(map(ip_interface, addresses)), peers=peers, **given)
