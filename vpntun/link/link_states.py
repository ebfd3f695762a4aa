"""Three states of a link, told apart, each with the time since when it has been as it is.

    carrier up         messages can be sent to a known endpoint: over UDP this host has not refused the last one, a
                       connection is open
    handshake fresh    there is a session, under 180 s old
    data verified      the carrier is up and the handshake is fresh, and within the last interval something has proven
                       that data arrives. With a vpntun that is an ECHO, or a REPORT that counts more than the one
                       before. Any other WireGuard proves it by any authenticated message. Nothing contradicts it: data
                       that waits for a sign of life for 15 s, or PROBEs without an answer

The interval is 30 s, or that of the persistent keepalive and 5 s if that is longer. An idle link proves nothing, so its
data is no longer verified after the interval. `Link.verify` asks for a proof.
"""

from __future__ import annotations

from typing import Protocol

from vpntun.core.endpoint import Endpoint
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
    def endpoint(self) -> Endpoint | None:
        """Where the peer is reached now."""

    @property
    def now(self) -> float:
        """The time at which this turn of the loop began."""

    @property
    def chosen_because(self) -> Reason:
        """Why the carrier in use was chosen, or why there is none."""


def carrier_is_up(link: Observed) -> bool:
    """Return whether messages can be sent to the peer's endpoint."""
    endpoint = link.endpoint
    return endpoint is not None and endpoint.is_open and link.refused_since == NEVER


def handshake_is_fresh(link: Observed) -> bool:
    """Return whether there is a session that can be used."""
    return link.peer.sending_session(link.now) is not None


def proven_at(link: Observed) -> float:
    """Return when the last proof came that data arrives; -NEVER if none has."""
    session = link.peer.keys.current
    if session is not None and link.records.takes_records(session, link.now):
        return link.records.verification.proven_at
    return link.peer.timers.heard_at


def interval_of(link: Observed) -> float:
    """Return for how many seconds a proof holds."""
    return max(INTERVAL, link.peer.timers.persistent_interval + SLACK)


def data_is_verified(link: Observed) -> bool:
    """Return whether data is known to arrive, by a proof within the last interval that nothing contradicts."""
    now = link.now
    if now - proven_at(link) >= interval_of(link) or not (carrier_is_up(link) and handshake_is_fresh(link)):
        return False
    records = link.records
    return not (link.peer.timers.is_silent(now) or records.nothing_arrives or records.verification.is_doubted(now))


def reason_of_carrier(link: Observed) -> Reason:
    """Return why the carrier in use was chosen, or why there is none."""
    if link.refused_since != NEVER and link.endpoint is not None:
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
        now = link.now
        carrier, self._why_down, is_fresh, is_verified = _read(link)
        if carrier != self.carrier:
            self.carrier, self.carrier_since = carrier, now
        if is_fresh != self.handshake_fresh:
            self.handshake_fresh, self.handshake_since = is_fresh, now
        if is_verified != self.data_verified:
            self.data_verified, self.data_since = is_verified, now


def _read(link: Observed) -> tuple[CarrierName | None, str, bool, bool]:
    """Return the carrier that is up, or the reason why there is none, and the other two states."""
    is_fresh, is_verified = handshake_is_fresh(link), data_is_verified(link)
    endpoint = link.endpoint
    if endpoint is None or not carrier_is_up(link):
        return None, reason_of_carrier(link).text, is_fresh, is_verified
    return endpoint.carrier, "", is_fresh, is_verified
