"""Command `doctor`: examines this machine and its tunnels, and prints what is wrong and what to do about it.

It changes nothing, except that a link over TCP may return to UDP (reach/other_carrier.py). Each check has a time
limit. Findings are printed as soon as they are known.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import click

from vpntun.cli.run_options import FILE
from vpntun.config import values
from vpntun.config.finding import find_file, interface_of
from vpntun.config.keys import Keys, shared_keys, wireguard_keys
from vpntun.config.tunnel import DEFAULT_PORT
from vpntun.control.client import ControlClient, interfaces_of_root, running_interfaces
from vpntun.crypto.keys import format_key
from vpntun.doctor.clock import examine_clock
from vpntun.doctor.examination import Check, examine
from vpntun.doctor.finding import Finding, Verdict, as_json, counted
from vpntun.doctor.host import KernelHost
from vpntun.doctor.inside.other_end import checks_of_other_ends
from vpntun.doctor.keys import examine_key
from vpntun.doctor.machine import examine_machine
from vpntun.doctor.program import examine_program
from vpntun.doctor.reach.links import SECONDS_OF_LINKS, examine_links
from vpntun.doctor.reach.other_carrier import Trials
from vpntun.doctor.reach.target import SECONDS_OF_CALLS, Target, checks_of_target, targets_of
from vpntun.doctor.report import UNLIMITED, heading, lines_of, summary
from vpntun.doctor.tunnel import check_of_file, check_of_running, read_quietly
from vpntun.errors import CheckFailed, ConfigurationError, PrivilegeError, VpntunError
from vpntun.runtime.log import open_log
from vpntun.types import TRANSPORTS, Transport

COLOURS: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "cyan"}
MOST_CALLED = 4
"""Peers of a configuration file that are called."""
PATIENCE = 3.0
"""Seconds to wait for each answer of a tunnel."""


@click.command()
@click.argument("subject", metavar="[INTERFACE|FILE|NAME|HOST]", required=False)
@click.option("-k", "--key", type=FILE, metavar="FILE", help="Shared key file to examine (default: the usual one).")
@click.option(
    "-p",
    "--port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help=f"Port of HOST to call (default: {DEFAULT_PORT}).",
)
@click.option("--private-key", type=FILE, metavar="FILE", help="WireGuard private key file to call HOST with.")
@click.option("--peer", metavar="PUBLICKEY", help="Public key of HOST.")
@click.option("--psk", type=FILE, metavar="FILE", help="Preshared key file of HOST.")
@click.option("--transport", type=click.Choice(TRANSPORTS), help="How to call HOST (default: auto; udp with --peer).")
@click.option("-q", "--quiet", is_flag=True, help="Print only what is not ok, and the numbers.")
@click.option("--json", "as_object", is_flag=True, help="Print JSON.")
def doctor(subject: str | None, key: Path | None, quiet: bool, as_object: bool, **call: Any) -> None:
    """Examine this machine and its tunnels, and say what is wrong and what to do.

    Without an argument all running tunnels of this network namespace are examined, otherwise the one of INTERFACE, or
    of a configuration FILE, whether it runs or not. NAME is looked for as by 'up'. A HOST is called, as a client would
    by the same options: only an answer made with the right keys counts. A running tunnel also tries the carrier that it
    does not use. Nothing is changed, except that a link may return from TCP to UDP. The exit status is 12 if a check
    has failed.
    """
    if quiet and as_object:
        raise click.UsageError("--quiet and --json exclude each other")
    open_log("", 0)
    if subject is None:
        _refuse_options_of_a_call(call)
        checks = checks_of_tunnels()
    elif is_host(subject, has_options=key is not None or any(call.values())):
        checks = checks_of_host(subject, key, **call)
    else:
        _refuse_options_of_a_call(call)
        checks = checks_of_tunnel(subject)
    findings = examine([*checks_of_machine(key), *checks])
    if as_object:
        found = list(findings)
        click.echo(json.dumps(as_json(found), indent=2))
    else:
        found = list(_printed(findings, quiet=quiet))
        click.echo(summary(found))
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
        yield from _checks_of_running(interface)


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
    if path is not None and not is_running:
        yield Check("reach", partial(_examine_calls, path, interface), interface, SECONDS_OF_CALLS)
    if is_running:
        yield from _checks_of_running(interface)


def _examine_calls(path: Path, interface: str) -> Iterator[Finding]:
    """Call the peers that a configuration file names, as the tunnel would. What is wrong with the file is said before.

    A server, which calls nobody, gets no finding.
    """
    with suppress(VpntunError):
        tunnel, _ = read_quietly(path, interface)
        for target, keys in islice(targets_of(tunnel), MOST_CALLED):
            yield from examine(checks_of_target(target, partial(_same, keys), _tunnel_with))


def _same(keys: Keys) -> Keys:
    return keys


def _checks_of_running(interface: str) -> Iterator[Check]:
    """Yield the checks of a tunnel that runs, and of the other ends, which are asked meanwhile.

    The carriers that its links do not use are tried meanwhile, too.
    """
    request = partial(_request, interface)
    trials = Trials(request)
    others = checks_of_other_ends(interface, request)
    yield check_of_running(interface, partial(request, "GET"), KernelHost())
    yield Check("link", partial(examine_links, request, trials), interface, SECONDS_OF_LINKS)
    yield from others


def is_host(called: str, *, has_options: bool) -> bool:
    """Whether an argument names a machine to call. Running tunnels and configuration files come first.

    `has_options`: whether options of a call are given, without which a short name is no machine's. A user who may not
    look into the folders of files means a machine where there can be a doubt.
    """
    if "/" in called or called.endswith(".conf") or called in running_interfaces():
        return False
    is_like_a_host = has_options or "." in called or ":" in called
    try:
        find_file(called)
    except PrivilegeError:
        return is_like_a_host
    except ConfigurationError as error:
        if is_like_a_host:
            return True
        raise ConfigurationError(
            f"no tunnel {called} runs here, and {error}; to call a machine of this name, give -k or -p as well"
        ) from None
    return False


def checks_of_host(
    called: str,
    key: Path | None,
    port: int | None,
    transport: Transport | None,
    private_key: Path | None,
    peer: str | None,
    psk: Path | None,
) -> Iterator[Check]:
    """Return the checks of another machine. Raises ConfigurationError for what is no host, and UsageError."""
    if private_key is None and (peer or psk):
        raise click.UsageError("--peer and --psk require --private-key")
    if private_key is not None and (key is not None or peer is None):
        raise click.UsageError("--private-key requires --peer, the public key of HOST, and no -k")
    host = values.host(called)
    has_shared_key = private_key is None or peer is None
    target = Target(host, port or DEFAULT_PORT, transport or ("auto" if has_shared_key else "udp"), has_shared_key)

    def read_keys() -> Keys:
        if private_key is None or peer is None:
            return shared_keys("client", key, host)
        return wireguard_keys(private_key, peer, psk)

    return checks_of_target(target, read_keys, _tunnel_with)


def _tunnel_with(keys: Keys) -> tuple[str, Mapping[str, Any]] | None:
    """Find a running tunnel with these keys. Raises PrivilegeError if one of root's may have them."""
    for interface in running_interfaces():
        with suppress(VpntunError):
            status = _request(interface, "GET", "/v1/status")
            if status["public_key"] == format_key(keys.identity.public):
                for peer in status["peers"]:
                    if peer["public_key"] == format_key(keys.peer):
                        return interface, peer
    if others := interfaces_of_root():
        raise PrivilegeError(f"{', '.join(others)} may use the same keys and would be disturbed: run it as root")
    return None


def _refuse_options_of_a_call(call: Mapping[str, Any]) -> None:
    for name, value in call.items():
        if value is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} is for calling a HOST, which is no tunnel's name")


def _request(interface: str, method: str, target: str) -> dict[str, Any]:
    with ControlClient(interface, PATIENCE) as tunnel:
        return tunnel.ask(method, target)


def _printed(findings: Iterable[Finding], *, quiet: bool) -> Iterator[Finding]:
    """Print findings, with a heading above those about one thing and a blank line below, and pass them on.

    `quiet`: print only those that are not ok.
    """
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED
    colour = False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None
    title = None
    for finding in findings:
        if not (quiet and finding.verdict == "ok"):
            if heading(finding) != title:
                if title is not None:
                    click.echo()
                title = heading(finding)
                click.echo(click.style(title, bold=True), color=colour)
            for line in lines_of(finding, columns, _painted):
                click.echo(line, color=colour)
        yield finding
    if title is not None:
        click.echo()


def _painted(text: str, verdict: Verdict) -> str:
    """Colour a text. click removes the colour again where the output is no terminal, or where it is not wanted."""
    return click.style(text, fg=COLOURS[verdict])
