"""Command `speed`: measures a running link inside it, and shows how far the measurement is.

The tunnel's own process does the work (speed/). The command starts it, asks four times a second how far it is, and ends
it when it is interrupted. On a terminal rich draws bars; elsewhere, or without that package, lines are printed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from vpntun.cli.describe import rate_text
from vpntun.control.client import ControlClient
from vpntun.core.speed.agreement import LONGEST
from vpntun.errors import CannotTest, VpntunError
from vpntun.runtime.logform import escape
from vpntun.serving.http import target_of
from vpntun.watch.signals import EndedBySignal, ended_by_signals

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN = 0.25
PHASES = ("idle", "up", "down")

Show = Callable[[Mapping[str, Any]], None]
"""Shows how far a test is."""


@click.command()
@click.argument("interface")
@click.argument("peer", required=False)
@click.option(
    "--seconds",
    type=click.IntRange(1, LONGEST),
    default=5,
    show_default=True,
    help="Length of the measurement in each direction.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/control.rst), and no progress.")
def speed(interface: str, peer: str | None, seconds: int, as_json: bool) -> None:
    """Measure throughput, latency and loss of a link.

    The programs at both ends send what the link takes, first from here to the peer (up), then back (down). The peer
    must be a vpntun, too. PEER is its name, its public key or the start of its key; it can be omitted if there is only
    one peer.
    """
    target = target_of("/v1/speed/run", {"seconds": seconds, **({} if peer is None else {"peer": peer})})
    report: dict[str, Any] | None = None
    with ended_by_signals(), _progress(as_json=as_json) as show:
        report = _measure(interface, target, show)
    if report is None:
        raise CannotTest("interrupted: the test has ended at both ends")
    if as_json:
        click.echo(json.dumps(report, indent=2))
    if report["state"] != "done":
        raise CannotTest(report["error"] or "the speed test was stopped by another command")
    if not as_json:
        for line in table(interface, report):
            click.echo(line)


def _measure(interface: str, target: str, show: Show) -> dict[str, Any]:
    """Let the tunnel measure, and return its report. Raises VpntunError."""
    with ControlClient(interface) as tunnel:
        try:
            report = begun = tunnel.ask("POST", target)
            while report["state"] == "running":
                show(report)
                time.sleep(SECONDS_BETWEEN)
                report = tunnel.ask("GET", "/v1/speed")
                if report["test"] != begun["test"]:
                    raise CannotTest("another command has begun a test since, so the result of this one is gone")
        except (EndedBySignal, OSError):  # an OSError: nobody reads the output any more
            # Another connection: the interrupt may have cut an answer in two.
            with suppress(VpntunError), ControlClient(interface) as again:
                again.ask("POST", "/v1/speed/stop")
            raise
    show(report)
    return report


def table(interface: str, report: Mapping[str, Any]) -> Iterator[str]:
    """Write the result of a test line by line."""
    carrier = str(report["carrier"]).upper()
    yield escape(f"{interface} to {report['name'] or report['public_key']} over {carrier}")
    yield ""
    yield f"{'':6}{'throughput':>15}{'loss':>9}{'round trip':>14}{'95% under':>14}"
    for phase in PHASES:
        measured = report[phase]
        rate, loss = measured.get("rate"), measured.get("loss")
        yield (
            f"{phase:6}{(rate_text(rate) or '-'):>15}{'-' if loss is None else f'{loss:.2%}':>9}"
            f"{_milliseconds(measured['round_trip']):>14}{_milliseconds(measured['round_trip_95']):>14}"
        )


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f} ms"


@contextmanager
def _progress(*, as_json: bool) -> Iterator[Show]:
    """Choose how to show the progress: not at all, by bars, or by lines."""
    bars = _bars() if sys.stdout.isatty() and not as_json else None
    if bars is not None:
        tasks = {phase: bars.add_task(phase, total=1.0, rate="") for phase in PHASES}

        def draw(report: Mapping[str, Any]) -> None:
            for phase, task in tasks.items():
                bars.update(task, **_bar(report, phase))

        with bars:
            yield draw
    else:
        yield _ignore if as_json else _Lines().show


def _bars() -> Progress | None:
    """Return bars that vanish at the end; None if rich is not installed."""
    try:
        from rich.progress import BarColumn, Progress, TextColumn  # only here: it may be missing, and takes 100 ms
    except ModuleNotFoundError:
        return None
    percentage = TextColumn("{task.percentage:>3.0f}%")
    rate = TextColumn("{task.fields[rate]:>14}")
    return Progress(TextColumn("{task.description:4}"), BarColumn(None), percentage, rate, expand=True, transient=True)


def _bar(report: Mapping[str, Any], phase: str) -> dict[str, Any]:
    """Return how far a phase is, and its rate: so far the present one, at the end the measured one."""
    measured = report[phase]
    if measured is not None:
        return {"completed": 1.0, "rate": rate_text(measured.get("rate")) or ""}
    if report["phase"] != phase:
        return {"completed": 0.0}
    return {"completed": report["progress"], "rate": rate_text(report["rate"]) or ""}


def _ignore(_: Mapping[str, Any]) -> None:
    return


class _Lines:
    """Progress in lines, one for each second or phase."""

    def __init__(self) -> None:
        self._shown: tuple[str, int] | None = None

    def show(self, report: Mapping[str, Any]) -> None:
        """Print a line, unless the last one was printed in the same second of the same phase."""
        phase = report["phase"]
        second = 0 if phase == "idle" else int(report["progress"] * report["seconds"])
        if (phase, second) == self._shown or report["state"] != "running":
            return
        self._shown = phase, second
        if phase == "idle":
            click.echo("idle: measuring round trips")
        elif rate := rate_text(report["rate"]):
            click.echo(f"{phase}: {second} s of {report['seconds']}, {rate}")
