"""This machine's clock, whose time is in each handshake: a peer refuses one that is older than the last."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from typing import NamedTuple

from vpntun.doctor.finding import Finding, failed, ok, skipped, warning

STA_UNSYNC, TIME_ERROR = 0x40, 5
FIRST_YEAR, LAST_YEAR = 2025, 2099
SIZE_OF_TIMEX = 256  # more than any kernel writes
OFFSET_OF_STATUS = 5 * ctypes.sizeof(ctypes.c_long)  # after modes, offset, freq, maxerror and esterror (adjtimex(2))


class ClockFacts(NamedTuple):
    """The year, and whether somebody keeps the clock right; None if the kernel does not say."""

    year: int
    is_synchronised: bool | None


def examine_clock() -> Iterator[Finding]:
    """Examine this machine's clock."""
    return judge(ClockFacts(time.gmtime().tm_year, _is_synchronised()))


def judge(facts: ClockFacts) -> Iterator[Finding]:
    """Yield the findings about a clock."""
    if not FIRST_YEAR <= facts.year <= LAST_YEAR:
        yield failed(
            "clock",
            f"the clock says that it is {facts.year}: peers that have met this machine before refuse its handshakes",
            "set it ('date -s'), and have it kept right: 'timedatectl set-ntp true'",
        )
    elif facts.is_synchronised is None:
        yield skipped("clock", "the kernel does not say whether the clock is synchronised")
    elif not facts.is_synchronised:
        yield warning(
            "clock",
            "the clock is not synchronised: if it is ever set back, peers may refuse handshakes for a while",
            "have it kept right: 'timedatectl set-ntp true', or install chrony",
        )
    else:
        yield ok("clock", "the clock is synchronised")


def _is_synchronised() -> bool | None:
    """Ask the kernel by adjtimex(2), which changes nothing and needs no right if all modes are 0."""
    timex = ctypes.create_string_buffer(SIZE_OF_TIMEX)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    if state < 0:
        return None
    status = ctypes.c_int.from_buffer(timex, OFFSET_OF_STATUS).value
    return state != TIME_ERROR and not status & STA_UNSYNC
