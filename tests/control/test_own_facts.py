"""GET /v1/doctor: facts that only the tunnel's process knows, before and after its device is opened."""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.machine import HandLoop
from vpntun import __version__
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import HookLines, Routing, Tunnel
from vpntun.control.own_facts import own_facts, routes_of_facts
from vpntun.control.state import TunnelState
from vpntun.crypto.keys import KeyPair, format_key
from vpntun.process.service import RunOptions, Service
from vpntun.process.start import Start
from vpntun.serving.http import Answer, follow
from vpntun.tun.fake import FakeDevice

DOCS = (Path(__file__).parents[2] / "docs" / "control.rst").read_text()
CALLED = PeerSettings(KeyPair.generate().public, (ip_network("10.0.0.0/24"),), host="office.example", port=1)
CALLER = PeerSettings(KeyPair.generate().public, (ip_network("10.0.1.0/24"),), b"s" * 32)


@pytest.fixture
def state(loop: HandLoop) -> TunnelState:
    with ExitStack() as stack:
        start = Start(HookLines(), Service(RunOptions(), None, loop, stack), loop, lambda _: None)
        tunnel = Tunnel("tun3", KeyPair.generate(), (CALLED, CALLER), None, None, routing=Routing("auto"))
        return TunnelState(tunnel, start, loop, Counter())


def test_before_the_device_is_open(state: TunnelState) -> None:
    facts = own_facts(state)
    assert facts["program"]["version"] == __version__
    assert (facts["offloads"], facts["table"], facts["mark"], facts["routes"]) == (None, "auto", 0, [])
    assert facts["peers"] == [
        {"public_key": format_key(CALLED.public), "endpoint": "office.example:1"},
        {"public_key": format_key(CALLER.public), "endpoint": None},
    ]


def test_once_the_device_is_open(state: TunnelState) -> None:
    device = FakeDevice(1300)
    state.device, state.mark = device, 0xCA6C
    state.tunnel = replace(state.tunnel, routes=(ip_network("10.7.0.0/16"),))
    answer = follow(routes_of_facts(state), "GET", "/v1/doctor")
    assert isinstance(answer, Answer)
    facts = json.loads(answer.body)
    assert facts["offloads"] == {"tcp": device.takes_tcp, "udp": device.takes_udp}
    assert (facts["mark"], facts["routes"], facts["in_run"]) == (0xCA6C, ["10.7.0.0/16"], False)
    device.close()


def test_the_documented_fields_are_those_reported_in_that_order(state: TunnelState) -> None:
    [rows] = re.findall(r"^\.\. facts\n\n=.*\n.*\n=.*\n((?:.+\n)+?)=", DOCS, re.MULTILINE)
    documented = [row.split("  ")[0].strip("`") for row in rows.splitlines() if not row.startswith(" ")]
    assert documented == list(own_facts(state))


def test_no_fact_is_a_secret(state: TunnelState) -> None:
    assert state.tunnel.identity is not None
    written = json.dumps(own_facts(state))
    assert format_key(state.tunnel.identity.private) not in written
    assert format_key(CALLER.psk) not in written
