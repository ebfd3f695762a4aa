"""Reasons for the choice of a carrier, for people: why this one is in use, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vpntun.types import NEVER, CarrierName


class Reason(NamedTuple):
    """A reason in a few words, and since when it holds, by the caller's clock; None if no time belongs to it."""

    text: str
    since: float | None = None


ANSWERED_FIRST = Reason("it answered first")
ANSWERS_AGAIN = Reason("it answers again")
CALLED_BY_IT = Reason("the peer called by it")
NOT_HEARD_YET = Reason("the peer was there before")
HAS_NOT_CALLED = Reason("the peer has not called")
IS_CALLING = Reason("the peer's handshake is incomplete")
HAS_CLOSED = Reason("the peer's connection has closed")
NO_ADDRESS = Reason("no address of the peer is known")


class ReasonsOfClient:
    """Reasons of an end that calls. `allowed`: the carriers that it may use, by preference."""

    def __init__(self, allowed: Sequence[CarrierName]) -> None:
        self._allowed = allowed
        self._preferred = allowed[0]
        self._settled: CarrierName | None = None
        self._of_preferred = ANSWERED_FIRST
        self._preferred_asked_at = NEVER
        """When the preferred carrier was first asked, by data or a handshake, if it has not answered since."""
        self._any_asked_at = NEVER
        """When any carrier was first asked, if none has answered since."""

    def asked(self, now: float, unanswered_since: float = NEVER, carrier: CarrierName | None = None) -> None:
        """Note that a search begins, which asks on every carrier.

        `carrier`: the one in use. `unanswered_since`: since when it has left data unanswered; NEVER if it has not. Data
        is a question, too, and 15 s of silence come before the search. A time without questions does not count.
        """
        since = min(now, unanswered_since)
        self._preferred_asked_at = min(self._preferred_asked_at, since if carrier == self._preferred else now)
        self._any_asked_at = min(self._any_asked_at, since)

    def settled(self, carrier: CarrierName) -> None:
        """Note that a carrier has answered and is used."""
        self._any_asked_at = NEVER
        if carrier == self._preferred:
            self._preferred_asked_at = NEVER
            if carrier != self._settled:
                self._of_preferred = ANSWERED_FIRST if self._settled is None else ANSWERS_AGAIN
        self._settled = carrier

    def reason(self, carrier: CarrierName | None, *, has_address: bool) -> Reason:
        """Return why a carrier is in use, or why none is. `has_address`: whether an address of the peer is known."""
        if carrier is None:
            return self._why_none() if has_address else NO_ADDRESS
        if len(self._allowed) == 1:
            return Reason(f"--transport {carrier}")
        if carrier == self._preferred:
            return self._of_preferred
        return Reason(f"no {self._preferred.upper()} answer", _if_any(self._preferred_asked_at))

    def _why_none(self) -> Reason:
        names = " or ".join(name.upper() for name in self._allowed)
        return Reason(f"no answer over {names}", _if_any(self._any_asked_at))


def reason_of_server(carrier: CarrierName | None, *, is_heard: bool, has_closed: bool) -> Reason:
    """Return why a carrier is in use at an end that is called, or why none is.

    `is_heard`: whether the peer has ever been heard. `has_closed`: whether its connection has closed since.
    """
    if carrier is not None:
        return CALLED_BY_IT if is_heard else NOT_HEARD_YET
    if has_closed:
        return HAS_CLOSED
    return IS_CALLING if is_heard else HAS_NOT_CALLED


def _if_any(moment: float) -> float | None:
    return moment if moment != NEVER else None
