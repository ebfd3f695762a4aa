"""Surroundings of a run: its namespace in place of the machine's network, and its command in place of a service.

    1. fork the holder, which makes the namespaces, and the command's child, before the keys are read
    2. set the tunnel up as ever, with the device in the namespace
    3. once a link is up, let the command begin; after --wait without a link, end with NotInTime
    4. when the command has ended, serve for a moment: what it has written last may still be on its way
    5. if the tunnel ends first, by 'vpntun down' say, end the command

Without a command, the run serves until it is told to end, as any tunnel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from vpntun.config.tunnel import Tunnel
from vpntun.errors import NotInTime
from vpntun.namespace.command import Command
from vpntun.namespace.holder import Holder
from vpntun.namespace.messages import Message
from vpntun.namespace.network import NamespaceNetwork
from vpntun.namespace.signals import RunSignals
from vpntun.process.privileges import forbid_inspection
from vpntun.runtime.log import log
from vpntun.runtime.loop import Loop

SECONDS_BEFORE_LINE = 5.0
SECONDS_TO_SEND, SECONDS_BETWEEN_LOOKS = 5.0, 0.05


class Run:
    """One run of a command in a namespace of its own; with an empty `arguments`, of the namespace alone.

    `wait`: how many seconds the run waits for a link; None: without limit. It is the Waiter of its own tunnel.
    """

    def __init__(self, holder: Holder, command: Command | None, wait: float | None) -> None:
        self.holder = holder
        self._command = command
        self._wait = wait
        self._signals: RunSignals | None = None
        self._is_linked = False

    @classmethod
    def fork(cls, arguments: Sequence[str], *, wait: float | None = None, netns: str | None = None) -> Run:
        """Make the namespace and the child that will be the command. Raises VpntunError.

        From then on no other process of this user, such as the command, can inspect this one, which will know the keys.
        """
        holder = Holder.start(netns)
        command = Command.fork(arguments, holder) if arguments else None
        forbid_inspection()
        return cls(holder, command, wait)

    @property
    def status(self) -> int:
        """The exit status of the command; 0 if there is none, or it was not started."""
        return (self._command and self._command.status) or 0

    @property
    def ended_by(self) -> int | None:
        """The signal that ended the run before the command was started; None if none did."""
        return self._signals.ended_by if self._signals is not None else None

    # Surroundings

    def signals(self, loop: Loop, on_hangup: Callable[[], None] | None) -> AbstractContextManager[object]:
        """Return what passes signals on to the command, or what ends a run without one."""
        if self._command is None:
            return loop.ending_on_signals(on_hangup)
        self._signals = RunSignals(loop, self._command)
        return self._signals

    def clean_up(self, interface: str) -> None:
        """Remove nothing: what a killed run has left vanished with it."""

    def open(self, tunnel: Tunnel, loop: Loop, stack: ExitStack, set_mark: Callable[[int], None]) -> NamespaceNetwork:
        """Make the device in the namespace. Raises VpntunError."""
        stack.callback(self.holder.close)
        self.holder.attach(loop, self._holder_ended)
        return NamespaceNetwork(tunnel, self.holder, stack)

    def begin(self, loop: Loop, stack: ExitStack) -> None:
        """Watch the command from now on; `stack` ends it."""
        self._loop = loop
        if self._wait is not None:
            loop.call_later(self._wait, self._give_up)
        if self._command is not None:
            stack.callback(self._command.close)
            stack.callback(self._command.end, loop)
            self._command.attach(loop, self._command_ended)
            loop.call_later(SECONDS_BEFORE_LINE, self._say_that_it_waits)

    # Waiter

    def device_is_up(self, loop: Loop) -> None:
        """Wait on: the command needs a link."""

    def link_is_up(self) -> None:
        """Start the command, at the first link."""
        self._is_linked = True
        if self._command is not None:
            self._command.start(self.holder)

    def _say_that_it_waits(self) -> None:
        if not self._is_linked and self._command is not None:
            log.warning("no link yet: %s begins once there is one (-v says more)", self._command.name)

    def _give_up(self) -> None:
        if not self._is_linked:
            not_started = f": {self._command.name} was not started" if self._command is not None else ""
            raise NotInTime(f"no link within {self._wait:g} s{not_started} (-v says more)")

    def _holder_ended(self) -> None:
        log.warning("the process that holds the namespace has ended: no forward and no look-up works there any more")

    def _command_ended(self) -> None:
        """Stop the loop once the command's last data has arrived, but after SECONDS_TO_SEND at the latest."""
        self._loop.call_later(SECONDS_TO_SEND, self._loop.stop)
        self._look_for_unsent()

    def _look_for_unsent(self) -> None:
        try:
            self.holder.ask_later("count_unsent", self._stop_if_sent)
        except OSError:
            self._loop.stop()

    def _stop_if_sent(self, message: Message) -> None:
        if message.get("done", {}).get("count"):
            self._loop.call_later(SECONDS_BETWEEN_LOOKS, self._look_for_unsent)
        else:
            self._loop.stop()
