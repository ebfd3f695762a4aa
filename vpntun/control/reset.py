"""Reset of one peer's timestamp, so that a running tunnel accepts its next handshake (`vpntun reset`).

Each handshake must have a later timestamp than the last. A peer whose clock was once ahead, and that has lost its own
record of that, is refused until its clock gets there again, or until this end asks it for a handshake, because it has
been silent for 30 s. A restart of this end forgets all timestamps and all sessions; a reset forgets one timestamp and
keeps the sessions. As after a restart, recorded handshakes may then be replayed: they give nobody a session, but the
one from the future locks the peer out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus

from vpntun.config.peer import PeerSettings
from vpntun.crypto.keys import format_key
from vpntun.errors import AmbiguousPeer, NoSuchPeer, VpntunError
from vpntun.link.link import Link
from vpntun.runtime.log import notice
from vpntun.serving.http import Answer, refusal

MOST_LISTED = 10


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


def find_peer(peers: Sequence[PeerSettings], called: str | None) -> PeerSettings:
    """Find a peer by its name, its public key, or the beginning of its key; None finds the only peer.

    Raises NoSuchPeer, which lists the peers, or AmbiguousPeer, which lists those that match.
    """
    matching = list(peers) if called is None else _matching(peers, called)
    if not peers:
        raise NoSuchPeer("this tunnel has no peers")
    if not matching:
        raise NoSuchPeer(f"no peer has this name or key; the peers are: {_listed(peers)}")
    if len(matching) > 1:
        raise AmbiguousPeer(f"several peers match; name one of them: {_listed(matching)}")
    return matching[0]


def refusal_because(error: VpntunError) -> Answer:
    """Refuse a request about a peer: 404 if there is no such peer, 409 if it cannot be done, or not for this peer."""
    return refusal(HTTPStatus.NOT_FOUND if isinstance(error, NoSuchPeer) else HTTPStatus.CONFLICT, str(error))


def _matching(peers: Iterable[PeerSettings], called: str) -> list[PeerSettings]:
    """List the peers of this name; if there are none, those whose key begins so, as in the log's "peer BEGINNING"."""
    beginning = called.removeprefix("peer ")
    if not beginning:
        return []
    named = [each for each in peers if each.name == called]
    return named or [each for each in peers if format_key(each.public).startswith(beginning)]


def _listed(peers: Sequence[PeerSettings]) -> str:
    described = [_described(each) for each in peers[:MOST_LISTED]]
    more = [f"and {len(peers) - MOST_LISTED} more"] if len(peers) > MOST_LISTED else []
    return ", ".join(described + more)


def _described(settings: PeerSettings) -> str:
    key = format_key(settings.public)
    return f"{settings.name} ({key})" if settings.name else key
