"""Permissions to use this end's services: random tokens, each given to one visitor for one service.

A token lasts LASTS seconds, and opens any number of connections meanwhile. It is checked again at each of them, so that
a service which a reload has withdrawn is closed to those who have a token. Of each peer the last MOST_OF_A_PEER count:
none can take the place of others'.

Times are seconds of the caller's clock.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass

from vpntun.services.neighbours import Visitor
from vpntun.wire.inside.services import TOKEN_SIZE

LASTS = 600.0
MOST_OF_A_PEER = 200


@dataclass(frozen=True)
class Permission:
    """What a token stands for."""

    token: bytes
    service: str
    visitor: Visitor
    until: float


class Permissions:
    """The permissions that are valid now."""

    def __init__(self) -> None:
        self._by_token: dict[bytes, Permission] = {}
        self._by_peer: dict[bytes, deque[Permission]] = {}

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._by_token)

    def give(self, service: str, visitor: Visitor, now: float) -> bytes:
        """Return a new token."""
        permission = Permission(secrets.token_bytes(TOKEN_SIZE), service, visitor, now + LASTS)
        kept = self._by_peer.setdefault(visitor.public, deque())
        kept.append(permission)
        while len(kept) > MOST_OF_A_PEER or kept[0].until <= now:
            del self._by_token[kept.popleft().token]
        self._by_token[permission.token] = permission
        return permission.token

    def of(self, token: bytes, now: float) -> Permission | None:
        """Return what a token stands for; None if it was never given, or is over."""
        permission = self._by_token.get(token)
        return permission if permission is not None and now < permission.until else None

    def keep(self, peers: set[bytes]) -> None:
        """Forget the permissions of all peers but these."""
        for public in self._by_peer.keys() - peers:
            for permission in self._by_peer.pop(public):
                del self._by_token[permission.token]
