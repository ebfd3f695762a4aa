"""Routes that options ask for (``--route``): networks, and on a TAP device the gateways that lead there.

A route into a TUN device needs no gateway: whatever is written to the device reaches the peer. On an Ethernet a route
leads to one of its stations. Without another one, that is the peer, if its address is known: if the device has the
address that is derived from a shared key, the peer has its neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from vpntun.config.tunnel import parse_network
from vpntun.errors import ConfigurationError
from vpntun.types import DeviceKind, Interface, IpAddress, Network

VIA = "--route 'NETWORK via ADDRESS'"


def parse_route(text: str, device: DeviceKind) -> tuple[Network, IpAddress | None]:
    """Parse a network and, on a TAP device, perhaps its gateway, as in "10.2.0.0/16 via 10.9.0.2".

    Raises ConfigurationError.
    """
    written, *behind = text.split() or [""]
    network = parse_network(written)
    if not behind:
        return network, None
    if device == "tun":
        raise ConfigurationError(f"--route {text}: a route into a TUN device has no gateway: give the network alone")
    try:
        word, address = behind
        gateway = ip_address(address)
        if word != "via" or "%" in address or gateway.version != network.version:
            raise ValueError
    except ValueError:
        raise ConfigurationError(f"{text!r} is not a route: give it as {VIA}, both of one IP version") from None
    return network, gateway


def complete(
    routes: Iterable[tuple[Network, IpAddress | None]], own: Iterable[Interface], peer: Iterable[IpAddress]
) -> dict[Network, IpAddress]:
    """Return the gateway of each route on a TAP device. Raises ConfigurationError for a route that can have none.

    `own`: the addresses of this end. `peer`: those of the peer, where they are known: the gateways of routes that name
    none.
    """
    here = {address.ip for address in own}
    usual = {address.version: address for address in peer}
    gateways: dict[Network, IpAddress] = {}
    for network, gateway in routes:
        found = gateway or usual.get(network.version)
        if found is None:
            raise ConfigurationError(
                f"--route {network}: on a TAP device a route needs a gateway, which is a station of that Ethernet: "
                f"give it as {VIA}"
            )
        if found in here:
            raise ConfigurationError(
                f"--route {network}: {found} is this end's own address: give that of a station that forwards there"
            )
        if gateways.setdefault(network, found) != found:
            raise ConfigurationError(
                f"--route {network} is given by two gateways, {gateways[network]} and {found}: leave one out"
            )
    return gateways
