"""Log with one line per event and no secrets, written to stderr, a file or syslog.

    stderr   the default; if stderr is systemd's journal, each line starts with its priority, `<5>vpntun: tun3: ...`
    file     appended to, mode 0600, and reopened on request after it was rotated
    syslog   for a daemon without a log file; lines are lost if no process reads the syslog socket

A log that cannot be written loses lines but never stops the program. Lines that a stranger or a peer can cause are
limited in rate, separately for each peer; the next line that is logged says how many were suppressed. Only -vv has no
limits: it logs each dropped message. The text of a line is formatted by logform.py.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from vpntun.errors import ConfigurationError, PrivilegeError
from vpntun.runtime.clock import boottime
from vpntun.runtime.folders import absolute
from vpntun.runtime.logform import NOTICE as NOTICE
from vpntun.runtime.logform import Form, formatter, priority

SECONDS_BETWEEN = 10.0
SYSLOG = "/dev/log"
SYSLOG_DAEMON = 3 << 3

logging.addLevelName(NOTICE, "NOTICE")
log = logging.getLogger("vpntun")


def open_log(
    interface: str,
    verbosity: int,
    form: Form = "text",
    file: Path | None = None,
    *,
    detached: bool = False,
    quiet: bool = False,
) -> None:
    """Log notices and warnings; with `verbosity` 1 also events of the link, with 2 everything.

    `detached`: this process will leave its terminal. It logs to the file or syslog, and also to stderr while that is
    open. `quiet`: stderr belongs to another program, and gets warnings and errors alone. Raises ConfigurationError or
    PrivilegeError if the file cannot be opened.
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
        if quiet and isinstance(handler, ToStderr):
            handler.addFilter(lambda record: record.levelno != NOTICE)
    for former in log.handlers:
        former.close()
    log.handlers = handlers
    log.propagate = False
    log.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)])


def log_is_a_file() -> bool:
    """Whether the log goes to a file, which can be rotated."""
    return any(isinstance(handler, ToFile) for handler in log.handlers)


def reopen_log() -> None:
    """Reopen the log file, which may have been renamed; if that fails, keep writing to the old one."""
    for handler in log.handlers:
        if isinstance(handler, ToFile):
            handler.reopen()


def give_log_to(user: int) -> None:
    """Give the log file to a user, if this process may, so that it can still reopen the file as that user."""
    for handler in log.handlers:
        if isinstance(handler, ToFile):
            with suppress(OSError):
                os.fchown(handler.fileno(), user, -1)


def notice(text: str, *arguments: object) -> None:
    """Log a line that every operator wants to see, whatever the verbosity."""
    log.log(NOTICE, text, *arguments)


def tell(text: str, *arguments: object) -> None:
    """Log a notice, and write it to stderr in any case, for somebody who waits at a terminal."""
    notice(text, *arguments)
    if not any(isinstance(handler, ToStderr) for handler in log.handlers):
        _stderr_alone().handle(log.makeRecord(log.name, NOTICE, "", 0, text, arguments, None))


def note_crash() -> None:
    """Log the traceback of an unexpected error to the file or syslog, since stderr may be closed already."""
    if any(isinstance(handler, ToFile | ToSyslog) for handler in log.handlers):
        log.critical("unexpected error, please report it", exc_info=True)


def complain(error: Exception) -> None:
    """Log the error that ends the program, and write it to stderr in any case."""
    if not any(isinstance(handler, ToStderr) for handler in log.handlers):
        log.addHandler(_stderr_alone())
    log.error("%s", error, extra={"is_last": True})


class ToStderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Handler for the stderr of the moment; lines for systemd's journal start with their priority."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._to_journal = leads_to_journal(2, os.environ)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or drop it if writing would block because the reader is too far behind."""
        if not would_wait(self.stream):
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with its priority in front if it goes to the journal."""
        line = super().format(record)
        return f"<{priority(record)}>{line}" if self._to_journal else line


class ToFile(logging.Handler):
    """Log file; each line is one write. Raises ConfigurationError or PrivilegeError if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = absolute(path)
        self._descriptor = _open(self._path)

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line."""
        line = self.format(record) + "\n"
        with suppress(OSError):
            os.write(self._descriptor, line.encode("utf-8", "backslashreplace"))

    def reopen(self) -> None:
        """Open the file of this name again, which may be a new one, and write there from now on."""
        try:
            fresh = _open(self._path)
        except (ConfigurationError, PrivilegeError) as error:
            log.warning("%s; the log stays in the old file", error)
            return
        os.close(self._descriptor)
        self._descriptor = fresh

    def fileno(self) -> int:
        """Return the descriptor, with which the file can be given to another user."""
        return self._descriptor

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            os.close(self._descriptor)
        super().close()


class ToSyslog(logging.Handler):
    """System log; each line is one datagram, which is lost if there is no reader or no room."""

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
    """Limit of `most` lines in ten seconds about one subject, such as a peer, or all strangers together."""

    def __init__(self, most: int, clock: Callable[[], float] = boottime) -> None:
        self._most = self._left = most
        self._clock = clock
        self._refilled_at = -float("inf")
        self._suppressed = 0

    def log(
        self,
        level: int,
        text: str,
        *arguments: object,
        fields: Mapping[str, str] | None = None,
        traceback: bool = False,
    ) -> None:
        """Log a line, with extra fields and the current exception's traceback if given, or count it as suppressed."""
        if not log.isEnabledFor(level):
            return
        now = self._clock()
        if now >= self._refilled_at + SECONDS_BETWEEN:
            self._refilled_at = now
            self._left = self._most
        if not self._left:
            self._suppressed += 1
            return
        self._left -= 1
        more = f" ({self._suppressed} more since the last such line)" if self._suppressed else ""
        self._suppressed = 0
        log.log(level, text + more, *arguments, exc_info=traceback, extra={"fields": fields or {}})


class Warnings:
    """Limit of one line in ten seconds for each kind of notice about one subject."""

    def __init__(self, clock: Callable[[], float] = boottime) -> None:
        self._clock = clock
        self._limits: dict[str, LineLimit] = {}

    def log(self, kind: str, text: str, *arguments: object) -> None:
        """Log a notice of this kind, or count it as suppressed."""
        if kind not in self._limits:
            self._limits[kind] = LineLimit(1, self._clock)
        self._limits[kind].log(NOTICE, text, *arguments)


class Limited:
    """Log function for one kind of line, limited to `most` lines in ten seconds."""

    def __init__(self, level: int, text: str, clock: Callable[[], float] = boottime, *, most: int = 1) -> None:
        self._level = level
        self._text = text
        self._limit = LineLimit(most, clock)

    def __call__(self, *arguments: object) -> None:
        """Log the line, or count it as suppressed."""
        self._limit.log(self._level, self._text, *arguments)


def would_wait(stream: TextIO | None) -> bool:
    """Whether writing a line would block, because a pipe is full or a terminal is stopped."""
    poller = select.poll()
    try:
        poller.register(stream, select.POLLOUT)  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError):  # the stream has no descriptor, or is closed
        return False
    return not poller.poll(0)


def leads_to_journal(descriptor: int, environment: Mapping[str, str]) -> bool:
    """Whether a descriptor leads to systemd's journal, whose device:inode is $JOURNAL_STREAM (systemd.exec(5))."""
    stated = environment.get("JOURNAL_STREAM")
    if stated is None:
        return False
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return stated == f"{status.st_dev}:{status.st_ino}"


def _stderr_alone() -> ToStderr:
    """Make a handler for stderr that no interface's log has."""
    handler = ToStderr()
    handler.setFormatter(formatter("text", ""))
    return handler


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
        raise ConfigurationError(f"the log file {path} is not a regular file")
    return descriptor
