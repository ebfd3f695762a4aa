"""Examination: runs checks one after the other, each with a time limit, and yields what they find.

A check is a function that returns findings and changes nothing. It may fail or hang: a check without the right to look
is skipped, and one that is late, because it waits for a dead file server say, is left behind in its thread. A check may
run an examination of its own, whose checks are then guarded one by one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from vpntun.doctor.finding import Finding, failed, refused, skipped
from vpntun.errors import VpntunError
from vpntun.runtime.clock import boottime

SECONDS = 5.0


@dataclass(frozen=True)
class Check:
    """A check and its name. `about`: what is examined, as in Finding. `seconds`: its time limit."""

    name: str
    look: Callable[[], Iterable[Finding]]
    about: str = ""
    seconds: float = SECONDS


def examine(checks: Iterable[Check]) -> Iterator[Finding]:
    """Run checks, and yield each finding as soon as it is known."""
    for check in checks:
        for finding in _in_time(check):
            yield replace(finding, about=check.about)


def _in_time(check: Check) -> Iterator[Finding]:
    """Run a check in a thread of its own, which ends with the program at the latest."""
    found: queue.SimpleQueue[Finding | None] = queue.SimpleQueue()

    def run() -> None:
        for finding in _guarded(check):
            found.put(finding)
        found.put(None)

    threading.Thread(target=run, name=check.name, daemon=True).start()
    end = boottime() + check.seconds
    try:
        while (finding := found.get(timeout=max(0.0, end - boottime()))) is not None:
            yield finding
    except queue.Empty:
        yield skipped(check.name, f"it has not ended within {check.seconds:g} s")


def _guarded(check: Check) -> Iterator[Finding]:
    """Run a check, and turn whatever it raises into a finding after those that it has made before."""
    try:
        yield from check.look()
    except VpntunError as error:
        yield refused(check.name, error)
    except PermissionError as error:
        where = f" to read {error.filename}" if error.filename else ""
        yield skipped(check.name, f"this user has no right{where}", "run it as root")
    except OSError as error:
        yield skipped(check.name, error.strerror or str(error))
    except Exception as error:
        yield failed(check.name, f"internal error, {type(error).__name__}: {error}", "please report it")
