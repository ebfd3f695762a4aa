"""Two peers meet through a hub with Relay, whose kernel forwards nothing; and what ICMP says where no packet goes on.

    a  10.0.0.1 ==veth0== 10.0.0.2  b, the hub  10.0.1.2 ==veth1== 10.0.1.3  c

In the tunnel the hub is 10.9.0.1 and fd09::1, a is 2 and c is 3. a calls over UDP, c over TCP.
"""

from __future__ import annotations

import sys

import pytest

from tests.netns.lab import PORT, STARTED, TRANSFER, Lab, Machine
from vpntun.crypto.keys import KeyPair, format_key

NBYTES = 8_000_000


class Hub:
    """All three connected."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.a, self.hub = lab, lab.a, lab.b
        self.c = lab.add("c", "10.0.1.3", "fd02::3")
        lab.cable(self.hub, "veth1", self.c, "veth0")
        self.hub.run("ip", "address", "add", "10.0.1.2/24", "dev", "veth1")
        self.c.run("ip", "address", "add", "10.0.1.3/24", "dev", "veth0")
        self.keys = {name: KeyPair.generate() for name in "abc"}
        peers = "".join(
            f"[Peer]\nPublicKey = {self._public(name)}\nAllowedIPs = 10.9.0.{host}/32, fd09::{host}/128\n"
            for name, host in (("a", 2), ("c", 3))
        )
        self._up(self.hub, "b", 1, f"ListenPort = {PORT}\nTransport = auto\nRelay = yes\nMTU = 1400\n{peers}")
        for machine, name, host, endpoint, transport in (
            (self.a, "a", 2, "10.0.0.2", "udp"),
            (self.c, "c", 3, "10.0.1.2", "tcp"),
        ):
            peer = (
                f"[Peer]\nPublicKey = {self._public('b')}\nEndpoint = {endpoint}:{PORT}\nTransport = {transport}\n"
                "AllowedIPs = 10.9.0.0/24, fd09::/64\n"
            )
            self._up(machine, name, host, f"MTU = 1500\n{peer}")
            self.lab.ping(machine, "10.9.0.1")

    def transfer(self, address: str) -> None:
        """A file from a to c, whose sums are compared by the program that sends."""
        receiver = self.c.popen("sh", "-c", 'exec "$0" "$1" receive 5000 >/dev/null', sys.executable, TRANSFER)
        receiver.wait_for("ready")
        feed = f'head -c {NBYTES} /dev/urandom | "$0" "$1" send {address} 5000'
        sent = self.a.run("sh", "-c", feed, sys.executable, TRANSFER, check=False, timeout=60)
        assert sent.returncode == 0, f"{sent.stderr}\n{self.lab.logs()}"
        assert receiver.wait() == 0

    def _up(self, machine: Machine, name: str, host: int, rest: str) -> None:
        file = self.lab.folder / f"tunnel-{name}.conf"
        file.touch(mode=0o600)
        file.write_text(
            f"[Interface]\nPrivateKey = {format_key(self.keys[name].private)}\nTable = off\n"
            f"Address = 10.9.0.{host}/24, fd09::{host}/64\n{rest}"
        )
        machine.vpntun("up", file).wait_for(STARTED)

    def _public(self, name: str) -> str:
        return format_key(self.keys[name].public)


@pytest.fixture
def hub(lab: Lab) -> Hub:
    return Hub(lab)


def ping_once(machine: Machine, address: str, *options: str) -> str:
    """What ping says; it waits for an answer, or an error, for two seconds at most."""
    return machine.run("ping", "-n", "-c1", "-w2", *options, address, check=False).stdout


def test_peers_meet_in_the_hub_whose_kernel_forwards_nothing(hub: Hub) -> None:
    assert hub.hub.run("sysctl", "-n", "net.ipv4.ip_forward").stdout.strip() == "0"
    for address in ("10.9.0.3", "fd09::3"):
        hub.lab.ping(hub.a, address)
        # a and c take 1500 bytes, the hub between them 1400: TCP has to be told, and to believe it.
        hub.transfer(address)
    assert "ttl=63" in ping_once(hub.c, "10.9.0.2")
    for address in ("10.9.0.1", "fd09::1"):
        hub.lab.ping(hub.c, address)  # the hub's own addresses are still its own


def test_the_hub_shows_itself_to_whoever_traces_a_route_or_sends_too_much(hub: Hub) -> None:
    said = ping_once(hub.a, "10.9.0.3", "-t1")
    assert "From 10.9.0.1 " in said
    assert "Time to live exceeded" in said
    said = ping_once(hub.a, "fd09::3", "-t1")
    assert "From fd09::1 " in said
    assert "Hop limit" in said
    said = ping_once(hub.a, "10.9.0.3", "-s1450", "-Mdo")
    assert "From 10.9.0.1 " in said
    assert "mtu = 1400" in said or "mtu=1400" in said
    said = ping_once(hub.a, "fd09::3", "-s1450", "-Mdo")
    assert "From fd09::1 " in said
    assert "mtu=1400" in said or "mtu = 1400" in said


def test_what_no_peer_may_have_is_unreachable_at_once(hub: Hub) -> None:
    hub.hub.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
    assert "Destination Host Unreachable" in ping_once(hub.hub, "10.9.0.77")
    assert "Address unreachable" in ping_once(hub.hub, "fd09::77")
    said = hub.hub.run("bash", "-c", "exec 3<>/dev/tcp/10.9.0.77/80", check=False).stderr
    assert "No route to host" in said
