"""Three states of a link, told apart, each with the time since when it has been as it is.

    carrier up         messages can be sent to a known endpoint: over UDP this host has not refused the last one, a
                       connection is open
    handshake fresh    there is a session, under 180 s old
    data verified      the carrier is up and the handshake is fresh, and within the last interval something has proven
                       that data arrives. With a vpntun that is an ECHO, or a REPORT that counts more than the one
                       before. Any other WireGuard proves it by any authenticated message. Two things refute a proof:
                       data that has waited 15 s for a sign of life, and three PROBEs without an answer

The interval is 30 s, or that of the persistent keepalive and 5 s if that is longer. An idle link proves nothing, so its
data is no longer verified after the interval. `Link.verify` asks for a proof.
"""

from __future__ import annotations

from copy import copy
from typing import Protocol

from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.selection.reason import Reason
from vpntun.core.wireguard.peer import Peer
from vpntun.types import NEVER, CarrierName

INTERVAL = 30.0
SLACK = 5.0
REFUSED = "this host cannot send there"


class Observed(Protocol):
    """The part of a link that its states follow from."""

    peer: Peer
    records: RecordProtocol
    refused_since: float

    @property
    def now(self) -> float:
        """The time at which this turn of the loop began."""

    @property
    def chosen_because(self) -> Reason:
        """Why the carrier in use was chosen, or why there is none."""


def carrier_of(link: Observed) -> CarrierName | None:
    """Return the carrier by which messages can be sent to the peer; None if none is up."""
    endpoint = link.peer.endpoint
    if endpoint is None or not endpoint.is_open or link.refused_since != NEVER:
        return None
    return endpoint.carrier


def proven_at(link: Observed) -> float:
    """Return when the last proof came that data arrives; -NEVER if none has."""
    if link.records.may_be_plain(link.peer.keys.current, link.now):
        return link.peer.timers.heard_at
    return link.records.verification.proven_at


def interval_of(link: Observed) -> float:
    """Return for how many seconds a proof holds."""
    return max(INTERVAL, link.peer.timers.persistent_interval + SLACK)


def proof_holds(link: Observed) -> bool:
    """Return whether there is a proof within the last interval, which nothing contradicts."""
    now, records = link.now, link.records
    age = now - proven_at(link)
    if age >= INTERVAL and age >= interval_of(link):
        return False
    return not (link.peer.timers.is_silent(now) or records.nothing_arrives or records.verification.is_doubted(now))


def reason_of_carrier(link: Observed) -> Reason:
    """Return why the carrier in use was chosen, or why there is none."""
    if link.refused_since != NEVER and link.peer.endpoint is not None:
        return Reason(REFUSED, link.refused_since)
    return link.chosen_because


class LinkStates:
    """The three states as of the last look, and when each began.

    carrier           the carrier that is up; None if none is
    handshake_fresh   as the module's docstring defines it
    data_verified     the same
    *_since           when the state, or the carrier, became what it is
    """

    def __init__(self, now: float) -> None:
        self.carrier: CarrierName | None = None
        self._why_down = ""
        self.handshake_fresh = self.data_verified = False
        self.carrier_since = self.handshake_since = self.data_since = now

    def differ(self, link: Observed) -> bool:
        """Return whether the link is in another state by now, or has another reason for having no carrier."""
        return _read(link) != (self.carrier, self._why_down, self.handshake_fresh, self.data_verified)

    def look(self, link: Observed) -> None:
        """Follow the link."""
        self._follow(link.now, *_read(link))

    def as_of_now(self, link: Observed) -> LinkStates:
        """Return the states after a look that these do not take: themselves if nothing has changed."""
        read = _read(link)
        if read == (self.carrier, self._why_down, self.handshake_fresh, self.data_verified):
            return self
        states = copy(self)
        states._follow(link.now, *read)
        return states

    def _follow(self, now: float, carrier: CarrierName | None, why: str, is_fresh: bool, is_verified: bool) -> None:
        self._why_down = why
        if carrier != self.carrier:
            self.carrier, self.carrier_since = carrier, now
        if is_fresh != self.handshake_fresh:
            self.handshake_fresh, self.handshake_since = is_fresh, now
        if is_verified != self.data_verified:
            self.data_verified, self.data_since = is_verified, now


def _read(link: Observed) -> tuple[CarrierName | None, str, bool, bool]:
    """Return the carrier that is up, or the reason why there is none, and the other two states."""
    carrier, is_fresh = carrier_of(link), link.peer.sending_session(link.now) is not None
    if carrier is None:
        return None, reason_of_carrier(link).text, is_fresh, False
    return carrier, "", is_fresh, is_fresh and proof_holds(link)
