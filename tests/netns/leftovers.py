"""Leftovers of labs: the processes in namespaces of their own, and all that test runs leave that are killed.

A program that outlives its `vpntun run` is in none of the lab's namespaces. All that a lab starts has `MARK` in its
environment, and hands it on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import namespaces
from namespaces import NETNS

MARK = "VPNTUN_TEST_LAB"
"""Variable whose value is the name of the lab's first namespace."""


def processes(is_of: Callable[[str], bool]) -> set[int]:
    """The processes that were started in labs of these names, wherever they are now."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            marked = re.search(rf"(^|\0){MARK}=([^\0]+)".encode(), (folder / "environ").read_bytes())
            if marked and is_of(marked[2].decode()):
                found.add(int(folder.name))
    return found


def end_processes(is_of: Callable[[str], bool]) -> bool:
    """Send SIGKILL to these processes; return whether there were any."""
    found = processes(is_of)
    for each in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    return bool(found)


def sweep() -> None:
    """Remove what killed test runs left: namespaces, processes and homes that are named after a process that ended.

    Workers take turns, because removing a namespace fails while another worker is removing it.
    """
    if not NETNS.exists():
        return
    folder = os.open(NETNS, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        for path in NETNS.glob("vt*-*"):
            if was_left(path.name):
                namespaces.remove(path.name)
        end_processes(was_left)
        for home in Path(tempfile.gettempdir()).glob("vt*-*"):
            if was_left(home.name.rpartition("-")[0]):
                shutil.rmtree(home)
    finally:
        os.close(folder)


def was_left(name: str) -> bool:
    """Whether this is the name of a namespace of a test run that has ended."""
    named = re.fullmatch(r"vt(\d+)-(\d+[a-h]|probe|firewall)", name)
    return named is not None and not Path(f"/proc/{named[1]}").exists()
