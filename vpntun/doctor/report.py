"""Report of findings as text, for people: one line for each finding, with its remedy below it.

    this machine
      ok       TUN device     /dev/net/tun opens
      warning  AEAD           ChaCha20-Poly1305 by libsodium, since the package cryptography is not installed
               -> /usr/bin/python3 -m pip install 'cryptography>=47'

Text that is longer than a line goes on below its beginning, so a narrow terminal shows columns too. A command in quotes
stays on one line, to be copied.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator

from vpntun.doctor.finding import VERDICTS, Finding, Verdict, counted
from vpntun.runtime.logform import escape

UNLIMITED = 1 << 16
LONGEST_VERDICT = max(map(len, VERDICTS))
LONGEST_CHECK = 13
BEFORE_REMEDY = 2 + LONGEST_VERDICT + 2
BEFORE_TEXT = BEFORE_REMEDY + LONGEST_CHECK + 2
NARROWEST_TEXT = 30
ARROW = "-> "
UNBROKEN_BLANK = "\xa0"

_quoted = re.compile(r"(?<!\w)'[^']+'(?!\w)")

Paint = Callable[[str, Verdict], str]
"""Gives a text the colour of a verdict."""


def heading(finding: Finding) -> str:
    """Return the heading of the findings about one thing."""
    return escape(finding.about) or "this machine"


def lines_of(finding: Finding, columns: int = UNLIMITED, paint: Paint = lambda text, _: text) -> Iterator[str]:
    """Write a finding and its remedy, each in one line unless `columns`, the width of a terminal, is too small."""
    columns = max(BEFORE_TEXT + NARROWEST_TEXT, columns)
    verdict = paint(finding.verdict.ljust(LONGEST_VERDICT), finding.verdict)
    first, *rest = _wrapped(finding.text, columns - BEFORE_TEXT)
    yield f"  {verdict}  {escape(finding.check):{LONGEST_CHECK}}  {first}".rstrip()
    for line in rest:
        yield " " * BEFORE_TEXT + line
    for line in _wrapped(finding.remedy, columns - BEFORE_REMEDY, ARROW) if finding.remedy else ():
        yield " " * BEFORE_REMEDY + line


def summary(findings: Iterable[Finding]) -> str:
    """Return the numbers of all verdicts in one line."""
    numbers = [_number(count, verdict) for verdict, count in counted(findings).items() if count]
    return ", ".join(numbers) or "no check was run"


def _number(count: int, verdict: Verdict) -> str:
    return f"{count} {verdict}s" if verdict == "warning" and count > 1 else f"{count} {verdict}"


def _wrapped(text: str, width: int, begin: str = "") -> list[str]:
    """Cut a text into lines between its words. What is longer than a line stays whole: a path, a command in quotes."""
    text = _quoted.sub(lambda command: command[0].replace(" ", UNBROKEN_BLANK), escape(text))
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=begin,
        subsequent_indent=" " * len(begin),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(UNBROKEN_BLANK, " ") for line in lines] or [begin]
