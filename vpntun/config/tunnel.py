"""One tunnel as the operator configured it: checked once, and immutable afterwards.

Settings that cannot work are refused before any file, socket or device is opened. Keys are never shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from vpntun.config.ethernet import check_device
from vpntun.config.forwards import Forward, spelled
from vpntun.config.keys import Keys
from vpntun.config.names import NameSettings
from vpntun.config.peer import PeerSettings
from vpntun.config.services import ServiceSettings
from vpntun.crypto.keys import KeyPair
from vpntun.errors import ConfigurationError
from vpntun.runtime.log import notice
from vpntun.types import (
    LARGEST_MTU,
    SMALLEST_MTU,
    DeviceKind,
    Interface,
    IpAddress,
    Network,
    Place,
    Transport,
    carriers_of,
)

DEFAULT_PORT = 55555
CLIENT_KEEPALIVE = 25.0
DEFAULT_MTU = 1400
DEFAULT_MTU_TO_WIREGUARD = 1420
DEFAULT_MTU_OF_TAP = 1500
SMALLEST_MTU_FOR_IPV6 = 1280
LARGEST_MTU_OF_TAP = 64000  # a frame, its record and the headers of a burst then fit in one send of 65,507 bytes
EVERYTHING: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@dataclass(frozen=True)
class HookLines:
    """wg-quick's hooks as shell commands, in order, with %i already replaced by the interface's name."""

    pre_up: tuple[str, ...] = ()
    post_up: tuple[str, ...] = ()
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()


@dataclass(frozen=True)
class Routing:
    """Routing table for the peers' allowed IPs: none, the one with this number, or chosen as wg-quick's "auto" does.

    `fwmark`: mark of the tunnel's own packets; 0 for none, or for the mark that "auto" chooses for a default route.
    """

    table: Literal["auto", "off"] | int = "off"
    fwmark: int = 0


@dataclass(frozen=True)
class Tunnel:
    """One device and its peers.

    `port`: local port, None for any. `listen_on`: carriers on which peers may call, None if this end only calls.
    `mtu`: None for the default, which is set only on a device that vpntun creates. `derived_addresses`,
    `derived_peer_addresses`: derived from a shared key. `copies_dscp`: outer packets get the DSCP of the packets
    inside. `user`: user that the process becomes after the set-up. `identity`: None if the file leaves the private key
    to PostUp. `is_set_by_wg`: all settings come by wg(8), from wg-quick say, and the tunnel ends when somebody removes
    its device or its socket for wg(8). `metrics`: where Prometheus' metrics are served, by the path of a unix socket or
    by address and port; None: nowhere. `mac`: MAC address of a TAP device; None: derived from the private key.
    `bridge`: bridge that the TAP device joins. `gateways`: of `routes`, on a TAP device. `forwards`: each listens
    at a place of its own. `services`: what this end offers its peers by name, and the keys of services that it uses.
    `names`: what the name server on the device's addresses serves; None: there is none.
    `in_namespace`: the device is in a network namespace of its own, so its networks do not lead the tunnel's own
    packets astray.
    """

    interface: str
    identity: KeyPair | None
    peers: tuple[PeerSettings, ...]
    port: int | None
    listen_on: Transport | None
    addresses: tuple[Interface, ...] = ()
    routes: tuple[Network, ...] = ()
    mtu: int | None = None
    derived_addresses: tuple[Interface, ...] = ()
    derived_peer_addresses: tuple[IpAddress, ...] = ()
    routing: Routing = Routing()
    dns: tuple[str, ...] = ()
    hooks: HookLines = HookLines()
    relay: bool = False
    copies_dscp: bool = False
    user: str | None = None
    is_set_by_wg: bool = False
    metrics: Path | Place | None = None
    device: DeviceKind = "tun"
    mac: bytes | None = None
    bridge: str | None = None
    gateways: Mapping[Network, IpAddress] = field(default_factory=dict)
    names: NameSettings | None = None
    forwards: tuple[Forward, ...] = ()
    services: ServiceSettings = field(default_factory=ServiceSettings)
    in_namespace: bool = False

    def __post_init__(self) -> None:
        self._check_device()
        for port in (self.port, *(peer.port for peer in self.peers if peer.host is not None)):
            if port is not None and not 1 <= port <= 65535:
                raise ConfigurationError(f"{port} is not a port: ports are 1 to 65535")
        self._check_forwards()
        if self.mtu is not None:
            check_mtu(self.mtu, self.addresses, self.device)
        if self.names is not None and self.bridge is not None:
            raise ConfigurationError(
                "DnsServer needs addresses of the tunnel's own device, which has none in a bridge: run a name server "
                "on the bridge instead"
            )
        for peer in self.peers:
            if self.identity is not None and peer.public == self.identity.public:
                raise ConfigurationError("a peer has this end's own public key: give the other machine's")
            if peer.host is not None:
                self._check_host(peer.host)
            if peer.endpoint is not None:
                self._check_host(peer.endpoint[0])

    @property
    def keys(self) -> KeyPair:
        """This end's keys. Raises ConfigurationError while it has none."""
        if self.identity is None:
            raise ConfigurationError(
                f"{self.interface} has no private key: put PrivateKey into [Interface], or let PostUp give it, as in "
                f"'wg set %i private-key FILE'"
            )
        return self.identity

    def identified(self, identity: KeyPair) -> Tunnel:
        """Return this tunnel with its keys, and without a peer that has this end's own key, as a file is read."""
        peers = tuple(peer for peer in self.peers if peer.public != identity.public)
        if len(peers) < len(self.peers):
            notice("a PublicKey is this machine's own; the peer is ignored")
        return replace(self, identity=identity, peers=peers)

    def covering(self, endpoint: IpAddress) -> Network | None:
        """Return a route, or an address's network, that would lead packets to `endpoint` into the tunnel itself."""
        if self.in_namespace:
            return None
        networks = (*self.routes, *(address.network for address in self.addresses))
        return next((each for each in networks if each.version == endpoint.version and endpoint in each), None)

    @property
    def own_addresses(self) -> tuple[Interface, ...]:
        """Addresses of the device: those configured, otherwise those derived from a shared key; none in a bridge."""
        return self.addresses or (self.derived_addresses if self.bridge is None else ())

    @property
    def tcp_port(self) -> int | None:
        """The port where peers connect by TCP, None if they do not."""
        return self.port if self.listen_on is not None and "tcp" in carriers_of(self.listen_on) else None

    @property
    def default_mtu(self) -> int:
        """MTU of a device that vpntun creates: a packet of this size fits one datagram on a path of 1500 bytes.

        This holds over IPv4 and IPv6, for a packet alone in its record. On a path with a smaller MTU, two vpntuns split
        records into several datagrams. Datagrams to a plain WireGuard must fit whole. A TAP device has the MTU of any
        other Ethernet, with which it may share a bridge. A full frame then takes two datagrams, unless it is of a TCP
        connection (wire/ethernet/mss.py).
        """
        if self.device == "tap":
            return DEFAULT_MTU_OF_TAP
        return DEFAULT_MTU if any(peer.is_vpntun for peer in self.peers) else DEFAULT_MTU_TO_WIREGUARD

    def _check_device(self) -> None:
        given = {
            "AllowedIPs": any(peer.allowed for peer in self.peers),
            "Relay": self.relay,
            "Table": self.routing.table != "off",
            "MAC": self.mac,
            "Bridge": self.bridge,
            "AllowedMACs": any(peer.allowed_macs for peer in self.peers),
            "Address": self.addresses,
            "--route": self.routes,
        }
        check_device(self.device, given)

    def _check_forwards(self) -> None:
        seen = set()
        for each in self.forwards:
            if each.key in seen:
                raise ConfigurationError(
                    f"two forwards listen on {each.protocol} {spelled(each.listen)}: leave one of them out"
                )
            seen.add(each.key)

    def _check_host(self, host: str) -> None:
        try:
            endpoint = ip_address(host.partition("%")[0])
        except ValueError:
            return  # a name: its addresses are checked after they are looked up
        covering = self.covering(endpoint)
        if covering is not None:
            raise ConfigurationError(explain_covering(covering, host))


def to_be_set_by_wg(interface: str) -> Tunnel:
    """Make a tunnel without keys, peers and addresses, which wg(8) and ip(8) give it."""
    return Tunnel(interface, identity=None, peers=(), port=None, listen_on=None, is_set_by_wg=True)


def to_one_peer(
    interface: str,
    host: str | None,
    port: int,
    transport: Transport,
    keys: Keys,
    *,
    allowed: tuple[Network, ...] = EVERYTHING,
    addresses: tuple[Interface, ...] = (),
    routes: tuple[Network, ...] = (),
    mtu: int | None = None,
    copies_dscp: bool = False,
    device: DeviceKind = "tun",
    mac: bytes | None = None,
    bridge: str | None = None,
    gateways: Mapping[Network, IpAddress] = MappingProxyType({}),
    in_namespace: bool = False,
) -> Tunnel:
    """Make a tunnel with one peer: call `host`, or wait for the peer if `host` is None. Raises ConfigurationError."""
    peer = PeerSettings(
        public=keys.peer,
        allowed=allowed if device == "tun" else (),
        psk=keys.psk,
        host=host,
        port=port,
        keepalive=CLIENT_KEEPALIVE if host is not None else 0.0,
        transport=transport,
        is_vpntun=bool(keys.derived_addresses),
    )
    return Tunnel(
        interface=interface,
        identity=keys.identity,
        peers=(peer,),
        port=port if host is None else None,
        listen_on=transport if host is None else None,
        addresses=addresses,
        routes=routes,
        mtu=mtu,
        derived_addresses=keys.derived_addresses,
        derived_peer_addresses=keys.derived_peer_addresses,
        copies_dscp=copies_dscp,
        device=device,
        mac=mac,
        bridge=bridge,
        gateways=gateways,
        in_namespace=in_namespace,
    )


def check_mtu(mtu: int, addresses: tuple[Interface, ...], device: DeviceKind = "tun") -> None:
    """Raise ConfigurationError if a device of this kind, with these addresses, cannot have this MTU."""
    largest = LARGEST_MTU if device == "tun" else LARGEST_MTU_OF_TAP
    if not SMALLEST_MTU <= mtu <= largest:
        raise ConfigurationError(
            f"an MTU of {mtu} cannot work on a {device.upper()} device: it must be {SMALLEST_MTU} to {largest}"
        )
    if mtu < SMALLEST_MTU_FOR_IPV6 and any(address.version == 6 for address in addresses):
        raise ConfigurationError(f"an MTU of {mtu} is too small for IPv6, which needs {SMALLEST_MTU_FOR_IPV6}")


def explain_covering(network: Network, host: str) -> str:
    """Explain to the operator why a route that covers the endpoint is refused."""
    return (
        f"{network} covers {host}, the peer's own address: the tunnel's packets would be sent into the tunnel. "
        "Give routes that do not contain that address"
    )


def parse_interface(text: str) -> Interface:
    """Parse an address with its prefix length. Raises ConfigurationError."""
    try:
        if "/" not in text or "%" in text:  # a scope, which the ipaddress module would accept
            raise ValueError
        return ip_interface(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is not an address with a prefix length, such as 192.168.0.1/24") from None


def parse_network(text: str) -> Network:
    """Parse a network in CIDR notation; host bits are masked off, as in WireGuard. Raises ConfigurationError."""
    try:
        if "%" in text:
            raise ValueError
        return ip_network(text, strict=False)
    except ValueError:
        raise ConfigurationError(f"{text!r} is not a network, such as 192.168.0.0/24 or fd00:1::/64") from None
