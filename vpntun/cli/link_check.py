"""Check of a tunnel's peers for scripts (`show --check`): which state of a link is missing, as an exit status.

    15  CarrierDown         no message can be sent to the peer
    14  NoFreshHandshake    messages can be sent, but there is no session
    13  NotVerified         there is a session, but nothing proves that data arrives

With several peers, the greatest of them counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vpntun.cli.describe import carrier_text, data_text, handshake_text, reason_text
from vpntun.errors import CarrierDown, LinkError, NoFreshHandshake, NotVerified


def faults_of(peers: Sequence[Mapping[str, Any]]) -> tuple[list[str], int]:
    """Return a line for each peer whose data is not verified, and the exit status: 0 if there is none."""
    faults = [fault for peer in peers if (fault := _fault_of(peer)) is not None]
    return [line for _, line in faults], max((kind.exit_status for kind, _ in faults), default=0)


def _fault_of(peer: Mapping[str, Any]) -> tuple[type[LinkError], str] | None:
    called = peer["name"] or peer["public_key"]
    if peer["data_verified"]:
        return None
    if not peer["carrier_up"]:
        return CarrierDown, f"{called}: no carrier{reason_text(peer)}"
    carrier = f"{called}: {carrier_text(peer)}"
    if not peer["handshake_fresh"]:
        return NoFreshHandshake, f"{carrier}; handshake {handshake_text(peer)}"
    return NotVerified, f"{carrier}; data {data_text(peer)}"
