"""A hub with two peers, each started from a file: overlapping prefixes, two carriers, relaying, and reloads.

    a  10.0.0.1 ==veth0== 10.0.0.2  hub  10.0.1.2 ==veth1== 10.0.1.3  c

In the tunnel the hub is 10.9.0.1 and fd09::1; a's addresses end in 2 and c's in 3. 10.20.0.0/16 belongs to a, except
10.20.7.0/24, which belongs to c.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.netns import datagrams
from tests.netns.lab import PORT, STARTED, Daemon, Lab, Machine, memory, until

DEVICE = "hub0"
PEER = "[Peer]\nPublicKey = {public}\nAllowedIPs = {allowed}\nName = {name}\n"
ALLOWED = {"a": "10.9.0.2/32, fd09::2/128, 10.20.0.0/16", "c": "10.9.0.3/32, fd09::3/128, 10.20.7.0/24"}


class Hub:
    """Three machines with their keys, files and running programs."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.a, self.hub = lab.a, lab.b
        self.c = lab.add("c", "10.0.1.3", "fd02::3")
        lab.cable(self.hub, "veth1", self.c, "veth0")
        self.hub.run("ip", "address", "add", "10.0.1.2/24", "dev", "veth1")
        self.c.run("ip", "address", "add", "10.0.1.3/24", "dev", "veth0")
        self.private, self.public = {}, {}
        for name in ("a", "hub", "c"):
            file, self.public[name] = lab.new_identity(f"{name}.key")
            self.private[name] = file.read_text()
        self.hub_file = self._write("hub", "")

    def start(self, *, relay: bool = False, transport_of_c: str = "tcp") -> None:
        """Start the program on all three machines and wait until both peers are connected."""
        interface = (
            f"[Interface]\nPrivateKey = {self.private['hub']}\nListenPort = {PORT}\nTransport = auto\n"
            f"Address = 10.9.0.1/24, fd09::1/64\nRelay = {'yes' if relay else 'no'}\n"
        )
        self.interface = interface
        self.write_hub(a=ALLOWED["a"], c=ALLOWED["c"])
        self.daemon = self._up(self.hub, self.hub_file)
        self.at_a = self._up(self.a, self._caller("a", "10.9.0.2", "fd09::2", "10.0.0.2", "udp"))
        self.at_c = self._up(self.c, self._caller("c", "10.9.0.3", "fd09::3", "10.0.1.2", transport_of_c))
        for machine in (self.a, self.c):
            self.lab.ping(machine, "10.9.0.1")

    def write_hub(self, **allowed: str) -> None:
        """Write the hub's file with these peers."""
        peers = [PEER.format(public=self.public[name], allowed=ips, name=name) for name, ips in allowed.items()]
        self.hub_file.write_text(self.interface + "".join(peers))

    def reload(self, says: str = "read the configuration again") -> None:
        count = self.daemon.log.count(says)
        self.daemon_signal(signal.SIGHUP)
        self.daemon.wait_for(says, count=count + 1)

    def daemon_signal(self, number: int) -> None:
        self.daemon.process.send_signal(number)

    def status(self) -> dict[str, dict[str, Any]]:
        """The hub's status of its peers, by name."""
        return {peer["name"]: peer for peer in self.hub.status("hub")["peers"]}

    def _caller(self, name: str, four: str, six: str, hub: str, transport: str) -> Path:
        return self._write(
            name,
            f"[Interface]\nPrivateKey = {self.private[name]}\nAddress = {four}/32, {six}/128\n"
            f"[Peer]\nPublicKey = {self.public['hub']}\nEndpoint = {hub}:{PORT}\nTransport = {transport}\n"
            "AllowedIPs = 10.9.0.0/24, fd09::/64, 10.20.0.0/16\nPersistentKeepalive = 25\n",
        )

    def _up(self, machine: Machine, file: Path) -> Daemon:
        daemon = machine.vpntun("up", file)
        daemon.wait_for(STARTED)
        return daemon

    def _write(self, name: str, text: str) -> Path:
        file = self.lab.folder / f"{name}.conf"
        file.touch(mode=0o600)
        file.write_text(text)
        return file


@pytest.fixture
def hub(lab: Lab) -> Hub:
    return Hub(lab)


def lend(machine: Machine, *addresses: str) -> None:
    """Add addresses, so that a machine answers for a network behind it."""
    for address in addresses:
        machine.run("ip", "address", "add", address, "dev", "lo")


def forward(machine: Machine) -> None:
    machine.run("sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


def test_the_longest_prefix_chooses_the_peer_and_each_has_its_own_carrier(hub: Hub) -> None:
    hub.start()
    lend(hub.a, "10.20.1.1/32", "10.20.7.1/32")
    lend(hub.c, "10.20.7.1/32")
    for address in ("10.20.1.1", "10.9.0.2", "fd09::2"):
        hub.lab.ping(hub.hub, address)
    for address in ("10.20.7.1", "10.9.0.3", "fd09::3"):
        hub.lab.ping(hub.hub, address)
    peers = hub.status()
    assert (peers["a"]["carrier"], peers["c"]["carrier"]) == ("udp", "tcp")
    before = peers["c"]["received_bytes"]
    hub.lab.ping(hub.hub, "10.20.7.1", size=1000)
    assert hub.status()["c"]["received_bytes"] >= before + 1000  # a has that address too, but got no ping


def test_a_peer_may_not_send_from_another_peers_network(hub: Hub) -> None:
    hub.start()
    lend(hub.a, "10.20.7.1/32")
    hub.a.run("ping", "-n", "-c3", "-i0.1", "-w2", "-I", "10.20.7.1", "10.9.0.1", check=False)
    assert hub.status()["a"]["drops"]["source not allowed"] >= 1
    assert not hub.status()["c"]["drops"]


def test_with_relay_two_peers_communicate_through_a_hub_whose_kernel_does_not_forward(hub: Hub) -> None:
    hub.start(relay=True)
    for address in ("10.9.0.3", "fd09::3"):
        hub.lab.ping(hub.a, address)
    hub.lab.ping(hub.c, "10.9.0.2")
    seen = hub.a.run("ping", "-n", "-c1", "-w2", "10.9.0.3").stdout
    assert "ttl=63" in seen
    assert hub.hub.run("sysctl", "-n", "net.ipv4.ip_forward").stdout.strip() == "0"


def test_without_relay_the_hubs_own_forwarding_decides(hub: Hub) -> None:
    hub.start()
    hub.lab.no_ping(hub.a, "10.9.0.3")
    forward(hub.hub)
    for address in ("10.9.0.3", "fd09::3"):
        hub.lab.ping(hub.a, address)


def test_a_reload_under_traffic_changes_the_peers_that_changed_and_no_other(hub: Hub) -> None:
    hub.start()
    asked = hub.status()["a"]["latest_handshake"]
    before = hub.status()["a"]["received_bytes"]
    pinging = hub.a.popen("ping", "-n", "-q", "-i0.02", "-c150", "-w10", "10.9.0.1")
    assert until(lambda: hub.status()["a"]["received_bytes"] > before, 5)
    hub.write_hub(a=ALLOWED["a"] + ", 10.20.7.0/24")
    hub.reload("0 added, 1 removed, 1 changed")
    assert pinging.wait(15) == 0
    assert " 0% packet loss" in pinging.log
    assert set(hub.status()) == {"a"}
    assert hub.status()["a"]["latest_handshake"] == asked
    hub.lab.no_ping(hub.c, "10.9.0.1")
    lend(hub.a, "10.20.7.1/32")
    hub.lab.ping(hub.hub, "10.20.7.1")
    hub.write_hub(a=ALLOWED["a"], c=ALLOWED["c"])
    hub.reload("1 added, 0 removed, 1 changed")
    hub.lab.ping(hub.c, "10.9.0.1", within=20)


def test_a_peer_that_stops_reading_does_not_slow_another(hub: Hub) -> None:
    hub.start()
    hub.at_c.process.send_signal(signal.SIGSTOP)
    try:
        sending = hub.hub.popen(*datagrams.PROGRAM, "send", "10.9.0.3", "5000", "1000000", datagrams.PAUSES[0])
        assert until(lambda: "queue full" in hub.status()["c"]["drops"], 20)
        pinged = hub.a.run("ping", "-n", "-q", "-i0.01", "-c100", "-w10", "10.9.0.1").stdout
        assert " 0% packet loss" in pinged
        hub.lab.transfer(20_000_000, to="10.9.0.1", source=hub.a)
        assert sending.running
        assert hub.status()["c"]["queue"]["packets"] > 0
    finally:
        hub.at_c.process.send_signal(signal.SIGCONT)


def test_a_peer_that_hoards_connections_keeps_two_and_the_other_peer_is_unaffected(hub: Hub) -> None:
    hub.start()
    assert hub.at_c.stop() == 0
    before = memory(hub.daemon)
    keys = (hub.private["c"], hub.public["hub"])
    hoarder = hub.c.popen(sys.executable, "-m", "tests.netns.hoarder", *keys, "10.0.1.2", str(PORT), "300")
    hoarder.wait_for("holding", 15)
    assert hoarder.log.split() == ["holding", "2"]
    assert memory(hub.daemon) < before + 10_000_000
    hub.lab.ping(hub.a, "10.9.0.1")


def test_a_bad_file_changes_nothing(hub: Hub) -> None:
    hub.start()
    hub.hub_file.write_text(hub.interface + "[Peer]\nPublicKey = nonsense\n")
    hub.reload("nothing has changed")
    assert set(hub.status()) == {"a", "c"}
    for machine in (hub.a, hub.c):
        hub.lab.ping(machine, "10.9.0.1")
