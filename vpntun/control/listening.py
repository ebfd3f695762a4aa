"""Unix sockets that listen in this network namespace, by the kernel's list.

A socket's path says nothing about the namespace of the process behind it: several may share /run. But each namespace
has a list of its own sockets, with the paths that they were bound to.
"""

from __future__ import annotations

import os
from pathlib import Path

SOCKETS = Path("/proc/self/net/unix")
LISTENS = 0x10000


def listens_here(path: Path, sockets: Path = SOCKETS) -> bool:
    """Whether the unix socket that listens at a path, if one does, is of this network namespace.

    If there is no list, the answer is yes.
    """
    try:
        lines = sockets.read_bytes().splitlines()[1:]
    except OSError:
        return True
    folder, name = os.path.realpath(path.parent), os.fsencode(path.name)
    listening = filter(None, map(_listening, lines))
    folders = (os.path.dirname(each) for each in listening if os.path.basename(each) == name)
    return any(os.fsdecode(os.path.realpath(each)) == folder for each in folders)


def _listening(line: bytes) -> bytes | None:
    """Return the path of a listening socket from its line: address, references, protocol, flags, type, state, inode."""
    fields = line.split(None, 7)
    return fields[7] if len(fields) == 8 and int(fields[3], 16) & LISTENS else None
