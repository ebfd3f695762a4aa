"""State messages to systemd, as datagrams to $NOTIFY_SOCKET (sd_notify(3)).

    READY=1        the tunnel is set up as configured; sent again after each reload
    STATUS=        one line of text, which `systemctl status` shows
    RELOADING=1    a reload has begun; with the time, which `Type=notify-reload` compares
    STOPPING=1     the tunnel is ending
    WATCHDOG=1     the loop is running; sent at half the interval of $WATCHDOG_USEC

Without a socket in the environment nothing is sent. Nothing here ever fails: a message that cannot be delivered is
lost. The variables are removed from the environment, so that no hook can send messages in this program's name.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

from vpntun.runtime.clock import awake_time
from vpntun.runtime.logform import escape
from vpntun.runtime.loop import Loop

LONGEST_STATUS = 500


class Notifier:
    """Sender of state messages. `watchdog_interval`: seconds between two WATCHDOG=1; None without a watchdog."""

    def __init__(self, address: str | None, watchdog_interval: float | None = None) -> None:
        self._address = address
        self.watchdog_interval = watchdog_interval

    @property
    def is_heard(self) -> bool:
        """Whether there is a service manager that receives the messages."""
        return self._address is not None

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Notifier:
        """Make the notifier for the service manager that started this process, if any, and remove its variables."""
        name = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", str(os.getpid()))
        if name[:1] not in ("/", "@") or len(name) < 2:
            return cls(None)
        interval = _half(microseconds) if watched == str(os.getpid()) else None
        return cls("\0" + name[1:] if name[0] == "@" else name, interval)

    def ready(self, status: str) -> None:
        """Report that the tunnel is ready, or that a reload has ended."""
        self._send("READY=1", _status(status))

    def status(self, text: str) -> None:
        """Report a line of text to show."""
        self._send(_status(text))

    def reloading(self) -> None:
        """Report that a reload begins now, by the clock that systemd compares (CLOCK_MONOTONIC); `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(awake_time() * 1e6)}")

    def stopping(self) -> None:
        """Report that the tunnel is ending."""
        self._send("STOPPING=1")

    def keep_alive(self, loop: Loop) -> None:
        """Reset the watchdog, if there is one, now and for as long as the loop runs."""
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
    """Return half of a time, in seconds; None if the text is not a time."""
    try:
        return max(int(microseconds), 0) / 2e6 or None
    except (ValueError, OverflowError):
        return None
