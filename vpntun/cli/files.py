"""Commands for configuration files: `up` runs a file's tunnel, `check` prints what `up` would do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from vpntun.cli.run_options import add_run_options, serve
from vpntun.config.file import read_file
from vpntun.config.finding import find_file, interface_of
from vpntun.config.peer import NO_PSK, PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.crypto.keys import format_key
from vpntun.names.zones import labels_of_peers
from vpntun.netconf.route_plan import collapse_to_default, full_tunnel_versions, versions_with_endpoints
from vpntun.netconf.routing import kernel_has_ipv6
from vpntun.runtime.folders import absolute
from vpntun.runtime.log import notice, open_log
from vpntun.tun.ipv6 import addresses_of, carried_networks
from vpntun.types import DeviceKind, Interface, Network, Place, Transport, carriers_of, written
from vpntun.wire.ethernet.mac import derived_mac, mac_text


@click.command()
@click.argument("name", metavar="FILE|NAME")
@add_run_options
def up(name: str, **options: Any) -> None:
    """Set up and run the tunnel of a configuration file.

    FILE is /path/NAME.conf. NAME alone means /etc/vpntun/NAME.conf or, if that does not exist,
    /etc/wireguard/NAME.conf.
    """
    path = absolute(find_file(name))
    interface = interface_of(path)
    serve(interface, partial(read_file, path, interface), options, path)


@click.command()
@click.argument("name", metavar="FILE|NAME")
def check(name: str) -> None:
    """Print what 'up' would do with a configuration file."""
    path = find_file(name)
    interface = interface_of(path)
    open_log(interface, 0)
    tunnel = read_file(path, interface)
    if tunnel.identity is None:
        notice("%s has no PrivateKey: PostUp has to give one, as in 'wg set %%i private-key FILE'", path)
    for line in describe(tunnel):
        click.echo("".join(each if each.isprintable() else ascii(each)[1:-1] for each in line))


def describe(tunnel: Tunnel) -> Iterator[str]:
    """Describe a tunnel line by line, with the titles of wg(8) and without secrets."""
    yield f"interface: {tunnel.interface}"
    if tunnel.identity is not None:
        yield f"  public key: {format_key(tunnel.identity.public)}"
    else:
        yield "  public key: unknown until PostUp gives the private key"
    if tunnel.listen_on is not None:
        yield f"  listening: on {_named(tunnel.listen_on, ' and ')} port {tunnel.port}"
    else:
        yield f"  listening: no, this end calls{f' from port {tunnel.port}' if tunnel.port is not None else ''}"
    if tunnel.device == "tap":
        yield "  device: tap"
        if tunnel.mac is not None:
            yield f"  mac: {mac_text(tunnel.mac)}"
        elif tunnel.identity is not None:
            yield f"  mac: {mac_text(derived_mac(tunnel.identity.public))}, derived from the key"
    if tunnel.bridge is not None:
        yield f"  bridge: {tunnel.bridge}"
    addresses = addresses_of(tunnel, _mtu(tunnel))
    yield f"  addresses: {_listed(addresses)}"
    yield f"  mtu: {_mtu(tunnel)}"
    yield from _routes(tunnel, addresses)
    if tunnel.dns:
        yield f"  dns: {_listed(tunnel.dns)}"
    if tunnel.user is not None:
        yield f"  user: {tunnel.user}, once it is set up"
    if tunnel.relay:
        yield "  relay: yes, from peer to peer"
    if tunnel.metrics is not None:
        yield f"  metrics: {_place(tunnel.metrics)}"
    yield from _names(tunnel)
    for forward in tunnel.forwards:
        yield f"  forward: {forward}"
    for service in tunnel.services.offered:
        yield f"  service: {service}"
    if tunnel.copies_dscp:
        yield "  dscp: copied to the outer packets"
    for title, lines in (
        ("before up", tunnel.hooks.pre_up),
        ("after up", tunnel.hooks.post_up),
        ("before down", tunnel.hooks.pre_down),
        ("after down", tunnel.hooks.post_down),
    ):
        for line in lines:
            yield f"  {title}: {line}"
    for peer in tunnel.peers:
        yield ""
        yield from _peer(peer, tunnel.device)


def _mtu(tunnel: Tunnel) -> int:
    return tunnel.mtu or tunnel.default_mtu


def _routes(tunnel: Tunnel, addresses: list[Interface]) -> Iterator[str]:
    """Describe the routes and the mark that netconf/routing.py derives from the allowed IPs."""
    table, mark = tunnel.routing.table, f"0x{tunnel.routing.fwmark:x}" if tunnel.routing.fwmark else ""
    networks = list(dict.fromkeys(network for peer in tunnel.peers for network in peer.allowed))
    reachable = [] if table == "off" else carried_networks(tunnel.interface, _mtu(tunnel), networks)
    if table == "off":
        yield "  routes: none"
    elif table != "auto":
        yield f"  routes: {_listed(reachable)}, in table {table}"
    else:
        connected = [address.network for address in addresses]
        missing = [each for each in reachable if each.prefixlen and not any(_covers(net, each) for net in connected)]
        yield f"  routes: {_listed(missing)}"
        full = full_tunnel_versions(collapse_to_default(networks), ipv6=kernel_has_ipv6())
        if full:
            yield f"  full tunnel: {' and '.join(f'IPv{version}' for version in full)}"
        if full or versions_with_endpoints(networks):
            mark = mark or "the first free one from 0xca6c"
    if mark:
        yield f"  fwmark: {mark}"


def _covers(wider: Network, network: Network) -> bool:
    return network.prefixlen >= wider.prefixlen and network.network_address in wider


def _peer(peer: PeerSettings, device: DeviceKind) -> Iterator[str]:
    yield f"peer: {peer.name or format_key(peer.public)}"
    if peer.name:
        yield f"  public key: {format_key(peer.public)}"
    if peer.psk != NO_PSK:
        yield "  preshared key: given"
    if peer.host is None:
        yield "  endpoint: unknown until it calls"
    else:
        host = f"[{peer.host}]" if ":" in peer.host else peer.host
        yield f"  endpoint: {host}:{peer.port}, over {_named(peer.transport, ' or ')}"
    if device == "tun":
        yield f"  allowed ips: {_listed(peer.allowed)}"
    elif peer.allowed_macs:
        yield f"  allowed macs: {_listed(map(mac_text, peer.allowed_macs))}"
    if peer.keepalive:
        yield f"  persistent keepalive: every {peer.keepalive:g} seconds"


def _names(tunnel: Tunnel) -> Iterator[str]:
    """Describe the name server, and the peers that have no name there."""
    if tunnel.names is None:
        return
    labels, left_out = labels_of_peers(tunnel.peers)
    yield f"  name server: for {tunnel.names.domain}, with {_listed(labels)}"
    if left_out:
        yield f"  without a name: {_listed(left_out)}"
    for record in tunnel.names.records:
        yield f"  record: {record}"
    for forward in tunnel.names.forwards:
        yield f"  asked elsewhere: {forward}"


def _named(transport: Transport, between: str) -> str:
    """The carriers of a transport, as in "UDP and TCP"."""
    return between.join(name.upper() for name in carriers_of(transport))


def _place(place: Path | Place) -> str:
    return f"unix:{place}" if isinstance(place, Path) else written(place)


def _listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items)) or "none"
