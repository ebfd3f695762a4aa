"""Formats of a log line: text, logfmt and JSON, with control characters escaped.

    text      vpntun: tun3: connected to 203.0.113.2:55555 over UDP       (for people)
    logfmt    time=2025-01-31T12:00:00.000Z level=notice interface=tun3 message="connected to ..." peer=office
    json      {"time": "2025-01-31T12:00:00.000Z", "level": "notice", "interface": "tun3", "message": "connected"}

Unprintable characters, which a peer or a name server may put into an event, are escaped. So an event is always one
line, and cannot change the terminal that shows it. Text starts with the time only in a file: elsewhere, the reader of
the log adds the time.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Literal

Form = Literal["text", "logfmt", "json"]

NOTICE = logging.WARNING + 5
_LEVELS = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", NOTICE: "notice"}
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, NOTICE: 5}


def escape(text: str) -> str:
    """Return the text with every unprintable character written as an escape sequence."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def priority(record: logging.LogRecord) -> int:
    """Return syslog's priority of a record: 3 error, 4 warning, 5 notice, 6 info, 7 debug."""
    return _PRIORITIES.get(record.levelno, 3)


class Text(logging.Formatter):
    """Format for people: program, interface and message. The message that ends the program has no interface."""

    def __init__(self, interface: str, *, with_time: bool = False) -> None:
        super().__init__()
        self._start = f"vpntun: {interface}: " if interface else "vpntun: "
        self._with_time = with_time

    def format(self, record: logging.LogRecord) -> str:
        """Return the whole line."""
        start = "vpntun: " if getattr(record, "is_last", False) else self._start
        when = f"{_time(record)} " if self._with_time else ""
        return escape(f"{when}{start}{super().format(record)}")


class Structured(logging.Formatter):
    """Format for programs: time, level, interface, message, and the event's own fields."""

    def __init__(self, interface: str, form: Literal["logfmt", "json"]) -> None:
        super().__init__()
        self._interface = interface
        self._join = _join_json if form == "json" else _join_logfmt

    def format(self, record: logging.LogRecord) -> str:
        """Return the whole line."""
        common = {
            "time": _time(record),
            "level": _LEVELS.get(record.levelno, "error"),
            "interface": self._interface,
            "message": super().format(record),
        }
        return self._join({**common, **getattr(record, "fields", {})})


def formatter(form: Form, interface: str, *, with_time: bool = False) -> logging.Formatter:
    """Return the formatter of this form; `with_time` adds the time to the text form, too."""
    return Text(interface, with_time=with_time) if form == "text" else Structured(interface, form)


def _time(record: logging.LogRecord) -> str:
    when = datetime.fromtimestamp(record.created, timezone.utc)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _join_json(fields: dict[str, object]) -> str:
    return json.dumps({name: str(value) for name, value in fields.items()})


def _join_logfmt(fields: dict[str, object]) -> str:
    return " ".join(f"{name}={_quoted(str(value))}" for name, value in fields.items())


def _quoted(value: str) -> str:
    if value and value.isprintable() and not set(value) & set(" \"'=\\"):
        return value
    return '"' + escape(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'
