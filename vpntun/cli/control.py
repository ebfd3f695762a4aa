"""Commands for running tunnels: show, reset and down.

`show` prints their status, with the titles of wg(8) and some more. `reset` makes a tunnel accept a peer again that it
refuses for an old timestamp. `down` ends a tunnel. They ask the tunnel through its control socket.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from vpntun.cli.run_options import SECONDS
from vpntun.config.finding import interface_of
from vpntun.control.client import PATIENCE, ControlClient, running_interfaces
from vpntun.errors import NoSuchTunnel, NotInTime, VpntunError
from vpntun.netconf.cleanup import clean_up, remove_leftovers
from vpntun.runtime.clock import boottime
from vpntun.runtime.log import open_log
from vpntun.runtime.logform import escape

SECONDS_BETWEEN = 0.2
UNITS = (("year", 365 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


@click.command()
@click.argument("interface", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/control.rst); a list if no INTERFACE is given.")
@click.option(
    "--wait", type=SECONDS, metavar="SECONDS", help="Wait for a link; exit with status 9 if there is none in time."
)
def show(interface: str | None, as_json: bool, wait: float | None) -> None:
    """Show the status of the tunnel of INTERFACE, or of all tunnels in this network namespace."""
    if wait is not None:
        if interface is None:
            raise click.UsageError("--wait requires an INTERFACE")
        _wait_for_link(interface, wait)
    if interface is not None:
        _print(_status_of(interface), as_json)
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
    query = "" if peer is None else f"?peer={quote(peer, safe='', errors='surrogateescape')}"
    with ControlClient(interface) as tunnel:
        click.echo(tunnel.ask("POST", f"/v1/reset{query}")["public_key"])


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


def _wait_for_link(interface: str, seconds: float) -> None:
    """Wait until a peer is connected, also if the tunnel is not running yet. Raises NotInTime."""
    end = boottime() + seconds
    while not _has_link(interface, max(end - boottime(), SECONDS_BETWEEN)):
        left = end - boottime()
        if left <= 0:
            raise NotInTime(f"{interface} has no link after {seconds:g} s")
        time.sleep(min(left, SECONDS_BETWEEN))


def _has_link(interface: str, patience: float) -> bool:
    with suppress(VpntunError):
        return any(peer["state"] == "connected" for peer in _status_of(interface, min(patience, PATIENCE))["peers"])
    return False


def _status_of(interface: str, patience: float = PATIENCE) -> dict[str, Any]:
    with ControlClient(interface, patience) as tunnel:
        return tunnel.ask("GET", "/v1/status")


def _status_of_all() -> tuple[list[dict[str, Any]], VpntunError | None]:
    """Return the status of every tunnel that answers, and the error of one that does not."""
    found, failed = [], None
    for interface in running_interfaces():
        try:
            found.append(_status_of(interface))
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


def describe(status: Mapping[str, Any]) -> Iterator[str]:
    """Write a status line by line, without lines for unknown values."""
    yield f"interface: {status['interface']}"
    yield from _titled(
        {
            "public key": status["public_key"] or "(none: there is no private key)",
            "listening port": status["listen_port"],
            "mtu": status["mtu"],
            "addresses": ", ".join(status["addresses"]),
            "relay": "from peer to peer" if status["relay"] else None,
            "up for": _duration(status["uptime"]),
            "starting": status["starting"] and f"waiting for {status['starting']}",
            "dropped": _drops(status["drops"]),
        }
    )
    for peer in status["peers"]:
        yield ""
        yield f"peer: {peer['public_key']}"
        yield from _titled(_peer(peer))


def _peer(peer: Mapping[str, Any]) -> dict[str, Any]:
    carrier, interval, seconds, loss = (
        peer[name] for name in ("carrier", "persistent_keepalive", "round_trip", "loss")
    )
    exchanged = f"{_size(peer['received_bytes'])} received, {_size(peer['sent_bytes'])} sent"
    return {
        "name": peer["name"],
        "preshared key": "(hidden)" if peer["preshared_key"] else None,
        "endpoint": peer["endpoint"],
        "carrier": carrier and carrier.upper(),
        "state": _state(peer["state"], peer["unresolved"]),
        "allowed ips": ", ".join(peer["allowed_ips"]) or "(none)",
        "latest handshake": _ago(peer["latest_handshake_age"]),
        "latest received": _ago(peer["latest_received_age"]),
        "transfer": exchanged if peer["received_bytes"] or peer["sent_bytes"] else None,
        "persistent keepalive": interval and f"every {_count(interval, 'second')}",
        "round trip": seconds and f"{seconds * 1000:.2f} ms",
        "loss": None if loss is None else f"{loss:.2%}" + (", protected" if peer["protected"] else ""),
        "records": _records(peer["span"], peer["record_bytes"]),
        "path mtu": peer["path_mtu"],
        "delivered": _rate(peer["delivered_rate"]),
        "lost on the way": _lost(peer["datagrams_lost"], peer["datagrams_sent"]),
        "restored": _some(peer["records_restored"], "record"),
        "unfinished": _some(peer["records_unfinished"], "record"),
        "queue": _queue(**peer["queue"]),
        "dropped": _drops(peer["drops"]),
    }


def _state(state: str, unresolved: str | None) -> str:
    return state if unresolved is None else f"{state}, waiting for the name {unresolved}"


def _titled(lines: Mapping[str, Any]) -> Iterator[str]:
    for title, text in lines.items():
        if text not in (None, ""):
            yield f"  {title}: {text}"


def _ago(age: float | None) -> str | None:
    return None if age is None else f"{_duration(age)} ago"


def _duration(seconds: float) -> str:
    """Write a duration in years, days, hours, minutes and seconds, without those that are zero."""
    left, parts = int(seconds), []
    for unit, length in UNITS:
        count, left = divmod(left, length)
        if count:
            parts.append(_count(count, unit))
    return ", ".join(parts) or "0 seconds"


def _count(number: float, unit: str) -> str:
    """Write a number in full, with its unit: 1 second, 2 seconds, 1,234,567 records."""
    return f"{number:,.15g} {unit}" if number == 1 else f"{number:,.15g} {unit}s"


def _some(number: int | None, unit: str) -> str | None:
    return _count(number, unit) if number else None


def _size(number: int) -> str:
    if number < 1024:
        return f"{number} B"
    size = number / 1024
    for unit in ("KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} TiB"


def _rate(rate: int | None) -> str | None:
    if not rate:
        return None
    return f"{rate * 8 / 1e9:.2f} Gbit/s" if rate >= 1.25e8 else f"{rate * 8 / 1e6:.2f} Mbit/s"


def _records(span: int | None, size: int | None) -> str | None:
    datagrams = f"{_count(span, 'datagram')}, " if span is not None else ""
    return f"up to {datagrams}{_size(size)}" if size else None


def _lost(lost: int | None, sent: int | None) -> str | None:
    return f"{lost:,} of {_count(sent, 'datagram')}" if lost and sent else None


def _queue(packets: int, bytes: int) -> str | None:
    return f"{_count(packets, 'packet')}, {_size(bytes)}" if packets else None


def _drops(drops: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(drops.items(), key=lambda drop: -drop[1]))
