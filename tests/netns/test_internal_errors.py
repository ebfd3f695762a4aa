"""A bug that a peer's packet triggers costs that packet only. It is logged and counted; the tunnel keeps running."""

from __future__ import annotations

import sys

from tests.netns.lab import STARTED, Daemon, Lab, Machine

WITH_A_BUG = """
from vpntun.datapath.routing import delivery
length_of = delivery.length_of
def buggy(packet):
    if b"unlucky" in bytes(packet[:100]):
        raise IndexError("a bug")
    return length_of(packet)
delivery.length_of = buggy
from vpntun.cli import main
main()
"""

SEND = """
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    for _ in range(30):
        sender.sendto(b"unlucky", (sys.argv[1], 9))
        time.sleep(0.01)
"""


def start_with_a_bug(machine: Machine, *arguments: str) -> Daemon:
    daemon = machine.popen(sys.executable, "-c", WITH_A_BUG, *arguments)
    daemon.expects_bugs = True
    daemon.wait_for(STARTED)
    return daemon


def test_a_bug_drops_the_packet_that_triggered_it_and_is_shown_and_logged(lab: Lab) -> None:
    server = start_with_a_bug(lab.a, "-s", "-i", "tun3", "-k", str(lab.key))
    client = lab.b.vpntun("-c", lab.a.four, "-i", "tun11", "-k", lab.key)
    client.wait_for("connected")
    inside = lab.a.address_of("tun3")
    lab.ping(lab.b, inside)
    lab.b.run(sys.executable, "-c", SEND, inside)
    lab.ping(lab.b, inside)
    assert server.running
    shown = lab.a.status("tun3")
    assert 1 <= shown["drops"]["internal error"] <= 30
    assert "internal error" in lab.a.ask("show", "tun3")[1]
    assert "IndexError: a bug" in server.log
    assert 1 <= server.log.count("internal error") <= 3
    assert server.stop() == 0
