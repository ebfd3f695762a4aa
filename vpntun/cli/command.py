"""The command `vpntun` itself: a tunnel to one peer, configured by options.

The short options are those of simpletun. The sub-commands are in files of their own. With --pair both ends make their
key file (pairing/) before the tunnel reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource

from vpntun import __version__
from vpntun.cli.commands import Commands
from vpntun.cli.run_options import FILE, add_run_options, adding, serve
from vpntun.config import values
from vpntun.config.file import read_peers
from vpntun.config.keyfile import default_path
from vpntun.config.keys import Keys, Role, derived_keys, shared_keys, wireguard_keys
from vpntun.config.routes import complete, parse_route
from vpntun.config.tunnel import (
    DEFAULT_MTU,
    DEFAULT_MTU_OF_TAP,
    DEFAULT_MTU_TO_WIREGUARD,
    DEFAULT_PORT,
    EVERYTHING,
    Tunnel,
    parse_interface,
    parse_network,
    to_one_peer,
)
from vpntun.crypto.keys import generate_secret
from vpntun.errors import ConfigurationError
from vpntun.runtime.folders import absolute
from vpntun.tun.opening import open_device
from vpntun.types import TRANSPORTS, DeviceKind, Transport

T = TypeVar("T")

NOT_BESIDE_A_FILE = {
    *("server", "host", "port", "transport", "tun", "tap"),
    *("key", "private_key", "peer", "psk", "allowed", "pair"),
    *("addresses", "routes", "mtu", "dscp", "mac", "bridge"),
}

_OF_A_PEER = (
    click.option(
        "-p", "--port", type=int, default=DEFAULT_PORT, show_default=True, help="The server's port, for UDP and TCP."
    ),
    click.option("-k", "--key", type=FILE, metavar="FILE", help="Shared key file, the same at both ends."),
    click.option(
        "--private-key", type=FILE, metavar="FILE", help="WireGuard private key file, instead of a shared key."
    ),
    click.option("--peer", metavar="PUBLICKEY", help="Public key of the WireGuard peer."),
    click.option("--psk", type=FILE, metavar="FILE", help="Preshared key file of the WireGuard peer."),
    click.option("--allowed", multiple=True, metavar="CIDR", help="Network behind the WireGuard peer (default: all)."),
    click.option("--address", "addresses", multiple=True, metavar="CIDR", help="Address of this end on the device."),
    click.option(
        "--transport",
        type=click.Choice(TRANSPORTS),
        help="Default: auto, or udp with WireGuard keys. auto: a server listens on both, a client tries UDP first.",
    ),
    click.option(
        "--dscp",
        type=click.Choice(["none", "inherit"]),
        default="none",
        show_default=True,
        help="DSCP of the outer packets. inherit: that of the packets inside, over UDP.",
    ),
)

add_peer_options = adding(_OF_A_PEER)
"""Adds the options that say how one peer is reached, and with which keys, to a command."""


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-i", "--interface", metavar="NAME", help="Device to create or attach.")
@click.option("-s", "--server", is_flag=True, help="Wait for the peer.")
@click.option("-c", "--client", "host", metavar="HOST", help="Call the peer at HOST, a name or an address.")
@click.option("-f", "--file", type=FILE, metavar="FILE", help="Read keys and peers from a file, instead of -s and -c.")
@click.option("-u", "--tun", is_flag=True, help="Use a TUN device, which carries IP packets (the default).")
@click.option("-a", "--tap", is_flag=True, help="Use a TAP device, which carries Ethernet frames.")
@click.option("--pair", is_flag=True, help="Make the shared key together with the other end first, by a short code.")
@add_peer_options
@click.option(
    "--route",
    "routes",
    multiple=True,
    metavar="CIDR",
    help="Network to route into the tunnel; with -a 'CIDR via ADDRESS', or the peer is the gateway.",
)
@click.option(
    "--mtu",
    type=int,
    metavar="N",
    help=f"MTU of the device (default: {DEFAULT_MTU}; {DEFAULT_MTU_TO_WIREGUARD} with WireGuard keys; "
    f"{DEFAULT_MTU_OF_TAP} with -a).",
)
@click.option("--mac", metavar="ADDRESS", help="MAC address of the TAP device (default: derived from this end's key).")
@click.option("--bridge", metavar="BRIDGE", help="Bridge that the TAP device joins; it must exist.")
@add_run_options
@click.version_option(__version__, "-V", "--version", prog_name="vpntun")
@click.pass_context
def vpntun(context: click.Context, /, **options: Any) -> None:
    """Link two machines: 'vpntun -s -i tun3' on one, 'vpntun -c HOST -i tun11' on the other."""
    if context.invoked_subcommand is not None:
        _refuse_options_of_the_tunnel(context)
        return
    if options["file"] is not None:
        _refuse_options_beside_a_file(context)
    _check_usage(**options)
    interface, file = options["interface"], options["file"]
    if file is None:
        serve(interface, partial(tunnel_of, **options), options)
    else:
        path = absolute(file)
        serve(interface, partial(read_peers, path, interface), options, path)


def _refuse_options_of_the_tunnel(context: click.Context) -> None:
    for name in context.params:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"the tunnel's options cannot be combined with '{context.invoked_subcommand}'")


def _refuse_options_beside_a_file(context: click.Context) -> None:
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in NOT_BESIDE_A_FILE and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"{parameter.opts[-1]} cannot be combined with -f: keys, peers and the kind of device come from the "
                "file, and with 'vpntun up' addresses and routes, too"
            )


def _check_usage(interface: str | None, server: bool, host: str | None, tun: bool, tap: bool, **options: Any) -> None:
    if tun and tap:
        raise click.UsageError("give either -u (TUN, for IP packets) or -a (TAP, for Ethernet frames), not both")
    if not interface:
        raise click.UsageError("which device? Give its name with -i, such as -i tun0")
    if options["file"] is not None:
        return
    if server == bool(host):
        raise click.UsageError(
            "give exactly one of -s (wait for the peer), -c HOST (call it) and -f FILE (as the file says)"
        )
    if options["pair"] and options["private_key"] is not None:
        raise click.UsageError("--pair makes a shared key, so it cannot be combined with --private-key")
    check_keys(**options)
    if tap and options["allowed"]:
        raise click.UsageError("--allowed has no meaning with -a: frames are switched by their MAC addresses")
    for name in ("mac", "bridge"):
        if options[name] is not None and not tap:
            raise click.UsageError(f"--{name} requires -a, a TAP device")
    for option, name in (("--address", "addresses"), ("--route", "routes")):
        if options["bridge"] is not None and options[name]:
            raise click.UsageError(f"{option} cannot be combined with --bridge: set it on the bridge")


def check_keys(private_key: Path | None, key: Path | None, peer: str | None, **options: Any) -> None:
    """Refuse options that name keys of two kinds, or a part of one. Raises UsageError."""
    if private_key is None:
        for name, given in (("peer", peer), ("psk", options["psk"]), ("allowed", options["allowed"])):
            if given:
                raise click.UsageError(f"--{name} requires --private-key")
    elif key is not None:
        raise click.UsageError("give either a shared key (-k) or WireGuard keys (--private-key and --peer)")
    elif peer is None:
        raise click.UsageError("--private-key requires --peer, the other machine's public key")


def _host(text: str) -> str:
    try:
        return values.host(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"-c: {error}; -p sets the port") from None


def tunnel_of(host: str | None, key: Path | None, pair: bool, **options: Any) -> Tunnel:
    """Make the tunnel to one peer that the options describe. Raises VpntunError."""
    host = _host(host) if host else None
    role: Role = "client" if host else "server"
    if options["private_key"] is not None:
        return _tunnel_with(wireguard_keys(options["private_key"], options["peer"], options["psk"]), host, **options)
    if pair:
        _check_can_start(_tunnel_with(derived_keys(role, generate_secret()), host, **options))
        _pair(host, options["port"], options["transport"], key or default_path())
    return _tunnel_with(shared_keys(role, key, host), host, **options)


def _check_can_start(tunnel: Tunnel) -> None:
    """Refuse a device that cannot be opened, before a key is made. Raises PrivilegeError or DeviceError.

    Somebody who forgot to become root would otherwise make a key for the wrong user, and could not pair again at once.
    """
    open_device(tunnel.interface, tunnel.device).close()


def _pair(host: str | None, port: int, transport: Transport | None, path: Path) -> None:
    """Make the shared key file together with the other end. Raises VpntunError."""
    # Only a command that pairs needs these, which take 50 ms to load.
    from vpntun.pairing.calling import pair_as_client
    from vpntun.pairing.interrupts import ended_by_signals
    from vpntun.pairing.listening import pair_as_server
    from vpntun.pairing.terminal import ask_code, check_terminal, show_code

    with ended_by_signals():
        if host is None:
            check_terminal()
            pair_as_server(path, port, lambda code: show_code(code, port, transport))
        else:
            pair_as_client(path, host, port, ask_code)


def _tunnel_with(
    keys: Keys, host: str | None, interface: str, port: int, mtu: int | None, dscp: str, tap: bool, **options: Any
) -> Tunnel:
    device: DeviceKind = "tap" if tap else "tun"
    addresses = tuple(map(parse_interface, options["addresses"]))
    own = addresses or keys.derived_addresses
    peers = keys.derived_peer_addresses if own == keys.derived_addresses else ()
    routes = [parse_route(each, device) for each in options["routes"]]
    return to_one_peer(
        interface,
        host,
        port,
        cast(Transport, options["transport"] or ("auto" if options["private_key"] is None else "udp")),
        keys,
        allowed=tuple(map(parse_network, options["allowed"])) or EVERYTHING,
        addresses=addresses,
        routes=tuple(network for network, _ in routes),
        mtu=mtu,
        copies_dscp=dscp == "inherit",
        device=device,
        mac=_option("mac", values.mac, options),
        bridge=_option("bridge", values.bridge, options),
        gateways=complete(routes, own, peers) if tap else {},
        in_namespace=options.get("in_namespace", False),
    )


def _option(name: str, parse: Callable[[str], T], options: dict[str, Any]) -> T | None:
    """Parse the value of an option, None if it is not given. Raises ConfigurationError that names the option."""
    if options[name] is None:
        return None
    try:
        return parse(options[name])
    except ConfigurationError as error:
        raise ConfigurationError(f"--{name}: {error}") from None
