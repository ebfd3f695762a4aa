"""Settings of one peer: WireGuard's keys, endpoint and allowed IPs, and vpntun's carrier and name."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from vpntun.crypto.keys import KEY_SIZE, format_key
from vpntun.errors import AmbiguousPeer, NoSuchPeer
from vpntun.types import IpAddress, Network, Place, Transport

NO_PSK = bytes(KEY_SIZE)
MOST_LISTED = 10
"""Peers that a message names."""


@dataclass(frozen=True)
class PeerSettings:
    """Peer as configured.

    `host`: None if the peer calls this end. `keepalive`: seconds, 0 for none. `is_vpntun`: the peer is certainly a
    vpntun, since it has the same shared key. `endpoint`: address and port where a peer that calls was last, if the
    operator has said so; such a peer is asked there, and moves. `allowed_macs`: MAC addresses that frames from the peer
    may come from; empty: any.
    """

    public: bytes
    allowed: tuple[Network, ...]
    psk: bytes = field(default=NO_PSK, repr=False)
    host: str | None = None
    port: int = 0
    keepalive: float = 0.0
    transport: Transport = "udp"
    name: str = ""
    is_vpntun: bool = False
    endpoint: Place | None = None
    allowed_macs: tuple[bytes, ...] = ()

    @cached_property
    def allowed_as_text(self) -> list[str]:
        """Text of each allowed IP, for the status. Cached: many take long to write, and the status is polled."""
        return [_written(network) for network in self.allowed]

    @cached_property
    def single_addresses(self) -> tuple[IpAddress, ...]:
        """The allowed IPs that are one address each, and so the peer's own. Cached, as there may be very many."""
        return tuple(each.network_address for each in self.allowed if each.prefixlen == each.max_prefixlen)


def find_peer(peers: Sequence[PeerSettings], called: str | None) -> PeerSettings:
    """Find a peer by its name, its public key, or the beginning of its key; None finds the only peer.

    Raises NoSuchPeer, which lists the peers, or AmbiguousPeer, which lists those that match.
    """
    matching = list(peers) if called is None else _matching(peers, called)
    if not peers:
        raise NoSuchPeer("this tunnel has no peers")
    if not matching:
        raise NoSuchPeer(f"no peer has this name or key; the peers are: {_listed(peers)}")
    if len(matching) > 1:
        raise AmbiguousPeer(f"several peers match; name one of them: {_listed(matching)}")
    return matching[0]


def _matching(peers: Iterable[PeerSettings], called: str) -> list[PeerSettings]:
    """List the peers of this name; if there are none, those whose key begins so, as in the log's "peer BEGINNING"."""
    beginning = called.removeprefix("peer ")
    if not beginning:
        return []
    named = [each for each in peers if each.name == called]
    return named or [each for each in peers if format_key(each.public).startswith(beginning)]


def _listed(peers: Sequence[PeerSettings]) -> str:
    described = [_described(each) for each in peers[:MOST_LISTED]]
    more = [f"and {len(peers) - MOST_LISTED} more"] if len(peers) > MOST_LISTED else []
    return ", ".join(described + more)


def _described(settings: PeerSettings) -> str:
    key = format_key(settings.public)
    return f"{settings.name} ({key})" if settings.name else key


def _written(network: Network) -> str:
    """Write a network as wg(8) does; for IPv6, `str` takes several times as long."""
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, network.network_address.packed)}/{network.prefixlen}"
