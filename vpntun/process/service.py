"""Surroundings of a running tunnel: the waiting caller, pid file, hooks, user, and systemd.

At the start, in this order:

    --daemon      (before all else) the program continues in a child, and the caller waits for its report
    --pidfile     the file is made and locked
    --up          the device is up; the command runs as the user who started the program
    --user        privileges are given up
    the set-up is complete

From then on, each link that comes up or goes down runs --link-up or --link-down and changes systemd's status line, as
do other changes of a link's states. The first to come up releases a caller with --wait. systemd gets READY once the
set-up is complete, if peers can call this end. If this end only makes calls, READY waits for the first link, so that
units ordered after this one have it, but at most for PATIENCE: a machine without a network must still boot. For the
same reason neither systemd nor a caller waits longer than that for a set-up that waits for a name. At the end, systemd
gets STOPPING, --down runs, and the pid file is removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from logging import INFO
from pathlib import Path
from typing import Protocol

from vpntun.config.tunnel import Tunnel
from vpntun.crypto.keys import format_key
from vpntun.errors import ConfigurationError
from vpntun.process.hooks import Command, HookEvent, Hooks, LinkEvent
from vpntun.process.notify import Notifier
from vpntun.process.pidfile import Pidfile
from vpntun.process.privileges import become, check_can_become, has_net_admin
from vpntun.runtime.accounts import Account, find_account
from vpntun.runtime.log import LineLimit, give_log_to, notice
from vpntun.runtime.loop import Loop
from vpntun.types import Place

PATIENCE = 10.0
"""Seconds that READY waits for a link."""
SECONDS_BETWEEN = 1.0
"""Seconds between two status lines, if only the states of links have changed: a thousand peers change often."""


class Waiter(Protocol):
    """Somebody who waits for the tunnel: the caller of a daemon (background.py), or the command of a run."""

    def device_is_up(self, loop: Loop) -> None:
        """Note that the set-up is done, or may take forever. Called before the loop runs, or in it."""

    def link_is_up(self) -> None:
        """Note that the set-up is done, and that there has been a link. Called each time that a link comes up."""


@dataclass(frozen=True)
class RunOptions:
    """The operator's options for running a tunnel.

    `background`: set if somebody waits for the tunnel. `file`: the configuration file, which SIGHUP reads again.
    `uapi`: whether wg(8) gets a socket. `metrics`: where metrics are served; None: where the configuration says.
    `socks5`: where a SOCKS5 proxy listens; None: there is none.
    """

    user: str | None = None
    commands: Mapping[HookEvent, Command] = field(default_factory=dict)
    pidfile: Path | None = None
    background: Waiter | None = None
    file: Path | None = None
    uapi: bool = True
    metrics: Path | Place | None = None
    socks5: Path | Place | None = None


class Service:
    """One run of the program. Raises VpntunError if one of its options cannot work.

    `user`: the user to become, from the configuration; that of `run_options` takes precedence. Clean-up for the end is
    pushed onto `stack`.
    """

    def __init__(self, run_options: RunOptions, user: str | None, loop: Loop, stack: ExitStack) -> None:
        self._run_options = run_options
        self._loop = loop
        self._stack = stack
        self._notifier = Notifier.from_environment(os.environ)
        self._status = ""
        self._is_waiting = self._is_set_up = self._has_link = self._is_ready = False
        self._patience_until: float | None = None
        self._status_at = loop.now
        self._status_is_due = False
        self._hooks: Hooks | None = None
        self._account: Account | None = None
        if run_options.user or user:
            self._account = find_account(run_options.user or user or "")
            check_can_become(self._account)
        if run_options.pidfile is not None:
            stack.callback(Pidfile(run_options.pidfile).remove)

    @property
    def gives_up_privileges(self) -> bool:
        """Whether the process becomes another user once the set-up is complete."""
        return self._account is not None

    def check(self, tunnel: Tunnel) -> None:
        """Refuse a tunnel that cannot work with these options; warn of hooks that will lack root's privileges.

        Raises ConfigurationError.
        """
        if self.gives_up_privileges:
            if tunnel.dns:
                raise ConfigurationError("name servers are set and removed as root: leave out either the user or DNS")
            if tunnel.hooks.pre_down or tunnel.hooks.post_down:
                notice("PreDown and PostDown will run without root's privileges")
        if tunnel.identity is None and not self._run_options.uapi:
            raise ConfigurationError(
                "PostUp can give the private key by wg(8) only: put PrivateKey into [Interface], or leave out --no-uapi"
            )

    def device_is_up(self, interface: str, mtu: int, addresses: tuple[str, ...]) -> None:
        """Run --up, and make --down run at the end. Raises HookFailed; then --down does not run."""
        later = self._account.uid if self._account is not None else os.geteuid()
        self._hooks = Hooks(self._run_options.commands, self._loop, interface, mtu, addresses, later)
        self._hooks.up()
        self._stack.callback(self._hooks.down)

    def give_up_privileges(self, *, keep_net_admin: bool) -> None:
        """Become the configured user, if there is one, for good. Raises PrivilegeError."""
        if self._account is None:
            return
        give_log_to(self._account.uid)
        become(self._account, keep_net_admin=keep_net_admin and has_net_admin())
        if self._run_options.file is not None and not os.access(self._run_options.file, os.R_OK):
            notice("%s cannot read %s again at SIGHUP", self._account.name, self._run_options.file)

    def waits(self, status: str) -> None:
        """Note that the set-up waits for something that may never come.

        After PATIENCE, systemd and a caller that waits are told to go on.
        """
        self._status = status
        self._notifier.status(status)
        self._is_waiting = True
        if self._patience_until is None:
            self._patience_until = self._loop.now + PATIENCE
            self._notifier.keep_alive(self._loop)
            self._loop.call_later(PATIENCE, self._look_at_patience)
        self._look_at_patience()

    def waits_no_more(self) -> None:
        """Note that the set-up goes on."""
        self._is_waiting = False

    def is_set_up(self, status: str, *, can_be_called: bool) -> None:
        """Note that the set-up is complete, including PostUp; the loop is running already."""
        self._is_set_up = True
        self._status = status
        self._notifier.status(status)
        if self._patience_until is None:
            self._notifier.keep_alive(self._loop)
        if self._run_options.background is not None:
            self._run_options.background.device_is_up(self._loop)
        self._loop.call_later(0.0 if can_be_called else PATIENCE, self._ready)
        self._release_waiters()

    def link_changed(self, public: bytes, name: str, endpoint: str, status: str, lines: LineLimit, *, up: bool) -> None:
        """Report that the link to the peer with this public key came up or went down; `lines` limits the log lines."""
        event: LinkEvent = "link-up" if up else "link-down"
        peer = name or format_key(public)
        fields = {"event": event, "peer": peer, "endpoint": endpoint}
        lines.log(INFO, "%s: %s", event, name or endpoint or peer, fields=fields)
        if self._hooks is not None:
            self._hooks.link(event, public, peer, endpoint)
        self._status = status
        self._notifier.status(status)
        if up:
            self._has_link = True
            self._release_waiters()

    def states_changed(self, status: Callable[[], str]) -> None:
        """Report that the states of links have changed, at most once a second. `status`: returns the status line."""
        if self._status_is_due or not self._notifier.is_heard:
            return
        self._status_is_due = True
        self._loop.call_later(max(0.0, self._status_at - self._loop.now), lambda: self._report(status()))

    def reloading(self) -> None:
        """Report that the configuration is being read again; `reloaded` follows in any case."""
        if self._is_ready:
            self._notifier.reloading()

    def reloaded(self, status: str) -> None:
        """Report that the reload has ended, with or without success."""
        self._status = status
        if self._is_ready:
            self._notifier.ready(status)

    def ends(self) -> None:
        """Report that the tunnel is ending."""
        self._notifier.stopping()

    def _report(self, status: str) -> None:
        self._status_is_due = False
        self._status_at = self._loop.now + SECONDS_BETWEEN
        if status != self._status:
            self._status = status
            self._notifier.status(status)

    def _release_waiters(self) -> None:
        """Release everyone who waits for a link, once there has been one and the set-up is complete."""
        if self._has_link and self._is_set_up:
            self._ready()
            if self._run_options.background is not None:
                self._run_options.background.link_is_up()

    def _look_at_patience(self) -> None:
        """Release those who wait for a set-up that itself waits, if it has done so for long enough."""
        if self._is_waiting and self._patience_until is not None and self._loop.now >= self._patience_until:
            self._ready()
            if self._run_options.background is not None:
                self._run_options.background.device_is_up(self._loop)

    def _ready(self) -> None:
        if not self._is_ready:
            self._is_ready = True
            self._notifier.ready(self._status)
