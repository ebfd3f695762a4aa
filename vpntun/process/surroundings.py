"""Surroundings protocol: where a tunnel's device is, and how its process handles signals.

process/machine.py     the network of this machine: the tunnel changes it, and takes everything back at the end
namespace/             a namespace of `vpntun run`: this machine's network stays as it is
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.netconf.following.watch import NetworkWatch
from vpntun.netconf.localnets import OwnAddresses
from vpntun.runtime.loop import Loop
from vpntun.tun.base import Device
from vpntun.types import Interface


class TunnelNetwork(Protocol):
    """The network that a running tunnel's device is in, as far as changes of its peers and sockets concern it.

    netconf/host.py describes what the methods do.
    """

    @property
    def needs_its_mark(self) -> bool:
        """Whether rules need the present mark, so that another one takes a restart."""

    def apply(self, peers: Collection[PeerSettings], is_found: Callable[[str, int], bool]) -> list[PeerSettings]:
        """Set what can be set for these peers, and return those that it waits for. Raises VpntunError."""

    def when_set(self, callback: Callable[[], None]) -> None:
        """Call back once that is set."""

    def change_mark(self, mark: int) -> None:
        """Give the tunnel's sockets another mark."""

    def peers_connect_at(self, tcp_port: int | None) -> None:
        """Note another port where the peers connect by TCP, None if they do not."""


class SetUpNetwork(TunnelNetwork, Protocol):
    """The same, as far as the set-up of a tunnel concerns it. `mark`: that of the tunnel's sockets, 0 for none.

    `may_lead_look_ups_inside`: whether look-ups of the peers' names may end up in the tunnel.
    """

    mark: int
    may_lead_look_ups_inside: bool

    @property
    def device(self) -> Device:
        """The device."""

    @property
    def device_here(self) -> str | None:
        """The device's name; None if it is in another network namespace than this process."""

    def set_up_device(self) -> list[Interface]:
        """Set the device up, and return its addresses. Raises VpntunError."""

    def wait(self) -> None:
        """Serve the loop, before it runs, until what `apply` has begun is set."""

    def own_addresses(self, watch: NetworkWatch) -> OwnAddresses:
        """Return the addresses of the network that the device is in, for the relay."""

    def keep_up(self, watch: NetworkWatch) -> None:
        """Keep settings as they are from now on."""

    def look_again(self) -> None:
        """Look at the settings that are kept, since other ones are wanted now."""

    def hold(self) -> bool:
        """Prepare for the end before privileges are given up; return whether CAP_NET_ADMIN is needed then."""


class Surroundings(Protocol):
    """What the daemon of one tunnel is surrounded by."""

    def signals(self, loop: Loop, on_hangup: Callable[[], None] | None) -> AbstractContextManager[object]:
        """Return what handles the process's signals. `on_hangup`: reopens files; None if there are none to reopen."""

    def clean_up(self, interface: str) -> None:
        """Remove what a killed predecessor left behind."""

    def open(self, tunnel: Tunnel, loop: Loop, stack: ExitStack, set_mark: Callable[[int], None]) -> SetUpNetwork:
        """Open the device; `stack` closes it. `set_mark`: gives the sockets another mark. Raises VpntunError."""

    def begin(self, loop: Loop, stack: ExitStack) -> None:
        """Note that the tunnel is set up, and its loop about to run; `stack` ends what was begun."""
