"""Announcement of a tunnel that has been set up, in the log: its addresses or bridge, and where it waits for whom."""

from __future__ import annotations

from collections.abc import Sequence

from vpntun.config.tunnel import Tunnel
from vpntun.crypto.aead import BACKEND
from vpntun.runtime.log import log, notice
from vpntun.types import Interface, carriers_of


def announce(tunnel: Tunnel, addresses: Sequence[Interface]) -> None:
    """Log what a user needs at the other end. `addresses`: those that the device was given."""
    if addresses and tuple(addresses) == tunnel.derived_addresses[: len(addresses)]:
        own = " and ".join(str(each.ip) for each in addresses)
        other = " and ".join(str(each) for each in tunnel.derived_peer_addresses[: len(addresses)])
        notice("this end %s, the other end %s", own, other)
    elif addresses:
        notice("this end %s", " and ".join(map(str, addresses)))
    if tunnel.bridge is not None:
        notice("this end is a port of the bridge %s", tunnel.bridge)
    if tunnel.listen_on is not None and tunnel.port is not None:
        carriers = " and ".join(name.upper() for name in carriers_of(tunnel.listen_on))
        peers = "the peer" if len(tunnel.peers) == 1 else f"{len(tunnel.peers)} peers"
        notice("waiting for %s on %s port %d", peers, carriers, tunnel.port)
    log.debug("ChaCha20-Poly1305 by %s", BACKEND)
