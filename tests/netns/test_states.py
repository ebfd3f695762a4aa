"""Three states of a link told apart in the real program: carrier, handshake and data, by `show` and by exit status."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns.lab import Daemon, Lab, Machine, far, start_client, start_pair, start_server, until
from tests.netns.wireguard import (
    OURS_DEVICE,
    THEIRS,
    Keys,
    as_client,
    make_keys,
    missing_tool,
    start_vpntun,
    start_wireguard,
)


def peer_of(machine: Machine, name: str) -> Any:
    shown = machine.run(sys.executable, "-m", "vpntun", "show", name, "--json").stdout
    [peer] = json.loads(shown)["peers"]
    return peer


def text_of(machine: Machine, name: str) -> str:
    return machine.run(sys.executable, "-m", "vpntun", "show", name).stdout


def check(machine: Machine, name: str, *peer: str) -> tuple[int, str]:
    """Return the exit status of `show --check`, and what it prints."""
    done = machine.run(sys.executable, "-m", "vpntun", "show", name, *peer, "--check", check=False)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def comes_to(machine: Machine, name: str, wanted: int, seconds: float) -> bool:
    return until(lambda: check(machine, name)[0] == wanted, seconds, interval=0.2)


@pytest.fixture
def stopped(lab: Lab) -> Iterator[Daemon]:
    """A server that has talked to its client, and is suspended now."""
    server, _ = start_pair(lab)
    lab.ping(lab.a, far(lab))
    assert check(lab.a, "tun11") == (0, "")
    assert check(lab.b, "tun3") == (0, "")
    server.process.send_signal(signal.SIGSTOP)
    yield server
    server.process.send_signal(signal.SIGCONT)


def test_a_client_behind_a_firewall_says_why_it_uses_tcp_and_that_udp_answers_again(lab: Lab) -> None:
    lab.block("udp")
    start_pair(lab)
    lab.ping(lab.a, far(lab), within=8)
    assert re.search(r"^  carrier: TCP for \d.* \(no UDP answer for \d+ seconds?\)$", text_of(lab.a, "tun11"), re.M)
    assert "(the peer called by it)" in text_of(lab.b, "tun3")
    assert peer_of(lab.a, "tun11")["data_verified"]
    assert peer_of(lab.b, "tun3")["data_verified"], "over TCP nothing but the request of show has verified that"
    lab.unblock("udp")
    assert until(lambda: peer_of(lab.a, "tun11")["carrier"] == "udp", 45, interval=0.5), lab.logs()
    assert until(lambda: peer_of(lab.a, "tun11")["data_verified"], 10, interval=0.5), lab.logs()
    peer = peer_of(lab.a, "tun11")
    assert (peer["carrier_up"], peer["carrier_reason"]) == (True, "it answers again")


def test_a_suspended_peer_leaves_the_handshake_fresh_and_the_data_unverified(lab: Lab, stopped: Daemon) -> None:
    assert comes_to(lab.a, "tun11", 13, 15), text_of(lab.a, "tun11")
    peer = peer_of(lab.a, "tun11")
    assert (peer["carrier_up"], peer["handshake_fresh"], peer["data_verified"]) == (True, True, False)
    assert re.search(
        r"; data not verified: no answer for \d+ seconds?, last proof [^,:;]* ago$", check(lab.a, "tun11")[1]
    )
    stopped.process.send_signal(signal.SIGCONT)
    assert comes_to(lab.a, "tun11", 0, 15), text_of(lab.a, "tun11")


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_suspended_peer_has_no_fresh_handshake_after_three_minutes(lab: Lab, stopped: Daemon) -> None:
    assert comes_to(lab.a, "tun11", 14, 200), text_of(lab.a, "tun11")
    assert "handshake not fresh for" in check(lab.a, "tun11")[1]


def test_a_server_that_remembers_where_its_peer_was_lacks_the_handshake_and_one_never_called_the_carrier(
    lab: Lab,
) -> None:
    server = start_server(lab)
    assert check(lab.b, "tun3")[0] == 15
    assert "no carrier (the peer has not called)" in check(lab.b, "tun3")[1]
    client = start_client(lab)
    lab.ping(lab.a, far(lab))
    client.kill()
    server.stop()
    start_server(lab)
    assert comes_to(lab.b, "tun3", 14, 10), text_of(lab.b, "tun3")
    assert "(the peer was there before)" in check(lab.b, "tun3")[1]


def test_a_client_without_its_server_has_no_carrier_and_says_since_when(lab: Lab) -> None:
    start_client(lab)
    assert until(lambda: "no answer over UDP or TCP for" in check(lab.a, "tun11")[1], 30), text_of(lab.a, "tun11")
    assert check(lab.a, "tun11")[0] == 15


def test_a_host_that_refuses_to_send_has_no_carrier(lab: Lab) -> None:
    start_pair(lab, "--transport", "udp")
    lab.ping(lab.a, far(lab))
    lab.b.run("ip", "route", "add", "prohibit", lab.a.four)
    assert until(lambda: "this host cannot send there" in check(lab.b, "tun3")[1], 20), text_of(lab.b, "tun3")
    assert check(lab.b, "tun3")[0] == 15
    lab.b.run("ip", "route", "del", "prohibit", lab.a.four)
    assert comes_to(lab.b, "tun3", 0, 40), text_of(lab.b, "tun3")


def test_show_and_check_may_be_told_one_peer(lab: Lab) -> None:
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    key = peer_of(lab.a, "tun11")["public_key"]
    assert check(lab.a, "tun11", key[:8]) == (0, "")
    done = lab.a.run(sys.executable, "-m", "vpntun", "show", "tun11", "nobody", "--check", check=False)
    assert done.returncode == 1
    assert "no peer has this name or key" in done.stderr


@pytest.mark.long
@pytest.mark.skipif(missing_tool() is not None, reason=f"{missing_tool()} is not installed")
def test_any_message_of_a_plain_wireguard_verifies_data_until_it_falls_silent(lab: Lab) -> None:
    keys: Keys = make_keys(lab)
    wireguard = start_wireguard(lab, keys)
    start_vpntun(lab, keys, *as_client(lab))
    lab.ping(lab.a, THEIRS, within=10)
    assert check(lab.a, OURS_DEVICE) == (0, "")
    peer = peer_of(lab.a, OURS_DEVICE)
    assert (peer["vpntun"], peer["data_verified"], peer["data_unanswered_for"]) == (False, True, None)
    wireguard.stop()
    assert comes_to(lab.a, OURS_DEVICE, 13, 45), text_of(lab.a, OURS_DEVICE)
    assert peer_of(lab.a, OURS_DEVICE)["handshake_fresh"]
