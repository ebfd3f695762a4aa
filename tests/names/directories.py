"""A tunnel with a name server, and its directory, for the tests of this room."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network
from itertools import count

from vpntun.config.names import NameSettings, parse_forward_of_names, parse_record
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.names.zones import Directory, Zone, directory_of

DOMAIN = "office.internal"
ADDRESSES = (ip_interface("10.9.0.1/24"), ip_interface("fd09::1/64"))
_numbers = count(1)


def peer(name: str, *allowed: str) -> PeerSettings:
    """A peer with this name and these allowed IPs."""
    return PeerSettings(next(_numbers).to_bytes(32, "big"), tuple(map(ip_network, allowed)), name=name)


def tunnel(*peers: PeerSettings, records: tuple[str, ...] = (), forwards: tuple[str, ...] = ()) -> Tunnel:
    """The tunnel of a hub with these peers."""
    settings = NameSettings(
        DOMAIN, tuple(parse_record(each, DOMAIN) for each in records), tuple(map(parse_forward_of_names, forwards))
    )
    return Tunnel("office", None, peers, None, None, addresses=ADDRESSES, names=settings)


def directory(*peers: PeerSettings, records: tuple[str, ...] = (), added: tuple[Zone, ...] = ()) -> Directory:
    """The directory of that tunnel, on a machine that is called hub.example.org."""
    return directory_of(tunnel(*peers, records=records), ADDRESSES, "hub.example.org", added)
