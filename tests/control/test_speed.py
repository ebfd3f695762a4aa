"""Requests for speed tests: begin, report, end, and every refusal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

import pytest

from tests.machine import HandLoop
from tests.speed.ends import Ends
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import HookLines, Tunnel
from vpntun.control.speed import speed_routes
from vpntun.control.state import TunnelState
from vpntun.crypto.keys import format_key
from vpntun.datapath.links import Links
from vpntun.errors import VpntunError
from vpntun.process.service import RunOptions, Service
from vpntun.process.start import Start
from vpntun.serving.http import Answer, Route, follow

STATES = {"state", "test", "public_key", "name", "carrier", "seconds", "phase", "progress", "rate", "error"}


class Tunnels(Ends):
    """Two ends, of which Alice's has a control socket's routes."""

    def __init__(self, loop: HandLoop, *, plain: bool = False) -> None:
        super().__init__(loop, plain=plain)
        with ExitStack() as stack:
            start = Start(HookLines(), Service(RunOptions(), None, loop, stack), loop, lambda _: None)
            peer = PeerSettings(self.bob.identity.public, (), name="bob")
            self.state = TunnelState(Tunnel("tun3", self.alice.identity, (peer,), None, None), start, loop, Counter())
        self.routes: dict[str, Route] = speed_routes(self.state)

    def begin(self) -> None:
        """Finish the set-up."""
        self.state.links = cast(Links, SimpleNamespace(of=lambda _: self.alice.link))
        self.state.speed_tests = self.asking
        self.state.is_running = True

    def ask(self, method: str, target: str) -> tuple[int, dict[str, Any]]:
        answer = follow(self.routes, method, target)
        assert isinstance(answer, Answer)
        return answer.status.value, json.loads(answer.body)


@pytest.fixture
def tunnels(loop: HandLoop) -> Iterator[Tunnels]:
    made = Tunnels(loop)
    made.begin()
    yield made
    made.close()


def test_a_test_is_begun_and_reported_until_it_is_done(tunnels: Tunnels) -> None:
    assert tunnels.ask("GET", "/v1/speed") == (200, {"state": "none"})
    status, report = tunnels.ask("POST", "/v1/speed/run?peer=bob&seconds=2")
    assert status == 202
    assert report["state"] == "running"
    assert set(report) == STATES | {"idle", "up", "down"}
    tunnels.run(20, until=lambda: not tunnels.asking.is_asking)
    status, report = tunnels.ask("GET", "/v1/speed")
    assert (status, report["state"], report["phase"], report["progress"]) == (200, "done", "down", 1.0)
    assert (report["name"], report["public_key"]) == ("bob", format_key(tunnels.bob.identity.public))
    assert (report["carrier"], report["seconds"], report["error"]) == ("udp", 2, None)
    assert set(report["idle"]) == {"round_trip", "round_trip_95"}
    assert set(report["up"]) == set(report["down"]) == {"rate", "bytes", "loss", "round_trip", "round_trip_95"}


def test_a_test_is_ended(tunnels: Tunnels) -> None:
    assert tunnels.ask("POST", "/v1/speed/stop") == (200, {"state": "none"})
    tunnels.ask("POST", "/v1/speed/run")
    status, report = tunnels.ask("POST", "/v1/speed/stop")
    assert (status, report["state"]) == (200, "stopped")


def test_tests_have_numbers(tunnels: Tunnels) -> None:
    for number in (1, 2):
        assert tunnels.ask("POST", "/v1/speed/run")[1]["test"] == number
        assert tunnels.ask("POST", "/v1/speed/run")[0] == 409
        assert tunnels.ask("POST", "/v1/speed/stop")[1]["test"] == number


def test_a_second_test_is_refused(tunnels: Tunnels) -> None:
    tunnels.ask("POST", "/v1/speed/run")
    status, said = tunnels.ask("POST", "/v1/speed/run")
    assert status == 409
    assert "running already" in said["error"]


@pytest.mark.parametrize("seconds", ["0", "31", "-1", "x", "", "1.5", "\u0661", "9" * 3000])
def test_other_lengths_are_refused(tunnels: Tunnels, seconds: str) -> None:
    status, said = tunnels.ask("POST", f"/v1/speed/run?seconds={quote(seconds)}")
    assert status == 409
    assert "1 to 30 seconds" in said["error"]


def test_an_unknown_peer_is_refused(tunnels: Tunnels) -> None:
    assert tunnels.ask("POST", "/v1/speed/run?peer=carol")[0] == 404


def test_a_plain_wireguard_is_refused(loop: HandLoop) -> None:
    tunnels = Tunnels(loop, plain=True)
    tunnels.begin()
    status, said = tunnels.ask("POST", "/v1/speed/run")
    assert status == 409
    assert "not a vpntun" in said["error"]
    tunnels.close()


def test_a_tunnel_that_is_being_set_up_says_so(loop: HandLoop) -> None:
    tunnels = Tunnels(loop)
    with pytest.raises(VpntunError, match="still being set up"):
        tunnels.ask("POST", "/v1/speed/run")
    tunnels.close()
