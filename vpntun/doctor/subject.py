"""Subject of an examination: one tunnel, as its configuration file describes it, or as it runs.

Both are turned into the same facts, so that a check need not tell them apart. A running tunnel says what it is by its
control socket: GET /v1/status and, for what only the checks need, GET /v1/doctor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from vpntun.config.tunnel import Tunnel
from vpntun.crypto.keys import format_key
from vpntun.netconf.route_plan import Table, collapse_to_default
from vpntun.types import CarrierName, DeviceKind, Interface, IpAddress, Network, Transport, carriers_of, written

Request = Callable[[str, str], Mapping[str, Any]]
"""Sends a request to the running tunnel, by method and target. Raises VpntunError if the tunnel refuses."""


@dataclass(frozen=True)
class Peer:
    """A peer. `calls`: whether it has no configured endpoint, so that it has to call this end.

    `endpoint`: where it is reached, or would be, as text; `address`: the same without port, None if it is not known, is
    a name, or has a zone. `is_vpntun`: whether it is known to be a vpntun. `drops`: numbers of drops by reason.
    `device`: what its device carries, None if it has not said so.
    """

    name: str
    allowed: tuple[Network, ...]
    endpoint: str | None = None
    address: IpAddress | None = None
    calls: bool = False
    is_vpntun: bool = False
    path_mtu: int | None = None
    drops: Mapping[str, int] = field(default_factory=dict)
    device: DeviceKind | None = None


@dataclass(frozen=True)
class Subject:
    """A tunnel. `table`: as the key Table, "off" if only `routes` are routed into it. `mark`: that of its own packets.

    `port`: where peers call, None if they do not, and `carriers` how. `mtu`: None if it is not known. `takes_tcp`,
    `takes_udp`: whether the device takes superpackets; None if it is not open. `device`: what it carries. `bridge`: the
    one that a TAP device is to join. `in_run`: it is a run, whose networks are not this machine's.
    """

    interface: str
    is_running: bool
    addresses: tuple[Interface, ...]
    peers: tuple[Peer, ...]
    mtu: int | None
    port: int | None = None
    carriers: tuple[CarrierName, ...] = ()
    relay: bool = False
    table: Table = "off"
    routes: tuple[Network, ...] = ()
    mark: int = 0
    takes_tcp: bool | None = None
    takes_udp: bool | None = None
    drops: Mapping[str, int] = field(default_factory=dict)
    device: DeviceKind = "tun"
    bridge: str | None = None
    in_run: bool = False

    @property
    def allowed(self) -> dict[Network, Peer]:
        """The peers' allowed IPs, without those of everything."""
        return {network: peer for peer in self.peers for network in peer.allowed if network.prefixlen}

    @property
    def routed(self) -> list[Network]:
        """The networks that lead into the tunnel, without those of everything: routes, addresses, and allowed IPs."""
        own = [address.network for address in self.addresses if address.network.prefixlen < address.max_prefixlen]
        return list(dict.fromkeys([*own, *self.routes, *(self.allowed if self.table != "off" else ())]))

    @property
    def full(self) -> list[int]:
        """The IP versions of which everything is to be sent into the tunnel."""
        if self.table != "auto":
            return []
        allowed = collapse_to_default(network for peer in self.peers for network in peer.allowed)
        return sorted({network.version for network in allowed if not network.prefixlen})


def of_file(tunnel: Tunnel) -> Subject:
    """Describe the tunnel of a configuration file."""
    return Subject(
        interface=tunnel.interface,
        is_running=False,
        addresses=tunnel.own_addresses,
        peers=tuple(
            Peer(
                name=peer.name or format_key(peer.public),
                allowed=peer.allowed,
                endpoint=written((peer.host, peer.port)) if peer.host is not None else None,
                address=_address(peer.host),
                calls=peer.host is None,
                is_vpntun=peer.is_vpntun,
            )
            for peer in tunnel.peers
        ),
        mtu=tunnel.mtu or tunnel.default_mtu,
        port=tunnel.port if tunnel.listen_on is not None else None,
        carriers=_carriers(tunnel.listen_on),
        relay=tunnel.relay,
        table=tunnel.routing.table,
        routes=tunnel.routes,
        mark=tunnel.routing.fwmark,
        device=tunnel.device,
        bridge=tunnel.bridge,
    )


def of_running(status: Mapping[str, Any], facts: Mapping[str, Any]) -> Subject:
    """Describe a running tunnel by its answers to GET /v1/status and to GET /v1/doctor, {} if it does not know that."""
    offloads = facts.get("offloads") or {}
    configured = {peer["public_key"]: peer["endpoint"] for peer in facts.get("peers", ())}
    return Subject(
        interface=status["interface"],
        is_running=True,
        addresses=tuple(map(ip_interface, status["addresses"])),
        peers=tuple(_running_peer(peer, configured) for peer in status["peers"]),
        mtu=status["mtu"],
        port=status["listen_port"] if status["waits"] is not None else None,
        carriers=_carriers(status["waits"]),
        relay=status["relay"],
        table=facts.get("table", "off"),
        routes=tuple(map(ip_network, facts.get("routes", ()))),
        mark=facts.get("mark", 0),
        takes_tcp=offloads.get("tcp"),
        takes_udp=offloads.get("udp"),
        drops=status["drops"],
        device=status.get("device", "tun"),
        bridge=status.get("bridge"),
        in_run=facts.get("in_run", False),
    )


def _running_peer(peer: Mapping[str, Any], configured: Mapping[str, str | None]) -> Peer:
    """Describe a peer. `configured`: the configured endpoints by public key, where this end calls at first."""
    key = peer["public_key"]
    endpoint = peer["endpoint"] or configured.get(key)
    return Peer(
        name=peer["name"] or key,
        allowed=tuple(map(ip_network, peer["allowed_ips"])),
        endpoint=endpoint,
        address=_address(_host(endpoint)) if endpoint else None,
        calls=key in configured and configured[key] is None,
        is_vpntun=peer["vpntun"],
        path_mtu=peer["path_mtu"],
        drops=peer["drops"],
        device=peer.get("device"),
    )


def _host(endpoint: str) -> str:
    """Return the host of an endpoint as it is written: 203.0.113.2:55555 or [2001:db8::2]:55555."""
    return endpoint.rpartition(":")[0].strip("[]")


def _address(host: str | None) -> IpAddress | None:
    """Return a literal address; None for a name, and for an address with a zone, which is of one device only."""
    with suppress(ValueError):
        return ip_address(host) if host and "%" not in host else None
    return None


def _carriers(transport: Transport | None) -> tuple[CarrierName, ...]:
    return carriers_of(transport) if transport is not None else ()
