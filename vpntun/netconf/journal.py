"""Journal of one interface: changes to this host that would outlive a killed process.

    /run/vpntun/tun11.journal
    ["made", {"kind": "Rule", "version": 4, "priority": 5182, "table": 51820, ...}]
    ["taken back", {"kind": "Rule", ...}]

A line is written before a change is made, and another after it was taken back. The file is removed when nothing is left
to take back. So a journal of an interface that no process runs tells what to take back, the last change first. It is
trusted only if root or this user owns it and nobody else can write to it. If it cannot be written, a notice says so,
and the tunnel comes up anyway. A process that gives up its privileges keeps the journal open, and empties it at the
end, since the folder still belongs to root.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from vpntun.runtime.folders import run_folder
from vpntun.runtime.log import log, notice

LARGEST = 1 << 24
"""Bytes; a larger file was not written by this program."""

Entry = Mapping[str, str | int]


class Journal:
    """The changes that this process has made and not yet taken back."""

    def __init__(self, interface: str, folder: Path | None = None) -> None:
        self._path = path_of(interface, folder)
        self._entries: list[Entry] = []
        self._writable = True
        self._held: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take back."""
        return not self._entries

    def hold(self) -> None:
        """Keep the file open, before giving up privileges, if changes are made or taken back after that."""
        with suppress(OSError):  # the first change that cannot be noted logs it
            self._held = self._open()

    def made(self, entry: Entry) -> None:
        """Note a change that is about to be made."""
        self._entries.append(entry)
        self._append("made", entry)

    def taken_back(self, entry: Entry) -> None:
        """Note that a change was taken back; after the last one, remove the file."""
        self._entries.remove(entry)
        if self._entries:
            self._append("taken back", entry)
        elif self._held is not None:
            os.ftruncate(self._held, 0)
        else:
            forget(self._path)

    def _append(self, what: str, entry: Entry) -> None:
        if not self._writable:
            return
        try:
            descriptor = os.dup(self._held) if self._held is not None else self._open()
        except OSError as error:
            self._writable = False
            notice(
                "%s cannot be written (%s): if this process is killed, the next one cannot clean up after it",
                self._path,
                error.strerror,
            )
            return
        with suppress(OSError), os.fdopen(descriptor, "w") as file:
            file.write(json.dumps([what, entry]) + "\n")

    def _open(self) -> int:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(self._path, flags, 0o600)


def path_of(interface: str, folder: Path | None = None) -> Path:
    """Return the path of an interface's journal."""
    return (folder or run_folder()) / f"{interface}.journal"


def entries_of(path: Path) -> list[Entry]:
    """List the changes that a journal says were made and not taken back, in order. Bad lines are ignored."""
    entries: list[Entry] = []
    bad = 0
    for line in _lines_of(path):
        try:
            what, entry = json.loads(line)
            if what == "made" and isinstance(entry, dict):
                entries.append(entry)
            else:
                entries.remove(entry)
        except (ValueError, TypeError, RecursionError):
            bad += 1
    if bad:
        notice("%s: ignored %d lines that cannot be read", path, bad)
    return entries


def forget(path: Path) -> None:
    """Remove a journal."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.debug("%s cannot be removed: %s", path, error.strerror)


def _lines_of(path: Path) -> list[bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as error:
        notice("%s cannot be read and is ignored: %s", path, error.strerror)
        return []
    status = os.fstat(descriptor)
    trusted = status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022
    if not stat.S_ISREG(status.st_mode) or not trusted:
        os.close(descriptor)
        notice("%s is ignored: others could have written it", path)
        return []
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        notice("%s is ignored: it is too large to be a journal", path)
        return []
    return content.splitlines()
