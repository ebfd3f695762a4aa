"""A phone as peer of a tunnel: its keys, its free addresses, and its configuration for the WireGuard app.

The phone gets one address of each IP version that the tunnel has: the lowest free one of the network of the tunnel's
own address. This end's addresses and the allowed IPs of other peers are taken. Only a default route, or a half of it,
takes nothing: a peer that has one leads to the internet, and the phone's longer prefix wins. The first address of a
network is left out, and for IPv4 the last one, except in a /31 and a /127.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network

from vpntun.config import values
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import CLIENT_KEEPALIVE, Tunnel
from vpntun.crypto.keys import KeyPair, format_key, generate_secret
from vpntun.errors import ConfigurationError
from vpntun.types import Interface, IpAddress, Network, Place, carriers_of, written

_NAME_IN_COMMENT = re.compile(r"^[^\S\n]*#\s*Name\s*=[^\S\n]*(.*?)\s*$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Phone:
    """A new peer for a server, and the server as the phone sees it.

    `addresses`: one of each IP version. `networks`: what the phone sends into the tunnel. `endpoint`: the server's host
    and port. `dns`: name servers and search domains.
    """

    name: str
    identity: KeyPair
    psk: bytes = field(repr=False)
    addresses: tuple[IpAddress, ...]
    server: bytes
    endpoint: Place
    networks: tuple[Network, ...]
    dns: tuple[str, ...] = ()

    def section(self, *, name_in_comment: bool = False) -> str:
        """Return the [Peer] section for the server's file; it has no private key.

        `name_in_comment`: write the name in a comment, for a file that wg-quick(8) reads, too.
        """
        return _lines(
            "[Peer]",
            f"{'# ' if name_in_comment else ''}Name = {self.name}",
            f"PublicKey = {format_key(self.identity.public)}",
            f"PresharedKey = {format_key(self.psk)}",
            f"AllowedIPs = {_listed(map(ip_network, self.addresses))}",
        )

    def configuration(self) -> str:
        """Return the configuration for the WireGuard app, with the private key."""
        return _lines(
            "[Interface]",
            f"PrivateKey = {format_key(self.identity.private)}",
            f"Address = {_listed(map(ip_network, self.addresses))}",
            *([f"DNS = {_listed(self.dns)}"] if self.dns else []),
            "",
            "[Peer]",
            f"PublicKey = {format_key(self.server)}",
            f"PresharedKey = {format_key(self.psk)}",
            f"Endpoint = {written(self.endpoint)}",
            f"AllowedIPs = {_listed(self.networks)}",
            f"PersistentKeepalive = {CLIENT_KEEPALIVE:g}",
        )


def new_phone(
    tunnel: Tunnel,
    name: str,
    endpoint: Place,
    networks: Iterable[Network] = (),
    dns: Iterable[str] = (),
) -> Phone:
    """Make a phone, with new keys, for a tunnel that `check_server` accepts.

    `networks`: what it sends into the tunnel besides the networks of the tunnel's addresses and, with Relay, besides
    what lies behind other peers. Raises ConfigurationError if a network is full.
    """
    return Phone(
        name=name,
        identity=KeyPair.generate(),
        psk=generate_secret(),
        addresses=free_addresses(tunnel),
        server=tunnel.keys.public,
        endpoint=endpoint,
        networks=_without_parts([*_reachable(tunnel), *networks]),
        dns=tuple(dns),
    )


def check_server(tunnel: Tunnel) -> int:
    """Return the UDP port on which phones can call this tunnel. Raises ConfigurationError if they cannot."""
    name = tunnel.interface
    if tunnel.device == "tap":
        raise ConfigurationError(
            f"{name} has a TAP device, and a phone's WireGuard carries no Ethernet frames: make another file without "
            "Device = tap, and add the phone there"
        )
    if tunnel.derived_addresses:
        raise ConfigurationError(
            f"{name} has a SharedKey, which is for one vpntun: make another file, with a PrivateKey, an Address and a "
            "ListenPort of its own, and add the phone there"
        )
    if tunnel.identity is None:
        raise ConfigurationError(
            f"the phone needs {name}'s public key, but PostUp gives the private key: put PrivateKey into [Interface]"
        )
    if tunnel.listen_on is None or tunnel.port is None:
        raise ConfigurationError(f"{name} only calls, and a phone has to call it: put ListenPort into [Interface]")
    if "udp" not in carriers_of(tunnel.listen_on):
        raise ConfigurationError(
            f"{name} listens on TCP alone, and the WireGuard app knows only UDP: set Transport = auto in [Interface]"
        )
    return tunnel.port


def check_name(name: str, tunnel: Tunnel, text: str) -> str:
    """Return the name of a new peer in the form that the file `text` will give it. Raises ConfigurationError."""
    name = values.name(name.strip())
    if not name or "#" in name:
        raise ConfigurationError("give the phone a name without #, which begins a comment in a configuration file")
    if name in {*(peer.name for peer in tunnel.peers), *_NAME_IN_COMMENT.findall(text)}:
        raise ConfigurationError(
            f"{tunnel.interface} has a peer called {name} already: give another name, or remove that [Peer] first"
        )
    return name


def free_addresses(tunnel: Tunnel) -> tuple[IpAddress, ...]:
    """Return a free address of each IP version that the tunnel has. Raises ConfigurationError if there is none."""
    own = _inner_addresses(tunnel)
    if not own:
        raise ConfigurationError(
            f"{tunnel.interface} has no network to take the phone's address from: put Address into [Interface], such "
            "as 10.9.0.1/24"
        )
    return tuple(_free_one(own_of_version, tunnel.peers) for own_of_version in _by_version(own))


def _free_one(own: Sequence[Interface], peers: Iterable[PeerSettings]) -> IpAddress:
    """Return a free address of the first of these networks that has one; all are of the same IP version."""
    version = own[0].version
    taken: list[Network] = [ip_network(each.ip) for each in own]
    taken += [each for peer in peers for each in peer.allowed if each.version == version and not _is_default(each)]
    for network in (each.network for each in own):
        if (found := _lowest_free(network, filter(network.overlaps, taken))) is not None:
            return found
    raise ConfigurationError(
        f"{_listed(own)} has no address left for the phone: put a wider network into Address in [Interface], such as "
        f"{own[0].ip}/{24 if version == 4 else 64}, unless AllowedIPs of another peer cover that too"
    )


def _lowest_free(network: Network, taken: Iterable[Network]) -> IpAddress | None:
    """Return the lowest address for a machine that is in none of these networks, which overlap this one."""
    has_ends = network.prefixlen < network.max_prefixlen - 1
    lowest = int(network.network_address) + has_ends
    highest = int(network.broadcast_address) - (has_ends and network.version == 4)
    for part in sorted(taken, key=lambda part: int(part.network_address)):
        if int(part.network_address) > lowest:
            break
        lowest = max(lowest, int(part.broadcast_address) + 1)
    return network.network_address + (lowest - int(network.network_address)) if lowest <= highest else None


def _reachable(tunnel: Tunnel) -> list[Network]:
    """Return the networks of the tunnel's addresses, and with Relay also those of its peers but for default routes."""
    networks = [each.network for each in _inner_addresses(tunnel)]
    if tunnel.relay:
        networks += [network for peer in tunnel.peers for network in peer.allowed if not _is_default(network)]
    return networks


def _is_default(network: Network) -> bool:
    """Whether this is a default route, or one of the two halves that are often given in its place."""
    return network.prefixlen <= 1


def _inner_addresses(tunnel: Tunnel) -> list[Interface]:
    return [address for address in tunnel.addresses if not address.is_link_local]


def _by_version(addresses: Sequence[Interface]) -> list[list[Interface]]:
    versions = [[address for address in addresses if address.version == version] for version in (4, 6)]
    return [each for each in versions if each]


def _without_parts(networks: Iterable[Network]) -> tuple[Network, ...]:
    """Return the networks in order, IPv4 first, without those that lie in another of them."""
    kept: list[Network] = []
    for network in sorted(networks, key=lambda each: (each.version, int(each.network_address), each.prefixlen)):
        if not kept or kept[-1].version != network.version or network.network_address not in kept[-1]:
            kept.append(network)
    return tuple(kept)


def _listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))


def _lines(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)
