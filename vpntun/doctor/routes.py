"""Routes of a tunnel: to its peers' endpoints beside it, to their networks into it, and the MTU of both."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from vpntun.doctor.finding import Finding, failed, ok, skipped, warning
from vpntun.doctor.host import Host
from vpntun.doctor.subject import Peer, Subject
from vpntun.netconf.localnets import PRIVATE
from vpntun.types import IpAddress, Network
from vpntun.wire.ethernet.frame import HEADER_SIZE
from vpntun.wire.record import BUNDLE_START, ENTRY_SIZE

OVERHEAD = {4: 60, 6: 80}
"""Bytes that a plain WireGuard message adds to a packet: the IP and UDP headers, its own header, and the tag."""
AROUND_A_FRAME = HEADER_SIZE + BUNDLE_START + ENTRY_SIZE
"""Bytes that Ethernet's header and the record add to a packet of a TAP device."""
ANYWHERE = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
"""Addresses of no network, which only a default route reaches (RFC 5737, RFC 3849)."""


def examine_endpoints(subject: Subject, host: Host) -> Iterator[Finding]:
    """Examine by which route each peer is reached. Peers without fault share a line for each device."""
    through: dict[str, list[Peer]] = {}
    for peer in subject.peers:
        if peer.address is not None:
            device = host.device_to(peer.address, subject.mark)
            finding = _bad_route(subject, peer, peer.address, host, device)
            if finding is not None:
                yield finding
            else:
                through.setdefault(device or "", []).append(peer)
    for device, peers in through.items():
        who = f"{peers[0].name} at {peers[0].endpoint} is" if len(peers) == 1 else f"{len(peers)} peers are"
        yield ok("route to peer", f"{who} reached through {device}")


def _bad_route(subject: Subject, peer: Peer, address: IpAddress, host: Host, device: str | None) -> Finding | None:
    inside = _network_inside(subject, address, host)
    if device is None:
        return failed(
            "route to peer",
            f"no route leads to {peer.name} at {peer.endpoint}",
            f"connect this machine to a network that leads there; 'ip route get {address}' shows the kernel's answer",
        )
    if device == subject.interface or inside is not None:
        why = f", since {inside} is to be routed into it" if inside is not None else ""
        return failed(
            "route to peer",
            f"the route to {peer.name} at {peer.endpoint} leads into the tunnel itself{why}",
            f"give that address a route of its own beside the tunnel: 'ip route add {address} via GATEWAY'",
        )
    return None


def _network_inside(subject: Subject, address: IpAddress, host: Host) -> Network | None:
    """Return the network by which a tunnel that does not run yet would lead an endpoint into itself.

    A part of a private network is routed in the main table, where only a longer route keeps the endpoint out. For all
    others netconf/route_plan.py makes rules that keep the tunnel's own packets out.
    """
    if subject.is_running or subject.mark:
        return None
    networks = [each for each in subject.routed if each.version == address.version and address in each]
    lengths = [each.network.prefixlen for each in host.routes(address.version) if address in each.network]
    is_route = set(subject.routes) | {each.network for each in subject.addresses}
    for network in networks:
        private = any(network != each and _is_in(network, each) for each in PRIVATE)
        if (private or network in is_route or subject.table != "auto") and network.prefixlen >= max(lengths, default=0):
            return network
    return None


def examine_overlaps(subject: Subject, host: Host) -> Iterator[Finding]:
    """Examine whether the tunnel's networks are also this machine's, or another tunnel's.

    A device in a bridge has none, and those of a run are in a namespace of its own.
    """
    if subject.bridge is not None or subject.in_run:
        return
    found = list(_overlaps(subject, host))
    yield from found
    if not found:
        yield ok("overlaps", "no other network of this machine overlaps with the tunnel's")


def _overlaps(subject: Subject, host: Host) -> Iterator[Finding]:
    tunnels = {link.name for link in host.links() if link.leads_to_a_tunnel}
    others = [each for each in host.addresses() if each.device not in (subject.interface, "lo", "")]
    own = {str(each.ip): each for each in subject.addresses if not each.ip.is_link_local}
    for other in others:
        if other.address in own:
            yield warning(
                "overlaps",
                f"{other.address} is the address of {other.device}, too",
                "unless that is meant so, give one of the two another address",
            )
    local = {
        each.network: each.device for each in others if each.is_somewhere_else and not _is_link_local(each.network)
    }
    for version in (4, 6):
        for route in host.routes(version):
            if route.device in tunnels - {subject.interface} and route.network.prefixlen:
                local.setdefault(route.network, route.device)
    for network in subject.routed:
        for other_network, device in local.items():
            if network.version == other_network.version and network.overlaps(other_network):
                yield _overlap(subject, network, other_network, device)


def _overlap(subject: Subject, network: Network, other: Network, device: str) -> Finding:
    peer = subject.allowed.get(network)
    whose = f"of {peer.name}" if peer is not None else f"of {subject.interface}"
    if network == other:
        return failed(
            "overlaps",
            f"{network} {whose} is the network of {device}, too: "
            + ("one of them cannot be reached" if subject.is_running else "the tunnel does not start"),
            "give one of the two networks other addresses, or allow only the hosts of the peer that are needed",
        )
    if network.prefixlen > other.prefixlen:
        return warning(
            "overlaps",
            f"{network} {whose} is a part of {device}'s network {other}: its addresses lead into the tunnel now",
            "if hosts of that network are missing, give one of the two networks other addresses",
        )
    return warning(
        "overlaps",
        f"{network} {whose} contains {device}'s network {other}: its addresses do not lead into the tunnel",
        "if hosts behind the tunnel are missing, give one of the two networks other addresses",
    )


def examine_default(subject: Subject, host: Host) -> Iterator[Finding]:
    """Examine whether everything leads into a running full tunnel."""
    if not subject.is_running:
        return
    for version in subject.full:
        device = host.device_to(ANYWHERE[version])
        if device == subject.interface:
            yield ok("full tunnel", f"everything over IPv{version} leads into the tunnel")
        elif device is None:
            yield ok("full tunnel", f"nothing over IPv{version} leaves beside the tunnel")
        else:
            yield failed(
                "full tunnel",
                f"IPv{version} leaves by {device}, beside the tunnel",
                "another program has set routes or rules: see 'ip rule' and 'ip route show table all', and restart "
                "the tunnel",
            )


def examine_mtu(subject: Subject, host: Host) -> Iterator[Finding]:
    """Examine whether the tunnel's packets fit the devices by which they leave."""
    mtus = {link.name: link.mtu for link in host.links()}
    if subject.mtu is None:
        yield skipped("MTU", f"the device {subject.interface} is not there")
        return
    fitting = dict[str, None]()
    for peer in subject.peers:
        device = host.device_to(peer.address, subject.mark) if peer.address is not None else None
        if peer.address is None or device is None or device not in mtus:
            continue
        is_tap = subject.device == "tap"
        outer = mtus[device]
        needed = subject.mtu + OVERHEAD[peer.address.version] + (AROUND_A_FRAME if is_tap else 0)
        if needed <= outer:
            fitting[f"packets of {subject.mtu} bytes fit {device}, which takes {outer}"] = None
        elif peer.is_vpntun or is_tap:
            fitting[f"packets of {subject.mtu} bytes leave {device} in several datagrams of {outer}"] = None
        else:
            yield warning(
                "MTU",
                f"packets of {subject.mtu} bytes to {peer.name} take datagrams of {needed} bytes, but {device} takes "
                f"{outer}: they arrive late or never",
                f"set the tunnel's MTU to {outer - OVERHEAD[peer.address.version]} or less, at both ends",
            )

    for text in fitting:
        yield ok("MTU", text)


def _is_in(network: Network, other: Network) -> bool:
    return network.version == other.version and network.prefixlen >= other.prefixlen and network.overlaps(other)


def _is_link_local(network: Network) -> bool:
    return network.is_link_local
