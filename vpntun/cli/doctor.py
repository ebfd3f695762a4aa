"""Command `doctor`: examines this machine and its tunnels, and prints what is wrong and what to do about it.

It changes nothing, and each check has a time limit. Findings are printed as soon as they are known.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from vpntun.cli.run_options import FILE
from vpntun.config.finding import find_file, interface_of
from vpntun.control.client import ControlClient, running_interfaces
from vpntun.doctor.clock import examine_clock
from vpntun.doctor.examination import Check, examine
from vpntun.doctor.finding import Finding, Verdict, as_json, counted
from vpntun.doctor.host import KernelHost
from vpntun.doctor.keys import examine_key
from vpntun.doctor.machine import examine_machine
from vpntun.doctor.program import examine_program
from vpntun.doctor.report import UNLIMITED, heading, lines_of, summary
from vpntun.doctor.tunnel import check_of_file, check_of_running
from vpntun.errors import CheckFailed, VpntunError
from vpntun.runtime.log import open_log

COLOURS: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "cyan"}
PATIENCE = 3.0
"""Seconds to wait for each answer of a tunnel."""


@click.command()
@click.argument("subject", metavar="[INTERFACE|FILE|NAME]", required=False)
@click.option("-k", "--key", type=FILE, metavar="FILE", help="Shared key file to examine (default: the usual one).")
@click.option("--json", "as_object", is_flag=True, help="Print JSON.")
def doctor(subject: str | None, key: Path | None, as_object: bool) -> None:
    """Examine this machine and its tunnels, and say what is wrong and what to do.

    Without an argument all running tunnels of this network namespace are examined, otherwise the one of INTERFACE, or
    of a configuration FILE, whether it runs or not. NAME is looked for as by 'up'. Nothing is changed. The exit status
    is 12 if a check has failed.
    """
    open_log("", 0)
    tunnels = checks_of_tunnels() if subject is None else checks_of_tunnel(subject)
    findings = examine([*checks_of_machine(key), *tunnels])
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
    yield Check("clock", examine_clock)
    yield Check("key file", partial(examine_key, key))


def checks_of_tunnels() -> Iterator[Check]:
    """Yield the checks of all running tunnels."""
    for interface in running_interfaces():
        yield check_of_running(interface, partial(_ask, interface), KernelHost())


def checks_of_tunnel(called: str) -> Iterator[Check]:
    """Yield the checks of one tunnel, by its interface or its file. Raises ConfigurationError if there is neither."""
    path, running = None, running_interfaces()
    if called not in running or "/" in called:
        path = find_file(called)
    else:
        with suppress(VpntunError):
            path = find_file(called)
    interface = interface_of(path) if path is not None else called
    is_running = interface in running
    if path is not None:
        yield check_of_file(path, interface, KernelHost(), is_running=is_running)
    if is_running:
        yield check_of_running(interface, partial(_ask, interface), KernelHost())


def _ask(interface: str, target: str) -> dict[str, Any]:
    with ControlClient(interface, PATIENCE) as tunnel:
        return tunnel.ask("GET", target)


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
