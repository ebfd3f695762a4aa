"""The choice of UDP or TCP, fixed or automatic. Blocking a carrier shows which one is in use."""

from __future__ import annotations

import pytest

from tests.netns.lab import PORT, Lab, far, firewall, start_client_and_ping, start_pair, start_server, until


@pytest.mark.parametrize(("transport", "other"), [("udp", "tcp"), ("tcp", "udp")])
def test_one_transport_works_while_the_other_is_blocked(lab: Lab, transport: str, other: str) -> None:
    lab.block(other)
    start_server(lab, "--transport", transport)
    start_client_and_ping(lab, far(lab), "--transport", transport, within=4)  # a lost handshake message would cost 5 s
    lab.ping(lab.a, far(lab, 6))
    lab.transfer(30_000_000, far(lab))
    lab.block(transport)
    lab.no_ping(lab.a, far(lab))


def test_hundreds_of_megabytes_arrive_unchanged_over_tcp(lab: Lab) -> None:
    start_pair(lab, "--transport", "tcp")
    lab.ping(lab.a, far(lab))
    lab.transfer(150_000_000, far(lab, 6))
    lab.transfer(50_000_000, lab.a.address_of("tun11", 4), source=lab.b)


def test_udp_alone_does_not_listen_on_tcp_and_the_other_way_round(lab: Lab) -> None:
    server = start_server(lab, "--transport", "udp")
    assert not lab.b.listens(PORT)
    server.stop()
    start_server(lab, "--transport", "tcp")
    assert lab.b.listens(PORT)
    assert f":{PORT} " not in lab.b.run("ss", "--udp", "--listening", "--numeric").stdout


def test_auto_prefers_udp(lab: Lab) -> None:
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    lab.block("tcp")
    lab.ping(lab.a, far(lab), within=3)
    assert not _connected(lab)


def test_auto_goes_through_a_firewall_over_tcp_and_back_to_udp_when_it_opens(lab: Lab) -> None:
    lab.block("udp")
    _, client = start_pair(lab, "-v")
    lab.ping(lab.a, far(lab), within=8)
    assert _connected(lab)
    lab.transfer(20_000_000, far(lab))
    sessions = client.log.count("session with ")
    assert sessions >= 1

    lab.unblock("udp")
    # UDP is tried 30 s after the connection, and the old connection closes 2 s later.
    assert until(lambda: not _connected(lab), 45, interval=0.2), f"still on TCP\n{lab.logs()}"
    assert client.log.count("session with ") == sessions, f"the trial is a PROBE\n{lab.logs()}"
    lab.ping(lab.a, far(lab), within=3)
    lab.block("tcp")
    lab.ping(lab.a, far(lab), within=3)
    lab.transfer(20_000_000, far(lab))


def test_auto_leaves_udp_when_it_is_blocked_later_and_loses_no_connection(lab: Lab) -> None:
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    lab.block("udp")
    lab.no_ping(lab.a, far(lab))
    # After 15 s of silence the client starts a handshake, and after 2 s without an answer over UDP it tries TCP.
    lab.ping(lab.a, far(lab), within=25)
    assert _connected(lab)
    lab.transfer(20_000_000, lab.a.address_of("tun11"), source=lab.b)


@pytest.mark.long
@pytest.mark.parametrize("deaf", ["a", "b"])
def test_auto_leaves_udp_when_it_is_lost_one_way_whatever_comes_the_other_way(lab: Lab, deaf: str) -> None:
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    stream = lab.b.popen("ping", "-q", "-i0.2", lab.a.address_of("tun11"))
    machine = lab.a if deaf == "a" else lab.b
    for tool in firewall():
        machine.run(tool, "-A", "INPUT", "-i", "veth0", "-p", "udp", "-j", "DROP")
    lab.no_ping(lab.a, far(lab))
    lab.ping(lab.a, far(lab), within=25)
    assert _connected(lab)
    stream.stop()


@pytest.mark.long
@pytest.mark.parametrize("deaf", ["a", "b"])
def test_a_connection_that_is_lost_one_way_is_replaced_by_a_new_one(lab: Lab, deaf: str) -> None:
    lab.block("udp")
    start_pair(lab)
    lab.ping(lab.a, far(lab), within=8)
    machine, side = (lab.a, "--dport") if deaf == "a" else (lab.b, "--sport")
    connection = lab.a.run("ss", "--tcp", "--numeric", "--no-header", "state", "established", f"( dport = :{PORT} )")
    port = connection.stdout.split()[2].rpartition(":")[2]
    for tool in firewall():
        machine.run(tool, "-A", "INPUT", "-p", "tcp", side, port, "-j", "DROP")
    lab.no_ping(lab.a, far(lab))
    lab.ping(lab.a, far(lab), within=25)


def test_a_blocked_link_ends_no_daemon_and_carries_again_once_unblocked(lab: Lab) -> None:
    server, client = start_pair(lab, "--transport", "tcp")
    lab.ping(lab.a, far(lab))
    lab.block("tcp")
    lab.a.run("ping", "-q", "-i0.002", "-c1500", "-s1300", "-W1", far(lab), check=False)
    lab.unblock("tcp")
    lab.ping(lab.a, far(lab), within=20)
    assert server.running
    assert client.running


def _connected(lab: Lab) -> bool:
    shown = lab.a.run("ss", "--tcp", "--numeric", "--no-header", "state", "established", f"( dport = :{PORT} )").stdout
    return bool(shown.strip())
