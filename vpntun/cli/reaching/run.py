"""Command `run`: a program in a namespace of its own, with the tunnel as its only way out.

The command's words follow `--`, so that its options are not taken for this program's. Before the keys are read, the
processes are forked that will not need them (namespace/surroundings.py).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
from click.core import ParameterSource

from vpntun.cli.command import add_peer_options, check_keys, tunnel_of
from vpntun.cli.run_options import DEBUG_OPTION, FILE, LOG_FORMAT_OPTION, METRICS_OPTION, SECONDS, SOCKS5
from vpntun.config.file import read_file
from vpntun.config.finding import find_file, interface_of
from vpntun.config.forwards import parse_forward
from vpntun.config.tunnel import Tunnel
from vpntun.config.values import dns
from vpntun.process.service import RunOptions
from vpntun.runtime.folders import absolute
from vpntun.runtime.log import open_log
from vpntun.runtime.logform import Form
from vpntun.runtime.process_one import ending_action
from vpntun.tun.opening import check_name

DEFAULT_INTERFACE = "run0"
OF_A_PEER = {
    *("port", "key", "private_key", "peer", "psk", "allowed", "addresses", "routes", "mtu", "transport"),
    "dscp",
}
"""Options that have no place beside a file."""
OF_OTHER_TUNNELS = {"pair": False, "tap": False, "mac": None, "bridge": None}
"""Options of the command `vpntun` itself that have no place here."""


class CommandAfterDashes(click.Command):
    """Command whose own words end at the first `--`; those behind it are kept in the context's `args`."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Parse the words before the dashes."""
        if "--" not in args:
            try:
                super().parse_args(context, args)
            except click.NoSuchOption as error:
                advice = "A program and its options follow --."
                raise click.UsageError(f"{error.format_message()} {advice}", context) from None
            return context.args
        dashes = args.index("--")
        super().parse_args(context, args[:dashes])
        context.args = args[dashes + 1 :]
        return context.args


@click.command(
    cls=CommandAfterDashes, options_metavar="[OPTIONS]", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.argument("names", metavar="[FILE|NAME] -- COMMAND...", nargs=-1)
@click.option("-c", "--client", "host", metavar="HOST", help="Call the peer at HOST, in place of a file.")
@click.option("-i", "--interface", metavar="NAME", help=f"Device (default: {DEFAULT_INTERFACE}, or the file's name).")
@add_peer_options
@click.option("--route", "routes", multiple=True, metavar="CIDR", help="Network to route (default: all).")
@click.option("--mtu", type=int, metavar="N", help="MTU of the device.")
@click.option("--dns", multiple=True, metavar="ADDR|DOMAIN", help="Name server or search domain, in place of DNS.")
@click.option(
    "--expose", "exposed", multiple=True, metavar="FORWARD", help="Forward, as ':8080 10.9.0.7:80' or a file's Forward."
)
@click.option("--netns", metavar="NAME", help="Use this network namespace of 'ip netns', as root.")
@click.option("--wait", type=SECONDS, metavar="SECONDS", help="End with status 9 if there is no link in time.")
@click.option(
    "--socks5",
    type=SOCKS5,
    metavar="unix:PATH|ADDR:PORT",
    help="SOCKS5 proxy into the tunnel; then COMMAND may be left out.",
)
@METRICS_OPTION
@click.option("--log-file", type=FILE, metavar="FILE", help="Append the log to a file.")
@LOG_FORMAT_OPTION
@click.option("-v", "--verbose", count=True, help="Log what a tunnel logs; twice and three times for more.")
@DEBUG_OPTION
@click.pass_context
def run(context: click.Context, /, names: tuple[str, ...], **options: Any) -> None:
    """Run a program in a network of its own, whose only way out is the tunnel.

    The tunnel is that of a configuration file, as with 'up', or to HOST. Needs neither root nor a change of this
    machine's network: 'vpntun run office -- firefox'.
    """
    command = context.args
    _check_usage(context, names, **options)
    file = absolute(find_file(names[0])) if names else None
    interface = options["interface"] or (DEFAULT_INTERFACE if file is None else interface_of(file))
    check_name(interface)
    _open_log(interface, options, has_program=bool(command))
    from vpntun.daemon import run as run_tunnel  # takes 60 ms to load, and only a command that runs a tunnel needs it
    from vpntun.namespace.network import for_namespace
    from vpntun.namespace.side import NamespaceSide
    from vpntun.namespace.surroundings import Run

    exposed = tuple(map(parse_forward, options.pop("exposed")))
    servers = tuple(dns(" ".join(options.pop("dns"))))
    surroundings = Run.fork(command, wait=options["wait"], netns=options["netns"])
    read_tunnel = _reader(file, {**options, "interface": interface})

    def read() -> Tunnel:
        tunnel = for_namespace(read_tunnel())
        return replace(tunnel, forwards=(*tunnel.forwards, *exposed), dns=servers or tunnel.dns)

    run_options = RunOptions(
        background=surroundings, file=file, uapi=False, metrics=options["metrics"], socks5=options["socks5"]
    )
    inside = NamespaceSide(surroundings.holder)
    run_tunnel(read(), run_options, read if file is not None else None, surroundings, inside)
    if surroundings.ended_by is not None:
        _die_of(surroundings.ended_by)
    sys.exit(surroundings.status)


def _check_usage(context: click.Context, names: tuple[str, ...], host: str | None, **options: Any) -> None:
    """Refuse options that do not describe one tunnel and one program. Raises UsageError."""
    if any(len(each.split()) == 1 for each in options["exposed"]):
        raise click.UsageError("put the whole forward into quotes, as in --expose ':8080 10.9.0.7:80'")
    if names and host is not None:
        raise click.UsageError(
            f"-c HOST takes the place of a file: leave out {names[0]!r} or, if it is the program, put -- before it"
        )
    if len(names) > 1:
        raise click.UsageError(f"put -- before the program and its options: vpntun run {names[0]} -- {names[1]} ...")
    if not names and host is None:
        raise click.UsageError("which tunnel? Give the name of its file, or -c HOST")
    for parameter in context.command.params:
        name = parameter.name or ""
        if names and name in OF_A_PEER and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[-1]} cannot be combined with a file, which describes the tunnel")
    if not context.args and options["netns"] is None and options["socks5"] is None:
        raise click.UsageError("which program? Give it after --, as in: vpntun run office -- firefox")
    if not names:
        check_keys(**options)


def _reader(file: Path | None, options: dict[str, Any]) -> Callable[[], Tunnel]:
    """Return what reads the tunnel from the file or, if that is None, from the options and their key files."""
    if file is not None:
        return partial(read_file, file, options["interface"], in_namespace=True)
    return partial(tunnel_of, **{**OF_OTHER_TUNNELS, **options, "in_namespace": True})


def _open_log(interface: str, options: dict[str, Any], *, has_program: bool) -> None:
    """Open the log. The terminal is the program's: unless -v is given, it gets warnings and errors alone."""
    verbosity = 2 if options["debug"] else max(0, options["verbose"] - 1)
    is_quiet = has_program and not options["verbose"] and not options["debug"]
    open_log(interface, verbosity, cast(Form, options["log_format"]), options["log_file"], quiet=is_quiet)


def _die_of(number: int) -> None:
    """End by a signal that was meant for the program before it was started, so that a shell notices."""
    signal.signal(number, ending_action())
    os.kill(os.getpid(), number)
