"""What a tunnel is doing, as GET /v1/status tells it; docs/control.rst explains each field, and no field is a secret.

A peer is "connected" where packets can leave for it now and there is no sign that they do not arrive:

    connected     a session stands (under 180 s old), a path leads to the peer, a vpntun has said what it takes, and of
                  the data sent none has waited 15 s for any sign of life: WireGuard's rule by which it asks anew
    connecting    not so, and this end asks for a handshake, or waits for the first word of a vpntun
    waiting       not so, and it asks nobody: the peer has to call, or there was nothing to send for so long

Times of the loop's clock leave here as seconds since 1970.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from vpntun import __version__
from vpntun.config.peer import NO_PSK, PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.crypto.keys import format_key
from vpntun.datapath.link import Link
from vpntun.datapath.link_monitor import live_session
from vpntun.types import NEVER, Interface

State = Literal["connected", "connecting", "waiting"]

HEADERS_V4, HEADERS_V6 = 28, 48
"""Bytes that IP and UDP take of a datagram."""


def status_of(
    tunnel: Tunnel,
    link_of: Callable[[bytes], Link],
    *,
    mtu: int,
    addresses: Iterable[Interface],
    drops: Mapping[str, int],
    started: float,
    clock: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """The whole of it. `link_of` a peer's public key; `drops` that were no peer's; `started` in seconds since 1970."""
    return {
        "interface": tunnel.interface,
        "version": __version__,
        "pid": os.getpid(),
        "started": int(started),
        "public_key": format_key(tunnel.identity.public),
        "listen_port": tunnel.port,
        "waits": tunnel.listen_on,
        "mtu": mtu,
        "addresses": [str(address) for address in addresses],
        "relay": tunnel.relay,
        "drops": dict(drops),
        "peers": [_peer(settings, link_of(settings.public), clock()) for settings in tunnel.peers],
    }


def state_of(link: Link) -> State:
    """What there is to say of a link in one word."""
    session = live_session(link)
    if session is not None:
        return "connecting" if link.records.awaits_hello(session, link.now) else "connected"
    return "connecting" if link.searching else "waiting"


def _peer(settings: PeerSettings, link: Link, wall: float) -> dict[str, Any]:
    peer, path = link.peer, link.endpoint
    heard_at = peer.timers.heard_at
    return {
        "public_key": format_key(settings.public),
        "name": settings.name,
        "preshared_key": settings.psk != NO_PSK,
        "endpoint": path.where if path is not None else None,
        "carrier": path.carrier if path is not None else None,
        "state": state_of(link),
        "allowed_ips": settings.allowed_as_text,
        "latest_handshake": None if peer.last_handshake is None else int(wall - link.now + peer.last_handshake),
        "latest_received": None if heard_at == -NEVER else int(wall - link.now + heard_at),
        "received_bytes": peer.received_bytes,
        "sent_bytes": peer.sent_bytes,
        "persistent_keepalive": settings.keepalive or None,
        **_path(link),
        "queue": {"packets": len(link.queue), "bytes": link.queue.size},
        "drops": _drops(link),
    }


def _path(link: Link) -> dict[str, Any]:
    """What is known of the way to the peer; of a plain WireGuard hardly anything is."""
    peer, records, path = link.peer, link.records, link.endpoint
    span, session, payload = records.span, peer.keys.current, records.path_payload
    headers = HEADERS_V6 if path is not None and path.ipv6 else HEADERS_V4
    return {
        "vpntun": session is not None and records.takes_records(session, link.now),
        "round_trip": _round_trip(link),
        "loss": round(span.estimator.loss, 6) if records.cuts and span.estimator.loss_is_known else None,
        "span": span.span if records.cuts else None,
        "protected": span.protection.active or span.protects_bursts if records.cuts else None,
        "record_bytes": span.largest_record if records.takes else None,
        "path_mtu": payload + headers if payload is not None else None,
        "delivered_rate": int(span.estimator.rate) or None,
        "datagrams_sent": span.reported_sent if records.cuts else None,
        "datagrams_lost": max(0, span.reported_lost) if records.cuts else None,
        "records_restored": records.restored if records.cuts else None,
        "records_unfinished": records.unfinished if records.cuts else None,
    }


def _round_trip(link: Link) -> float | None:
    """The latest that was measured, be it of a handshake or of a PROBE."""
    peer = link.peer
    seconds, at = link.records.last_round_trip
    if peer.last_handshake is not None and peer.last_handshake >= at:
        seconds = peer.round_trip
    return round(seconds, 6) or None


def _drops(link: Link) -> dict[str, int]:
    return dict(link.drops + Counter({"queue late": link.queue.late}))
