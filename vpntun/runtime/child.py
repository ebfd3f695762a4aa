"""A command that runs beside the loop: its end is told by a pidfd, its output by a pipe, and its time is limited.

It has a session of its own, so that what it has started is killed with it when the time is up. What it leaves in the
background on purpose lives on, and so does what cannot be killed, such as one that sudo has made root: nobody waits for
that any longer. Its output goes to the log line by line, as far as it is not too much.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from vpntun.runtime.log import log, notice
from vpntun.runtime.loop import Loop

SECONDS_TO_RUN = 30.0
SECONDS_TO_DIE = 5.0
MOST_LINES = 50
LONGEST_LINE = 500
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED_ON = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TERM", "TZ")


class Child:
    """One command under way. `on_end` gets None for success, else what went wrong, to follow the command's name.

    `seconds`: its time, 30 unless given. `stdin`: a descriptor it may read from. Raises OSError where it cannot be
    started.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        loop: Loop,
        on_end: Callable[[str | None], None],
        *,
        seconds: float | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self._loop = loop
        self._on_end = on_end
        self._seconds = SECONDS_TO_RUN if seconds is None else seconds
        self._transcript = _Transcript(name)
        self._is_late = False
        self._is_awaited = True
        self._process = subprocess.Popen(
            arguments,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            self._output.close()
            self._kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(SECONDS_TO_DIE)
            raise
        os.set_blocking(self._output.fileno(), False)
        loop.watch(self._output.fileno(), self._read)
        loop.watch(self._pidfd, self._ended)
        loop.call_later(self._seconds, self._time_is_up)

    @property
    def running(self) -> bool:
        """Whether its end is still waited for."""
        return self._is_awaited

    def stop(self, patience: float) -> None:
        """Wait for its end so many seconds, then end it; `on_end` is not called."""
        if self.running:
            self._on_end = lambda problem: None
            if not self._ends_within(patience):
                self._kill()
                if not self._ends_within(SECONDS_TO_DIE):
                    log.warning("process %d cannot be killed, and is left alone", self._process.pid)
                    self._let_go()
                    return
            self._ended()

    def _read(self) -> None:
        if self._output.closed:
            return
        with suppress(BlockingIOError):
            data = os.read(self._output.fileno(), 65536)
            self._transcript.add(data)
            if not data:
                self._stop_reading()

    def _stop_reading(self) -> None:
        if not self._output.closed:
            self._loop.forget(self._output.fileno())
            self._output.close()

    def _time_is_up(self) -> None:
        if self.running:
            self._is_late = True
            self._kill()
            self._loop.call_later(SECONDS_TO_DIE, self._give_up)

    def _kill(self) -> None:
        with suppress(PermissionError, ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _give_up(self) -> None:
        if self.running:
            self._let_go()
            self._on_end(f"did not end within {self._seconds:.0f} s, and cannot be killed")

    def _ends_within(self, seconds: float) -> bool:
        poller = select.poll()  # unlike select(2) it takes any number of a descriptor
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def _ended(self) -> None:
        status = self._process.wait()
        self._let_go()
        self._on_end(self._problem(status))

    def _let_go(self) -> None:
        self._is_awaited = False
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        self._read()
        self._stop_reading()
        self._transcript.end()

    def _problem(self, status: int) -> str | None:
        if self._is_late:
            return f"did not end within {self._seconds:.0f} s, and was killed"
        if status < 0:
            return f"was ended by signal {-status}"
        return f"failed with status {status}" if status else None


def run_and_wait(
    name: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    seconds: float | None = None,
    stdin: int = subprocess.DEVNULL,
) -> str | None:
    """Run a command to its end; None for success, else what went wrong. Raises OSError where it cannot be started."""
    loop = Loop()
    problems: list[str | None] = []
    try:
        Child(name, arguments, environment, loop, problems.append, seconds=seconds, stdin=stdin)
        while not problems:
            loop.turn(lambda _: float("inf"), lambda _: None)
    finally:
        loop.close()
    return problems[0]


def child_environment() -> dict[str, str]:
    """What a program of the operator's or of the system's is started with."""
    return {"PATH": search_path(), **{name: os.environ[name] for name in PASSED_ON if name in os.environ}}


def search_path() -> str:
    """Where programs are looked for: as this process does, then where a system keeps its own."""
    return ":".join(filter(None, (os.environ.get("PATH"), SYSTEM_PATH)))


class _Transcript:
    """Hands output to the log by lines."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._partial = b""
        self._lines = 0

    def add(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._say(line)
        if len(self._partial) > LONGEST_LINE:
            self._partial = self._partial[: LONGEST_LINE + 1]

    def end(self) -> None:
        if self._partial:
            self._say(self._partial)

    def _say(self, line: bytes) -> None:
        self._lines += 1
        if self._lines <= MOST_LINES:
            more = "..." if len(line) > LONGEST_LINE else ""
            notice("%s: %s%s", self._name, line[:LONGEST_LINE].decode("utf-8", "replace"), more)
        elif self._lines == MOST_LINES + 1:
            log.warning("%s says more, which is not shown", self._name)
