"""Relay: two peers communicate through a hub whose kernel forwards nothing, and ICMP reports what cannot be delivered.

    a  10.0.0.1 ==veth0== 10.0.0.2  b, the hub  10.0.1.2 ==veth1== 10.0.1.3  c

In the tunnel the hub is 10.9.0.1 and fd09::1; a's addresses end in 2 and c's in 3.
"""

from __future__ import annotations

import sys

import pytest

from tests.netns.guides_hub import GuidesHub
from tests.netns.lab import TRANSFER, Lab, Machine

NBYTES = 8_000_000


class Hub(GuidesHub):
    """The guide's hub. a is the laptop; c is the desk, which uses only TCP here."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab, of_laptop="MTU = 1500", of_desk="MTU = 1500", desk_transport="tcp")
        self.a, self.c = self.laptop, self.desk

    def transfer(self, address: str) -> None:
        """Send a file from a to c; the sending program compares the checksums."""
        receiver = self.c.popen("sh", "-c", 'exec "$0" "$1" receive 5000 >/dev/null', sys.executable, TRANSFER)
        receiver.wait_for("ready")
        feed = f'head -c {NBYTES} /dev/urandom | "$0" "$1" send {address} 5000'
        sent = self.a.run("sh", "-c", feed, sys.executable, TRANSFER, check=False, timeout=60)
        assert sent.returncode == 0, f"{sent.stderr}\n{self.lab.logs()}"
        assert receiver.wait() == 0


@pytest.fixture
def hub(lab: Lab) -> Hub:
    return Hub(lab)


def ping_once(machine: Machine, address: str, *options: str) -> str:
    """Return the output of ping, which waits up to two seconds for an answer or an error."""
    return machine.run("ping", "-n", "-c1", "-w2", *options, address, check=False).stdout


def test_peers_communicate_through_a_hub_whose_kernel_forwards_nothing(hub: Hub) -> None:
    assert hub.hub.run("sysctl", "-n", "net.ipv4.ip_forward").stdout.strip() == "0"
    for address in ("10.9.0.3", "fd09::3"):
        hub.lab.ping(hub.a, address)
        # The MTU of a and c is 1500, that of the hub between them 1420: TCP depends on the hub's ICMP errors.
        hub.transfer(address)
    assert "ttl=63" in ping_once(hub.c, "10.9.0.2")
    hub.c.run("ip", "address", "add", "192.168.9.1/24", "dev", "lo")
    hub.lab.ping(hub.a, "192.168.9.1")
    for address in ("10.9.0.1", "fd09::1"):
        hub.lab.ping(hub.c, address)  # the hub's own addresses are still its own


def test_the_hub_answers_with_icmp_to_traceroute_and_to_packets_that_are_too_big(hub: Hub) -> None:
    said = ping_once(hub.a, "10.9.0.3", "-t1")
    assert "From 10.9.0.1 " in said
    assert "Time to live exceeded" in said
    said = ping_once(hub.a, "fd09::3", "-t1")
    assert "From fd09::1 " in said
    assert "Hop limit" in said
    said = ping_once(hub.a, "10.9.0.3", "-s1450", "-Mdo")
    assert "From 10.9.0.1 " in said
    assert "mtu = 1420" in said or "mtu=1420" in said
    said = ping_once(hub.a, "fd09::3", "-s1450", "-Mdo")
    assert "From fd09::1 " in said
    assert "mtu=1420" in said or "mtu = 1420" in said


def test_an_address_of_no_peer_is_unreachable_at_once(hub: Hub) -> None:
    hub.hub.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
    assert "Destination Host Unreachable" in ping_once(hub.hub, "10.9.0.77")
    assert "Address unreachable" in ping_once(hub.hub, "fd09::77")
    said = hub.hub.run("bash", "-c", "exec 3<>/dev/tcp/10.9.0.77/80", check=False).stderr
    assert "No route to host" in said
