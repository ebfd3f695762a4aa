"""Surroundings of a tunnel of this machine: its network, with journal and upkeep, and the signals of a service."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from vpntun.config.tunnel import Tunnel
from vpntun.netconf.cleanup import clean_up
from vpntun.netconf.following.watch import EVERYTHING, Changed, NetworkWatch
from vpntun.netconf.host import HostNetwork
from vpntun.netconf.journal import Journal
from vpntun.netconf.localnets import OwnAddresses
from vpntun.netconf.upkeep import Upkeep
from vpntun.runtime.loop import Loop
from vpntun.tun.base import Device
from vpntun.tun.device import KernelDevice


class Machine:
    """This machine, as process/surroundings.py describes surroundings."""

    def signals(self, loop: Loop, on_hangup: Callable[[], None] | None) -> AbstractContextManager[object]:
        """Return what handles the signals of a service."""
        return loop.ending_on_signals(on_hangup)

    def clean_up(self, interface: str) -> None:
        """Remove what a killed predecessor left behind, and begin a journal."""
        clean_up(interface)
        self._journal = Journal(interface)

    def open(self, tunnel: Tunnel, loop: Loop, stack: ExitStack, set_mark: Callable[[int], None]) -> MachineNetwork:
        """Create or attach the device, and choose the mark. Raises VpntunError."""
        device = KernelDevice(tunnel.interface, tunnel.device)
        stack.callback(device.close)
        return MachineNetwork(tunnel, device, self._journal, stack, set_mark, loop)

    def begin(self, loop: Loop, stack: ExitStack) -> None:
        """Begin nothing: the service tells whoever waits for the tunnel."""


class MachineNetwork(HostNetwork):
    """The machine's network, which follows its changes, and is taken back at the end."""

    @property
    def device(self) -> Device:
        """The device."""
        return self._device

    @property
    def device_here(self) -> str | None:
        """The device's name, which is in this process's network namespace."""
        return self._device.name

    def own_addresses(self, watch: NetworkWatch) -> OwnAddresses:
        """Return this machine's addresses, read again once they have changed."""
        return OwnAddresses(self.device.name, watch.since_last_asked(Changed.ADDRESSES))

    def keep_up(self, watch: NetworkWatch) -> None:
        """Keep routes, rules and the device's settings as they are from now on."""
        self._upkeep = Upkeep(self.device.name, self._loop, self.parts)
        self._stack.callback(self._upkeep.close)
        watch.subscribe(EVERYTHING, self._upkeep.look)
        watch.subscribe(Changed.RULES, self.rules_changed)  # before the engine, since it decides about routes
        self._upkeep.look()

    def look_again(self) -> None:
        """Look at the settings again, since other ones are wanted now."""
        self._upkeep.look_again()

    def hold(self) -> bool:
        """Keep the journal open if CAP_NET_ADMIN is needed later, and return whether it is.

        It is needed if changes have to be undone at the end, if routes follow the configuration, or if new connections
        have to be marked.
        """
        needs = self._table != "off" or bool(self.mark) or not self._journal.is_empty
        if needs:
            self._journal.hold()
        return needs
