"""Commands for the forwards of a running tunnel: expose, unexpose and forwards.

`expose` begins a forward and `unexpose` ends one; neither changes the tunnel's file. `forwards` lists them with their
counters. They ask the tunnel through its control socket, and check what was typed before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from vpntun.cli.reaching.table import table
from vpntun.config.forwards import (
    ORIGINS,
    Forward,
    ForwardProtocol,
    Origin,
    ServiceName,
    Target,
    parse_listening,
    parse_target,
    spelled,
)
from vpntun.config.keyfile import read_bare
from vpntun.control.client import ControlClient
from vpntun.crypto.keys import format_key
from vpntun.errors import ConfigurationError
from vpntun.runtime.logform import escape
from vpntun.watch import short

Function = TypeVar("Function", bound=Callable[..., None])

HEADINGS = ("protocol", "from", "listen", "target", "open", "total", "refused", "failed", "sent", "received")
WORDS, NUMBERS = HEADINGS[:4], HEADINGS[4:]


def _add_kind_options(function: Function) -> Function:
    """Add the options that tell, beside LISTEN, which forward is meant."""
    for option in (
        click.option("--udp", is_flag=True, help="Pass datagrams on, instead of TCP connections."),
        click.option(
            "--from",
            "origin",
            type=click.Choice(ORIGINS),
            default="here",
            show_default=True,
            help="Who connects to LISTEN: this machine's side, the far side, or programs of 'vpntun run'.",
        ),
    ):
        function = option(function)
    return function


@click.command()
@click.argument("interface")
@click.argument("listen")
@click.argument("target")
@_add_kind_options
@click.option(
    "--service-key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Use a peer's service with the key in this file.",
)
def expose(interface: str, listen: str, target: str, *, udp: bool, origin: Origin, service_key: Path | None) -> None:
    """Forward connections from LISTEN to TARGET, through the running tunnel of INTERFACE.

    LISTEN is :PORT for all addresses, ADDRESS:PORT or unix:/PATH. TARGET is HOST:PORT, unix:/PATH, or SERVICE@PEER.
    With --from peer, LISTEN is on the tunnel's addresses, and with --from inside in the namespace of 'vpntun run'; both
    reach TARGET from this machine. The key of --service-key is the one that 'vpntun genpsk' made for ServiceKey at the
    other end; the tunnel keeps it until it ends.
    """
    protocol: ForwardProtocol = "udp" if udp else "tcp"
    forward = Forward(protocol, parse_listening(listen), parse_target(target), origin)
    named = {"local": spelled(forward.listen), "protocol": protocol, "from": forward.origin}
    key = _read_key(service_key, forward.target) if service_key is not None else None
    with ControlClient(interface) as tunnel:
        if key is not None:
            tunnel.ask("POST", "/v1/services/key", {"service": spelled(forward.target), "key": format_key(key)})
        tunnel.ask("POST", "/v1/services/forwarder/expose", {**named, "remote": spelled(forward.target)})


@click.command()
@click.argument("interface")
@click.argument("listen")
@_add_kind_options
def unexpose(interface: str, listen: str, *, udp: bool, origin: Origin) -> None:
    """End the forward of INTERFACE that listens at LISTEN; connections that are open go on.

    --udp and --from are given as they were to 'expose'.
    """
    named = {"local": spelled(parse_listening(listen)), "protocol": "udp" if udp else "tcp", "from": origin}
    with ControlClient(interface) as tunnel:
        tunnel.ask("POST", "/v1/services/forwarder/unexpose", named)


@click.command()
@click.argument("interface")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/control.rst).")
def forwards(interface: str, as_json: bool) -> None:
    """List the forwards of INTERFACE, with their connections and bytes."""
    with ControlClient(interface) as tunnel:
        found = tunnel.ask("GET", "/v1/forwards")["forwards"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif found:
        for line in described(found):
            click.echo(escape(line))
    else:
        click.echo(f"{interface} has no forwards", err=True)


def _read_key(file: Path, target: Target) -> bytes:
    """Read the key of a service. Raises ConfigurationError, KeyFileError or PrivilegeError."""
    if not isinstance(target, ServiceName):
        raise ConfigurationError(f"--service-key is for a service of a peer, such as ssh@desk, not {spelled(target)}")
    return read_bare(file)


def described(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Write the forwards as a table, line by line, and below it why connections have failed."""
    yield from table(HEADINGS, map(_row, found), NUMBERS)
    for forward in found:
        if forward["last_failure"]:
            yield f"last failure of {forward['protocol']} {forward['listen']}: {forward['last_failure']}"


def _row(forward: Mapping[str, Any]) -> tuple[str, ...]:
    counters = ("connections", "connections_total", "connections_refused", "connections_failed")
    return (
        *(forward[name] for name in WORDS),
        *(f"{forward[name]:,}" for name in counters),
        *(short.size(forward[f"{name}_bytes"]) for name in ("sent", "received")),
    )
