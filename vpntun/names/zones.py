"""Zones of a tunnel's name server: which addresses a name has, which names an address has, and what others may know.

A name belongs to the zone whose name is its longest end. There

    1. the addresses of exactly this name count, then those of the first expression that matches it, then the default
    2. a name without addresses does not exist if the zone is complete; if not, the next shorter zone decides

The domain of the tunnel is a complete zone. It has the peers under their names (config/names.py, label_of), each with
the single addresses among its allowed IPs, and this machine under its own name with the tunnel's addresses. If two have
the same label, a record of the file comes first, then the first peer in the file, then this machine. Zones that were
added on request (added_zones.py) are complete, too. Names that no complete zone has are for the machine's own
resolvers, except those of addresses inside the tunnel's networks.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network

from vpntun.config.names import NameSettings, label_of
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.names.patterns import Pattern
from vpntun.types import Interface, IpAddress, Network

Addresses = tuple[IpAddress, ...]
Labels = tuple[str, ...]
"""A name, its labels in lower case from left to right, without the empty one of the root."""

REVERSE_4, REVERSE_6 = ("in-addr", "arpa"), ("ip6", "arpa")
_IS_BYTE, _IS_NIBBLE = re.compile(r"[0-9]{1,3}").fullmatch, re.compile(r"[0-9a-f]").fullmatch


@dataclass
class Zone:
    """One zone. `names`: by names relative to the zone's; "" is the zone itself. `default` is for names below it."""

    name: str
    names: dict[str, Addresses] = field(default_factory=dict)
    patterns: tuple[tuple[Pattern, Addresses], ...] = ()
    default: Addresses = ()
    is_complete: bool = True

    @cached_property
    def _in_between(self) -> frozenset[str]:
        """Names that have no addresses, but exist since there are names below them (RFC 8020)."""
        found = {""}
        for name in self.names:
            labels = name.split(".")
            found.update(".".join(labels[number:]) for number in range(1, len(labels)))
        return frozenset(found)

    def find(self, relative: str) -> Addresses | None:
        """Return the addresses of a name; None if the name does not exist here."""
        found = self.names.get(relative)
        if found is None and relative:
            found = next((addresses for pattern, addresses in self.patterns if pattern.matches(relative)), None)
            found = found or self.default or None
        if found is None and self.is_complete and relative in self._in_between:
            return ()
        return found


class Unknown(enum.Enum):
    """Why a name has no answer here: it does not exist, or others may know it."""

    NO_SUCH_NAME = enum.auto()
    OTHERS_KNOW = enum.auto()


@dataclass(frozen=True)
class Found:
    """What is known of a name that exists: its addresses, or the names of an address."""

    addresses: Addresses = ()
    names: tuple[str, ...] = ()


class Directory:
    """All zones at one time. `host`: the name of this machine.

    `networks`, `singles`: networks and addresses inside the tunnel, whose names nobody else is asked for.
    """

    def __init__(
        self,
        zones: Iterable[Zone],
        networks: Sequence[Network] = (),
        singles: Collection[IpAddress] = (),
        host: str = "",
    ) -> None:
        self.host = host
        self._zones = {zone.name: zone for zone in zones}
        self._networks = networks
        self._singles = singles
        self._names_of: dict[IpAddress, list[str]] = {}
        for zone in self._zones.values():
            for relative, addresses in zone.names.items():
                name = f"{relative}.{zone.name}".strip(".") or "."
                for address in addresses:
                    self._names_of.setdefault(address, []).append(name)

    def __len__(self) -> int:
        """Return how many names are known, without those of patterns."""
        return sum(len(zone.names) for zone in self._zones.values())

    def find(self, labels: Labels) -> tuple[str, Found | Unknown]:
        """Return the zone that a name belongs to, "" for none, and what is known of the name."""
        if labels[-2:] in (REVERSE_4, REVERSE_6):
            return self._find_reverse(labels)
        for number in range(len(labels) + 1):
            zone = self._zones.get(".".join(labels[number:]))
            if zone is None:
                continue
            addresses = zone.find(".".join(labels[:number]))
            if addresses is not None:
                return zone.name, Found(addresses)
            if zone.is_complete:
                return zone.name, Unknown.NO_SUCH_NAME
        return "", Unknown.OTHERS_KNOW

    def _find_reverse(self, labels: Labels) -> tuple[str, Found | Unknown]:
        network = network_of_reverse(labels)
        if network is None:
            return "", Unknown.OTHERS_KNOW
        is_single = network.prefixlen == network.max_prefixlen
        names = self._names_of.get(network.network_address, []) if is_single else []
        is_inside = any(_contains(each, network) for each in self._networks) or (
            is_single and network.network_address in self._singles
        )
        if not names and not is_inside:
            return "", Unknown.OTHERS_KNOW
        zone = ".".join(labels)
        return zone, Found(names=tuple(names[:1])) if names or not is_single else Unknown.NO_SUCH_NAME


def directory_of(tunnel: Tunnel, own: Sequence[Interface], host: str, added: Iterable[Zone] = ()) -> Directory:
    """Return the zones of a tunnel that has a name server.

    `own`: the addresses of its device. `host`: this machine's name. `added`: zones that came on request.
    """
    assert tunnel.names is not None
    zones = _zones_of_file(tunnel.names)
    domain = zones[tunnel.names.domain]
    for label, peer in labels_of_peers(tunnel.peers)[0].items():
        domain.names.setdefault(label, addresses_of(tunnel, peer))
    own_label = label_of(host.partition(".")[0]) or "ns"
    domain.names.setdefault(own_label, tuple(each.ip for each in own))
    for zone in added:
        zones[zone.name] = _joined(zones.get(zone.name), zone)
    return Directory(
        zones.values(),
        networks=[each.network for each in own],
        singles={address for peer in tunnel.peers for address in addresses_of(tunnel, peer)},
        host=f"{own_label}.{domain.name}",
    )


def labels_of_peers(peers: Iterable[PeerSettings]) -> tuple[dict[str, PeerSettings], list[str]]:
    """Return the peers by the labels of their names, and the names left out: they have no label, or another's."""
    labels: dict[str, PeerSettings] = {}
    left_out = []
    for peer in peers:
        label = label_of(peer.name)
        if label and label not in labels:
            labels[label] = peer
        elif peer.name:
            left_out.append(peer.name)
    return labels, left_out


def addresses_of(tunnel: Tunnel, peer: PeerSettings) -> Addresses:
    """Return a peer's own addresses: the single ones among its allowed IPs, or those derived from the shared key."""
    return peer.single_addresses or tunnel.derived_peer_addresses


def network_of_reverse(labels: Labels) -> Network | None:
    """Return the network whose reverse names a name stands for, a single address for a whole one; None for others."""
    parts = labels[-3::-1]
    try:
        if labels[-2:] == REVERSE_4 and len(parts) <= 4 and all(map(_IS_BYTE, parts)):
            return IPv4Network((".".join([*parts, "0", "0", "0", "0"][:4]), 8 * len(parts)))
        if labels[-2:] == REVERSE_6 and len(parts) <= 32 and all(map(_IS_NIBBLE, parts)):
            return IPv6Network((int("".join(parts).ljust(32, "0"), 16), 4 * len(parts)))
    except ValueError:
        pass
    return None


def _zones_of_file(settings: NameSettings) -> dict[str, Zone]:
    """Return the tunnel's domain and the records of the file."""
    zones = {settings.domain: Zone(settings.domain)}
    for record in settings.records:
        name = record.name or settings.domain
        if record.is_wildcard:
            zone = zones.setdefault(name, Zone(name, is_complete=False))
            zone.default = (*zone.default, *record.addresses)
            continue
        above = name.removesuffix(f".{settings.domain}")
        zone = zones[settings.domain] if above != name else zones.setdefault(name, Zone(name, is_complete=False))
        relative = "" if zone.name == name else above
        zone.names[relative] = (*zone.names.get(relative, ()), *record.addresses)
    return zones


def _joined(present: Zone | None, added: Zone) -> Zone:
    """Return an added zone with what the file has under the same name, which comes first."""
    if present is None:
        return added
    return Zone(
        added.name,
        {**added.names, **present.names},
        added.patterns,
        present.default or added.default,
    )


def _contains(wider: Network, network: Network) -> bool:
    return network.prefixlen >= wider.prefixlen and network.network_address in wider
