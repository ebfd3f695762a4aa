"""Command for scripts that start vpntun with --pidfile: it finds the daemon by the file's lock, not by its number."""

from __future__ import annotations

import signal as signals
from pathlib import Path

import click

from vpntun.process.holder import find_holder, send_signal

SECONDS_TO_END = 15.0
ENDING = ("TERM", "KILL")


@click.command()
@click.argument("file", metavar="PIDFILE", type=click.Path(path_type=Path))
@click.argument("name", metavar="[TERM|HUP|KILL]", type=click.Choice(["TERM", "HUP", "KILL"]), required=False)
def signal(file: Path, name: str | None) -> None:
    """Print the process ID of the daemon that holds PIDFILE, and send it a signal if one is given.

    After TERM and KILL the command waits until the daemon has ended. It exits with status 11 if no daemon holds the
    file, and with 9 if the daemon has not ended within 15 seconds.
    """
    if name is None:
        click.echo(find_holder(file))
    else:
        seconds = SECONDS_TO_END if name in ENDING else None
        click.echo(send_signal(file, signals.Signals[f"SIG{name}"], seconds))
