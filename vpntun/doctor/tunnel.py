"""One tunnel, running or not: all checks of it that need no answer from another machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from vpntun.config.file import read_file
from vpntun.config.tunnel import Tunnel
from vpntun.doctor.bridge import examine_bridge
from vpntun.doctor.examination import Check, examine
from vpntun.doctor.finding import Finding, bounded, ok, parts_of, warning
from vpntun.doctor.forwarding import examine_filter, examine_firewall, examine_forwarding
from vpntun.doctor.host import Host
from vpntun.doctor.keys import examine_file
from vpntun.doctor.program import facts_in, judge_running, program_facts
from vpntun.doctor.routes import examine_default, examine_endpoints, examine_mtu, examine_overlaps
from vpntun.doctor.running import examine_device, examine_drops, examine_kinds
from vpntun.doctor.subject import Subject, of_file, of_running
from vpntun.errors import VpntunError
from vpntun.runtime.log import log

Ask = Callable[[str], Mapping[str, Any]]
"""Asks a running tunnel: takes the path of a GET request, and raises VpntunError if there is no answer."""
LookAtHost = Callable[[Subject, Host], Iterator[Finding]]

SECONDS_OF_A_TUNNEL = 60.0
OF_THE_HOST: dict[str, LookAtHost] = {
    "route to peer": examine_endpoints,
    "overlaps": examine_overlaps,
    "full tunnel": examine_default,
    "MTU": examine_mtu,
    "forwarding": examine_forwarding,
    "rp_filter": examine_filter,
    "firewall": examine_firewall,
    "bridge": examine_bridge,
}


def check_of_running(interface: str, ask: Ask, host: Host) -> Check:
    """Return the check of a tunnel that runs, which runs all others."""
    return Check("tunnel", partial(_examine_running, ask, host), interface, SECONDS_OF_A_TUNNEL)


def check_of_file(path: Path, interface: str, host: Host, *, is_running: bool = False) -> Check:
    """Return the check of a configuration file, and unless its tunnel runs, of what `up` would make of it."""
    look = partial(_examine_file, path, interface, host, is_running=is_running)
    return Check("configuration", look, interface, SECONDS_OF_A_TUNNEL)


def _examine_running(ask: Ask, host: Host) -> Iterator[Finding]:
    status = ask("/v1/status")
    try:
        facts = ask("/v1/doctor")
    except VpntunError:  # an older version
        facts = {}
    subject = of_running(status, facts)
    program = facts_in(facts.get("program", {"version": status["version"]}))
    yield from examine(
        [
            Check("version", lambda: judge_running(program, program_facts())),
            Check("offloads", partial(examine_device, subject)),
            Check("device", lambda: bounded(examine_kinds(subject))),
            Check("drops", lambda: bounded(examine_drops(subject))),
            *checks_of(subject, host),
        ]
    )


def _examine_file(path: Path, interface: str, host: Host, *, is_running: bool) -> Iterator[Finding]:
    read: list[Tunnel] = []
    yield from examine(
        [
            Check("file", partial(examine_file, path)),
            Check("configuration", partial(_read, path, interface, read)),
        ]
    )
    if not is_running:
        for tunnel in read:
            yield from examine(checks_of(of_file(tunnel), host))


def _read(path: Path, interface: str, read: list[Tunnel]) -> Iterator[Finding]:
    """Read a file, and append its tunnel to `read`. What is logged meanwhile becomes a warning."""
    tunnel, notices = read_quietly(path, interface)
    read.append(tunnel)
    for text in notices:
        yield warning("configuration", *parts_of(VpntunError(text)))
    yield ok("configuration", f"{path} has {len(tunnel.peers)} peer{'s' * (len(tunnel.peers) != 1)} and no errors")


def read_quietly(path: Path, interface: str) -> tuple[Tunnel, list[str]]:
    """Read a file; return its tunnel, and what would be logged. Raises VpntunError."""
    notices = _Notices()
    former, log.handlers = log.handlers, [notices]
    try:
        return read_file(path, interface), notices.texts
    finally:
        log.handlers = former


def checks_of(subject: Subject, host: Host) -> Iterator[Check]:
    """Yield the checks for which a running tunnel and a file are alike."""
    for name, look in OF_THE_HOST.items():
        yield Check(name, partial(_look, look, subject, host))


def _look(look: LookAtHost, subject: Subject, host: Host) -> Iterator[Finding]:
    return bounded(look(subject, host))


class _Notices(logging.Handler):
    """What is logged while a file is read; another check looks at the file's mode."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "chmod" not in (text := record.getMessage()):
            self.texts.append(text)
