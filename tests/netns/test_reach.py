"""`vpntun doctor HOST` calls another machine: each reason why it does not answer is told from the others."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import pytest

from tests.netns.lab import NOBODY, PORT, Lab, far, firewall, start_client, start_server
from tests.netns.wireguard import make_keys, missing_tool, start_wireguard


def findings(lab: Lab, host: str, *options: object, **run: Any) -> dict[str, dict[str, Any]]:
    """Let machine a call; return the findings about the other machine, by their check."""
    command = [sys.executable, "-m", "vpntun", "doctor", "--json", host, *map(str, options)]
    done = lab.a.run(*command, check=False, timeout=100, **run)
    return {each["check"]: each for each in json.loads(done.stdout)["findings"] if " port " in each["about"]}


def with_key(lab: Lab, *options: object) -> dict[str, dict[str, Any]]:
    return findings(lab, lab.b.four, "-k", lab.key, *options)


def verdicts(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: each["verdict"] for name, each in found.items()}


@pytest.mark.parametrize("version", [4, 6])
def test_a_waiting_server_answers_by_both_carriers(lab: Lab, version: int) -> None:
    start_server(lab)
    found = findings(lab, lab.b.four if version == 4 else lab.b.six, "-k", lab.key)
    assert verdicts(found) == {"UDP": "ok", "TCP": "ok", "path MTU": "ok"}
    assert "answers a handshake in" in found["UDP"]["text"]
    assert found["path MTU"]["text"].startswith("packets of 1500 bytes come back")


def test_a_client_connects_right_after_the_calls(lab: Lab) -> None:
    start_server(lab)
    assert verdicts(with_key(lab))["UDP"] == "ok"
    began = time.monotonic()
    start_client(lab)
    lab.ping(lab.a, far(lab), within=10)
    assert time.monotonic() - began < 10


def test_udp_that_is_blocked_is_a_warning_beside_tcp(lab: Lab) -> None:
    start_server(lab)
    lab.block("udp")
    found = with_key(lab)
    assert verdicts(found) == {"UDP": "warning", "TCP": "ok"}
    assert found["UDP"]["text"] == (
        f"{lab.b.four} port {PORT} does not answer over UDP: a firewall on the way drops it, but another way works"
    )
    assert verdicts(with_key(lab, "--transport", "udp")) == {"UDP": "failed"}


def test_tcp_that_is_blocked_is_a_warning_beside_udp(lab: Lab) -> None:
    start_server(lab)
    lab.block("tcp")
    found = with_key(lab)
    assert verdicts(found) == {"UDP": "ok", "TCP": "warning", "path MTU": "ok"}
    assert "does not answer over TCP: a firewall on the way drops it" in found["TCP"]["text"]


def test_both_that_are_blocked_are_a_fault(lab: Lab) -> None:
    start_server(lab)
    lab.block("udp")
    lab.block("tcp")
    assert verdicts(with_key(lab)) == {"UDP": "failed", "TCP": "failed"}


def test_a_machine_without_vpntun_refuses(lab: Lab) -> None:
    found = with_key(lab)
    assert verdicts(found) == {"UDP": "failed", "TCP": "failed"}
    assert f"{lab.b.four} port {PORT} refuses UDP: nothing listens there" in found["UDP"]["text"]
    assert f"{lab.b.four} port {PORT} refuses TCP: nothing listens there" in found["TCP"]["text"]


def test_a_wrong_key_is_suspected_where_tcp_connects(lab: Lab) -> None:
    start_server(lab)
    found = findings(lab, lab.b.four, "-k", lab.new_key("other.key"))
    assert verdicts(found) == {"UDP": "failed", "TCP": "failed"}
    assert "takes TCP connections but answers no handshake: the keys differ" in found["TCP"]["text"]
    assert "the keys may differ" in found["UDP"]["text"]


def test_a_missing_key_file_is_said_before_anything_is_sent(lab: Lab) -> None:
    found = findings(lab, lab.b.four, "-k", lab.folder / "none.key")
    assert verdicts(found) == {"reach": "failed"}
    assert "none.key" in found["reach"]["text"] + found["reach"]["remedy"]


def test_no_route_is_told_from_silence(lab: Lab) -> None:
    found = findings(lab, "192.0.2.1", "-k", lab.key)
    assert verdicts(found) == {"UDP": "failed", "TCP": "failed"}
    assert "cannot be reached over UDP: Network is unreachable" in found["UDP"]["text"]


def test_an_own_firewall_that_lets_nothing_out_is_blamed(lab: Lab) -> None:
    lab.a.run(firewall()[0], "-w", "-A", "OUTPUT", "-p", "udp", "-j", "DROP")
    found = with_key(lab, "--transport", "udp")
    assert "this machine's packet filter lets no UDP out" in found["UDP"]["text"]


def test_a_name_that_does_not_exist_is_found_out(lab: Lab) -> None:
    found = findings(lab, "no-such-host.invalid", "-k", lab.key)
    assert found["name"]["verdict"] == "failed"
    assert "no-such-host.invalid" in found["name"]["text"]
    assert found["reach"]["verdict"] == "skipped"


@pytest.mark.parametrize("is_silent", [False, True], ids=["routers tell", "routers are silent"])
def test_a_narrow_path_is_measured(lab: Lab, is_silent: bool) -> None:
    start_server(lab)
    for machine in (lab.a, lab.b):
        machine.run("ip", "link", "set", "veth0", "mtu", "1400" if machine is lab.b else "1500")
    if not is_silent:
        lab.a.run("ip", "route", "replace", f"{lab.b.four}/32", "dev", "veth0", "mtu", "1400")
    found = with_key(lab, "--transport", "udp")
    assert found["UDP"]["verdict"] == "ok"
    assert "packets of 1400 bytes come back" in found["path MTU"]["text"]
    assert found["path MTU"]["verdict"] == ("warning" if is_silent else "ok")


def test_a_running_tunnel_with_the_same_keys_is_left_alone(lab: Lab) -> None:
    server = start_server(lab)
    start_client(lab)
    lab.ping(lab.a, far(lab))
    found = with_key(lab)
    assert verdicts(found) == {"reach": "ok"}
    assert f"tun11 uses these keys and is connected to {lab.b.four}:{PORT} by UDP" in found["reach"]["text"]
    assert server.log.count("session with") <= 1, "no other handshake"
    lab.ping(lab.a, far(lab), within=1)


def test_a_tunnel_of_roots_with_the_same_keys_is_not_disturbed_by_a_user(lab: Lab) -> None:
    """The user may not ask it, nor even see its socket; nor which files root has."""
    home, closed = lab.home(), lab.folder / "closed"
    key = home / "key"
    key.write_bytes(lab.key.read_bytes())
    key.chmod(0o600)
    os.chown(key, NOBODY, NOBODY)
    closed.mkdir(mode=0o700)
    server = start_server(lab)
    start_client(lab)
    lab.ping(lab.a, far(lab))
    lab.a.run("chmod", "0700", "/run/vpntun")
    as_user = {"user": str(NOBODY), "env": {"HOME": str(home)}, "binds": {"/etc/wireguard": closed}}
    found = findings(lab, lab.b.four, "-k", key, **as_user)
    assert verdicts(found) == {"UDP": "ok", "TCP": "ok", "path MTU": "skipped"}
    assert "tun11 may use the same keys" in found["path MTU"]["text"]
    lab.ping(lab.a, far(lab), within=1)
    assert server.log.count("session with") <= 1, "no other session was used"


@pytest.mark.skipif(missing_tool() is not None, reason=str(missing_tool()))
def test_a_plain_wireguard_answers_and_keeps_its_endpoint(lab: Lab) -> None:
    keys = make_keys(lab)
    wireguard = start_wireguard(lab, keys)
    options = ("--private-key", keys.ours.file, "--peer", keys.theirs.public, "-p", 51820)
    found = findings(lab, lab.b.four, *options)
    assert verdicts(found) == {"UDP": "ok", "path MTU": "ok"}
    assert "as far as routers tell" in found["path MTU"]["text"]
    assert wireguard.shown("latest-handshakes", keys.ours.public) == "0", "nothing has confirmed the session"
    wrong = findings(lab, lab.b.four, "--private-key", keys.theirs.file, "--peer", keys.ours.public, "-p", 51820)
    assert verdicts(wrong) == {"UDP": "failed"}


def test_a_short_name_is_called_only_with_a_clients_options(lab: Lab) -> None:
    status, said = lab.a.ask("doctor", "localhost")
    assert (status, "-k or -p" in said) == (3, True), said
    found = findings(lab, "localhost", "-p", "9", "--transport", "tcp", "-k", lab.key)
    assert "refuses TCP" in found["TCP"]["text"]


def test_a_file_whose_tunnel_does_not_run_has_its_peers_called(lab: Lab) -> None:
    file = lab.folder / "office.conf"
    file.touch(mode=0o600)
    file.write_text(f"[Interface]\nSharedKey = {lab.key}\nRole = client\n\n[Peer]\nEndpoint = {lab.b.four}:{PORT}\n")
    command = (sys.executable, "-m", "vpntun", "doctor", "--json", file)

    def said() -> dict[str, str]:
        found = json.loads(lab.a.run(*command, check=False, timeout=100).stdout)["findings"]
        return verdicts({each["check"]: each for each in found if each["about"] == "office"})

    assert (said()["UDP"], said()["TCP"]) == ("failed", "failed")
    start_server(lab)
    assert (said()["UDP"], said()["TCP"]) == ("ok", "ok")
