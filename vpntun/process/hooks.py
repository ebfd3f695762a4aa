"""Hooks: the operator's commands for the tunnel's start, end and links, run without a shell.

    up          the device is up, with its addresses and routes; the start waits for the command, and fails if it fails
    down        the tunnel is ending; the end waits for the command
    link-up     the link to a peer is up
    link-down   the link to a peer is down again

`up` runs as the user who started the program, the others as the user that the process has become. Link hooks run beside
the loop, one at a time. While one runs, only the last event of each peer is kept, and not even that if a hook was told
the same state before. So at most one event a peer waits, and a flapping link does not start a crowd of commands.

A command runs only if nobody else can have written it (trust.py); this is checked again each time. Its environment is
PATH and the variables of `Occasion`, which hold no secrets.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vpntun.errors import ConfigurationError, HookFailed
from vpntun.runtime.child import Child, run_and_wait
from vpntun.runtime.log import log
from vpntun.runtime.loop import Loop
from vpntun.runtime.trust import check_trusted

LinkEvent = Literal["link-up", "link-down"]
HookEvent = Literal["up", "down"] | LinkEvent

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PATIENCE_AT_THE_END = 5.0


@dataclass(frozen=True)
class Command:
    """A command line, split into words as a shell splits it; the first is an absolute path."""

    words: tuple[str, ...]

    @classmethod
    def parse(cls, line: str) -> Command:
        """Split a line. Raises ConfigurationError if it cannot be split, or if there is no such command."""
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise ConfigurationError(f"{line!r} is not a command: {str(error).lower()}") from None
        if not words:
            raise ConfigurationError("a command is empty: name one, or leave the option out")
        found = words[0]
        if "/" not in found:
            found = shutil.which(found, path=PATH) or ""
        if not found.startswith("/"):
            raise ConfigurationError(f"there is no command {words[0]!r} in {PATH}: give its full path")
        return cls((found, *words[1:]))

    def check(self, *users: int) -> None:
        """Raise ConfigurationError unless the command can be run, and only root or these users can have written it."""
        path = Path(self.words[0])
        check_trusted(path, {0, *users})
        if not os.access(path, os.X_OK):
            raise ConfigurationError(f"{path} is not executable: make it so ('chmod +x {path}')")


@dataclass(frozen=True)
class Occasion:
    """The facts that a command gets in its environment.

    `peer`: a name or a public key, empty for up and down. `mtu`: the device's, in bytes.
    """

    event: HookEvent
    interface: str
    mtu: int
    addresses: tuple[str, ...]
    peer: str = ""
    endpoint: str = ""

    def environment(self) -> dict[str, str]:
        """Return the complete environment of the command."""
        return {
            "PATH": PATH,
            "VPNTUN_EVENT": self.event,
            "VPNTUN_INTERFACE": self.interface,
            "VPNTUN_PEER": self.peer,
            "VPNTUN_ENDPOINT": self.endpoint,
            "VPNTUN_MTU": str(self.mtu),
            "VPNTUN_ADDRESSES": " ".join(self.addresses),
        }


class Hooks:
    """The commands of one tunnel. `user`: the user that the process will be when it runs all but `up`.

    Raises ConfigurationError for a command that another user can have written.
    """

    def __init__(
        self,
        commands: Mapping[HookEvent, Command],
        loop: Loop,
        interface: str,
        mtu: int,
        addresses: tuple[str, ...],
        user: int,
    ) -> None:
        self._commands = commands
        self._loop = loop
        self._facts = (interface, mtu, addresses)
        self._up: set[bytes] = set()
        self._waiting: dict[bytes, Occasion] = {}
        self._child: Child | None = None
        for event, command in commands.items():
            command.check(os.geteuid() if event == "up" else user)

    def up(self) -> None:
        """Run the command for `up`, and wait for it, but not for long once the loop is stopped. Raises HookFailed."""
        problem = self._wait_for(Occasion("up", *self._facts), PATIENCE_AT_THE_END)
        if problem is not None:
            raise HookFailed(f"the tunnel is not started: {problem}")

    def down(self) -> None:
        """Drop the waiting link events, then run the command for `down`, and wait for it."""
        self._waiting.clear()
        if self._child is not None:
            self._child.stop(PATIENCE_AT_THE_END)
        problem = self._wait_for(Occasion("down", *self._facts))
        if problem is not None:
            log.warning("%s", problem)

    def link(self, event: LinkEvent, public: bytes, peer: str, endpoint: str = "") -> None:
        """Queue the event of a link, by the peer's public key, and run its command when its turn comes."""
        self._waiting.pop(public, None)
        if (event == "link-up") != (public in self._up):
            self._waiting[public] = Occasion(event, *self._facts, peer, endpoint)
        self._next()

    def _wait_for(self, occasion: Occasion, patience: float | None = None) -> str | None:
        command = self._commands.get(occasion.event)
        if command is None:
            return None
        try:
            command.check(os.geteuid())
            problem = run_and_wait(
                occasion.event, command.words, occasion.environment(), loop=self._loop, patience=patience
            )
        except (ConfigurationError, OSError, ValueError) as error:
            problem = f"cannot be run: {error}"
        return problem and f"{command.words[0]} (--{occasion.event}) {problem}"

    def _next(self) -> None:
        while self._waiting and self._child is None:
            public = next(iter(self._waiting))
            occasion = self._waiting.pop(public)
            if occasion.event == "link-up":
                self._up.add(public)
            else:
                self._up.discard(public)
            command = self._commands.get(occasion.event)
            if command is not None:
                self._start(occasion, command)

    def _start(self, occasion: Occasion, command: Command) -> None:
        def ended(problem: str | None) -> None:
            self._child = None
            if problem is not None:
                log.warning("%s (--%s) %s", command.words[0], occasion.event, problem)
            self._next()

        try:
            command.check(os.geteuid())
            self._child = Child(occasion.event, command.words, occasion.environment(), self._loop, ended)
        except (ConfigurationError, OSError, ValueError) as error:  # ValueError: a NUL in a peer's name
            log.warning("%s (--%s) cannot be run: %s", command.words[0], occasion.event, error)
