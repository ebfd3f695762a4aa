"""Options for running any tunnel: its user, its hooks, the background, and its log."""

from __future__ import annotations

from collections.abc import Callable
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


class MetricsPlace(click.ParamType):  # type: ignore[type-arg]
    """Place where metrics are served, as the key Metrics of a file."""

    name = "place"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Path | Place:
        """Return the path of a unix socket, or an address and a port. Raises ConfigurationError."""
        try:
            return metrics(value)
        except ConfigurationError as error:
            raise ConfigurationError(f"--metrics: {error}") from None


METRICS = MetricsPlace()


class Socks5Place(click.ParamType):  # type: ignore[type-arg]
    """Place where a SOCKS5 proxy listens, as that of a forward."""

    name = "place"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Path | Place:
        """Return the path of a unix socket, or an address and a port. Raises ConfigurationError."""
        try:
            return parse_listening(value)
        except ConfigurationError as error:
            raise ConfigurationError(f"--socks5: {error}") from None


SOCKS5 = Socks5Place()

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
    click.option(
        "--metrics",
        type=METRICS,
        metavar="unix:PATH|ADDR:PORT",
        help="Serve metrics for Prometheus, by a unix socket or on an address of this machine.",
    ),
    click.option("--pidfile", type=FILE, metavar="FILE", help="Write the process ID to a file."),
    click.option("--log-file", type=FILE, metavar="FILE", help="Append the log to a file; SIGHUP reopens it."),
    click.option(
        "--log-format",
        type=click.Choice(["text", "logfmt", "json"]),
        default="text",
        show_default=True,
        help="Format of a log line.",
    ),
    click.option("-v", "--verbose", count=True, help="Log more; twice for everything."),
    click.option("-d", "--debug", is_flag=True, help="Log everything."),
)


def add_run_options(function: Function) -> Function:
    """Add these options to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


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
