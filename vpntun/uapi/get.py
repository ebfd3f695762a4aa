"""Answer of WireGuard's configuration protocol to "get=1": everything that wg(8) shows.

It contains this end's private key and the preshared keys, as in WireGuard.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.link.link import Link
from vpntun.types import written


def describe(
    tunnel: Tunnel,
    link_of: Callable[[bytes], Link | None],
    *,
    port: int,
    mark: int,
    clock: Callable[[], float] = time.time,
) -> Iterator[str]:
    """Yield the lines of the answer to "get=1".

    `link_of`: the link of a public key; None while it has not been made. `port`: the port of the UDP sockets, 0 without
    any. `mark`: the mark of what the tunnel sends, 0 for none. `clock`: the wall clock.
    """
    wall = clock()
    if tunnel.identity is not None:
        yield f"private_key={tunnel.identity.private.hex()}"
    if port:
        yield f"listen_port={port}"
    if mark:
        yield f"fwmark={mark}"
    for settings in tunnel.peers:
        yield from _peer(settings, link_of(settings.public), wall)


def _peer(settings: PeerSettings, link: Link | None, wall: float) -> Iterator[str]:
    yield f"public_key={settings.public.hex()}"
    yield f"preshared_key={settings.psk.hex()}"
    yield "protocol_version=1"
    if link is None:
        if settings.endpoint is not None:
            yield f"endpoint={written(settings.endpoint)}"
    else:
        peer = link.peer
        if link.endpoint is not None:
            yield f"endpoint={link.endpoint.where}"
        if peer.last_handshake is not None:
            at = max(0.0, wall - (link.now - peer.last_handshake))
            yield f"last_handshake_time_sec={int(at)}"
            yield f"last_handshake_time_nsec={int(at % 1 * 1e9)}"
        yield f"tx_bytes={peer.sent_bytes}"
        yield f"rx_bytes={peer.received_bytes}"
    yield f"persistent_keepalive_interval={int(settings.keepalive)}"
    for network in settings.allowed_as_text:
        yield f"allowed_ip={network}"
