"""Decision whether to send PARITYs (parity.py), because datagrams are lost at random.

    wanted    for the first 1,000 datagrams that count, since a new flow suffers most; then once 0.05% of those sent
              lately are lost, until less than 0.02% are
    active    wanted, the peer takes it, and there is room: the path takes more than is sent
    group     0.08 / p records, 4 to 16, where p is the share of those sent lately that was lost: no more than one of a
              group should be lost

Losses count only if the path has not delayed packets for 0.25 s. A path that delays has a full queue, and the TCP
inside must learn of it. Random loss would look the same to TCP, which would slow down for nothing. A REPORT with more
than 2 datagrams and more than 15% lost does not count either: a queue overflows like that. "Lately" means that older
datagrams fade over 10,000. Without room, a PARITY would take the place of packets.
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
    """Protection on one path. `possible`: whether the peer takes PARITYs. `group`: records that share a parity."""

    def __init__(self) -> None:
        self.possible = False
        self._lately = FadingSums(FADING)
        self.moved()

    def moved(self) -> None:
        """Forget everything: it is another path."""
        self.wanted = True
        self.active = False
        self.group = LARGEST_GROUP
        self._seen = 0
        self._lately.begin()

    def learn(self, sent: int, lost: int, *, delayed: bool = False) -> None:
        """Learn that `lost` of `sent` datagrams were lost. `delayed`: whether the path delayed packets."""
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
        """Whether enough datagrams were seen to tell that protection is wanted, and it is possible."""
        return self.possible and self.wanted and self._seen >= FIRST_LOOK

    def decide(self, room: bool) -> None:
        """Decide whether protection is active from now on. `room`: whether the path takes more than is sent."""
        self.active = self.wanted and self.possible and room
