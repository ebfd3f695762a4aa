"""The operator's own commands, run without a shell when the tunnel comes and goes.

    up          the device stands, with its addresses and routes; waited for, and where it fails the start fails
    down        the end has begun; waited for
    link-up     the link to a peer stands
    link-down   it does not any more

The first runs as whoever started the program, the others as the user that it has become. Those of links run beside the
loop, one at a time. While one runs, what happens to a peer meanwhile is kept as one event: its last, and none if that
was told already. So no more than one event a peer waits, and a link that flaps starts no crowd of commands.

Only a command that nobody else can have written is run (trust.py), looked at again each time. Its environment is PATH
and the variables of `Occasion`; no secret is in them.
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
    """A command line, split into words as a shell would; the first is an absolute path."""

    words: tuple[str, ...]

    @classmethod
    def parse(cls, line: str) -> Command:
        """Split a line. Raises ConfigurationError where it is no command or there is none of that name."""
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise ConfigurationError(f"{line!r} is no command: {str(error).lower()}") from None
        if not words:
            raise ConfigurationError("an empty command cannot be run: leave the option out")
        found = words[0]
        if "/" not in found:
            found = shutil.which(found, path=PATH) or ""
        if not found.startswith("/"):
            raise ConfigurationError(f"there is no command {words[0]!r} in {PATH}: give its whole path")
        return cls((found, *words[1:]))

    def check(self, *users: int) -> None:
        """Raise ConfigurationError unless root or these users alone can have written it, and it can be run."""
        path = Path(self.words[0])
        check_trusted(path, {0, *users})
        if not os.access(path, os.X_OK):
            raise ConfigurationError(f"{path} cannot be run: chmod +x {path}")


@dataclass(frozen=True)
class Occasion:
    """What a command is told. `peer`: a name or a public key, empty for up and down; `mtu` of the device, in bytes."""

    event: HookEvent
    interface: str
    mtu: int
    addresses: tuple[str, ...]
    peer: str = ""
    endpoint: str = ""

    def environment(self) -> dict[str, str]:
        """The whole environment of the command."""
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
    """The commands of one tunnel. `user`: whom the process will be when it runs all but the first of them.

    Raises ConfigurationError for a command that somebody else can have written.
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
        """The device stands. Raises HookFailed."""
        problem = self._wait_for(Occasion("up", *self._facts))
        if problem is not None:
            raise HookFailed(f"the tunnel is not started: {problem}")

    def down(self) -> None:
        """The end has begun; those of links wait no more."""
        self._waiting.clear()
        if self._child is not None:
            self._child.stop(PATIENCE_AT_THE_END)
        problem = self._wait_for(Occasion("down", *self._facts))
        if problem is not None:
            log.warning("%s", problem)

    def link(self, event: LinkEvent, public: bytes, peer: str, endpoint: str = "") -> None:
        """The link to the peer with this public key stands, or does not; tell it when its turn comes."""
        self._waiting.pop(public, None)
        if (event == "link-up") != (public in self._up):
            self._waiting[public] = Occasion(event, *self._facts, peer, endpoint)
        self._next()

    def _wait_for(self, occasion: Occasion) -> str | None:
        command = self._commands.get(occasion.event)
        if command is None:
            return None
        try:
            command.check(os.geteuid())
            problem = run_and_wait(occasion.event, command.words, occasion.environment())
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
