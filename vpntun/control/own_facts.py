"""Facts that only the process of a tunnel knows, for `vpntun doctor` (GET /v1/doctor): no field is a secret."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from vpntun.control.state import TunnelState
from vpntun.crypto.keys import format_key
from vpntun.doctor.program import program_facts
from vpntun.serving.http import Answer, Route
from vpntun.types import written


def routes_of_facts(state: TunnelState) -> dict[str, Route]:
    """Return the route of the request."""
    return {"/v1/doctor": Route("GET", lambda: Answer(HTTPStatus.OK, own_facts(state)))}


def own_facts(state: TunnelState) -> dict[str, Any]:
    """Return the facts.

    program      as in doctor/program.py
    offloads     which superpackets the device takes; null before it is open
    table        as the key Table: "auto", "off", or a number
    routes       the networks of --route
    mark         the mark of the tunnel's own packets, 0 for none
    in_run       whether this is a run, whose device is in a network namespace of its own
    peers        the public key of each peer and its Endpoint as configured; null if it has none, so that it calls
    """
    tunnel, device = state.tunnel, state.device
    return {
        "program": program_facts()._asdict(),
        "offloads": {"tcp": device.takes_tcp, "udp": device.takes_udp} if device is not None else None,
        "table": tunnel.routing.table,
        "routes": list(map(str, tunnel.routes)),
        "mark": state.mark,
        "in_run": tunnel.in_namespace,
        "peers": [
            {
                "public_key": format_key(peer.public),
                "endpoint": written((peer.host, peer.port)) if peer.host is not None else None,
            }
            for peer in tunnel.peers
        ],
    }
