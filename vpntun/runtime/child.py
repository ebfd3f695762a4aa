"""Child processes that run beside the loop, with a time limit and their output in the log.

A pidfd reports the end of the command, and a pipe carries its output, which is logged line by line up to a limit. The
command gets a session of its own: when its time is up, it is killed together with the processes it started. A command
that cannot be killed, such as one that became root through sudo, is given up: the program stops waiting for it.

If the command ends in time, processes that it left in the background live on, even after this program. They must not
die by SIGPIPE or block when they write, so a `cat` reads the pipe from then on, for as long as one of them holds it.
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
from vpntun.runtime.process_one import awaited

SECONDS_TO_RUN = 30.0
SECONDS_TO_DIE = 5.0
MOST_LINES = 50
LONGEST_LINE = 500
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEEP_READING = "exec 3<&0; cat <&3 >/dev/null 3<&- &"
"""Shell line that reads its input in the background. A shell gives commands in the background no input of their own."""
PASSED_ON = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TERM", "TZ")


class Child:
    """A running command. `on_end` gets None for success, or a description of the failure to put after its name.

    `seconds`: time limit, 30 by default. `stdin`: a descriptor that the command may read from. The constructor raises
    OSError if the command cannot be started.
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
        awaited[self._process.pid] = self._process.poll
        assert self._process.stdout is not None
        self._output = self._process.stdout
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            self._output.close()
            self._kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(SECONDS_TO_DIE)
                awaited.pop(self._process.pid, None)
            raise
        os.set_blocking(self._output.fileno(), False)
        loop.watch(self._output.fileno(), self._read)
        loop.watch(self._pidfd, self._ended)
        loop.call_later(self._seconds, self._on_timeout)

    @property
    def running(self) -> bool:
        """Whether the loop is still waiting for the command to end."""
        return self._is_awaited

    def stop(self, patience: float) -> None:
        """Give the command `patience` seconds to end, then kill it. `on_end` is not called."""
        if self.running:
            self._on_end = lambda problem: None
            if not ends_within(self._pidfd, patience):
                self._kill()
                if not ends_within(self._pidfd, SECONDS_TO_DIE):
                    log.warning("process %d cannot be killed and is left running", self._process.pid)
                    self._stop_waiting()
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

    def _on_timeout(self) -> None:
        if self.running:
            self._is_late = True
            self._kill()
            self._loop.call_later(SECONDS_TO_DIE, self._give_up)

    def _kill(self) -> None:
        if self._process.returncode is not None:  # its number may be another's by now
            return
        with suppress(PermissionError, ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _give_up(self) -> None:
        if self.running:
            self._stop_waiting()
            self._on_end(f"did not end within {self._seconds:.0f} s, and cannot be killed")

    def _ended(self) -> None:
        status = self._process.wait()
        awaited.pop(self._process.pid, None)
        self._stop_waiting()
        self._on_end(self._problem(status))

    def _stop_waiting(self) -> None:
        self._is_awaited = False
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        self._read()
        self._read()  # the second one finds the end of the output, unless another process holds the pipe
        if not self._output.closed:
            _keep_reading(self._output.fileno())
        self._stop_reading()
        self._transcript.end()

    def _problem(self, status: int) -> str | None:
        if self._is_late:
            return f"did not end within {self._seconds:.0f} s, and was killed"
        if status < 0:
            return f"was ended by signal {-status}"
        return f"failed with status {status}" if status else None


def ends_within(pidfd: int, seconds: float) -> bool:
    """Wait for a process to end, for `seconds` at most, and return whether it has ended."""
    poller = select.poll()  # unlike select(2), poll(2) accepts descriptors above 1023
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def _keep_reading(pipe: int) -> None:
    """Leave a process in the background that reads the pipe to its end, so that its writers can go on."""
    os.set_blocking(pipe, True)
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.Popen(
            ["/bin/sh", "-c", KEEP_READING],
            stdin=pipe,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": SYSTEM_PATH},
            cwd="/",
            start_new_session=True,
        ).wait(SECONDS_TO_DIE)


def run_and_wait(
    name: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    seconds: float | None = None,
    stdin: int = subprocess.DEVNULL,
    loop: Loop | None = None,
    patience: float | None = None,
) -> str | None:
    """Run a command to its end; return None for success, else what went wrong. Raises OSError if it cannot start.

    `loop`: served meanwhile, as by `Loop.finish`, so that the command can ask this process something. `patience`: how
    many seconds the command has left once the loop is stopped; then it is killed, and None is returned.
    """
    problems: list[str | None] = []
    served = loop or Loop()
    try:
        child = Child(name, arguments, environment, served, problems.append, seconds=seconds, stdin=stdin)
        if patience is None:
            served.finish(lambda: problems)
        elif not served.serve(lambda: bool(problems)):
            child.stop(patience)
            return None
    finally:
        if loop is None:
            served.close()
    return problems[0]


def child_environment() -> dict[str, str]:
    """Return the environment for programs of the operator or the system: PATH, and the variables in PASSED_ON."""
    return {"PATH": search_path(), **{name: os.environ[name] for name in PASSED_ON if name in os.environ}}


def search_path() -> str:
    """Return this process's PATH followed by the usual folders of system programs."""
    return ":".join(filter(None, (os.environ.get("PATH"), SYSTEM_PATH)))


class _Transcript:
    """Writer of a command's output to the log, line by line, with limits on the number and length of lines."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._partial = b""
        self._lines = 0

    def add(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._log_line(line)
        if len(self._partial) > LONGEST_LINE:
            self._partial = self._partial[: LONGEST_LINE + 1]

    def end(self) -> None:
        if self._partial:
            self._log_line(self._partial)

    def _log_line(self, line: bytes) -> None:
        self._lines += 1
        if self._lines <= MOST_LINES:
            more = "..." if len(line) > LONGEST_LINE else ""
            notice("%s: %s%s", self._name, line[:LONGEST_LINE].decode("utf-8", "replace"), more)
        elif self._lines == MOST_LINES + 1:
            log.warning("%s: further output is not shown", self._name)
