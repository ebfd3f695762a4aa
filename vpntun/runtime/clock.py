"""The program's clock, from which every age and every deadline is taken.

    CLOCK_BOOTTIME    counts the time of a suspend, and nobody sets it: `boottime`
    CLOCK_MONOTONIC   stands still while the machine is suspended. A laptop would still take the keys of last evening
                      for seconds old in the morning. `awake_time` is for systemd, which asks for it
    CLOCK_REALTIME    is set forwards and backwards, by people and by NTP: for dates alone

clock_gettime(2), time_namespaces(7).
"""

from __future__ import annotations

import time


def boottime() -> float:
    """Return the seconds since the machine was started, those of suspends included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def awake_time() -> float:
    """Return the seconds since the machine was started, without those of suspends."""
    return time.monotonic()
