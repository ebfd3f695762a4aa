"""The log: one line an event, nothing secret in it, in one of the forms of logform.py.

    stderr        unless something else is asked for; with journal priorities, `<5>vpntun: tun3: ...`, where stderr is
                  systemd's journal
    a file        appended to, 0600, opened anew when it has been rotated away
    the system's  for a daemon without a file: syslog's socket, if anybody listens there

A log that cannot be written loses lines and stops nothing. Events that a stranger or a peer can cause are limited in
rate, each peer's by themselves; the line that comes through says how many were held back. Only -vv has no limits: it
logs each message that is dropped.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import stat
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from vpntun.errors import ConfigurationError, PrivilegeError
from vpntun.runtime.logform import NOTICE as NOTICE
from vpntun.runtime.logform import Form, formatter, priority

SECONDS_BETWEEN = 10.0
SYSLOG = "/dev/log"
SYSLOG_DAEMON = 3 << 3

logging.addLevelName(NOTICE, "NOTICE")
log = logging.getLogger("vpntun")


def open_log(
    interface: str, verbosity: int, form: Form = "text", file: Path | None = None, *, detached: bool = False
) -> None:
    """Log notices and warnings; with `verbosity` 1 what happens to the link as well, with 2 everything.

    `detached`: this process is to leave its terminal; it writes to stderr while it can, and to the file or syslog.
    Raises ConfigurationError or PrivilegeError where the file cannot be opened.
    """
    handlers: list[logging.Handler] = []
    if file is not None:
        handlers.append(ToFile(file))
    elif detached:
        handlers.append(ToSyslog())
    if detached or not handlers:
        handlers.append(ToStderr())
    for handler in handlers:
        handler.setFormatter(formatter(form, interface, with_time=isinstance(handler, ToFile)))
    for former in log.handlers:
        former.close()
    log.handlers = handlers
    log.propagate = False
    log.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)])


def log_is_a_file() -> bool:
    """Whether there is a file that can be rotated away."""
    return any(isinstance(handler, ToFile) for handler in log.handlers)


def reopen_log() -> None:
    """Open the file anew, which may have been renamed; where that fails, go on in the old one."""
    for handler in log.handlers:
        if isinstance(handler, ToFile):
            handler.reopen()


def give_log_to(user: int) -> None:
    """Make the file that user's, as far as this process may, so that it can open it anew."""
    for handler in log.handlers:
        if isinstance(handler, ToFile):
            with suppress(OSError):
                os.fchown(handler.fileno(), user, -1)


def notice(text: str, *arguments: object) -> None:
    """Say something that every operator wants to see."""
    log.log(NOTICE, text, *arguments)


def note_crash() -> None:
    """Keep the trace of an error that nobody expects, where stderr may be gone already."""
    if any(isinstance(handler, ToFile | ToSyslog) for handler in log.handlers):
        log.critical("this should never happen", exc_info=True)


def complain(error: Exception) -> None:
    """Say why the program ends: in the log, and on stderr in any case."""
    if not any(isinstance(handler, ToStderr) for handler in log.handlers):
        handler = ToStderr()
        handler.setFormatter(formatter("text", ""))
        log.addHandler(handler)
    log.error("%s", error, extra={"is_last": True})


class ToStderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Whatever stderr is at the time; lines for the journal begin with their priority."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._to_journal = leads_to_journal(2, os.environ)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, unless whoever reads there is so far behind that it would have to wait."""
        if not would_wait(self.stream):
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """The whole line."""
        line = super().format(record)
        return f"<{priority(record)}>{line}" if self._to_journal else line


class ToFile(logging.Handler):
    """A file, a line by one write. Raises ConfigurationError or PrivilegeError where it cannot be opened."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path.absolute()
        self._descriptor = _open(self._path)

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line."""
        line = self.format(record) + "\n"
        with suppress(OSError):
            os.write(self._descriptor, line.encode("utf-8", "backslashreplace"))

    def reopen(self) -> None:
        """Go on in a file of this name, old or new."""
        try:
            fresh = _open(self._path)
        except (ConfigurationError, PrivilegeError) as error:
            log.warning("%s; going on in the old one", error)
            return
        os.close(self._descriptor)
        self._descriptor = fresh

    def fileno(self) -> int:
        """The descriptor, for whoever gives the file to another user."""
        return self._descriptor

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            os.close(self._descriptor)
        super().close()


class ToSyslog(logging.Handler):
    """The system's log, by a datagram a line; nobody there, or no room, and it is lost."""

    def __init__(self, address: str = SYSLOG) -> None:
        super().__init__()
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line, under facility daemon."""
        line = f"<{SYSLOG_DAEMON | priority(record)}>{self.format(record)}"
        with suppress(OSError):
            self._socket.sendto(line.encode("utf-8", "backslashreplace"), self._address)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


class LineLimit:
    """At most so many lines in ten seconds about one thing: a peer, say, or all strangers together."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = self._left = most
        self._clock = clock
        self._refilled_at = -float("inf")
        self._held_back = 0

    def log(
        self,
        level: int,
        text: str,
        *arguments: object,
        fields: Mapping[str, str] | None = None,
        traceback: bool = False,
    ) -> None:
        """Log a line, with fields of its own and the current exception's traceback, or count it as held back."""
        if not log.isEnabledFor(level):
            return
        now = self._clock()
        if now >= self._refilled_at + SECONDS_BETWEEN:
            self._refilled_at = now
            self._left = self._most
        if not self._left:
            self._held_back += 1
            return
        self._left -= 1
        more = f" ({self._held_back} more since the last such line)" if self._held_back else ""
        self._held_back = 0
        log.log(level, text + more, *arguments, exc_info=traceback, extra={"fields": fields or {}})


class Warnings:
    """One line in ten seconds of each kind, about one thing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limits: dict[str, LineLimit] = {}

    def log(self, kind: str, text: str, *arguments: object) -> None:
        """Log a notice of this kind, or count it."""
        if kind not in self._limits:
            self._limits[kind] = LineLimit(1, self._clock)
        self._limits[kind].log(NOTICE, text, *arguments)


class Limited:
    """One kind of line, at most so many in ten seconds."""

    def __init__(self, level: int, text: str, clock: Callable[[], float] = time.monotonic, *, most: int = 1) -> None:
        self._level = level
        self._text = text
        self._limit = LineLimit(most, clock)

    def __call__(self, *arguments: object) -> None:
        """Log it, or count it."""
        self._limit.log(self._level, self._text, *arguments)


def would_wait(stream: TextIO | None) -> bool:
    """Whether a line would have to wait until somebody reads: a pipe is full, or a terminal was stopped."""
    poller = select.poll()
    try:
        poller.register(stream, select.POLLOUT)  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError):  # there is no descriptor behind it, or none any more
        return False
    return not poller.poll(0)


def leads_to_journal(descriptor: int, environment: Mapping[str, str]) -> bool:
    """Whether systemd reads there, as $JOURNAL_STREAM (device:inode) says (systemd.exec(5))."""
    stated = environment.get("JOURNAL_STREAM")
    if stated is None:
        return False
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return stated == f"{status.st_dev}:{status.st_ino}"


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except PermissionError:
        raise PrivilegeError(f"the log file {path} cannot be written by this user: name another, or chown it") from None
    except OSError as error:
        raise ConfigurationError(
            f"the log file {path} cannot be opened: {error.strerror} (symbolic links are not followed)"
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigurationError(f"the log file {path} is no regular file")
    return descriptor
