"""The terminal of --pair: the server's code is shown on it, and the client's code is typed there.

The code goes to a terminal and nowhere else: not to a log, a file or a journal.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from vpntun.config.tunnel import DEFAULT_PORT
from vpntun.crypto.pairing import parse_code
from vpntun.errors import ConfigurationError, PairingFailed
from vpntun.runtime.log import tell
from vpntun.types import Transport

LONGEST_LINE = 1024


def check_terminal() -> None:
    """Raise ConfigurationError if no terminal could show a code."""
    _terminal()


def show_code(code: str, port: int, transport: Transport | None) -> None:
    """Show a code, and the command that asks for it, with the options that both ends have to share.

    `transport`: as given, None if it was not. Raises PairingFailed if the terminal is gone.
    """
    option = "" if port == DEFAULT_PORT else f" -p {port}"
    if transport not in (None, "auto"):
        option += f" --transport {transport}"
    try:
        print(
            f"code: {code} (good once, for ten minutes)\n"
            f"type it at the other machine: vpntun -c THIS-HOST -i NAME{option} --pair",
            file=_terminal(),
            flush=True,
        )
    except OSError as error:
        raise PairingFailed(f"the code cannot be shown ({error.strerror}): the terminal has been closed") from None


def ask_code() -> str:
    """Ask for the code until one is typed that could be right. Raises PairingFailed at the end of the input."""
    while True:
        line = _answer_to("code that the other end shows: ")
        if not line or len(line) == LONGEST_LINE:
            raise PairingFailed("no code was given: type the code that the other end shows, or give it on stdin")
        try:
            return parse_code(line.decode("utf-8", "replace"))
        except ConfigurationError as error:
            print(error, file=sys.stderr, flush=True)


def tell_paired(where: str, path: Path) -> None:
    """Say that both ends have the key. The tunnel's addresses, by which people can compare it, follow at its start."""
    tell("paired with %s: the key is in %s", where, path)


def tell_broken_off(path: Path) -> None:
    """Say that the other end may have a key, unless this end has it, too: a signal may come just after that."""
    if not os.path.lexists(path):
        tell("no key was written here; if the other end has made a key file just now, remove it there")


def _answer_to(question: str) -> bytes:
    """Ask for a line of input. Return it, without more than LONGEST_LINE bytes; nothing at the end of the input."""
    line = b""
    with suppress(OSError):  # the terminal has been closed
        print(question, end="", file=sys.stderr, flush=True)
        line = sys.stdin.buffer.readline(LONGEST_LINE)
        if not line or not sys.stdin.isatty():
            print(file=sys.stderr, flush=True)  # which a terminal's own Enter has done otherwise
    return line


def _terminal() -> TextIO:
    for stream in (sys.stderr, sys.stdout):
        if stream.isatty():
            return stream
    raise ConfigurationError(
        "--pair shows a code, and there is no terminal to show it on: run it by hand, over ssh with -t, and start the "
        "service afterwards, without --pair"
    )
