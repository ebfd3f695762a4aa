"""The state of a tunnel while its parts are made, and for as long as they cannot be asked."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from types import SimpleNamespace
from typing import cast

import pytest

from tests.machine import HandLoop
from vpntun.carriers.base import Carrier
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import HookLines, Tunnel
from vpntun.control.state import PEERS_PER_TURN, TunnelState
from vpntun.control.status import status_of, status_of_peers
from vpntun.core.mac_table import LOCAL, MacTable
from vpntun.crypto.keys import KeyPair, format_key
from vpntun.datapath.switching.switch import Switch
from vpntun.errors import VpntunError
from vpntun.link.link import Link
from vpntun.process.service import RunOptions, Service
from vpntun.process.start import Start
from vpntun.runtime.resolver import Lookups
from vpntun.tun.fake import FakeDevice
from vpntun.wire.ethernet.mac import mac_text

CALLED = PeerSettings(KeyPair.generate().public, (ip_network("10.0.0.0/24"),), host="office.example", port=1)
LITERAL = PeerSettings(KeyPair.generate().public, (ip_network("10.0.1.0/24"),), host="192.0.2.1", port=1)


@pytest.fixture
def state(loop: HandLoop) -> TunnelState:
    with ExitStack() as stack:
        start = Start(HookLines(), Service(RunOptions(), None, loop, stack), loop, lambda _: None)
        tunnel = Tunnel("tun3", KeyPair.generate(), (CALLED, LITERAL), None, None)
        return TunnelState(tunnel, start, loop, Counter({"unknown peer": 2}))


def test_before_anything_is_made_the_configuration_is_reported(loop: HandLoop, state: TunnelState) -> None:
    loop.pass_time(7.0)
    status = state.status()
    assert (status["starting"], status["mtu"], status["addresses"], status["uptime"]) == ("the set-up", None, [], 7)
    assert status["drops"] == {"unknown peer": 2}
    assert [peer["public_key"] for peer in status["peers"]] == [format_key(each.public) for each in (CALLED, LITERAL)]
    assert {peer["state"] for peer in status["peers"]} == {"connecting"}


@pytest.mark.parametrize("count", [0, 1, PEERS_PER_TURN, PEERS_PER_TURN + 1, 3 * PEERS_PER_TURN])
def test_the_status_is_written_in_parts_of_some_peers_each(
    state: TunnelState, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    for function in (status_of, status_of_peers):
        monkeypatch.setitem(function.__kwdefaults__ or {}, "clock", lambda: 1e9)
    peers = tuple(PeerSettings(bytes([number]) * 32, ()) for number in range(count))
    state.tunnel = replace(state.tunnel, peers=peers)
    parts = list(state.write_status())
    assert "".join(filter(None, parts)) == json.dumps(state.status())
    assert parts.count(None) == max(0, -(-count // PEERS_PER_TURN) - 1)


def test_parts_are_reported_once_they_are_made_and_only_while_they_can_be_asked(
    loop: HandLoop, state: TunnelState
) -> None:
    device, lookups = FakeDevice(1300), Lookups(loop)
    state.device, state.addresses, state.lookups = device, [ip_interface("10.0.0.1/24")], lookups
    status = state.status()
    assert (status["mtu"], status["addresses"]) == (1300, ["10.0.0.1/24"])
    assert [peer["unresolved"] for peer in status["peers"]] == ["office.example", None]
    device.elsewhere = True
    assert state.status()["mtu"] is None
    lookups.close()
    device.close()


def test_a_tap_has_its_mac_address_and_what_its_switch_has_learnt(loop: HandLoop, state: TunnelState) -> None:
    device = FakeDevice(kind="tap")
    state.tunnel = replace(state.tunnel, peers=(), device="tap")
    state.device, table = device, MacTable[Link]()
    state.switch = cast(Switch, SimpleNamespace(table=table))
    table.claim(bytes((2, 0, 0, 0, 0, 9)), LOCAL, loop.now)
    loop.pass_time(7.0)
    status = state.status()
    assert (status["device"], status["mac"]) == ("tap", mac_text(device.mac))
    assert status["macs"] == [{"address": "02:00:00:00:00:09", "seconds": 7}]
    device.close()


def test_wg_is_told_the_port_and_the_mark_as_soon_as_they_are_known(state: TunnelState) -> None:
    assert not any(line.startswith(("listen_port=", "fwmark=")) for line in state.lines_for_wg())
    state.mark = 51820
    state.carriers = {"tcp": cast(Carrier, SimpleNamespace(port=0)), "udp": cast(Carrier, SimpleNamespace(port=1194))}
    assert {"listen_port=1194", "fwmark=51820"} <= set(state.lines_for_wg())
    assert [line for line in state.lines_for_wg() if line.startswith("public_key=")] == [
        f"public_key={peer.public.hex()}" for peer in (CALLED, LITERAL)
    ]


def test_a_reset_before_there_are_links_is_refused(state: TunnelState) -> None:
    with pytest.raises(VpntunError, match="tun3 is still being set up"):
        state.forget_timestamp(format_key(LITERAL.public))


def test_a_reset_without_a_private_key_is_refused_with_the_command_that_gives_one(state: TunnelState) -> None:
    state.tunnel = replace(state.tunnel, identity=None)
    with pytest.raises(VpntunError, match="tun3 is still being set up"):
        state.forget_timestamp(format_key(LITERAL.public))
    state.is_running = True
    with pytest.raises(VpntunError, match="no private key: give it one with 'wg set tun3 private-key FILE'"):
        state.forget_timestamp(format_key(LITERAL.public))
