"""Whether bursts go with a parity, by which the other end restores one datagram that was lost (wire/burst.py).

    wanted    one datagram was lost, and 0.05% of those that were sent lately; until less than 0.02% are
    active    besides, the peer takes it, and there is room: the path takes more than it is given, or this program is
              what limits the link

Only what is lost on a path that does not delay is counted. Where it does, a queue is full, and that is what the TCP
inside has to hear of; what is lost at random it would take for the same, and slow down for nothing. Lately: older ones
fade over 10,000 datagrams. Where there is no room, a parity would take the place of packets.
"""

from __future__ import annotations

from vpntun.core.measured import FadingSums

FADING = 10_000
WANTED_OVER, UNWANTED_UNDER = 0.0005, 0.0002


class Protection:
    """Of one path. `possible`: whether the peer takes it."""

    def __init__(self) -> None:
        self.possible = False
        self._lately = FadingSums(FADING)
        self.moved()

    def moved(self) -> None:
        """Another path: nothing is known of it."""
        self.wanted = self.active = False
        self._lately.begin()

    def learn(self, sent: int, lost: int) -> None:
        """So many datagrams were sent while the path did not delay, and so many of them lost."""
        lately = self._lately
        lately.add(sent, min(sent, max(0, lost)))
        self.wanted = lately.lost > lately.sent * (UNWANTED_UNDER if self.wanted else WANTED_OVER)

    def decide(self, room: bool) -> bool:
        """Whether it is active now, or no longer, and was not before."""
        former, self.active = self.active, self.wanted and self.possible and room
        return self.active is not former
