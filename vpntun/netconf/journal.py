"""Journal of one interface: changes to this host that would outlive a killed process.

    /run/vpntun/tun11:4097.journal
    ["made", {"kind": "Rule", "version": 4, "priority": 5182, "table": 51820, ...}]
    ["taken back", {"kind": "Rule", ...}]

The number is that of the network namespace (runtime/folders.py): the changes are its own, and another one may have a
tun11, too.

A line is written before a change is made, and another after it was taken back. The file is removed when nothing is left
to take back. So a journal of an interface that no process runs tells what to take back, the last change first. It is
trusted only if root or this user owns it and nobody else can write to it. If it cannot be written, for example because
the file system is full, a notice says so, and the tunnel comes up anyway; it is written as a whole as soon as that is
possible. It stays open from the first change on: a process may be out of descriptors later, or give up its privileges,
and then it empties the file at the end, since the folder still belongs to root.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from vpntun.runtime.folders import make_folder, named_here, run_folder
from vpntun.runtime.log import log, notice

LARGEST = 1 << 24
"""Bytes; a larger file was not written by this program."""

Entry = Mapping[str, str | int]


class Journal:
    """The changes that this process has made and not yet taken back."""

    def __init__(self, interface: str, folder: Path | None = None) -> None:
        self._path = path_of(interface, folder)
        self._entries: list[Entry] = []
        self._descriptor: int | None = None
        self._is_held = False
        self._is_complete = True
        self._said = False

    @property
    def folder(self) -> Path:
        """Where this journal is, and those of other interfaces."""
        return self._path.parent

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take back."""
        return not self._entries

    def hold(self) -> None:
        """Keep the file, before giving up privileges, if changes are made or taken back after that."""
        self._is_held = True
        with suppress(OSError):  # the first change that cannot be noted logs it
            self._open()

    def made(self, entry: Entry) -> None:
        """Note a change that is about to be made."""
        self._entries.append(entry)
        self._append("made", entry)

    def taken_back(self, entry: Entry) -> None:
        """Note that a change was taken back; after the last one, remove the file."""
        self._entries.remove(entry)
        if self._entries:
            self._append("taken back", entry)
        elif self._is_held and self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
        else:
            self._close()
            forget(self._path)

    def _append(self, what: str, entry: Entry) -> None:
        try:
            descriptor = self._open()
            if self._is_complete:
                self._is_complete = False
                _write(descriptor, [(what, entry)])
            else:
                os.ftruncate(descriptor, 0)
                _write(descriptor, [("made", each) for each in self._entries])
            self._is_complete = True
        except OSError as error:
            self._is_complete = False
            if not self._said:
                self._said = True
                notice(
                    "%s cannot be written (%s): if this process is killed, the next one removes its rules, but nothing "
                    "else that it has changed",
                    self._path,
                    error.strerror,
                )

    def _open(self) -> int:
        if self._descriptor is None:
            make_folder(self._path.parent)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def path_of(interface: str, folder: Path | None = None) -> Path:
    """Return the path of an interface's journal."""
    return (folder or run_folder()) / f"{interface}{_ending()}"


def interfaces_in(folder: Path) -> list[str]:
    """List the interfaces of this network namespace that have a journal in a folder."""
    ending = _ending()
    return sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))


def _ending() -> str:
    """Return what follows the interface in the name of a journal."""
    return f"{named_here('')}.journal"


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


def _write(descriptor: int, lines: Iterable[tuple[str, Entry]]) -> None:
    """Write lines at once. Raises OSError, also if there is room for a part of them only."""
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    if os.write(descriptor, text) < len(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
