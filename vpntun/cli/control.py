"""Commands for running tunnels: show, reset and down.

`show` prints their status, as describe.py writes it. `reset` makes a tunnel accept a peer again that it refuses for an
old timestamp. `down` ends a tunnel. They ask the tunnel through its control socket.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from vpntun.cli.describe import describe, faults_of
from vpntun.cli.run_options import SECONDS
from vpntun.config.finding import interface_of
from vpntun.control.client import PATIENCE, ControlClient, running_interfaces
from vpntun.errors import NoSuchTunnel, NotInTime, VpntunError
from vpntun.netconf.cleanup import clean_up, remove_leftovers
from vpntun.runtime.clock import boottime
from vpntun.runtime.log import open_log
from vpntun.runtime.logform import escape
from vpntun.serving.http import target_of
from vpntun.watch.option import CommandWithWatch, start_watch, watch_option

SECONDS_BETWEEN = 0.2
SHOW_WAITS = 1.0
CHECK_WAITS = 3.0
"""Seconds to wait for the peers' answers. In 3 s a peer is asked three times, so a lost answer is no fault."""


@click.command(cls=CommandWithWatch)
@click.argument("interface", required=False)
@click.argument("peer", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/control.rst); a list if no INTERFACE is given.")
@click.option(
    "--wait",
    type=SECONDS,
    metavar="SECONDS",
    help="Wait for a link, that to PEER if it is given; exit with status 9 if there is none in time.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Print only what is wrong. Exit with status 0 if data is known to arrive at each peer, or at PEER; with 13 if "
    "it is not, 14 if there is no session, 15 if no message can be sent.",
)
@watch_option
def show(
    interface: str | None, peer: str | None, as_json: bool, wait: float | None, check: bool, interval: float | None
) -> None:
    """Show the status of the tunnel of INTERFACE, or of all tunnels in this network namespace.

    PEER is a peer's name, its public key or the start of its key; other peers are left out. Each peer that is a vpntun
    is asked first whether data arrives, and has a second to answer.
    """
    if as_json + check + (interval is not None) > 1:
        raise click.UsageError("--json, --check and --watch exclude each other")
    if interval is not None and peer is not None:
        raise click.UsageError("--watch shows all peers: leave out PEER")
    if interface is None:
        _refuse_without_interface(wait=wait is not None, check=check)
    elif wait is not None:
        _wait_for_link(interface, peer, wait)
    if interval is not None:
        start_watch(interface, interval)
        return
    if interface is not None:
        status = _verified_status(interface, peer, CHECK_WAITS if check else SHOW_WAITS)
        if check:
            _check(status["peers"])
        else:
            _print(status, as_json)
        return
    found, failed = _status_of_all()
    if not found and failed is None and not as_json:
        click.echo("no tunnel of this user is running in this network namespace", err=True)
    _print(found, as_json)
    if failed is not None:
        raise failed


@click.command()
@click.argument("interface")
@click.argument("peer", required=False)
def reset(interface: str, peer: str | None) -> None:
    """Accept a peer again that is refused for an old timestamp.

    The tunnel forgets the peer's last timestamp. The peer's public key is printed. PEER is its name, its public key or
    the start of its key; it can be omitted if there is only one peer.
    """
    target = target_of("/v1/reset", {} if peer is None else {"peer": peer})
    with ControlClient(interface) as tunnel:
        click.echo(tunnel.ask("POST", target)["public_key"])


@click.command()
@click.argument("name", metavar="INTERFACE|FILE")
def down(name: str) -> None:
    """End the tunnel of INTERFACE, or of a configuration FILE.

    The command waits until the tunnel has ended. If the tunnel was killed, what it left behind is removed.
    """
    is_file = "/" in name or name.endswith(".conf")
    interface = interface_of(Path(name)) if is_file else name
    try:
        tunnel = ControlClient(interface)
    except NoSuchTunnel:
        open_log(interface, 0)
        cleaned = clean_up(interface)
        if not remove_leftovers(interface) and not cleaned:
            raise
    else:
        with tunnel:
            tunnel.stop()


def _check(peers: list[dict[str, Any]]) -> None:
    """Print what is wrong with the peers, and exit with its status."""
    lines, status = faults_of(peers)
    for line in lines:
        click.echo(escape(line))
    click.get_current_context().exit(status)


def _refuse_without_interface(*, wait: bool, check: bool) -> None:
    for option, is_given in (("--wait", wait), ("--check", check)):
        if is_given:
            raise click.UsageError(f"{option} requires an INTERFACE")


def _wait_for_link(interface: str, peer: str | None, seconds: float) -> None:
    """Wait until a peer is connected, also if the tunnel is not running yet. `peer`: which one. Raises NotInTime."""
    end = boottime() + seconds
    while not _has_link(interface, peer, max(end - boottime(), SECONDS_BETWEEN)):
        left = end - boottime()
        if left <= 0:
            to_whom = "" if peer is None else f" to {peer}"
            raise NotInTime(f"{interface} has no link{to_whom} after {seconds:g} s")
        time.sleep(min(left, SECONDS_BETWEEN))


def _has_link(interface: str, peer: str | None, patience: float) -> bool:
    with suppress(VpntunError):
        status = _verified_status(interface, peer, 0.0, min(patience, PATIENCE))
        return any(each["state"] == "connected" for each in status["peers"])
    return False


def _verified_status(interface: str, peer: str | None, seconds: float, patience: float = PATIENCE) -> dict[str, Any]:
    """Return the status after the peers were asked whether data arrives, and had some seconds to answer.

    `peer`: the only one to ask and report. `patience`: seconds that the tunnel has to answer.
    """
    with ControlClient(interface, patience) as tunnel:
        chosen = tunnel.verify(peer, seconds)
        status = tunnel.ask("GET", "/v1/status")
    if peer is not None:
        status["peers"] = [each for each in status["peers"] if each["public_key"] in chosen]
    return status


def _status_of_all() -> tuple[list[dict[str, Any]], VpntunError | None]:
    """Return the status of every tunnel that answers, and the error of one that does not."""
    found, failed = [], None
    for interface in running_interfaces():
        try:
            found.append(_verified_status(interface, None, SHOW_WAITS))
        except VpntunError as error:
            failed = error
    return found, failed


def _print(status: dict[str, Any] | list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(status, indent=2))
        return
    for number, each in enumerate(status if isinstance(status, list) else [status]):
        if number:
            click.echo()
        for line in describe(each):
            click.echo(escape(line))
