"""Screen of a terminal: its modes and its alternate screen, changed while the view is shown, and restored at the end.

Keys arrive at once and are not echoed. Whatever ends the view, the terminal is as before: the cursor is visible, and
what was on the screen is there again. A terminal that is gone, or takes no more output, does not hold up the end.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
from contextlib import suppress
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

from vpntun.watch.signals import EndedBySignal

RESTORED = b"\x1b[0m\x1b[?1049l\x1b[?25h"
"""Control sequences for the usual attributes, the usual screen, and a visible cursor."""
_LOCAL_MODES, _SPECIAL_CHARACTERS = 3, 6
"""Indices into what tcgetattr returns."""


class Screen:
    """The view's terminal, for use in a `with` statement. Raises OSError once the terminal is gone."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._keyboard = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._modes: list[Any] | None = None
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        try:
            self._take()
        except BaseException as error:
            self.__exit__(type(error))
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with suppress(OSError, termios.error):
            if kind is not None and issubclass(kind, (EndedBySignal, OSError)):
                self._discard_output()
            self._give_back()

    @property
    def keyboard(self) -> list[int]:
        """The descriptor that keys come from, in a list that is empty if standard input is not a terminal."""
        return [] if self._keyboard is None else [self._keyboard]

    def keys(self) -> str:
        """Return the keys that were typed. Raises OSError once the terminal is gone."""
        if self._keyboard is None:
            return ""
        typed = os.read(self._keyboard, 1024)
        if not typed:
            raise OSError("the terminal was closed")
        return typed.decode("ascii", "replace")

    def draw(self, page: RenderableType) -> None:
        """Show a page."""
        if self._live is not None:
            self._live.update(page, refresh=True)

    def stop_process(self) -> None:
        """Give the terminal back and stop this process, as Ctrl-Z does; go on once it continues."""
        self._give_back()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._take()

    def _discard_output(self) -> None:
        """Restore the screen and discard all other output: a write may have been interrupted because nobody reads."""
        output = self._console.file.fileno()
        with suppress(OSError, termios.error):
            termios.tcflush(output, termios.TCOFLUSH)
            termios.tcflow(output, termios.TCOON)  # ends what Ctrl-S has begun
            os.write(output, RESTORED)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, output)
        os.close(nowhere)

    def _take(self) -> None:
        if self._keyboard is not None:
            self._modes = termios.tcgetattr(self._keyboard)
            changed = termios.tcgetattr(self._keyboard)
            changed[_LOCAL_MODES] &= ~(termios.ICANON | termios.ECHO)
            changed[_SPECIAL_CHARACTERS][termios.VMIN], changed[_SPECIAL_CHARACTERS][termios.VTIME] = 1, 0
            termios.tcsetattr(self._keyboard, termios.TCSANOW, changed)
        live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        live.start()
        self._live = live  # only now: one that has not quite started cannot be stopped

    def _give_back(self) -> None:
        if self._keyboard is not None and self._modes is not None:
            termios.tcsetattr(self._keyboard, termios.TCSANOW, self._modes)
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()
