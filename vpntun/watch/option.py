"""Option `--watch [SECONDS]` of show, whose number may be left out, and the start of the live view."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import click

from vpntun.errors import VpntunError

OPTION = "--watch"
USUAL_INTERVAL = 1.0
SHORTEST_INTERVAL, LONGEST_INTERVAL = 0.1, 86400.0


class Interval(click.ParamType):  # type: ignore[type-arg]
    """Time between two pictures, in seconds."""

    name = "interval"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """Return the number of seconds. Raises BadParameter."""
        seconds: float = click.FLOAT.convert(value, parameter, context)
        if not SHORTEST_INTERVAL <= seconds <= LONGEST_INTERVAL:
            self.fail(
                f"{value} is no interval: give {SHORTEST_INTERVAL:g} to {LONGEST_INTERVAL:.0f} seconds",
                parameter,
                context,
            )
        return seconds


watch_option = click.option(
    OPTION,
    "interval",
    type=Interval(),
    metavar="[SECONDS]",
    help=f"Show it live, and again every SECONDS (default: {USUAL_INTERVAL:g}), until q is typed.",
)


class CommandWithWatch(click.Command):
    """Command that takes --watch with or without a number behind it.

    click would take an INTERFACE behind --watch for the number.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give --watch its usual number where none follows, and parse the arguments."""
        return super().parse_args(ctx, _completed(args))


def _completed(arguments: Sequence[str]) -> list[str]:
    own = arguments.index("--") if "--" in arguments else len(arguments)
    return [
        f"{OPTION}={USUAL_INTERVAL:g}" if each == OPTION and number < own and not _is_number(following) else each
        for number, (each, following) in enumerate(pairwise([*arguments, ""]))
    ]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def start_watch(interface: str | None, interval: float) -> None:
    """Show the live view until it ends. Raises VpntunError if the package rich is missing."""
    try:
        from vpntun.watch.program import watch  # only here, since rich may be missing, and takes 100 ms to load
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "rich":
            raise
        raise VpntunError(
            "the Python package rich draws the live view, and is not installed: install it (pip install rich), or "
            "repeat 'vpntun show'"
        ) from None
    watch(interface, interval)
