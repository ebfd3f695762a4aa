"""What two ends of a speed test say to each other, in requests inside the tunnel (wire/inside/request.py).

    the asker says                                        the other end
    {"do": "receive", "test": ID, "seconds": N}           counts the load that comes, and drops it
    {"do": "send", "test": ID, "seconds": N}              sends load for so many seconds
    {"do": "state", "test": ID}                           tells the state of the test, and knows that the asker is there
    {"do": "stop", "test": ID}                            ends the test

    it answers                                            when
    {"agreed": true}                                      it receives or sends from now on
    {"refused": "busy"}                                   it does another test, as asker or as the one that is asked
    {"refused": "too often"}                              the tests that this peer has asked for took too much time
    {"refused": "no such test"}                           it knows no test of this peer with this id
    {"refused": "bad request"}                            it does not understand
    {"running": BOOL, "bytes": N, "rate": R, "sent": N, "lost": N}    the state, or the end, of a test: bytes that have
                                                          arrived, in all and a second; datagrams that were sent in the
                                                          later part, and those of them that were lost, or null

Both parse what the other end says here, since it may be anything. Nothing here has I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

LONGEST = 30
"""Seconds of a test in one direction."""

MOST = 1 << 64
"""No number here is as large. A larger one from a peer may be too large for a float, or to be written."""

BUSY, TOO_OFTEN, NO_SUCH_TEST, BAD_REQUEST = "busy", "too often", "no such test", "bad request"
REFUSALS = {
    BUSY: "the peer runs another speed test: try again in a minute",
    TOO_OFTEN: "the peer was asked for too many speed tests: try again in a few minutes",
    NO_SUCH_TEST: "the peer has ended the test, or its tunnel was restarted: try again",
}

Order = Literal["receive", "send", "state", "stop"]


@dataclass(frozen=True, slots=True)
class Demand:
    """What the asker wants. `seconds`: 0 unless a test begins."""

    do: Order
    test: int
    seconds: int = 0

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Demand | None:
        """Parse the body of a request; None if it makes no sense."""
        do, test, seconds = content.get("do"), content.get("test"), content.get("seconds", 0)
        if do not in get_args(Order) or not _is_number(test) or not _is_number(seconds):
            return None
        demand = cls(cast(Order, do), cast(int, test), cast(int, seconds))
        begins = demand.do in ("receive", "send")
        return None if begins and not 1 <= demand.seconds <= LONGEST else demand

    def pack(self) -> dict[str, Any]:
        """The body of the request."""
        seconds = {"seconds": self.seconds} if self.seconds else {}
        return {"do": self.do, "test": self.test, **seconds}


@dataclass(frozen=True, slots=True)
class State:
    """State of a test at the other end. `sent` and `lost`: datagrams, None if nothing is lost on this path."""

    is_running: bool
    bytes: int = 0
    rate: float = 0.0
    sent: int | None = None
    lost: int | None = None

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> State | None:
        """Parse an answer; None if it makes no sense."""
        running, size, rate = content.get("running"), content.get("bytes"), content.get("rate")
        sent, lost = content.get("sent"), content.get("lost")
        if not isinstance(running, bool) or not _is_number(size) or not (_is_number(rate) or _is_share(rate)):
            return None
        if not all(each is None or _is_number(each) for each in (sent, lost)):
            return None
        return cls(running, cast(int, size), float(cast(float, rate)), sent, lost)

    def pack(self) -> dict[str, Any]:
        """The answer."""
        return {
            "running": self.is_running,
            "bytes": self.bytes,
            "rate": self.rate,
            "sent": self.sent,
            "lost": self.lost,
        }


def explain_refusal(content: Mapping[str, Any]) -> str:
    """Return why the other end refuses, in this end's words: the other's may be anything."""
    return REFUSALS.get(str(content.get("refused")), "the peer does not take part in speed tests")


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST


def _is_share(value: object) -> bool:
    return isinstance(value, float) and 0 <= value < MOST
