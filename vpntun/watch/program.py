"""The live view itself: it asks all tunnels at once, and shows what they answer until the operator ends it.

Each tunnel is asked by a thread (poller.py), and all else happens here. On a terminal the view fills the screen.
Elsewhere, and on a terminal that can only print, one table after the other is printed.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import sys
import time
from contextlib import suppress

from rich.console import Console

from vpntun.control.client import ControlClient, running_interfaces
from vpntun.errors import VpntunError
from vpntun.runtime.clock import boottime
from vpntun.watch.drawing import Page, picture
from vpntun.watch.history import TunnelHistory, TunnelView
from vpntun.watch.poller import Poller, Report
from vpntun.watch.screen import Screen
from vpntun.watch.signals import Waker, ended_by_signals, waking_signals

NO_TUNNEL = "no tunnel of this user is running in this network namespace; waiting for one"
SECONDS_TO_ANSWER = 3.0
"""A tunnel that has not answered for so long, and for three intervals, counts as silent."""
LONGEST_PAUSE = 1.0
"""Seconds between two pictures, even if no tunnel answers."""
COLUMNS_OF_TEXT = 100
"""Width of what is printed if standard output is not a terminal."""


def watch(interface: str | None, interval: float) -> None:
    """Show the tunnel of an interface, or all tunnels, until the operator ends it. Raises VpntunError if there is none.

    If SIGTERM or SIGHUP comes, it ends the process by that signal.
    """
    if interface is not None:
        ControlClient(interface).__exit__()
    view = LiveView(interface, interval)
    try:
        with ended_by_signals():
            console = _console()
            if console.is_terminal and not console.is_dumb_terminal:
                view.show_on_screen(console)
            else:
                view.print_as_text(console)
    except BrokenPipeError:  # the reader has what it wanted
        return
    except OSError as error:
        raise VpntunError(f"the view cannot be shown any longer: {error.strerror or error}") from error


class LiveView:
    """All tunnels that are watched, and a poller for each."""

    def __init__(self, interface: str | None, interval: float) -> None:
        self._wanted = interface
        self._interval = interval
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._waker = Waker()
        self._tunnels: dict[str, TunnelHistory] = {}
        self._looked = -interval

    def show_on_screen(self, console: Console) -> None:
        """Fill the screen with the view until the operator types q."""
        with self._waker, waking_signals(), Screen(console) as screen:
            while True:
                self._look_for_tunnels()
                screen.draw(self._page())
                ready, _, _ = select.select([self._waker.fileno(), *screen.keyboard], [], [], LONGEST_PAUSE)
                if signal.SIGTSTP in self._waker.signals():
                    screen.stop_process()
                if any(descriptor in ready for descriptor in screen.keyboard) and "q" in screen.keys().lower():
                    return
                self._take_reports()

    def print_as_text(self, console: Console) -> None:
        """Print a table once an interval: the first when all tunnels have answered, or a second has passed."""
        with self._waker:
            self._look_for_tunnels()
            due = boottime() + LONGEST_PAUSE
            missing = set(self._tunnels)
            while missing and boottime() < due:
                select.select([self._waker], [], [], max(0.0, due - boottime()))
                self._waker.signals()
                missing -= self._take_reports()
            due = boottime()
            while True:
                console.print(time.strftime("%Y-%m-%d %H:%M:%S"))
                views = self._views()
                console.print(picture(views, None) if views else NO_TUNNEL, "")
                now = boottime()
                due = max(due + self._interval, now)
                time.sleep(due - now)
                self._look_for_tunnels()
                self._take_reports()

    def _look_for_tunnels(self) -> None:
        """Begin to watch what is wanted: one tunnel, or each that has been started since."""
        now = boottime()
        if now - self._looked < self._interval:
            return
        self._looked = now
        for interface in running_interfaces() if self._wanted is None else [self._wanted]:
            if interface not in self._tunnels:
                patience = max(SECONDS_TO_ANSWER, 3 * self._interval)
                self._tunnels[interface] = TunnelHistory(interface, now, patience)
                Poller(interface, self._interval, self._report).start()

    def _report(self, report: Report) -> None:
        """Take a report from the thread of a poller."""
        self._reports.put(report)
        self._waker.wake()

    def _take_reports(self) -> set[str]:
        """Note what the pollers have reported, and return the interfaces that they reported on."""
        heard = set()
        with suppress(queue.Empty):
            while True:
                report = self._reports.get_nowait()
                heard.add(report.interface)
                if report.status is not None:
                    self._tunnels[report.interface].take(report.status, boottime())
                elif report.trouble is not None:
                    self._tunnels[report.interface].note_trouble(report.trouble)
        return heard

    def _views(self) -> list[TunnelView]:
        return [self._tunnels[interface].view(boottime()) for interface in sorted(self._tunnels)]

    def _page(self) -> Page:
        right = f"every {self._interval:g} s, {time.strftime('%H:%M:%S')}"
        return Page(self._views(), empty=NO_TUNNEL, left="q quit", right=right)


def _console() -> Console:
    """Return a console on a file of its own: what it could not write is not written again when the program ends."""
    is_terminal = os.isatty(sys.stdout.fileno())
    output = open(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding, errors="replace")  # noqa: SIM115
    width = None if is_terminal or "COLUMNS" in os.environ else COLUMNS_OF_TEXT
    return _Console(
        file=output,
        force_terminal=is_terminal,
        width=width,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
    )


class _Console(Console):
    """Console that leaves it to its caller what the end of a pipe means."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, where newer versions of rich would end the program."""
        raise BrokenPipeError
