"""Dropped messages: counted by reason, and logged if the operator can do something about it."""

from __future__ import annotations

from collections import Counter

from vpntun.core.endpoint import Endpoint
from vpntun.errors import BadPacket
from vpntun.runtime.log import Warnings, log

ADVICE = {
    "old timestamp": "a handshake from %s has an older timestamp than the last: a replay, a second machine with this "
    "key, or a clock that was set back. A server asks such a peer by itself after 30 s of silence. 'vpntun reset' "
    "forgets the last timestamp at once",
    "own key": "%s sends with this end's own key: are both ends started in the same role?",
    "source not allowed": "packets from %s have a source address that the peer is not allowed to use (see --allowed)",
    "router message": "%s sends router advertisements or redirects, which would change this host's routes: if the peer "
    "means no harm, let it send none on the tunnel's device",
}
"""Log lines for the reasons that an operator can do something about, with a placeholder for the endpoint."""


def note_drop(drops: Counter[str], warnings: Warnings, bad: BadPacket, source: Endpoint) -> None:
    """Count a dropped message, and log it if there is advice. `warnings` limits the lines about one reason."""
    drops[bad.reason] += 1
    if bad.reason in ADVICE:
        warnings.log(bad.reason, ADVICE[bad.reason], source)
    log.debug("dropped a message from %s: %s", source, bad.reason)
