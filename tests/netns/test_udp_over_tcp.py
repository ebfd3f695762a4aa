"""A plain WireGuard behind a udp-over-tcp relay talks to a vpntun that listens on TCP."""

from __future__ import annotations

import signal
import sys

from tests.netns.lab import PORT, Lab
from tests.netns.wireguard import OURS, Keys, start_vpntun, start_wireguard

RELAY_PORT = 51900
FULL = 1392
"""Bytes of ping's payload in a packet of the device's MTU."""


def test_full_packets_pass_as_soon_as_the_relay_has_connected_again(lab: Lab, keys: Keys) -> None:
    server = start_vpntun(lab, keys, "-s", "--transport", "tcp")
    relay = lab.b.popen(sys.executable, "-m", "tests.netns.udp_over_tcp", str(RELAY_PORT), lab.a.four, str(PORT))
    relay.wait_for("connected")
    lab.b.run("ip", "link", "set", "lo", "up")
    start_wireguard(lab, keys, "endpoint", f"127.0.0.1:{RELAY_PORT}")
    lab.ping(lab.b, OURS, within=5)
    for times in (2, 3):
        relay.process.send_signal(signal.SIGUSR1)
        relay.wait_for("connected", count=times)
        lab.ping(lab.b, OURS, within=3, size=FULL)
    assert "closed" not in relay.log
    assert server.running
