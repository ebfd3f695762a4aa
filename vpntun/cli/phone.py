"""Command `phone`: adds a phone to the peers of a tunnel, and shows its configuration as a QR code.

1. Everything that can be refused is refused before anything is changed, a terminal that is too small for the code too.
2. The peer is appended to the tunnel's file (config/appending.py), and a running tunnel reads the file again.
3. The code is printed. The phone's private key is in it and nowhere else, so it cannot be shown a second time.

If a step fails after the file was changed, the file is put back, and a running tunnel reads it once more. Whenever a
tunnel reads its file, what wg(8) has changed since the last time is undone.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import click

from vpntun.cli.qrcode import draw
from vpntun.config import values
from vpntun.config.appending import appended, locked
from vpntun.config.file import read_file
from vpntun.config.finding import find_file, interface_of, is_for_wg_quick, only_file
from vpntun.config.phone import Phone, check_name, check_server, new_phone
from vpntun.config.tunnel import Tunnel
from vpntun.control.client import ControlClient
from vpntun.crypto.keys import format_key
from vpntun.errors import ConfigurationError, NoSuchTunnel, VpntunError
from vpntun.netconf.localnets import public_address
from vpntun.runtime.folders import absolute
from vpntun.runtime.log import notice, open_log
from vpntun.types import Place, written

T = TypeVar("T")

USUAL_COLUMNS, MANY_ROWS = 80, 1000


@click.command()
@click.argument("name")
@click.option("-f", "--file", metavar="FILE|NAME", help="The tunnel, as for 'up' (default: the only one with a file).")
@click.option(
    "--endpoint",
    metavar="HOST[:PORT]",
    help="Where the phone calls this machine (default: its own address, if that is public, and ListenPort).",
)
@click.option(
    "--allowed",
    multiple=True,
    metavar="CIDR",
    help="Network that the phone sends into the tunnel, besides the tunnel's own.",
)
@click.option("--dns", multiple=True, metavar="ADDRESS", help="Name server, or search domain, of the phone.")
def phone(name: str, file: str | None, endpoint: str | None, allowed: tuple[str, ...], dns: tuple[str, ...]) -> None:
    """Add a phone called NAME as a peer, and show the QR code for its WireGuard app.

    If standard output is not a terminal, the configuration is written to it as text.
    """
    path = absolute(find_file(file) if file is not None else only_file())
    interface = interface_of(path)
    open_log(interface, 0)
    with locked(path):
        tunnel = read_file(path, interface)
        port = check_server(tunnel)
        made = new_phone(
            tunnel,
            check_name(name, tunnel, path.read_text("utf-8", "replace")),
            _own_endpoint(tunnel, port) if endpoint is None else _given_endpoint(endpoint, tunnel, port),
            networks=[network for text in allowed for network in _option("allowed", values.networks, text)],
            dns=[_option("dns", values.host, text) for text in dns],
        )
        output = made.configuration()
        if sys.stdout.isatty():
            output = draw(output, *_size_of_terminal())
        is_changed = False
        try:
            with appended(path, made.section(name_in_comment=is_for_wg_quick(path))):
                is_changed = True
                may_connect = _reload(path, interface, made)
                _describe(made, is_own_endpoint=endpoint is None)
                notice("%s", may_connect)
                click.echo(output.encode(), nl=False)
        except BaseException:
            if is_changed:
                with suppress(VpntunError):
                    _reload(path, interface, made)
            raise


def _describe(made: Phone, *, is_own_endpoint: bool) -> None:
    which = ", this machine's own address (--endpoint names another)" if is_own_endpoint else ""
    notice(
        "%s has %s, and calls %s%s", made.name, " and ".join(map(str, made.addresses)), written(made.endpoint), which
    )
    notice("it sends %s into the tunnel; --allowed adds to that", ", ".join(map(str, made.networks)))
    notice("its private key is only in this output, and is not shown again")


def _reload(path: Path, interface: str, made: Phone) -> str:
    """Let a running tunnel read its file again, and return when the phone can connect. Raises VpntunError."""
    try:
        tunnel = ControlClient(interface)
    except NoSuchTunnel:
        return f"no running vpntun is called {interface}: it can connect once the tunnel has read {path}"
    with tunnel:
        tunnel.ask("POST", "/v1/reload")
        peers = tunnel.ask("GET", "/v1/status")["peers"]
    if any(peer["public_key"] == format_key(made.identity.public) for peer in peers):
        return "it can connect now"
    return f"{interface} runs, but has not read {path} again: it can connect after a restart with that file"


def _given_endpoint(text: str, tunnel: Tunnel, port: int) -> Place:
    """Parse HOST or HOST:PORT, with `port` as the default. Raises ConfigurationError, also for one in the tunnel."""
    if re.search(r"\]:|^[^:]*:[^:]*$", text):
        host, port = _option("endpoint", values.endpoint, text)
    else:
        host = _option("endpoint", values.host, text)
    with suppress(ValueError):  # a name
        if tunnel.covering(ip_address(host)) is not None:
            raise ConfigurationError(f"--endpoint: {host} is inside the tunnel: give an address that is outside of it")
    return host, port


def _own_endpoint(tunnel: Tunnel, port: int) -> Place:
    """Return the endpoint at this machine's public address. Raises ConfigurationError if it has none."""
    address = public_address()
    if address is None or tunnel.covering(address) is not None:
        raise ConfigurationError(
            "this machine has no public address of its own: give the name or address where the phone can call it, with "
            f"--endpoint HOST[:PORT]. A router in front of it has to forward UDP port {port}"
        )
    return str(address), port


def _option(name: str, parse: Callable[[str], T], text: str) -> T:
    """Parse the value of an option. Raises ConfigurationError that names the option."""
    try:
        return parse(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"--{name}: {error}") from None


def _size_of_terminal() -> tuple[int, int]:
    """Return the columns and rows of the terminal; the usual columns, and many rows, where nobody knows them."""
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        columns, rows = 0, 0
    return columns or USUAL_COLUMNS, rows or MANY_ROWS
