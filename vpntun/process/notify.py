"""What systemd is told of this service, by datagrams to $NOTIFY_SOCKET (sd_notify(3)).

    READY=1        the tunnel is as it was asked for; again after each reload
    STATUS=        one line of text, which `systemctl status` shows
    RELOADING=1    with the time, which `Type=notify-reload` compares
    STOPPING=1     the end has begun
    WATCHDOG=1     the loop turns, at half the time that $WATCHDOG_USEC leaves

Without a socket in the environment nothing is sent, and nothing here ever fails: who does not listen misses it. The
variables are taken out of the environment, so that no hook speaks in this program's name.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

from vpntun.runtime.logform import escape
from vpntun.runtime.loop import Loop

LONGEST_STATUS = 500


class Notifier:
    """`watchdog_interval`: seconds from one sign of life to the next; None where nobody watches."""

    def __init__(self, address: str | None, watchdog_interval: float | None = None) -> None:
        self._address = address
        self.watchdog_interval = watchdog_interval

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Notifier:
        """The one that this process was started under, if any; takes its variables away."""
        name = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", str(os.getpid()))
        if name[:1] not in ("/", "@") or len(name) < 2:
            return cls(None)
        interval = _half(microseconds) if watched == str(os.getpid()) else None
        return cls("\0" + name[1:] if name[0] == "@" else name, interval)

    def ready(self, status: str) -> None:
        """Everything that was asked for stands, or stands again after a reload."""
        self._send("READY=1", _status(status))

    def status(self, text: str) -> None:
        """What to show meanwhile."""
        self._send(_status(text))

    def reloading(self, now: float) -> None:
        """A reload has begun, at `now` on the monotonic clock, in seconds; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(now * 1e6)}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def keep_alive(self, loop: Loop) -> None:
        """Tell the watchdog, now and for as long as the loop turns, where there is one."""
        if self.watchdog_interval is not None:
            loop.call_later(self.watchdog_interval, lambda: self.keep_alive(loop))
            self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        text = "\n".join(assignments).encode("utf-8", "backslashreplace")
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(text, self._address)


def _status(text: str) -> str:
    return f"STATUS={escape(text)[:LONGEST_STATUS]}"


def _half(microseconds: str) -> float | None:
    """Half of a time, in seconds; None for what is no time."""
    try:
        return max(int(microseconds), 0) / 2e6 or None
    except (ValueError, OverflowError):
        return None
