"""Whether datagrams are lost at random, and whether single records go with PARITYs then (parity.py).

    wanted    for the first 1,000 datagrams that tell of losses, since a flow that begins suffers most; then if 0.05% of
              those that were sent lately are lost, until less than 0.02% are
    active    besides, the peer takes it, and there is room: the path takes more than it is given
    group     0.08 / p records, 4 to 16: of a group no more than one should be lost

Only losses on a path that has not delayed for 0.25 s count. Where a path delays, a queue is full, and the TCP inside
has to hear of that; random loss it would take for the same, and slow down for nothing. A REPORT of more than 2
datagrams and more than 15% lost does not count either: a queue overflows like that. "Lately": older datagrams fade over
10,000. Where there is no room, a PARITY would take the place of packets.
"""

from __future__ import annotations

from vpntun.core.records.path_estimator import FadingSums

FADING = 10_000
FIRST_LOOK = 1_000
WANTED_OVER, UNWANTED_UNDER = 0.0005, 0.0002
DELAY_HOLDS = 0.25
MOST_AT_ONCE, MOST_SHARE_AT_ONCE = 2, 0.15
AIM = 0.08
SMALLEST_GROUP, LARGEST_GROUP = 4, 16


class Protection:
    """Of one path. `possible`: whether the peer takes it. `group`: records that share a parity."""

    def __init__(self) -> None:
        self.possible = False
        self._lately = FadingSums(FADING)
        self.moved()

    def moved(self) -> None:
        """Another path: nothing is known of it."""
        self.wanted = True
        self.active = False
        self.group = LARGEST_GROUP
        self._seen = 0
        self._lately.begin()

    def learn(self, sent: int, lost: int, *, delayed: bool = False) -> None:
        """So many datagrams were sent, and so many of them lost. `delayed`: the path delayed what it was sent."""
        if delayed or (lost > MOST_AT_ONCE and lost > MOST_SHARE_AT_ONCE * sent):
            return
        lately = self._lately
        lately.add(sent, min(sent, max(0, lost)))
        self._seen += sent
        if self._seen < FIRST_LOOK:
            return
        self.wanted = lately.lost > lately.sent * (UNWANTED_UNDER if self.wanted else WANTED_OVER)
        if self.wanted:
            self.group = max(SMALLEST_GROUP, min(LARGEST_GROUP, int(AIM * lately.sent / lately.lost)))

    @property
    def loses_at_random(self) -> bool:
        """Whether it is wanted by what was seen, and possible."""
        return self.possible and self.wanted and self._seen >= FIRST_LOOK

    def decide(self, room: bool) -> None:
        """Be active from now on, or not."""
        self.active = self.wanted and self.possible and room
