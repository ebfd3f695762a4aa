"""Text of a tunnel's status, as `show` prints it: the titles of wg(8), and some more.

`faults_of` writes what is wrong for `show --check`, and finds the exit status: 15 (CarrierDown) if no message can be
sent to a peer, 14 (NoFreshHandshake) if one can but there is no session, 13 (NotVerified) if there is one but nothing
proves that data arrives. With several peers, the greatest counts.

The functions that write a size, a rate, a duration or a number with its unit serve every command that prints them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vpntun.crypto.session import REJECT_AFTER_TIME
from vpntun.errors import CarrierDown, LinkError, NoFreshHandshake, NotVerified

FIELDS_OF_THE_STATES = (
    *("carrier_up", "carrier_up_for", "carrier_reason", "carrier_reason_for", "handshake_fresh", "handshake_fresh_for"),
    *("data_verified", "data_verified_for", "data_verified_age", "data_unanswered_for"),
)
MOST_MACS = 8
"""MAC addresses of one end that are printed."""
MOST_FORWARDS = 8
UNITS = (("year", 365 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def describe(status: Mapping[str, Any]) -> Iterator[str]:
    """Write a status line by line, without lines for unknown values."""
    yield f"interface: {status['interface']}"
    yield from _titled(
        {
            "public key": status["public_key"] or "(none: there is no private key)",
            "listening port": status["listen_port"],
            "device": "tap" if is_tap(status) else None,
            "mac": status.get("mac"),
            "bridge": _bridge(status),
            "mtu": status["mtu"],
            "addresses": ", ".join(status["addresses"]),
            "relay": "from peer to peer" if status["relay"] else None,
            "names": _names(status.get("names")),
            "up for": duration_text(status["uptime"]),
            "macs on this side": macs_text(status),
            "starting": status["starting"] and f"waiting for {status['starting']}",
            "dropped": _drops(status["drops"]),
        }
    )
    yield from _forwards(status.get("forwards", ()), status["interface"])
    if (proxy := status.get("socks5")) is not None:
        counts = _counts_of_forward(proxy) if proxy["connections_total"] else []
        yield f"  socks5: {', '.join([proxy['listen'], *counts])}"
    for peer in status["peers"]:
        yield ""
        yield f"peer: {peer['public_key']}"
        yield from _titled(_device(status, peer) | _peer(with_states(peer), is_on_tap=is_tap(status)))


def _names(names: Mapping[str, Any] | None) -> str | None:
    """Write what the name server does; None without one."""
    if names is None:
        return None
    counts = ", ".join(f"{names[each]:,} {each}" for each in ("asked", "answered", "forwarded", "limited", "failed"))
    return f"{count_text(names['names'], 'name')}, {names['domain']}; questions: {counts}"


def _forwards(forwards: Sequence[Mapping[str, Any]], interface: str) -> Iterator[str]:
    """Write a line for each forward, up to some; a tunnel that was started by an older version has none."""
    for forward in forwards[:MOST_FORWARDS]:
        origin = "" if forward["from"] == "here" else f" from {forward['from']}"
        counts = _counts_of_forward(forward) if forward["connections_total"] else []
        name = f"{forward['protocol']} {forward['listen']} {forward['target']}{origin}"
        yield f"  forward: {', '.join([name, *counts])}"
    if len(forwards) > MOST_FORWARDS:
        yield f"  forward: {len(forwards) - MOST_FORWARDS:,} more, see 'vpntun forwards {interface}'"


def _counts_of_forward(forward: Mapping[str, Any]) -> list[str]:
    kind = "flow" if forward.get("protocol") == "udp" else "connection"
    wrong = [f"{count:,} {each}" for each in ("refused", "failed") if (count := forward[f"connections_{each}"])]
    sizes = [f"{size_text(forward[f'{each}_bytes'])} {each}" for each in ("sent", "received")]
    total = count_text(forward["connections_total"], kind)
    return [f"{forward['connections']:,} of {total} open", *wrong, *sizes]


def _bridge(status: Mapping[str, Any]) -> str | None:
    """Name the bridge that the device is in, also if somebody else has put it there, or the one that it is missing."""
    joins, is_in = status.get("bridge"), status.get("in_bridge")
    if joins in (None, is_in):
        return is_in
    return f"{joins}, but the device is in {is_in or 'none'}"


def is_tap(status: Mapping[str, Any]) -> bool:
    """Whether the tunnel carries Ethernet frames. One that was started by an older version does not."""
    return bool(status.get("device") == "tap")


def _device(status: Mapping[str, Any], peer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line about the peer's device if it carries something else than this end's."""
    there, here = peer.get("device"), status.get("device")
    return {"device": f"{there}, and this end's is {here}: no packet passes"} if there not in (None, here) else {}


def _peer(peer: Mapping[str, Any], *, is_on_tap: bool) -> dict[str, Any]:
    interval, seconds, loss = (peer[name] for name in ("persistent_keepalive", "round_trip", "loss"))
    exchanged = f"{size_text(peer['received_bytes'])} received, {size_text(peer['sent_bytes'])} sent"
    return {
        "name": peer["name"],
        "preshared key": "(hidden)" if peer["preshared_key"] else None,
        "endpoint": peer["endpoint"],
        "carrier": carrier_text(peer),
        "handshake": handshake_text(peer),
        "data": data_text(peer),
        "state": _state(peer["state"], peer["unresolved"]),
        **(_macs(peer) if is_on_tap else {"allowed ips": ", ".join(peer["allowed_ips"]) or "(none)"}),
        "latest handshake": ago_text(peer["latest_handshake_age"]),
        "latest received": ago_text(peer["latest_received_age"]),
        "transfer": exchanged if peer["received_bytes"] or peer["sent_bytes"] else None,
        "persistent keepalive": interval and f"every {count_text(interval, 'second')}",
        "round trip": seconds and f"{seconds * 1000:.2f} ms",
        "loss": None if loss is None else f"{loss:.2%}" + (", protected" if peer["protected"] else ""),
        "records": _records(peer["span"], peer["record_bytes"]),
        "path mtu": peer["path_mtu"],
        "delivered": rate_text(peer["delivered_rate"]),
        "lost on the way": _lost(peer["datagrams_lost"], peer["datagrams_sent"]),
        "restored": _some(peer["records_restored"], "record"),
        "unfinished": _some(peer["records_unfinished"], "record"),
        "queue": _queue(**peer["queue"]),
        "dropped": _drops(peer["drops"]),
    }


def _macs(peer: Mapping[str, Any]) -> dict[str, str | None]:
    return {"allowed macs": ", ".join(peer["allowed_macs"]), "macs": macs_text(peer)}


def macs_text(where: Mapping[str, Any]) -> str | None:
    """Write the MAC addresses learnt at a peer or on this side, those seen last first; None if there is none."""
    shown = [each["address"] for each in (where.get("macs") or ())[:MOST_MACS]]
    more = (where.get("mac_count") or 0) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "") or None


def faults_of(peers: Sequence[Mapping[str, Any]]) -> tuple[list[str], int]:
    """Return a line for each peer whose data is not verified, and the exit status: 0 if there is none."""
    faults = [fault for peer in peers if (fault := _fault_of(peer)) is not None]
    return [line for _, line in faults], max((kind.exit_status for kind, _ in faults), default=0)


def _fault_of(peer: Mapping[str, Any]) -> tuple[type[LinkError], str] | None:
    called, peer = peer["name"] or peer["public_key"], with_states(peer)
    if peer["data_verified"] or (peer["data_verified"] is None and peer["state"] == "connected"):
        return None
    if not peer["carrier_up"]:
        return CarrierDown, f"{called}: no carrier{reason_text(peer)}"
    carrier = f"{called}: {carrier_text(peer)}"
    if not peer["handshake_fresh"]:
        return NoFreshHandshake, f"{carrier}; handshake {handshake_text(peer)}"
    return NotVerified, f"{carrier}; {_not_verified(peer)}"


def _not_verified(peer: Mapping[str, Any]) -> str:
    text = data_text(peer)
    return f"state {peer['state']}" if text is None else f"data {text}"


def with_states(peer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add the fields that a tunnel started by an older version does not tell: concluded, or None where unknown."""
    if "data_verified" in peer:
        return peer
    age = peer["latest_handshake_age"]
    concluded = {
        "carrier_up": peer["carrier"] is not None,
        "handshake_fresh": age is not None and age < REJECT_AFTER_TIME,
    }
    return {**dict.fromkeys(FIELDS_OF_THE_STATES), **concluded, **peer}


def carrier_text(peer: Mapping[str, Any]) -> str:
    """Write which carrier is up, for how long, and why this one; or why none is."""
    name = peer["carrier"].upper() if peer["carrier_up"] else "down"
    return f"{name}{_lasting(peer['carrier_up_for'])}{reason_text(peer)}"


def reason_text(peer: Mapping[str, Any]) -> str:
    """Write why the carrier is what it is, to follow other words; empty if the reason is unknown."""
    if peer["carrier_reason"] is None:
        return ""
    return f" ({peer['carrier_reason']}{_lasting(peer['carrier_reason_for'])})"


def handshake_text(peer: Mapping[str, Any]) -> str:
    """Write whether there is a session that can be used, and for how long that has been so."""
    return f"{'fresh' if peer['handshake_fresh'] else 'not fresh'}{_lasting(peer['handshake_fresh_for'])}"


def data_text(peer: Mapping[str, Any]) -> str | None:
    """Write whether data is known to arrive, for how long that has been so or why not, and when it was last proven.

    None if the tunnel does not tell.
    """
    if peer["data_verified"] is None:
        return None
    is_verified, unanswered_for = peer["data_verified"], peer["data_unanswered_for"]
    state, lasting = "verified" if is_verified else "not verified", _lasting(peer["data_verified_for"])
    proof = f", last proof {ago_text(peer['data_verified_age'])}" if peer["data_verified_age"] is not None else ""
    if not unanswered_for:
        return f"{state}{lasting}{proof}"
    silence = f"no answer{_lasting(unanswered_for)}"
    return f"{state}{lasting}{proof}, {silence}" if is_verified else f"{state}: {silence}{proof}"


def _lasting(seconds: int | None) -> str:
    return "" if seconds is None else f" for {duration_text(seconds)}"


def _state(state: str, unresolved: str | None) -> str:
    return state if unresolved is None else f"{state}, waiting for the name {unresolved}"


def _titled(lines: Mapping[str, Any]) -> Iterator[str]:
    for title, text in lines.items():
        if text not in (None, ""):
            yield f"  {title}: {text}"


def ago_text(age: float | None) -> str | None:
    """Write an age as a duration before now; None if it is unknown."""
    return None if age is None else f"{duration_text(age)} ago"


def duration_text(seconds: float) -> str:
    """Write a duration in years, days, hours, minutes and seconds, without those that are zero."""
    left, parts = int(seconds), []
    for unit, length in UNITS:
        count, left = divmod(left, length)
        if count:
            parts.append(count_text(count, unit))
    return ", ".join(parts) or "0 seconds"


def count_text(number: float, unit: str) -> str:
    """Write a number in full, with its unit: 1 second, 2 seconds, 1,234,567 records."""
    return f"{number:,.15g} {unit}" if number == 1 else f"{number:,.15g} {unit}s"


def _some(number: int | None, unit: str) -> str | None:
    return count_text(number, unit) if number else None


def size_text(number: int) -> str:
    """Write a number of bytes in binary units: 1023 B, 1.50 GiB."""
    if number < 1024:
        return f"{number} B"
    size = number / 1024
    for unit in ("KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} TiB"


def rate_text(rate: int | None) -> str | None:
    """Write a rate, given in bytes a second, in bits a second; None if it is unknown or zero."""
    if not rate:
        return None
    bits = rate * 8
    if bits < 1e6:
        return f"{bits / 1e3:.2f} kbit/s"
    return f"{bits / 1e9:.2f} Gbit/s" if bits >= 1e9 else f"{bits / 1e6:.2f} Mbit/s"


def _records(span: int | None, size: int | None) -> str | None:
    datagrams = f"{count_text(span, 'datagram')}, " if span is not None else ""
    return f"up to {datagrams}{size_text(size)}" if size else None


def _lost(lost: int | None, sent: int | None) -> str | None:
    return f"{lost:,} of {count_text(sent, 'datagram')}" if lost and sent else None


def _queue(packets: int, bytes: int) -> str | None:
    return f"{count_text(packets, 'packet')}, {size_text(bytes)}" if packets else None


def _drops(drops: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(drops.items(), key=lambda drop: -drop[1]))
