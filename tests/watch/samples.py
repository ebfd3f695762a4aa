"""Tunnels for the tests of the live view: statuses with some fields changed, and histories of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.cli.sample_status import PEER, STATUS
from vpntun.watch.history import PeerView, TunnelHistory, TunnelView

PATIENCE = 3.0


def peer(number: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a peer's part of a status, with a key of its own."""
    return {**PEER, "public_key": f"{number:043d}=", **fields}


def status(*peers: Mapping[str, Any], clock: float = 100.0, **fields: Any) -> dict[str, Any]:
    """Return a status as of this time on the tunnel's clock."""
    return {**STATUS, "forwards": [], "clock": clock, "uptime": int(clock), "peers": list(peers or (peer(),)), **fields}


def history(*statuses: Mapping[str, Any]) -> TunnelHistory:
    """Return a history that has taken these statuses, one a second from second 0 on."""
    made = TunnelHistory("tun3", 0.0, PATIENCE)
    for now, each in enumerate(statuses):
        made.take(each, float(now))
    return made


def tunnel_of(count: int, interface: str = "tun3", **fields: Any) -> TunnelView:
    """Return a tunnel with this many peers, without notes. The last peer has the most traffic."""
    made = TunnelHistory(interface, 0.0, PATIENCE)
    quiet = {"carrier_up": None, "drops": {}, "queue": {"packets": 0, "bytes": 0}, **fields}
    for second in range(3):
        peers = [
            peer(number, name=f"peer{number}", received_bytes=second * 1000 * (number + 1), **quiet)
            for number in range(count)
        ]
        made.take({**status(clock=100.0 + second, interface=interface, drops={}), "peers": peers}, float(second))
    return made.view(2.0)


def seen(*statuses: Mapping[str, Any]) -> PeerView:
    """Return the only peer after these statuses."""
    (only,) = history(*statuses).view(float(len(statuses) - 1)).peers
    return only
