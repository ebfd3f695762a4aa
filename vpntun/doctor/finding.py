"""Finding: the result of one check, in one sentence, with the remedy if something is wrong.

ok         what was examined works
warning    it works, but slower or less safely than it could; or it may be intended
failed     it cannot work: a tunnel does not start, or packets do not arrive
skipped    nobody knows: the text says what prevents the check, such as a missing right
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from vpntun.errors import VpntunError

MOST_ALIKE = 8

_place = re.compile(r"\S+: ")

Verdict = Literal["ok", "warning", "failed", "skipped"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    `check`: its name, in two or three words. `text`: what was found. `remedy`: what to do, "" if nothing. `about`: the
    tunnel's interface, or whatever else was examined; "" is this machine.
    """

    check: str
    verdict: Verdict
    text: str
    remedy: str = ""
    about: str = ""


def ok(check: str, text: str) -> Finding:
    """Make a finding that needs no attention."""
    return Finding(check, "ok", text)


def warning(check: str, text: str, remedy: str) -> Finding:
    """Make a finding that may be intended."""
    return Finding(check, "warning", text, remedy)


def failed(check: str, text: str, remedy: str) -> Finding:
    """Make a finding that has to be mended."""
    return Finding(check, "failed", text, remedy)


def skipped(check: str, why: str, remedy: str = "") -> Finding:
    """Make a finding about something that could not be examined, with the reason and how to have it examined."""
    return Finding(check, "skipped", f"not checked: {why}", remedy)


def refused(check: str, error: VpntunError) -> Finding:
    """Make a finding of an error of this program."""
    return failed(check, *parts_of(error))


def parts_of(error: VpntunError) -> tuple[str, str]:
    """Split an error's message into what is wrong and, after the first colon, what to do; a place may come before."""
    message = str(error)
    place = _place.match(message)
    text, _, remedy = message[place.end() if place else 0 :].partition(": ")
    return (place[0] if place else "") + text, remedy


def bounded(findings: Iterable[Finding], most: int = MOST_ALIKE) -> Iterator[Finding]:
    """Pass findings on, at most `most` of each check and verdict, and count the others: there may be 1,000 peers."""
    numbers: Counter[tuple[str, Verdict]] = Counter()
    for finding in findings:
        kind = finding.check, finding.verdict
        numbers[kind] += 1
        if numbers[kind] <= most:
            yield finding
    for (check, verdict), number in numbers.items():
        if number > most:
            yield Finding(check, verdict, f"{number - most:,} more like these", "mend those first, and look again")


def counted(findings: Iterable[Finding]) -> dict[Verdict, int]:
    """Count the findings by verdict, in the order of VERDICTS."""
    verdicts = [finding.verdict for finding in findings]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}


def as_json(findings: Iterable[Finding]) -> dict[str, Any]:
    """Return all findings, and their numbers by verdict, as a JSON object."""
    findings = list(findings)
    return {"findings": [asdict(finding) for finding in findings], "summary": counted(findings)}
