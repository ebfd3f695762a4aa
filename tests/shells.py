"""A shell in a terminal of each machine, in which a test types an example of the documents exactly as it stands.

What a terminal shows after a command must be what the document shows, except for what differs from run to run, such as
numbers and keys (`form`), and a line `...` in the document stands for any number of lines.
"""

from __future__ import annotations

import re
from contextlib import ExitStack

from tests.documents import Step, steps
from tests.reader import Reader
from tests.terminal import Terminal

LEFT_OUT = "..."
ASKING = "code that the other end shows:"
LIVE = " --watch"
SHELL = ("bash", "--norc", "--noprofile", "--noediting", "-i")
WIDE, NARROW = (240, 80), (80, 24)
LIMIT = 60.0
"""Seconds for one command. The longest one waits for the client to change to TCP."""

EXACT_AFTER = r"(?<!status )(?<!mtu: )(?<!\} )"
EXACT_BEFORE = r"(?! failed| packets (transmitted|captured)| received,|% packet loss)"
"""Words beside a number that matters: an exit status, a metric, a count."""

ALIKE = (
    (r"^\[\d+\][+-] .*|^ +(loss|delivered|queue|dropped): .*", ""),  # news of the shell; what is not always there
    (r"\d\d:\d\d:\d\d\.\d+", "TIME"),
    (r"[\w+/]{43}=|(?<=peer )[\w+/]{10}(?=:)|(?<=peer=\")[^\"]+", "KEY"),
    (rf"\b0x[0-9a-f]+|(?<![\w.:]){EXACT_AFTER}\d+(\.\d+)?(ms)?(?![\w.:]){EXACT_BEFORE}", "N"),
    (r"N (hour|minute|second)s?(, N (minute|second)s?)?", "SPAN"),
    (r"\b[kMG]i?(?=B\b|bit/s)", ""),
    (r"(?<=N ok), N warnings?", ""),  # of this machine's clock and interpreter
    (r"(?<=code: )\S+|(?<=shows: )\S+", "CODE"),
    (r"[^\S\n]+", " "),
    (r"^ ", ""),
)


class Shells:
    """The terminals of a reader, for use in a `with` statement."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._open = ExitStack()
        self._terminals: dict[str, Terminal] = {}
        self._code = ""

    def __enter__(self) -> Shells:
        for where in self._reader.machines:
            terminal = self._reader.shell(where, SHELL)
            self._terminals[where] = self._open.enter_context(terminal)
            terminal.resize(*WIDE)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def type(self, block: str) -> None:
        """Type the commands of a block, one after the other, and check what each prints."""
        for step in steps(block):
            terminal = self._terminals[step.prompt[:-1]]
            _wait_for_prompt(terminal, step.prompt)
            terminal.screen.reset()
            if LIVE in step.command:
                self._watch(terminal, step)
            else:
                self._take(terminal, step)

    def _take(self, terminal: Terminal, step: Step) -> None:
        terminal.type(f"{self._reader.translated(step.command)}\n")
        if "type it at" in "".join(step.output):  # the command goes on once the code is typed at the other machine
            terminal.wait_for("type it at")
            self._code = re.findall(r"code: (\S+)", terminal.text)[0]
        else:
            if ASKING in "".join(step.output):
                terminal.wait_for(ASKING)
                terminal.type(f"{self._code.lower()}\n")
            _wait_for_prompt(terminal, step.prompt)
        said, expected = printed(terminal, step.prompt), self._reader.translated("\n".join(step.output))
        assert re.fullmatch(pattern(expected), form(said)), f"{step.command}\n{form(said)}\nis not\n{form(expected)}"

    def _watch(self, terminal: Terminal, step: Step) -> None:
        """Look at a live view until it shows the words of each line of the document, and leave it."""
        terminal.resize(*NARROW)
        terminal.type(f"{step.command}\n")
        wanted = [labels(line) for line in step.output if line]
        terminal.until(lambda: all(each in map(labels, terminal.lines) for each in wanted), f"for {wanted}")
        terminal.type("q")
        _wait_for_prompt(terminal, step.prompt)
        terminal.resize(*WIDE)


def labels(line: str) -> list[str]:
    """Return the words of a line of the live view, without values and units."""
    return [word for word in line.split() if re.fullmatch("[a-z-]{4,}|up|down|q|UDP|MTU|tun11", word)]


def form(text: str) -> str:
    """Return an output without what differs from run to run, and without empty lines."""
    for differing, alike in ALIKE:
        text = re.sub(differing, alike, text, flags=re.MULTILINE)
    return "".join(f"{line}\n" for line in text.splitlines() if line.strip())


def pattern(shown: str) -> str:
    """Return the regular expression of the outputs that have the form of what a document shows."""
    lines = form(shown).splitlines()
    return "".join(r"(?:.*\n)*" if line == LEFT_OUT else re.escape(f"{line}\n") for line in map(str.strip, lines))


def printed(terminal: Terminal, prompt: str) -> str:
    """Return what the terminal shows between a command and the next prompt."""
    return "\n".join(line for line in terminal.lines[1:] if line != prompt)


def _wait_for_prompt(terminal: Terminal, prompt: str) -> None:
    terminal.until(lambda: terminal.text.rstrip().endswith(prompt), f"for {prompt}", LIMIT)
