"""Holder of a run's namespace, as the parent sees it: a child process (holding.py) that is asked over a channel.

A request that waits for its answer has a limit, so that the parent's loop never waits for long: a holder that does not
answer in time is asked nothing more that the loop would have to wait for. Answers that come too late are dropped.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from logging import WARNING
from typing import Any

from vpntun import errors
from vpntun.errors import VpntunError
from vpntun.namespace.holding import hold
from vpntun.namespace.messages import Channel, Message
from vpntun.namespace.refusal import explain
from vpntun.runtime.clock import boottime
from vpntun.runtime.log import NOTICE, log
from vpntun.runtime.loop import Loop
from vpntun.runtime.resolver import Found, OnFound

SECONDS_TO_START = 30.0
SECONDS_TO_ANSWER = 2.0

OnAnswer = Callable[[Message], None]


class StepRefused(OSError):
    """The kernel has refused a step of making the namespaces; `step` says what cannot be done."""

    def __init__(self, number: int, step: str) -> None:
        super().__init__(number, os.strerror(number))
        self.step = step


class Holder:
    """The child process. `namespaces`: descriptors of its namespaces by kind; `folder`: of its current folder."""

    def __init__(self, channel: Channel, process: int) -> None:
        self.process = process
        self.namespaces: dict[str, int] = {}
        self.folder = -1
        self._channel = channel
        self._numbers = itertools.count(1)
        self._awaited: dict[int, OnAnswer] = {}
        self._is_late = self._has_ended = False
        self._loop: Loop | None = None

    @classmethod
    def start(cls, netns: str | None = None) -> Holder:
        """Fork the child, and wait until it has made the namespaces. Raises VpntunError.

        Call it before any secret is read: the child has a copy of this process's memory. `netns`: enter the network
        namespace of this name instead of making one.
        """
        ours, its = Channel.pair()
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if not process:
            hold(its, netns)
        its.close()
        ours.never_wait()
        holder = cls(ours, process)
        try:
            made, descriptors = holder._await(0, SECONDS_TO_START)
        except (OSError, VpntunError) as error:
            ours.close()
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            if isinstance(error, OSError):
                step = error.step if isinstance(error, StepRefused) else "no namespace can be made"
                raise explain(error, step) from None
            raise
        holder.namespaces = dict(zip(made["kinds"], descriptors, strict=False))
        holder.folder = descriptors[-1]
        return holder

    def attach(self, loop: Loop, on_end: Callable[[], None]) -> None:
        """Have the loop read answers from now on. `on_end` is called if the child ends."""
        self._loop = loop
        self._on_end = on_end
        loop.watch(self._channel.fileno(), self._read)

    def ask(self, what: str, seconds: float = SECONDS_TO_ANSWER, **fields: Any) -> tuple[Message, list[int]]:
        """Ask for something, and wait for the answer and its descriptors. Raises VpntunError, or OSError.

        Give more than SECONDS_TO_ANSWER only where the loop may wait that long: during the set-up, and for a reload.
        """
        if self._is_late or self._has_ended:
            raise OSError(errno.ETIMEDOUT, "the namespace's process does not answer")
        return self._await(self._send(what, fields), seconds)

    def ask_later(self, what: str, on_answer: OnAnswer, **fields: Any) -> None:
        """Ask for something; the loop calls `on_answer` with the message that answers. Raises OSError."""
        number = self._send(what, fields)
        self._awaited[number] = on_answer

    def look_up(self, host: str, port: int, answer: OnFound) -> None:
        """Look a name up inside, as Side.look_up."""

        def answered(message: Message) -> None:
            if "done" in message:
                found: Found = [(socket.AddressFamily(each), tuple(to)) for each, to in message["done"]["found"]]
                answer(found, None)
            else:
                answer([], socket.gaierror(message.get("errno", 0), message.get("step") or message.get("text", "")))

        try:
            self.ask_later("look_up", answered, host=host, port=port)
        except OSError as error:
            assert self._loop is not None
            self._loop.call_later(0.0, partial(answer, [], error))

    def close(self) -> None:
        """Let the child end, and close what it has sent."""
        if self._loop is not None and not self._has_ended:
            self._loop.forget(self._channel.fileno())
        self._channel.close()
        for each in (*self.namespaces.values(), self.folder):
            os.close(each)
        self.namespaces = {}

    def _send(self, what: str, fields: Message) -> int:
        number = next(self._numbers)
        self._channel.send({"request": number, "what": what, **fields})
        return number

    def _await(self, number: int, seconds: float) -> tuple[Message, list[int]]:
        """Wait for the answer of this number, and take note of those that come before."""
        until = boottime() + seconds
        poller = select.poll()
        poller.register(self._channel.fileno(), select.POLLIN)
        while poller.poll(max(0.0, until - boottime()) * 1000):
            received = self._channel.receive()
            if received is None:
                self._end()
                raise VpntunError("the process that holds the namespace has ended: start again")
            message, descriptors = received
            self._log(message)
            if message["request"] == number:
                return _content(message, descriptors), descriptors
            self._note(message, descriptors)
        self._is_late = True
        raise OSError(errno.ETIMEDOUT, "the namespace's process does not answer")

    def _read(self) -> None:
        received = self._channel.receive()
        if received is None:
            self._end()
            return
        message, descriptors = received
        self._log(message)
        self._note(message, descriptors)

    def _note(self, message: Message, descriptors: list[int]) -> None:
        """Pass on an answer that nobody waits for at this moment."""
        for each in descriptors:
            os.close(each)
        self._is_late = False
        on_answer = self._awaited.pop(message["request"], None)
        if on_answer is not None and self._loop is not None:
            self._loop.call_later(0.0, partial(on_answer, message))

    def _log(self, message: Message) -> None:
        for level, text in message.get("log", ()):
            log.log(WARNING if level == NOTICE else level, "%s", text)  # what the program has to do without

    def _end(self) -> None:
        self._has_ended = True
        if self._loop is not None:
            self._loop.forget(self._channel.fileno())
            self._loop.call_later(0.0, self._on_end)
        for on_answer in self._awaited.values():
            if self._loop is not None:
                self._loop.call_later(0.0, partial(on_answer, {"errno": errno.EPIPE, "step": "the namespace is gone"}))
        self._awaited.clear()


def _content(message: Message, descriptors: list[int]) -> Message:
    """Return what an answer contains. Raises the VpntunError or OSError that it tells of.

    A process that may open no more descriptors gets fewer than were sent, without an error (unix(7)).
    """
    if len(descriptors) < message.get("descriptors", 0):
        for each in descriptors:
            os.close(each)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    if "failed" in message:
        kind: type[VpntunError] = getattr(errors, message["failed"])
        raise kind(message["text"])
    if "errno" in message:
        if message["step"]:
            raise StepRefused(message["errno"], message["step"])
        raise OSError(message["errno"], os.strerror(message["errno"]))
    content: Message = message["done"]
    return content
