"""Requests of the control socket for speed tests (`vpntun speed`).

POST /v1/speed/run     begin a test of ?peer= that takes ?seconds= in each direction
GET  /v1/speed         report how far it is, and what it has measured
POST /v1/speed/stop    end it
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from vpntun.config.peer import PeerSettings, find_peer
from vpntun.control.reset import refusal_because
from vpntun.control.state import TunnelState
from vpntun.core.speed.agreement import LONGEST
from vpntun.crypto.keys import format_key
from vpntun.errors import AmbiguousPeer, CannotAsk, CannotTest, NoSuchPeer, VpntunError
from vpntun.serving.http import Answer, Route

SECONDS = 5


class SpeedRequests:
    """Answers to requests about the speed tests of one tunnel."""

    def __init__(self, state: TunnelState) -> None:
        self._state = state
        self._peer: PeerSettings | None = None
        self._begun = 0

    def start(self, peer: str | None = None, seconds: str = str(SECONDS)) -> Answer:
        """Begin a test. `peer`: as in `find_peer`."""
        try:
            if not seconds.isascii() or not seconds.isdigit():
                raise CannotTest(f"a speed test takes 1 to {LONGEST} seconds in each direction")
            settings = find_peer(self._state.tunnel.peers, peer)
            link = self._state.link_of(settings.public)
            if self._state.speed_tests is None:
                raise VpntunError(f"{self._state.tunnel.interface} is still being set up")
            self._state.speed_tests.start(link, int(seconds))
        except (AmbiguousPeer, CannotAsk, CannotTest, NoSuchPeer) as error:
            return refusal_because(error)
        self._peer = settings
        self._begun += 1
        return Answer(HTTPStatus.ACCEPTED, self._report())

    def report(self) -> Answer:
        """Report the test that runs, or the last one."""
        return Answer(HTTPStatus.OK, self._report())

    def stop(self) -> Answer:
        """End the test that runs; without one, nothing happens."""
        test = self._state.speed_tests and self._state.speed_tests.last
        if test:
            test.stop()
        return Answer(HTTPStatus.OK, self._report())

    def _report(self) -> dict[str, Any]:
        test = self._state.speed_tests and self._state.speed_tests.last
        if not test or self._peer is None:
            return {"state": "none"}
        endpoint = test.link.endpoint
        return {
            "state": test.status,
            "test": self._begun,
            "public_key": format_key(self._peer.public),
            "name": self._peer.name,
            "carrier": endpoint.carrier if endpoint is not None else None,
            "seconds": test.seconds,
            "phase": test.phase,
            "progress": round(test.progress, 3),
            "rate": test.rate if test.rate is None else round(test.rate),
            "error": test.error,
            "idle": test.result.get("idle"),
            "up": test.result.get("up"),
            "down": test.result.get("down"),
        }


def speed_routes(state: TunnelState) -> dict[str, Route]:
    """Return the routes of speed tests."""
    requests = SpeedRequests(state)
    return {
        "/v1/speed": Route("GET", requests.report),
        "/v1/speed/run": Route("POST", requests.start, frozenset({"peer", "seconds"})),
        "/v1/speed/stop": Route("POST", requests.stop),
    }
