"""What surrounds a tunnel while it runs: who it was started by, whom it becomes, and who is told how it goes.

The program is started, in this order:

    --daemon      (before all else) a child goes on, the caller waits for what it says
    --pidfile     the file is taken
    --up          the device is up; the command runs as whoever started the program
    --user        privileges are given up
    all is set up

and from then on told of every link that stands, or does not any more: --link-up and --link-down run, systemd's status
line changes, and a caller with --wait goes. systemd is told READY once all is set up and a peer can call; where this
end does nothing but call, once a link stands, so that units behind this one have it, but no later than PATIENCE: a
machine without a network comes up all the same. In the end systemd is told, --down runs, and the pid file goes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from logging import INFO
from pathlib import Path

from vpntun.crypto.keys import format_key
from vpntun.process.background import Background
from vpntun.process.hooks import Command, HookEvent, Hooks, LinkEvent
from vpntun.process.notify import Notifier
from vpntun.process.pidfile import Pidfile
from vpntun.process.privileges import become, check_can_become, has_net_admin
from vpntun.runtime.accounts import Account, find_account
from vpntun.runtime.log import LineLimit, give_log_to, notice
from vpntun.runtime.loop import Loop

PATIENCE = 10.0


@dataclass(frozen=True)
class RunOptions:
    """How the operator wants a tunnel run. `background`: where there is a caller to tell; `file`: what SIGHUP reads."""

    user: str | None = None
    commands: Mapping[HookEvent, Command] = field(default_factory=dict)
    pidfile: Path | None = None
    background: Background | None = None
    file: Path | None = None


class Service:
    """One run of the program. Raises VpntunError where something of the manner cannot be.

    `user`: whom to become, as the configuration has it; the manner's counts more. What is to be done at the end goes
    onto the stack.
    """

    def __init__(self, run_options: RunOptions, user: str | None, loop: Loop, stack: ExitStack) -> None:
        self._run_options = run_options
        self._loop = loop
        self._stack = stack
        self._notifier = Notifier.from_environment(os.environ)
        self._status = ""
        self._is_set_up = self._has_link = self._is_ready = False
        self._hooks: Hooks | None = None
        self._account: Account | None = None
        if run_options.user or user:
            self._account = find_account(run_options.user or user or "")
            check_can_become(self._account)
        if run_options.pidfile is not None:
            stack.callback(Pidfile(run_options.pidfile).remove)

    @property
    def gives_up_privileges(self) -> bool:
        """Whether the process becomes another user once all is set up."""
        return self._account is not None

    def device_is_up(self, interface: str, mtu: int, addresses: tuple[str, ...]) -> None:
        """Run --up. Raises HookFailed; else --down runs in the end."""
        later = self._account.uid if self._account is not None else os.geteuid()
        self._hooks = Hooks(self._run_options.commands, self._loop, interface, mtu, addresses, later)
        self._hooks.up()
        self._stack.callback(self._hooks.down)

    def give_up_privileges(self, *, keep_net_admin: bool) -> None:
        """Become the user, for good. Raises PrivilegeError."""
        if self._account is None:
            return
        give_log_to(self._account.uid)
        become(self._account, keep_net_admin=keep_net_admin and has_net_admin())
        if self._run_options.file is not None and not os.access(self._run_options.file, os.R_OK):
            notice("%s cannot read %s again at SIGHUP", self._account.name, self._run_options.file)

    def is_set_up(self, status: str, *, can_be_called: bool) -> None:
        """All is set up, PostUp too, while the loop turns already."""
        self._is_set_up = True
        self._status = status
        self._notifier.status(status)
        self._notifier.keep_alive(self._loop)
        if self._run_options.background is not None:
            self._run_options.background.device_is_up(self._loop)
        self._loop.call_later(0.0 if can_be_called else PATIENCE, self._ready)
        self._tell_of_link()

    def link_changed(
        self, public: bytes, name: str, endpoint: str, status: str, lines: LineLimit, *, stands: bool
    ) -> None:
        """The link to the peer of this public key came up or went down; `lines` bounds what is logged of it."""
        event: LinkEvent = "link-up" if stands else "link-down"
        peer = name or format_key(public)
        fields = {"event": event, "peer": peer, "endpoint": endpoint}
        lines.log(INFO, "%s: %s", event, name or endpoint or peer, fields=fields)
        if self._hooks is not None:
            self._hooks.link(event, public, peer, endpoint)
        self._status = status
        self._notifier.status(status)
        if stands:
            self._has_link = True
            self._tell_of_link()

    def reloading(self) -> None:
        """The configuration is being read again; `reloaded` follows in any case."""
        if self._is_ready:
            self._notifier.reloading(self._loop.now)

    def reloaded(self, status: str) -> None:
        """It has been, or cannot be."""
        self._status = status
        if self._is_ready:
            self._notifier.ready(status)

    def ends(self) -> None:
        """The end has begun."""
        self._notifier.stopping()

    def _tell_of_link(self) -> None:
        """To who waits for a link: there is one, or has been, and all is set up."""
        if self._has_link and self._is_set_up:
            self._ready()
            if self._run_options.background is not None:
                self._run_options.background.link_is_up()

    def _ready(self) -> None:
        if not self._is_ready:
            self._is_ready = True
            self._notifier.ready(self._status)
