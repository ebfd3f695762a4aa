"""Options for running any tunnel: its user, its hooks, the background, and its log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from vpntun.config.forwards import parse_listening
from vpntun.config.tunnel import Tunnel
from vpntun.config.values import metrics
from vpntun.errors import ConfigurationError
from vpntun.process.background import Background
from vpntun.process.hooks import Command, HookEvent
from vpntun.process.service import RunOptions
from vpntun.runtime.log import open_log
from vpntun.runtime.logform import Form
from vpntun.tun.opening import check_name
from vpntun.types import Place

FILE = click.Path(path_type=Path)
MOST_SECONDS = 1_000_000.0
HOOKS: tuple[HookEvent, ...] = ("up", "down", "link-up", "link-down")
Function = TypeVar("Function", bound=Callable[..., Any])


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """Time to wait in seconds, from 0 to MOST_SECONDS."""

    name = "seconds"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """Return the number of seconds. Raises BadParameter."""
        seconds: float = click.FLOAT.convert(value, parameter, context)
        if not 0 <= seconds <= MOST_SECONDS:
            self.fail(f"{value} is not a time to wait: give 0 to {MOST_SECONDS:.0f} seconds", parameter, context)
        return seconds


SECONDS = Seconds()


class PlaceToListen(click.ParamType):  # type: ignore[type-arg]
    """Place where the socket of an option listens; `parse` raises ConfigurationError."""

    name = "place"

    def __init__(self, option: str, parse: Callable[[str], Path | Place]) -> None:
        self._option = option
        self._parse = parse

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Path | Place:
        """Return the path of a unix socket, or an address and a port. Raises ConfigurationError."""
        try:
            return self._parse(value)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self._option}: {error}") from None


METRICS_OPTION = click.option(
    "--metrics",
    type=PlaceToListen("--metrics", metrics),
    metavar="unix:PATH|ADDR:PORT",
    help="Serve metrics for Prometheus, by a unix socket or on an address of this machine.",
)
SOCKS5 = PlaceToListen("--socks5", parse_listening)
LOG_FORMAT_OPTION = click.option(
    "--log-format",
    type=click.Choice(["text", "logfmt", "json"]),
    default="text",
    show_default=True,
    help="Format of a log line.",
)
DEBUG_OPTION = click.option("-d", "--debug", is_flag=True, help="Log everything.")

_OPTIONS = (
    click.option("--user", metavar="USER", help="Become this user after the set-up."),
    click.option("--up", metavar="CMD", help="Run CMD when the device is up, and wait for it."),
    click.option("--down", metavar="CMD", help="Run CMD at the end."),
    click.option("--link-up", metavar="CMD", help="Run CMD when the link to a peer comes up."),
    click.option("--link-down", metavar="CMD", help="Run CMD when the link to a peer goes down."),
    click.option("--daemon", is_flag=True, help="Continue in the background once the device is up."),
    click.option(
        "--wait",
        type=SECONDS,
        metavar="SECONDS",
        help="With --daemon: wait for a link; exit with status 9 if there is none in time.",
    ),
    click.option("--no-uapi", is_flag=True, help="Open no socket for wg(8)."),
    METRICS_OPTION,
    click.option("--pidfile", type=FILE, metavar="FILE", help="Write the process ID to a file."),
    click.option("--log-file", type=FILE, metavar="FILE", help="Append the log to a file; SIGHUP reopens it."),
    LOG_FORMAT_OPTION,
    click.option("-v", "--verbose", count=True, help="Log more; twice for everything."),
    DEBUG_OPTION,
)


def adding(options: Sequence[Callable[[Function], Function]]) -> Callable[[Function], Function]:
    """Return a decorator that adds options to a command, in this order."""

    def add(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return add


add_run_options = adding(_OPTIONS)


def serve(interface: str, read: Callable[[], Tunnel], options: dict[str, Any], file: Path | None = None) -> None:
    """Run the tunnel that `read` returns, as the options say. Raises VpntunError and UsageError.

    `file`: the file that `read` reads, which is read again at SIGHUP; None if there is none.
    """
    check_name(interface)
    if options["wait"] is not None and not options["daemon"]:
        raise click.UsageError("--wait requires --daemon")
    commands = {event: Command.parse(line) for event in HOOKS if (line := options[event.replace("-", "_")]) is not None}
    open_log(
        interface,
        2 if options["debug"] else options["verbose"],
        cast(Form, options["log_format"]),
        options["log_file"],
        detached=options["daemon"],
    )
    tunnel = read()
    from vpntun.daemon import run  # takes 60 ms to load, and only a command that runs a tunnel needs it

    background = Background.enter(options["wait"]) if options["daemon"] else None
    run_options = RunOptions(
        options["user"],
        commands,
        options["pidfile"],
        background,
        file,
        not options["no_uapi"],
        options["metrics"],
    )
    run(tunnel, run_options, read if file is not None else None)
