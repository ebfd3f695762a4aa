"""Command `doctor`: examines this machine and its tunnels, and prints what is wrong and what to do about it.

It changes nothing, and each check has a time limit. Findings are printed as soon as they are known.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import click

from vpntun.cli.run_options import FILE
from vpntun.doctor.examination import Check, examine
from vpntun.doctor.finding import Finding, Verdict, as_json, counted
from vpntun.doctor.keys import examine_key
from vpntun.doctor.machine import examine_machine
from vpntun.doctor.program import examine_program
from vpntun.doctor.report import UNLIMITED, heading, lines_of, summary
from vpntun.errors import CheckFailed

COLOURS: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "cyan"}


@click.command()
@click.option("-k", "--key", type=FILE, metavar="FILE", help="Shared key file to examine (default: the usual one).")
@click.option("--json", "as_object", is_flag=True, help="Print JSON.")
def doctor(key: Path | None, as_object: bool) -> None:
    """Examine this machine and its tunnels, and say what is wrong and what to do.

    Nothing is changed. The exit status is 12 if a check has failed.
    """
    findings = examine(checks_of_machine(key))
    if as_object:
        found = list(findings)
        click.echo(json.dumps(as_json(found), indent=2))
    else:
        found = list(_printed(findings))
        click.echo(f"\n{summary(found)}")
    failed = counted(found)["failed"]
    if failed:
        raise CheckFailed(f"{failed} {'check has' if failed == 1 else 'checks have'} failed: see the remedies")


def checks_of_machine(key: Path | None = None) -> Iterator[Check]:
    """Yield the checks that need no tunnel. `key`: a shared key file, None for the usual one."""
    yield Check("machine", examine_machine)
    yield Check("program", examine_program)
    yield Check("key file", partial(examine_key, key))


def _printed(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Print findings, with a heading above those about one thing, and pass them on."""
    columns, title = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED, None
    for finding in findings:
        if heading(finding) != title:
            if title is not None:
                click.echo()
            title = heading(finding)
            click.echo(title)
        for line in lines_of(finding, columns, _painted):
            click.echo(line)
        yield finding


def _painted(text: str, verdict: Verdict) -> str:
    """Colour a text; click removes the colour again where the output is no terminal."""
    return click.style(text, fg=COLOURS[verdict])
