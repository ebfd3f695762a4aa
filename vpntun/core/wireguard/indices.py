"""The 32-bit indices by which a message says which handshake or session of ours it belongs to.

An index is random and unused, so that it tells nothing and a late message for a freed one meets nobody.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Generic, TypeVar

Owner = TypeVar("Owner")


class Indices(Generic[Owner]):
    """Index -> whoever holds it."""

    def __init__(self) -> None:
        self._owners: dict[int, Owner] = {}
        self.find: Callable[[int], Owner | None] = self._owners.get
        """Who holds an index, or None."""

    def __len__(self) -> int:
        return len(self._owners)

    def reserve(self, owner: Owner) -> int:
        """A fresh index that leads to `owner`."""
        while True:
            index = secrets.randbits(32)
            if index not in self._owners:
                self._owners[index] = owner
                return index

    def hand_over(self, index: int, owner: Owner) -> None:
        """Let an index in use lead to `owner` from now on: a handshake has become a session."""
        self._owners[index] = owner

    def free(self, index: int) -> None:
        """Let an index lead nowhere."""
        self._owners.pop(index, None)
