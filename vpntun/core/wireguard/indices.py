"""The 32-bit indices by which messages name a handshake or session of this end.

An index is chosen at random among the unused ones. So it reveals nothing, and a late message for a freed index finds no
owner.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Generic, TypeVar

Owner = TypeVar("Owner")


class Indices(Generic[Owner]):
    """A map from each index in use to its owner."""

    def __init__(self) -> None:
        self._owners: dict[int, Owner] = {}
        self.find: Callable[[int], Owner | None] = self._owners.get
        """Return the owner of an index, or None."""

    def __len__(self) -> int:
        return len(self._owners)

    def reserve(self, owner: Owner) -> int:
        """Choose a fresh index for `owner` and return it."""
        while True:
            index = secrets.randbits(32)
            if index not in self._owners:
                self._owners[index] = owner
                return index

    def hand_over(self, index: int, owner: Owner) -> None:
        """Give an index in use a new owner, as when a handshake has become a session."""
        self._owners[index] = owner

    def free(self, index: int) -> None:
        """Free an index; it may already be free."""
        self._owners.pop(index, None)
