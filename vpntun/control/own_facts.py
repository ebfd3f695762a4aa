"""Facts that only the process of a tunnel knows, for `vpntun doctor` (GET /v1/doctor): no field is a secret."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from vpntun.control.state import TunnelState
from vpntun.crypto.keys import format_key
from vpntun.doctor.program import program_facts
from vpntun.process.privileges import has_net_admin
from vpntun.serving.http import Answer, Route


def routes_of_facts(state: TunnelState) -> dict[str, Route]:
    """Return the route of the request."""
    return {"/v1/doctor": Route("GET", lambda: Answer(HTTPStatus.OK, own_facts(state)))}


def own_facts(state: TunnelState) -> dict[str, Any]:
    """Return the facts.

    program      as in doctor/program.py
    net_admin    whether the process has CAP_NET_ADMIN
    offloads     which superpackets the device takes; null before it is open
    table        as the key Table: "auto", "off", or a number
    routes       the networks of --route
    mark         the mark of the tunnel's own packets, 0 for none
    callers      the public keys of the peers that have no Endpoint, so that they call this end
    """
    tunnel, device = state.tunnel, state.device
    return {
        "program": program_facts()._asdict(),
        "net_admin": has_net_admin(),
        "offloads": {"tcp": device.takes_tcp, "udp": device.takes_udp} if device is not None else None,
        "table": tunnel.routing.table,
        "routes": list(map(str, tunnel.routes)),
        "mark": state.mark,
        "callers": [format_key(peer.public) for peer in tunnel.peers if peer.host is None],
    }
