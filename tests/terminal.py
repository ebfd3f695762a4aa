"""A program in a pseudo-terminal: the test types keys, and reads what the screen shows.

    with Terminal([sys.executable, "-m", "vpntun", "show", "--watch"], columns=80, rows=24) as terminal:
        terminal.wait_for("connected")
        terminal.type("q")
        assert terminal.wait() == 0

pyte plays the terminal. It knows no second screen: what a program draws on the alternate one stays in `lines` after the
program has left it. A test that wants to know what a program sent, such as colours, looks into `output`.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyte

CHECKOUT = Path(__file__).parents[1]
COLOUR = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[0-9;]*m")
"""A control sequence that sets the colour of characters or of their background."""
CTRL_C, CTRL_Z = "\x03", "\x1a"


class Terminal:
    """A program in a pseudo-terminal of its own, for use in a `with` statement, which ends the program at last.

    `process` is the program. Its environment is that of the tests with `env` on top, and a usual TERM; what it writes
    is `output`. A variable whose value is None is removed.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        columns: int = 80,
        rows: int = 24,
        env: Mapping[str, str | None] | None = None,
        cwd: Path = CHECKOUT,
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.output = bytearray()
        self._stream = pyte.ByteStream(self.screen)
        self._ours, self._its = pty.openpty()
        self.resize(columns, rows)
        self.modes_before = self.modes()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *map(str, command)],  # it runs the command in its own place
            stdin=self._its,
            stdout=self._its,
            stderr=self._its,
            env=_environment(env or {}),
            cwd=cwd,
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.hang_up()

    def type(self, keys: str) -> None:
        """Type keys; CTRL_C and CTRL_Z are keys, too."""
        os.write(self._ours, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size, of which the kernel informs the program by SIGWINCH."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def stop_output(self) -> None:
        """Let the terminal take no more output, as Ctrl-S does: the program waits in its next write."""
        termios.tcflow(self._its, termios.TCOOFF)

    def hang_up(self) -> None:
        """Close the terminal, as a closed window does: the program gets SIGHUP, and can write no more."""
        for descriptor in (self._ours, self._its):
            with suppress(OSError):
                os.close(descriptor)
        self._ours = self._its = -1

    def modes(self) -> list[Any]:
        """Return the modes of the terminal (termios(3)): a program has to restore those that it changes."""
        return termios.tcgetattr(self._its)

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, without the blanks at their ends."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        """The screen as one text."""
        return "\n".join(self.lines)

    def until(self, condition: Callable[[], object], what: str = "", seconds: float = 20) -> None:
        """Read what the program writes until the condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds} s in vain {what}; {self}"
            self._read(0.05)

    def wait_for(self, text: str, seconds: float = 20) -> None:
        """Read what the program writes until the screen shows a text."""
        self.until(lambda: text in self.text, f"for {text!r}", seconds)

    def wait(self, seconds: float = 20) -> int:
        """Read what the program writes until it ends, and return its exit status; -N if signal N ended it."""
        self.until(lambda: self.process.poll() is not None, "for the end", seconds)
        while self._read(0):
            pass
        return self.process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program."""
        self.process.send_signal(number)

    def _read(self, seconds: float) -> bool:
        """Wait this long for something that the program writes, show it, and return whether there was anything."""
        if self._ours < 0:
            time.sleep(seconds)
            return False
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        written = os.read(self._ours, 65536)
        self.output += written
        self._stream.feed(written)
        return bool(written)

    def __str__(self) -> str:
        status = self.process.poll()
        state = "running" if status is None else f"status {status}"
        return f"{self.process.args!r} ({state}) shows:\n{self.text}"


def _environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    usual: dict[str, str | None] = {"TERM": "xterm-256color", "LANG": "C.UTF-8"}
    absent = dict.fromkeys(("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "LINES", "LC_ALL"))
    wanted: dict[str, str | None] = {**os.environ, **absent, **usual, **changes}
    return {name: value for name, value in wanted.items() if value is not None}
