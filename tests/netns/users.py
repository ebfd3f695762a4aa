"""An ordinary user of a machine, with a home and a run folder of its own, who runs the real program there.

The user has no capability, and a /dev/net/tun of mode 0666, as udev makes it (lab.py). It can read files that it was
given by `write` or `own`, and no other of the lab's, which root keeps to itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.netns.lab import NOBODY, Daemon, Machine


class User:
    """A user with this number, which needs no account."""

    def __init__(self, machine: Machine, uid: int = NOBODY) -> None:
        self.machine, self.uid = machine, uid
        self.home = machine.lab.home(uid)
        self.run_folder = self.home / "run"
        self.run_folder.mkdir(mode=0o700)
        os.chown(self.run_folder, uid, uid)
        self.env = {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.run_folder), "XDG_CONFIG_HOME": ""}

    def write(self, name: str, text: str) -> Path:
        """Write a file of mode 0600 below the user's home, and give it to the user."""
        path = self.home / name
        for folder in reversed(path.parents):
            if folder.is_relative_to(self.home) and not folder.exists():
                folder.mkdir()
                os.chown(folder, self.uid, self.uid)
        path.touch(mode=0o600)
        path.write_text(text)
        os.chown(path, self.uid, self.uid)
        return path

    def own(self, file: Path) -> Path:
        """Copy one of the lab's files, such as a key, into the user's home, and give it to the user."""
        path = Path(shutil.copy(file, self.home))
        os.chown(path, self.uid, self.uid)
        return path

    def run(
        self, *command: str | Path, check: bool = True, timeout: float = 60, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the user, to its end."""
        return self.machine.run(
            *command, check=check, timeout=timeout, env={**self.env, **(env or {})}, user=str(self.uid)
        )

    def popen(self, *command: str | Path, env: Mapping[str, str] | None = None) -> Daemon:
        """Start a command as the user. The `Daemon` has the command's own process id."""
        return self.machine.popen(*command, env={**self.env, **(env or {})}, user=str(self.uid))

    def vpntun(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Daemon:
        """Start vpntun as the user."""
        return self.popen(sys.executable, "-m", "vpntun", *arguments, env=env)

    def ask(self, *arguments: str | Path) -> tuple[int, str]:
        """Run vpntun as the user, to its end; return its exit status and its output."""
        done = self.run(sys.executable, "-m", "vpntun", *arguments, check=False)
        return done.returncode, done.stdout + done.stderr


def said_by(run: subprocess.CompletedProcess[str]) -> str:
    """What a run wrote to standard error, without the line that a slow machine's link is waited for."""
    return re.sub(r"^.*no link yet: .*\n", "", run.stderr, flags=re.MULTILINE)
