"""Reset of one peer's timestamp, so that a running tunnel accepts its next handshake (`vpntun reset`).

Each handshake must have a later timestamp than the last. A peer whose clock was once ahead, and that has lost its own
record of that, is refused until its clock gets there again, or until this end asks it for a handshake, because it has
been silent for 30 s. A restart of this end forgets all timestamps and all sessions; a reset forgets one timestamp and
keeps the sessions. As after a restart, recorded handshakes may then be replayed: they give nobody a session, but the
one from the future locks the peer out again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus

from vpntun.config.peer import PeerSettings, find_peer
from vpntun.crypto.keys import format_key
from vpntun.errors import NoSuchPeer, VpntunError
from vpntun.link.link import Link
from vpntun.runtime.log import notice
from vpntun.serving.http import Answer, refusal


def forget_timestamp(peers: Sequence[PeerSettings], link_of: Callable[[bytes], Link], called: str | None) -> str:
    """Make this end accept the peer's next handshake, and return the peer's public key.

    `called`: as in `find_peer`. `link_of`: the link of a public key. Raises NoSuchPeer and AmbiguousPeer.
    """
    settings = find_peer(peers, called)
    link = link_of(settings.public)
    link.peer.forget_timestamp()
    notice(
        "forgot the last timestamp of %s: its next handshake is accepted with any timestamp",
        link.name or "the peer",
    )
    return format_key(settings.public)


def refusal_because(error: VpntunError) -> Answer:
    """Refuse a request about a peer: 404 if there is no such peer, 409 if it cannot be done, or not for this peer."""
    return refusal(HTTPStatus.NOT_FOUND if isinstance(error, NoSuchPeer) else HTTPStatus.CONFLICT, str(error))
