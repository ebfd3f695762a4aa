"""Shell commands of a configuration file: the lines PreUp, PostUp, PreDown and PostDown, run in order.

1. bash runs each line as wg-quick does: the first command that fails ends the line (`-e`, `pipefail`), and extglob is
   on. Without bash, sh runs it.
2. A line gets no input, a small environment without secrets, and two minutes; then it is killed with everything it has
   started. Its output is logged. The line itself never is, since it may contain a secret.
3. A PreUp or PostUp line that fails ends the start, and the lines after it are not run. After a PreDown or PostDown
   line that fails, a notice is logged and the next line runs.
4. `run` waits for the lines. `start` runs them beside the loop, for PostUp lines, which may use the tunnel. `serve`
   waits for them before the loop runs, and serves it. If the tunnel ends while a line is running, it gets a few seconds
   more, and is then killed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Literal

from vpntun.errors import HookFailed
from vpntun.runtime.child import Child, child_environment, run_and_wait, search_path
from vpntun.runtime.log import log, notice
from vpntun.runtime.loop import Loop

When = Literal["PreUp", "PostUp", "PreDown", "PostDown"]

SECONDS_A_LINE = 120.0
PATIENCE_AT_THE_END = 5.0


class ShellLines:
    """The lines of one kind, such as PreUp, in order."""

    def __init__(self, when: When, lines: Sequence[str], seconds: float = SECONDS_A_LINE) -> None:
        self._when = when
        self._lines = lines
        self._seconds = seconds
        self._child: Child | None = None

    def run(self, loop: Loop | None = None) -> None:
        """Run all lines, and wait for them. Raises HookFailed if a PreUp or PostUp line fails.

        `loop`: served meanwhile, so that a line can ask the tunnel something, also after the loop's end.
        """
        for number in range(len(self._lines)):
            try:
                problem = run_and_wait(
                    self._when, self._command(number), child_environment(), seconds=self._seconds, loop=loop
                )
            except (OSError, ValueError) as error:
                problem = f"cannot be run: {error}"
            self._judge(number, problem)

    def start(self, loop: Loop, on_end: Callable[[HookFailed | None], None]) -> None:
        """Run all lines beside the loop. `on_end` is called once, with the error that `run` would raise, or None."""
        self._start_from(0, loop, on_end)

    def serve(self, loop: Loop) -> bool:
        """Run all lines, and serve the loop meanwhile. Return False if it was stopped. Raises HookFailed as `run`."""
        ends: list[HookFailed | None] = []
        self.start(loop, ends.append)
        if not loop.serve(lambda: bool(ends)):
            self.stop()
            return False
        if ends[0] is not None:
            raise ends[0]
        return True

    def stop(self) -> None:
        """End the line that `start` is running, after a few seconds of patience, and run no other."""
        if self._child is not None:
            self._child.stop(PATIENCE_AT_THE_END)

    def _start_from(self, number: int, loop: Loop, on_end: Callable[[HookFailed | None], None]) -> None:
        if number == len(self._lines):
            on_end(None)
            return

        def ended(problem: str | None) -> None:
            try:
                self._judge(number, problem)
            except HookFailed as error:
                on_end(error)
            else:
                self._start_from(number + 1, loop, on_end)

        try:
            self._child = Child(
                self._when, self._command(number), child_environment(), loop, ended, seconds=self._seconds
            )
        except (OSError, ValueError) as error:
            ended(f"cannot be run: {error}")

    def _command(self, number: int) -> list[str]:
        log.info("running line %d of %s", number + 1, self._when)
        return [*_shell(), self._lines[number]]

    def _judge(self, number: int, problem: str | None) -> None:
        if problem is None:
            return
        text = f"line {number + 1} of {self._when} {problem}"
        if self._when in ("PreUp", "PostUp"):
            raise HookFailed(f"the tunnel is not started: {text}. Correct the line, or remove it")
        notice("%s", text)


def _shell() -> list[str]:
    bash = shutil.which("bash", path=search_path())
    return [bash, "-O", "extglob", "-e", "-o", "pipefail", "-c"] if bash else ["/bin/sh", "-e", "-c"]
