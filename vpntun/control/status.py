"""Status of a tunnel, as GET /v1/status reports it: no field is a secret.

docs/control.rst explains each field. A peer is "connected" if packets can leave for it now, and nothing suggests that
they do not arrive:

    connected     there is a session (under 180 s old) and a path to the peer; a peer known to be a vpntun has said what
                  it accepts; no data sent has waited 15 s for a sign of life (after 15 s WireGuard starts a new
                  handshake); and what was sent does arrive, as far as the peer reports
    one-way       otherwise, if the peer is heard, but nothing that was sent to it for 15 s has arrived
    connecting    otherwise, while this end asks for a handshake, or waits for the first HELLO of a vpntun
    waiting       otherwise: the peer has to call, there was nothing to send for so long that the session ended, or this
                  end has no private key

While the tunnel is being set up, only the configuration is known of a peer.

Ages are measured by the loop's clock, which nobody can set. The wall clock only turns them into seconds since 1970, as
of the answer: a clock that was set right after the start corrects these times, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from vpntun import __version__
from vpntun.config.peer import NO_PSK, PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.core.mac_table import LOCAL
from vpntun.crypto.keys import format_key
from vpntun.datapath.switching.learnt import LearntMacs, MacsOfPorts
from vpntun.link.link import Link
from vpntun.link.link_monitor import live_session
from vpntun.link.link_states import proven_at, reason_of_carrier
from vpntun.types import NEVER, DeviceKind, Interface
from vpntun.wire.ethernet.mac import mac_text

State = Literal["connected", "one-way", "connecting", "waiting"]

HEADERS_V4, HEADERS_V6 = 28, 48
"""Bytes of the IP and UDP headers of a datagram."""

FIELDS_OF_A_PEER = (
    *("public_key", "name", "preshared_key", "endpoint", "unresolved", "carrier", "state"),
    *("carrier_up", "carrier_up_for", "carrier_reason", "carrier_reason_for"),
    *("handshake_fresh", "handshake_fresh_for", "data_verified", "data_verified_for"),
    *("data_verified_age", "data_unanswered_for", "allowed_ips", "allowed_macs", "mac_count", "macs"),
    *("latest_handshake", "latest_handshake_age", "latest_received", "latest_received_age"),
    *("received_bytes", "sent_bytes", "persistent_keepalive"),
    *("vpntun", "device", "round_trip", "loss", "span", "protected"),
    *("record_bytes", "path_mtu", "delivered_rate", "datagrams_sent", "datagrams_lost"),
    *("records_restored", "records_unfinished", "queue", "drops"),
)
UNKNOWN: dict[str, Any] = dict.fromkeys(FIELDS_OF_A_PEER)
"""All fields of a peer in their order; `|` keeps it."""


def status_of(
    tunnel: Tunnel,
    link_of: Callable[[bytes], Link | None],
    *,
    starting: str | None,
    is_resolved: Callable[[PeerSettings], bool],
    mtu: int | None,
    addresses: Iterable[Interface],
    drops: Mapping[str, int],
    uptime: float,
    mac: bytes = b"",
    in_bridge: str | None = None,
    macs: MacsOfPorts | None = None,
    names: Mapping[str, Any] | None = None,
    forwards: Iterable[Mapping[str, Any]] = (),
    socks5: Mapping[str, Any] | None = None,
    clock: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """Return the complete status.

    `link_of`: the link of a public key; None while it has not been made. `starting`: what the start waits for, None
    once the tunnel is set up. `is_resolved`: whether the name in a peer's Endpoint has ever been found. `mtu`: None if
    it is not known. `drops`: those that belong to no peer. `uptime`: seconds since the start. `mac`: the
    device's MAC address; empty on a TUN, or if it is not known. `in_bridge`: the bridge that the device is in. `macs`:
    what a TAP's switch has learnt; None on a TUN. `names`: what the name server does; None without one. `forwards`: as
    the forwards report them. `socks5`: as the proxy reports it; None without one. `clock`: the wall clock.
    """
    wall = clock()
    return {
        "interface": tunnel.interface,
        "version": __version__,
        "pid": os.getpid(),
        "started": int(wall - uptime),
        "uptime": int(uptime),
        "clock": round(uptime, 6),
        "starting": starting,
        "public_key": format_key(tunnel.identity.public) if tunnel.identity is not None else None,
        "listen_port": tunnel.port,
        "waits": tunnel.listen_on,
        "mtu": mtu,
        "device": tunnel.device,
        "mac": mac_text(mac) or None,
        "bridge": tunnel.bridge,
        "in_bridge": in_bridge,
        **_macs(macs, LOCAL),
        "addresses": [str(address) for address in addresses],
        "relay": tunnel.relay,
        "dscp": tunnel.copies_dscp,
        "names": names,
        "drops": dict(drops),
        "forwards": [dict(each) for each in forwards],
        "socks5": socks5,
        "peers": status_of_peers(tunnel, link_of, is_resolved=is_resolved, macs=macs, clock=lambda: wall),
    }


def status_of_peers(
    tunnel: Tunnel,
    link_of: Callable[[bytes], Link | None],
    *,
    is_resolved: Callable[[PeerSettings], bool],
    macs: MacsOfPorts | None = None,
    clock: Callable[[], float] = time.time,
) -> list[dict[str, Any]]:
    """Return the peers' part of the status. The arguments are those of `status_of`."""
    wall = clock()
    return [
        _peer(
            settings,
            link_of(settings.public),
            wall,
            unresolved=not is_resolved(settings),
            can_call=tunnel.identity is not None and settings.host is not None,
            macs=macs,
        )
        for settings in tunnel.peers
    ]


def state_of(link: Link) -> State:
    """Return the state of a link in one word."""
    session = live_session(link)
    if session is not None:
        return "connecting" if link.records.awaits_hello(session, link.now) else "connected"
    if link.records.nothing_arrives and link.endpoint is not None and not link.peer.timers.is_silent(link.now):
        return "one-way"
    return "connecting" if link.searching else "waiting"


def _peer(
    settings: PeerSettings,
    link: Link | None,
    wall: float,
    *,
    unresolved: bool,
    can_call: bool,
    macs: MacsOfPorts | None,
) -> dict[str, Any]:
    known = UNKNOWN | {
        "public_key": format_key(settings.public),
        "name": settings.name,
        "preshared_key": settings.psk != NO_PSK,
        "unresolved": settings.host if unresolved else None,
        "state": "connecting" if can_call else "waiting",
        "allowed_ips": settings.allowed_as_text,
        "allowed_macs": list(map(mac_text, settings.allowed_macs)),
        **_macs(macs, link),
        "carrier_up": False,
        "handshake_fresh": False,
        "data_verified": False,
        "persistent_keepalive": settings.keepalive or None,
        "received_bytes": 0,
        "sent_bytes": 0,
        "vpntun": False,
        "queue": {"packets": 0, "bytes": 0},
        "drops": {},
    }
    return known if link is None else known | _link(link, link.now, wall)


def _macs(macs: MacsOfPorts | None, port: object) -> dict[str, Any]:
    """Return what the switch has learnt at a port, the address seen last first."""
    if macs is None:
        return {"mac_count": None, "macs": None}
    learnt = macs.get(port, LearntMacs())
    latest = [{"address": mac_text(address), "seconds": int(age)} for address, age in reversed(learnt.latest)]
    return {"mac_count": learnt.count, "macs": latest}


def _link(link: Link, now: float, wall: float) -> dict[str, Any]:
    """Return what a link knows of its peer."""
    peer, path = link.peer, link.endpoint
    handshake_age, received_age = _age(now, peer.last_handshake), _age(now, peer.timers.heard_at)
    return {
        "endpoint": path.where if path is not None else None,
        "carrier": path.carrier if path is not None else None,
        "state": state_of(link),
        **_states(link, now),
        "latest_handshake": _moment(wall, handshake_age),
        "latest_handshake_age": _whole(handshake_age),
        "latest_received": _moment(wall, received_age),
        "latest_received_age": _whole(received_age),
        "received_bytes": peer.received_bytes,
        "sent_bytes": peer.sent_bytes,
        **_path(link, now),
        "queue": {"packets": len(link.queue), "bytes": link.queue.size},
        "drops": _drops(link),
    }


def _states(link: Link, now: float) -> dict[str, Any]:
    """Return the three states, how long each has lasted, and why the carrier is what it is."""
    states, reason = link.states.as_of_now(link), reason_of_carrier(link)
    awaited = link.records.verification.awaited_since
    return {
        "carrier_up": states.carrier is not None,
        "carrier_up_for": int(now - states.carrier_since),
        "carrier_reason": reason.text,
        "carrier_reason_for": None if reason.since is None else int(now - reason.since),
        "handshake_fresh": states.handshake_fresh,
        "handshake_fresh_for": int(now - states.handshake_since),
        "data_verified": states.data_verified,
        "data_verified_for": int(now - states.data_since),
        "data_verified_age": _whole(_age(now, proven_at(link))),
        "data_unanswered_for": None if awaited == NEVER else int(now - awaited),
    }


def _age(now: float, moment: float | None) -> float | None:
    """Return the seconds since a moment of the loop's clock; None if it never came."""
    return None if moment is None or moment == -NEVER else now - moment


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _moment(wall: float, age: float | None) -> int | None:
    return None if age is None else int(wall - age)


def _path(link: Link, now: float) -> dict[str, Any]:
    """Return what is known of the path to the peer, which is very little for a peer that is not a vpntun."""
    peer, records, path = link.peer, link.records, link.endpoint
    span, session, payload = records.span, peer.keys.current, records.path_payload
    headers = HEADERS_V6 if path is not None and path.ipv6 else HEADERS_V4
    known = {
        "vpntun": session is not None and records.takes_records(session, now),
        "device": _device(link),
        "round_trip": _round_trip(link),
        "record_bytes": span.largest_record if records.takes else None,
        "path_mtu": payload + headers if payload is not None else None,
        "delivered_rate": int(span.estimator.rate) or None,
    }
    return known | _bursts(link) if records.cuts else known


def _device(link: Link) -> DeviceKind | None:
    """Return what the device of a vpntun carries, by its HELLO; None without one."""
    session = link.peer.keys.current
    if session is None:
        return None
    is_tap = link.records.peer_is_tap(session, link.now)
    if is_tap is None:
        return None
    return "tap" if is_tap else "tun"


def _bursts(link: Link) -> dict[str, Any]:
    """Return what is known of the path to a vpntun over a carrier that cuts records into datagrams."""
    records, span = link.records, link.records.span
    return {
        "loss": round(span.estimator.loss, 6) if span.estimator.loss_is_known else None,
        "span": span.span,
        "protected": span.protection.active or span.protects_bursts,
        "datagrams_sent": span.reported_sent,
        "datagrams_lost": max(0, span.reported_lost),
        "records_restored": records.restored,
        "records_unfinished": records.unfinished,
    }


def _round_trip(link: Link) -> float | None:
    """Return the latest round trip, in seconds, that a handshake or a PROBE has measured."""
    peer = link.peer
    seconds, at = link.records.last_round_trip
    if peer.last_handshake is not None and peer.last_handshake >= at:
        seconds = peer.round_trip
    return round(seconds, 6) or None


def _drops(link: Link) -> dict[str, int]:
    drops = {reason: count for reason, count in link.drops.items() if count > 0}
    if late := link.queue.late:
        drops["queue late"] = drops.get("queue late", 0) + late
    return drops
