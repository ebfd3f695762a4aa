"""After either end restarts, moves or is cut off, traffic flows again within the promised time."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.netns.lab import PORT, STARTED, Lab, far, firewall, start_client, start_pair, start_server, until
from vpntun.crypto.timestamp import tai64n

WITHIN = {"tcp": 5.0, "udp": 20.0, "auto": 20.0}


@pytest.mark.parametrize("transport", ["udp", "tcp", "auto"])
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_the_server_is_restarted_and_asks_its_client_at_once(lab: Lab, transport: str, how: str) -> None:
    options = ("--transport", transport)
    server, client = start_pair(lab, *options)
    lab.ping(lab.a, far(lab))
    server.kill() if how == "killed" else server.stop()
    assert until(lambda: not lab.b.has_device("tun3"), 3)
    restarted = start_server(lab, *options, "-v")
    lab.ping(lab.a, far(lab), within=WITHIN[transport])
    assert client.running
    asked_by = "the peer" if transport == "tcp" else "this end"  # the client dials
    assert re.findall(r"asked for by ([^)]+)", restarted.log)[0] == asked_by, str(restarted)


def test_a_server_that_forgot_its_client_is_asked_before_the_client_searches(lab: Lab) -> None:
    server, client = start_pair(lab, "--transport", "udp")
    lab.ping(lab.a, far(lab))
    server.kill()
    (remembered,) = lab.folder.glob("*b-run-vpntun/tun3:*.endpoints.json")
    remembered.unlink()
    assert until(lambda: not lab.b.has_device("tun3"), 3)
    restarted = start_server(lab, "--transport", "udp", "-v")
    lab.ping(lab.a, far(lab), within=20)  # after about 5 s; the client would search after 15
    assert "(asked for by the peer)" in restarted.log
    assert "nothing sent to" not in client.log
    assert client.running


@pytest.mark.parametrize("transport", ["udp", "tcp", "auto"])
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_the_client_is_restarted(lab: Lab, transport: str, how: str) -> None:
    options = ("--transport", transport)
    server, client = start_pair(lab, *options)
    lab.ping(lab.a, far(lab))
    client.kill() if how == "killed" else client.stop()
    assert until(lambda: not lab.a.has_device("tun11"), 3)
    start_client(lab, *options)
    lab.ping(lab.a, far(lab), within=WITHIN[transport])
    lab.ping(lab.b, lab.a.address_of("tun11"), within=5)
    assert server.running


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_the_server_is_away_for_a_while(lab: Lab, transport: str) -> None:
    options = ("--transport", transport)
    server, _ = start_pair(lab, *options)
    lab.ping(lab.a, far(lab))
    address = far(lab)
    server.kill()
    lab.no_ping(lab.a, address, seconds=8)
    start_server(lab, *options)
    lab.ping(lab.a, address, within=20)


def test_a_restarted_server_calls_its_client_at_a_link_local_address(lab: Lab) -> None:
    for machine, address in ((lab.a, "fe80::a"), (lab.b, "fe80::b")):
        machine.run("ip", "address", "add", f"{address}/64", "dev", "veth0", "nodad")
    server = start_server(lab)
    start_client(lab, host="fe80::b%veth0").wait_for(f"connected to [fe80::b%veth0]:{PORT} over UDP")
    server.stop()
    start_server(lab)
    lab.ping(lab.b, lab.a.address_of("tun11"), within=5)
    (peer,) = lab.b.status("tun3")["peers"]
    assert peer["endpoint"].startswith("[fe80::")
    assert "%veth0]:" in peer["endpoint"]


@pytest.mark.parametrize("which", ["client", pytest.param("server", marks=pytest.mark.long)])
def test_an_end_that_was_stopped_asks_for_a_new_session_as_soon_as_it_goes_on(lab: Lab, which: str) -> None:
    server, client = start_pair(lab, "-v")
    lab.ping(lab.a, far(lab))
    daemon = server if which == "server" else client
    daemon.process.send_signal(signal.SIGSTOP)
    lab.no_ping(lab.a, far(lab), seconds=6)
    daemon.process.send_signal(signal.SIGCONT)
    lab.ping(lab.a, far(lab), within=2)
    daemon.wait_for("asking for new sessions", 2)
    daemon.wait_for("session with ", 2, count=2)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("transport", ["udp", "tcp", "auto"])
def test_traffic_flows_again_within_a_minute_after_a_long_outage(lab: Lab, transport: str) -> None:
    start_pair(lab, "--transport", transport)
    address = far(lab)
    lab.ping(lab.a, address)
    lab.block("udp")
    lab.block("tcp")
    time.sleep(200)
    lab.unblock("udp")
    lab.unblock("tcp")
    lab.ping(lab.a, address, within=60)


@pytest.mark.long
@pytest.mark.timeout(360)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_keys_are_renewed_while_traffic_flows(lab: Lab, transport: str) -> None:
    start_pair(lab, "--transport", transport)
    lab.ping(lab.a, far(lab))
    # Keys are renewed after 120 s and refused after 180 s. 1,300 pings take two lives of a key; none may be lost.
    done = lab.a.run("ping", "-q", "-i0.2", "-c1300", far(lab), timeout=300)
    assert " 0% packet loss" in done.stdout, done.stdout


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_the_clients_address_changes(lab: Lab, transport: str) -> None:
    start_pair(lab, "--transport", transport)
    lab.ping(lab.a, far(lab))
    lab.a.run("ip", "address", "del", "10.0.0.1/24", "dev", "veth0")
    lab.a.run("ip", "address", "add", "10.0.0.7/24", "dev", "veth0")
    lab.ping(lab.a, far(lab), within=25)
    lab.ping(lab.b, lab.a.address_of("tun11"), within=5)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_the_cable_is_pulled_and_plugged_in_again(lab: Lab, transport: str) -> None:
    server, client = start_pair(lab, "--transport", transport)
    lab.ping(lab.a, far(lab))
    lab.b.run("ip", "link", "set", "veth0", "down")
    lab.no_ping(lab.a, far(lab), seconds=3)
    lab.b.run("ip", "link", "set", "veth0", "up")
    lab.ping(lab.a, far(lab), within=25)
    assert server.running
    assert client.running


def run_client_a_day_ahead(lab: Lab) -> None:
    """Let a client connect whose clock is a day ahead, end it, and remove what it remembers of that."""
    first = start_client(lab)
    first.wait_for("connected to")  # by then it has remembered the time of its handshake
    first.stop()
    (remembered,) = lab.folder.glob("*a-var-lib-vpntun/*.timestamp")
    remembered.write_text(tai64n(time.time() + 86_400).hex())
    ahead = start_client(lab)
    ahead.wait_for("connected to")
    assert ahead.stop() == 0
    remembered.unlink()


@pytest.mark.long
def test_a_client_whose_clock_was_a_day_ahead_is_asked_by_the_server_once_it_has_been_silent(lab: Lab) -> None:
    server = start_server(lab)
    run_client_a_day_ahead(lab)
    client = start_client(lab)
    server.wait_for("an older timestamp than the last")
    client.wait_for("connected to", seconds=45)
    lab.ping(lab.a, far(lab), within=1)


def test_a_client_whose_clock_was_a_day_ahead_gets_in_sooner_by_a_reset(lab: Lab) -> None:
    server = start_server(lab)
    run_client_a_day_ahead(lab)
    client = start_client(lab)
    server.wait_for("an older timestamp than the last")
    assert "connected to" not in client.log
    assert "'vpntun reset'" in server.log
    assert lab.b.ask("reset", "tun3", "nobody")[0] == 1
    status, key = lab.b.ask("reset", "tun3")
    assert (status, key.strip()) == (0, json.loads(lab.b.ask("show", "tun3", "--json")[1])["peers"][0]["public_key"])
    client.wait_for("connected to", seconds=15)
    lab.ping(lab.a, far(lab))
    assert server.log.count("forgot the last timestamp of the peer") == 1


def test_a_name_that_does_not_resolve_is_tried_again(lab: Lab, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    start_server(lab)
    client = lab.a.vpntun("-c", "remote.example.org", "-i", "tun11", "-k", lab.key, binds={"/etc/hosts": hosts})
    client.wait_for(STARTED)
    lab.no_ping(lab.a, far(lab), seconds=2)
    # Append in place: the bind mount refers to the file, not to its name.
    with hosts.open("a") as file:
        file.write("10.0.0.2 remote.example.org\n")
    lab.ping(lab.a, far(lab), within=30)


def test_the_addresses_of_a_name_are_tried_in_turn(lab: Lab, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("fd01::77 remote.example.org\n10.0.0.77 remote.example.org\n10.0.0.2 remote.example.org\n")
    start_server(lab)
    lab.a.vpntun("-c", "remote.example.org", "-i", "tun11", "-k", lab.key, binds={"/etc/hosts": hosts}).wait_for(
        STARTED
    )
    lab.ping(lab.a, far(lab), within=40)


def test_a_connection_that_is_reset_under_traffic_from_the_server_is_opened_again(lab: Lab) -> None:
    start_pair(lab, "--transport", "tcp")
    lab.ping(lab.a, far(lab))
    lab.b.popen("ping", "-q", "-i0.02", "-s1200", "-w30", lab.a.address_of("tun11"))
    reset = ("INPUT", "-p", "tcp", "--dport", str(PORT), "-j", "REJECT", "--reject-with", "tcp-reset")
    lab.b.run(firewall()[0], "-A", *reset)
    lab.no_ping(lab.a, far(lab), seconds=2)
    lab.b.run(firewall()[0], "-D", *reset)
    lab.ping(lab.a, far(lab), within=WITHIN["tcp"])
