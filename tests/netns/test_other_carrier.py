"""`vpntun doctor` tries the carrier that a running link does not use, and the link goes on meanwhile."""

from __future__ import annotations

import json
import re
import signal
import sys
from typing import Any

import pytest

from tests.netns.lab import PORT, Daemon, Lab, Machine, far, start_pair, start_server, until
from tests.netns.wireguard import OURS_DEVICE, THEIRS, as_client, make_keys, missing_tool, start_vpntun, start_wireguard


def findings(machine: Machine, device: str) -> list[dict[str, Any]]:
    """Run doctor; return what it finds about the links of a tunnel, and about reach."""
    done = machine.run(sys.executable, "-m", "vpntun", "doctor", "--json", device, check=False)
    found = [each for each in json.loads(done.stdout)["findings"] if each["about"] == device]
    return [each for each in found if each["check"] == "link" or each["check"].endswith(" reach")]


def said(found: list[dict[str, Any]]) -> list[str]:
    """The findings in short, with verdict, text and remedy."""
    return [f"{each['verdict']}: {each['text']} -> {each['remedy']}" for each in found]


def peer(lab: Lab) -> dict[str, Any]:
    (only,) = lab.a.status("tun11")["peers"]
    return dict(only)


def dropped(lab: Lab) -> dict[str, int]:
    """The drops that the server counts, of strangers and of its peer."""
    status = lab.b.status("tun3")
    return {**status["drops"], **status["peers"][0]["drops"]}


def connections(lab: Lab) -> str:
    return lab.b.run("ss", "--tcp", "--numeric", "--no-header", "state", "established", f"( sport = :{PORT} )").stdout


def lost(pings: Daemon) -> int:
    """End a ping, and return how many of its requests were not answered; the last may have been under way."""
    pings.process.send_signal(signal.SIGINT)
    pings.wait()
    sent, received = re.search(r"(\d+) packets transmitted, (\d+) received", pings.log).groups()  # type: ignore[union-attr]
    assert int(sent) > 5
    return int(sent) - int(received) - (f"icmp_seq={sent} " not in pings.log)


def steady_pings(lab: Lab) -> Daemon:
    pings = lab.a.popen("ping", "-n", "-i0.05", "-c1200", "-W2", far(lab))
    pings.wait_for("icmp_seq=5")
    return pings


def test_both_carriers_are_open_and_the_link_stays_where_it_is(lab: Lab) -> None:
    server, client = start_pair(lab)
    lab.ping(lab.a, far(lab))
    noted, pings = (server.log, client.log), steady_pings(lab)
    link, reach = findings(lab.a, "tun11")
    assert "is connected by UDP" in link["text"]
    assert (reach["check"], reach["verdict"]) == ("TCP reach", "ok")
    assert re.fullmatch(r"the peer answers over TCP in [\d.]+ ms, too, beside UDP, which is used", reach["text"])
    assert until(lambda: not connections(lab), 5), "the connection is closed again"
    assert peer(lab)["carrier"] == "udp"
    assert lost(pings) == 0
    assert (server.log, client.log) == noted, "nothing to notice at either end"
    assert dropped(lab) == {}, "nothing that looks like an attack"


def test_tcp_that_is_dropped_is_found_while_udp_is_used(lab: Lab) -> None:
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    lab.block("tcp")
    pings = steady_pings(lab)
    link, reach = said(findings(lab.a, "tun11"))
    assert link.startswith("ok: the peer is connected by UDP")
    assert reach == (
        f"warning: no answer over TCP from 10.0.0.2:{PORT}: if UDP is blocked one day, the link to the peer will be "
        f"down -> open tcp port {PORT} in the other end's firewall, and on the way"
    )
    assert peer(lab)["carrier"] == "udp"
    assert lost(pings) == 0


def test_tcp_that_is_refused_is_told_apart(lab: Lab) -> None:
    start_server(lab, "--transport", "udp")
    lab.a.vpntun("-c", lab.b.four, "-k", lab.key, "-i", "tun11").wait_for("this end ")
    lab.ping(lab.a, far(lab))
    _, reach = said(findings(lab.a, "tun11"))
    assert reach.startswith(f"warning: 10.0.0.2:{PORT} refuses TCP: if UDP is blocked one day")


def test_a_rule_of_this_machine_that_lets_no_tcp_out_is_told_apart(lab: Lab) -> None:
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    lab.a.run("ip", "rule", "add", "priority", "10", "ipproto", "tcp", "dport", str(PORT), "prohibit")
    _, reach = said(findings(lab.a, "tun11"))
    assert reach.startswith(f"warning: this machine's packet filter or routing rules let no TCP out to 10.0.0.2:{PORT}")


def test_another_program_in_place_of_the_vpntun_is_no_answer(lab: Lab) -> None:
    start_server(lab, "--transport", "udp")
    lab.b.popen(
        sys.executable,
        "-c",
        f"import socket, time; s = socket.create_server(('', {PORT})); c = s.accept(); time.sleep(30)",
    )
    assert until(lambda: lab.b.listens(PORT), 10)
    lab.a.vpntun("-c", lab.b.four, "-k", lab.key, "-i", "tun11").wait_for("this end ")
    lab.ping(lab.a, far(lab))
    _, reach = said(findings(lab.a, "tun11"))
    assert reach.startswith("warning: 10.0.0.2:55555 takes TCP connections, but no vpntun")


def test_udp_that_is_blocked_has_one_finding_while_tcp_is_used(lab: Lab) -> None:
    lab.block("udp")
    start_pair(lab)
    lab.ping(lab.a, far(lab), within=15)
    pings = steady_pings(lab)
    (link,) = said(findings(lab.a, "tun11"))
    assert link.startswith("warning: the peer is connected by TCP, which is slower: UDP was tried and not answered -> ")
    assert peer(lab)["carrier"] == "tcp"
    assert lost(pings) == 0


def test_a_link_on_tcp_returns_to_udp_when_that_answers_the_trial(lab: Lab) -> None:
    lab.block("udp")
    start_pair(lab)
    lab.ping(lab.a, far(lab), within=15)
    lab.unblock("udp")
    pings = steady_pings(lab)
    link, reach = said(findings(lab.a, "tun11"))
    assert link.startswith("ok: the peer is connected by UDP")
    assert re.match(r"ok: the peer answers over UDP in [\d.]+ ms: the link has left TCP for it", reach)
    assert lost(pings) == 0


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_link_with_one_carrier_has_nothing_to_try(lab: Lab, transport: str) -> None:
    start_pair(lab, client=["--transport", transport])
    lab.ping(lab.a, far(lab))
    _, reach = said(findings(lab.a, "tun11"))
    assert reach.startswith(f"skipped: not checked: the link uses {transport.upper()} alone, as configured")


@pytest.mark.skipif(missing_tool() is not None, reason=str(missing_tool()))
def test_a_plain_wireguard_has_nothing_to_try(lab: Lab) -> None:
    keys = make_keys(lab)
    start_wireguard(lab, keys)
    start_vpntun(lab, keys, *as_client(lab))
    lab.ping(lab.a, THEIRS)
    _, reach = said(findings(lab.a, OURS_DEVICE))
    assert reach.startswith("skipped: not checked: the link uses UDP alone, as configured")


def test_a_server_calls_nobody_and_tries_nothing(lab: Lab) -> None:
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    (link,) = said(findings(lab.b, "tun3"))
    assert link.startswith("ok: the peer is connected by UDP")
