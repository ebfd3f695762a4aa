"""Command of a run: a child that waits for the link, enters the namespace, and becomes the operator's program.

    forked      before the keys are read, so that the program cannot have them in its memory
    waiting     until this process starts it; it ignores the terminal's signals, and ends if this process ends
    started     it enters the namespaces and the same folder there, restores the caller's signal actions, and executes
                the program, with the user, groups, environment, terminal and open files that this process was given
    ended       its exit status becomes this process's: 128 plus the signal's number if a signal ended it

The program gets no capability that its user lacks: the kernel drops those of a user namespace when an ordinary user
executes a program.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from vpntun.errors import CommandNotFound, CommandNotRun, VpntunError
from vpntun.namespace import kernel
from vpntun.namespace.holder import Holder
from vpntun.namespace.making import NAMESPACES
from vpntun.namespace.messages import Channel, Message
from vpntun.namespace.refusal import explain
from vpntun.runtime.child import ends_within
from vpntun.runtime.loop import Loop
from vpntun.runtime.process_one import awaited

TERMINALS_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
CHANGED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
SECONDS_TO_END, SECONDS_TO_DIE = 5.0, 2.0


class Command:
    """The child. `status`: the exit status of its program, None before it has ended."""

    def __init__(self, arguments: Sequence[str], channel: Channel, process: int) -> None:
        self.name = arguments[0]
        self.process = process
        self.status: int | None = None
        self.is_started = False
        self._channel = channel
        self._pidfd = os.pidfd_open(process)
        self._loop: Loop | None = None
        self._on_end: Callable[[], None] = lambda: None
        awaited[process] = self._reap

    @classmethod
    def fork(cls, arguments: Sequence[str], holder: Holder) -> Command:
        """Fork the child. Call it before any secret is read."""
        ours, its = Channel.pair()
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if not process:
            ours.close()
            holder.close()
            _become(its, arguments)
        its.close()
        ours.never_wait()
        return cls(arguments, ours, process)

    def attach(self, loop: Loop, on_end: Callable[[], None]) -> None:
        """Watch the child from now on. `on_end` is called once its program has ended."""
        self._loop = loop
        self._on_end = on_end
        loop.watch(self._channel.fileno(), self._read)
        loop.watch(self._pidfd, self._ended)

    def start(self, holder: Holder) -> None:
        """Let the child go on to its program, in the holder's namespaces. Does nothing a second time."""
        if not self.is_started and self.status is None:
            self.is_started = True
            descriptors = [*holder.namespaces.values(), holder.folder]
            with suppress(OSError):  # it has ended, as is noticed by its pidfd
                self._channel.send({"kinds": list(holder.namespaces)}, descriptors)

    def signal(self, number: int) -> None:
        """Send the program a signal."""
        if self.status is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def has_stopped(self) -> bool:
        """Whether the program was stopped since the last call, and not continued."""
        if self.status is not None:
            return False
        with suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.process, os.WSTOPPED | os.WNOHANG) is not None
        return False

    def end(self, loop: Loop) -> None:
        """End the program, after a few seconds of patience, while the loop is served."""
        if self.status is None and self.is_started:
            for number in (signal.SIGTERM, signal.SIGCONT):
                self.signal(number)
            until = loop.time() + SECONDS_TO_END
            loop.call_later(SECONDS_TO_END, lambda: None)
            loop.finish(lambda: self.status is not None or loop.time() >= until)
        if self.status is None:
            self.signal(signal.SIGKILL)
            if ends_within(self._pidfd, SECONDS_TO_DIE):
                self._reap()

    def close(self) -> None:
        """Close what leads to the child. If its program was not started, it ends."""
        awaited.pop(self.process, None)
        if self._loop is not None:
            self._loop.forget(self._channel.fileno())
            self._loop.forget(self._pidfd)
        self._channel.close()
        os.close(self._pidfd)

    def _read(self) -> None:
        """Read why the program was not executed; the end of the channel means that it was, or that the child ended."""
        received = self._channel.receive()
        assert self._loop is not None
        self._loop.forget(self._channel.fileno())
        if received is not None:
            raise self._explain(received[0])

    def _explain(self, message: Message) -> VpntunError:
        error = OSError(message["errno"], os.strerror(message["errno"]))
        if message["step"]:
            return explain(error, message["step"])
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return CommandNotFound(f"{self.name}: there is no such command")
        return CommandNotRun(f"{self.name} cannot be executed: {error.strerror}")

    def _ended(self) -> None:
        assert self._loop is not None
        self._loop.forget(self._pidfd)
        self._reap()
        self._on_end()

    def _reap(self) -> None:
        if self.status is None:
            awaited.pop(self.process, None)
            _, status = os.waitpid(self.process, 0)
            code = os.waitstatus_to_exitcode(status)
            self.status = code if code >= 0 else 128 - code


def _become(channel: Channel, arguments: Sequence[str]) -> None:
    """Wait until the parent says so, and become the program. Runs in a child; never returns."""
    step = ""
    try:
        former = {number: signal.signal(number, signal.SIG_IGN) for number in TERMINALS_SIGNALS}
        received = channel.receive()
        if received is None:
            os._exit(0)
        message, (*namespaces, folder) = received
        step = "the namespace cannot be entered"
        for kind, namespace in zip(message["kinds"], namespaces, strict=True):
            kernel.enter(namespace, NAMESPACES[kind])
        os.fchdir(folder)
        step = ""
        for number, action in former.items():
            signal.signal(number, action)
        for number in CHANGED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        os.execvp(arguments[0], list(arguments))
    except OSError as error:
        with suppress(OSError):
            channel.send({"errno": error.errno, "step": step})
    finally:
        os._exit(127)
