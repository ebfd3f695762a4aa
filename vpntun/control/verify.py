"""Verification on request that data arrives at the peers (`POST /v1/verify`, which `vpntun show` sends).

Each vpntun that this end has a session with is sent a PROBE, at most one a second however many ask. Nothing waits for
the answers here: a client asks again, or reads the status. Any other WireGuard has no message that must be answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from vpntun.config.peer import PeerSettings, find_peer
from vpntun.control.reset import refusal_because
from vpntun.crypto.keys import format_key
from vpntun.errors import AmbiguousPeer, NoSuchPeer
from vpntun.link.link import Link
from vpntun.serving.http import Answer, Route


def verify(
    peers: Sequence[PeerSettings], link_of: Callable[[bytes], Link | None], called: str | None
) -> dict[str, Any]:
    """Ask the peers whether data arrives. Return their keys, and those of the peers whose answer is awaited.

    `called`: as in `find_peer`, but None stands for all peers. `link_of`: the link of a public key; None while there
    is none. Raises NoSuchPeer and AmbiguousPeer.
    """
    chosen = peers if called is None else [find_peer(peers, called)]
    awaited = []
    for settings in chosen:
        link = link_of(settings.public)
        if link is not None and link.verify():
            awaited.append(format_key(settings.public))
    return {"peers": [format_key(settings.public) for settings in chosen], "awaited": awaited}


def verify_routes(ask: Callable[[str | None], Mapping[str, Any]]) -> dict[str, Route]:
    """Return the route of the request. `ask`: as `verify`, with `called` alone."""

    def answer(peer: str | None = None) -> Answer:
        try:
            return Answer(HTTPStatus.OK, ask(peer))
        except (AmbiguousPeer, NoSuchPeer) as error:
            return refusal_because(error)

    return {"/v1/verify": Route("POST", answer, frozenset({"peer"}))}
