"""Result of `make install`, and machines of the lab on which vpntun is installed.

vpntun is installed once into a folder, for all tests. A machine gets the folder by overlays: the folder's /usr/local on
top of the machine's, and on top of the machine's /etc the folder's, then a few files of the test. So every file is in
its proper place, and the machine that runs the tests is not changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.boot import wheels
from tests.netns.lab import CHECKOUT, Daemon, Machine

PREFIX = "/usr/local"
PLACES = CHECKOUT / "scripts" / "boot" / "places"
ACCOUNTS = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\nvpntun:x:990:990::/:/bin/false\n"


def need(*tools: str) -> None:
    """Skip the test if one of these tools is not installed; fail it if no test may be skipped."""
    for tool in tools:
        if shutil.which(tool) is None:
            required = os.environ.get("VPNTUN_REQUIRE_NETNS") == "1"
            (pytest.fail if required else pytest.skip)(f"{tool} is not installed")


def install(folder: Path, destination: Path, prefix: str = PREFIX) -> None:
    """Run `make install` with the packages of this environment, without the network."""
    packed = folder / "wheels"
    packed.mkdir()
    wheels.pack(packed)
    make("install", destination, prefix, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(packed), PIP_CONFIG_FILE=os.devnull)


def make(target: str, destination: Path, prefix: str = PREFIX, **environment: str) -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", target, f"DESTDIR={destination}", f"PREFIX={prefix}"],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


def places(prefix: str = PREFIX) -> list[tuple[int, str, str]]:
    """Return mode, file and place of every row in scripts/boot/places."""
    rows = [line.split() for line in PLACES.read_text().splitlines() if line[:1].isdigit()]
    return [(int(mode, 8), file, place.replace("@PREFIX@", prefix)) for mode, file, place in rows]


@dataclass
class Host:
    """Machine on which vpntun is installed."""

    machine: Machine
    installed: Path

    def __post_init__(self) -> None:
        self.own = self.machine.lab.folder / f"{self.machine.name}-own"
        self.configuration = self.own / "etc" / "vpntun"
        self.configuration.mkdir(parents=True, mode=0o700)
        self.write("/etc/passwd", ACCOUNTS)
        self.write("/etc/group", "root:x:0:\nnogroup:x:65534:\nvpntun:x:990:\n")
        self.write("/etc/hosts", "127.0.0.1 localhost\n")
        self.write("/etc/nsswitch.conf", "hosts: files\npasswd: files\ngroup: files\n")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of /etc. Commands started earlier see the change only in /etc/hosts and /etc/vpntun."""
        file = self.own / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def enter(self, *command: str | Path) -> list[str | Path]:
        """Return a command line for Machine.run and Machine.popen that runs a command inside the overlays."""
        return [*inside(self.installed, self.own), *command]

    def run(self, *command: str | Path, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return self.machine.run(*self.enter(*command), check=check, timeout=timeout, env=ENVIRONMENT)

    def popen(self, *command: str | Path) -> Daemon:
        return self.machine.popen(*self.enter(*command), env=ENVIRONMENT)


ENVIRONMENT: Mapping[str, str] = {
    "PATH": f"{PREFIX}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONPATH": "/nowhere",
}


def inside(installed: Path, own: Path) -> list[str | Path]:
    """Return the start of a command line that mounts `own` and `installed` on top of the machine, in a namespace."""
    script = f"""
        mount -t overlay overlay -o "lowerdir=$0{PREFIX}:{PREFIX}" {PREFIX}
        mount -t overlay overlay -o "lowerdir=$1/etc:$0/etc:/etc" /etc
        mount --bind "$1/etc/vpntun" /etc/vpntun
        mount --bind "$1/etc/hosts" /etc/hosts
        shift
        exec "$@"
    """
    return ["sh", "-ec", script, installed, own]
