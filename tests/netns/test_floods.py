"""A real flood of handshakes: links go on, new peers get in, and either side takes the other's cookies.

The flood comes from a thousand addresses of a, as in the benchmark. To be sure that it is a load for a server on any
machine, the server is stopped while it begins, so that thousands of messages wait at its socket.
"""

from __future__ import annotations

import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmark.handshakes import JUNK, SOURCES
from tests.netns.lab import PORT, STARTED, Daemon, Lab, memory, until
from vpntun.core.wireguard.admission import MANY

RATE = 2000  # what a processor that other tests share still takes
OURS, THEIRS, NEW = "10.9.0.1", "10.9.0.2", "10.9.0.3"
COUNTED_SIZE = 768  # of a short datagram that waits at a socket
WG_PORT = 51820
DEVICE = "wg0"
# A load for wireguard-go: 128 waiting handshakes are one, and its socket has room for 277.
BURST = """
import socket, sys
from vpntun.crypto.keys import KeyPair, parse_key
from vpntun.crypto.noise import Initiator
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
stranger = KeyPair.generate()
for number in range(200):
    message = Initiator(stranger, parse_key(sys.argv[3]), bytes(32)).initiation(number, bytes(12))
    s.sendto(message, (sys.argv[1], int(sys.argv[2])))
"""


class World:
    """A server in b with two peers in a, of which one is connected, and the flood."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        names = ("server", "peer", "new")
        self.files = {name: lab.new_identity(f"{name}.key") for name in names}
        lab.a.run("ip", "route", "add", "local", str(SOURCES), "dev", "lo")
        lab.b.run("ip", "route", "add", str(SOURCES), "via", lab.a.four)
        peers = self._peer("peer", THEIRS) + self._peer("new", NEW)
        self.server = self.up("server", lab.b, f"ListenPort = {PORT}\nTransport = auto\n", OURS, peers)
        self.up("peer", lab.a, "", THEIRS, self.server_as_peer("udp"))
        lab.ping(lab.a, OURS)

    def server_as_peer(self, transport: str) -> str:
        return (
            self._peer("server", OURS)
            + f"Endpoint = {self.lab.b.four}:{PORT}\nTransport = {transport}\nPersistentKeepalive = 25\n"
        )

    def up(self, name: str, machine: Any, interface: str, address: str, peers: str) -> Daemon:
        file = self.lab.folder / f"{name}.conf"
        file.touch(mode=0o600)
        own = f"[Interface]\nPrivateKey = {self.files[name][0].read_text()}\nTable = off\n"
        file.write_text(f"{own}Address = {address}/{24 if name != 'new' else 32}\n{interface}{peers}")
        daemon: Daemon = machine.vpntun("up", file)
        daemon.wait_for(STARTED)
        return daemon

    def status(self, name: str = "server") -> dict[str, Any]:
        return (self.lab.b if name == "server" else self.lab.a).status(name)

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.server.process.pid}/fd").iterdir()))

    @contextmanager
    def flood(self, key: str) -> Iterator[None]:
        """Flood the server, and have it under load from the beginning."""
        command = [sys.executable, "-m", "scripts.benchmark.handshakes", self.lab.b.four, str(PORT), key, str(RATE)]
        sender = self.lab.a.popen(*command)
        try:
            sender.wait_for("ready", 20)
            with stopped(self.server):
                assert until(lambda: waiting(self.lab, PORT) > 2 * MANY * COUNTED_SIZE, 20), str(sender)
            yield
        finally:
            sender.stop()

    def _peer(self, name: str, address: str) -> str:
        return f"[Peer]\nName = {name}\nPublicKey = {self.files[name][1]}\nAllowedIPs = {address}/32\n"


def waiting(lab: Lab, port: int) -> int:
    """Return the size of the datagrams that wait at b's sockets on a UDP port, as the kernel counts it."""
    sockets = lab.b.run("ss", "-uanH", "sport", "=", f":{port}").stdout.splitlines()
    return sum(int(line.split()[1]) for line in sockets)


@contextmanager
def stopped(daemon: Daemon) -> Iterator[None]:
    """Keep a process from running during the body."""
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        daemon.process.send_signal(signal.SIGCONT)


@pytest.fixture
def world(lab: Lab) -> World:
    return World(lab)


def drops(world: World) -> dict[str, int]:
    told: dict[str, int] = world.status()["drops"]
    return told


@pytest.mark.parametrize("kind", ["junk", "valid mac1"])
def test_during_a_flood_a_link_goes_on_and_a_new_peer_gets_in(world: World, kind: str) -> None:
    lab = world.lab
    before, held = memory(world.server), world.descriptors()
    with world.flood(JUNK if kind == "junk" else world.files["server"][1]):
        pinging = lab.a.popen("ping", "-n", "-q", "-i0.02", "-c100", "-w10", OURS)
        world.up("new", lab.a, "", NEW, world.server_as_peer("auto"))
        assert until(lambda: world.status("new")["peers"][0]["state"] == "connected", 15), lab.logs()
        assert pinging.wait(15) == 0
        counted = drops(world)
    found = re.search(r"(\d+) packets transmitted, (\d+) received", pinging.log)
    assert found, str(pinging)
    assert int(found[1]) <= 150, str(pinging)  # it ends with the hundredth answer
    assert counted["bad mac1" if kind == "junk" else "under load"] > 1000
    assert ("under load: many handshakes wait" in world.server.log) == (kind != "junk")
    assert memory(world.server) < before + 8_000_000
    assert world.descriptors() <= held + 1  # the new peer's connection


@pytest.mark.long
def test_a_wireguard_peer_gets_in_during_a_flood_by_a_cookie(world: World) -> None:
    if shutil.which("wireguard-go") is None:
        pytest.skip("wireguard-go is not installed")
    lab = world.lab
    daemon = lab.a.popen("wireguard-go", "-f", DEVICE, env={"LOG_LEVEL": "verbose"})
    assert until(lambda: lab.a.run("wg", "show", DEVICE, check=False).returncode == 0, 5), str(daemon)
    lab.a.run("ip", "address", "add", f"{NEW}/32", "dev", DEVICE)
    lab.a.run("ip", "link", "set", DEVICE, "up")
    with world.flood(world.files["server"][1]):
        peer = ("peer", world.files["server"][1], "endpoint", f"{lab.b.four}:{PORT}", "allowed-ips", f"{OURS}/32")
        lab.a.run("wg", "set", DEVICE, "private-key", world.files["new"][0], *peer, "persistent-keepalive", "1")
        assert until(lambda: world.status()["peers"][1]["state"] == "connected", 15), lab.logs()
        assert drops(world)["under load"] > 5_000
    assert daemon.log.count("Receiving cookie response") == 1
    assert daemon.log.count("Sending handshake initiation") == 2


@pytest.mark.long
def test_a_client_gets_in_at_a_loaded_wireguard_server_by_a_cookie(lab: Lab) -> None:
    if shutil.which("wireguard-go") is None:
        pytest.skip("wireguard-go is not installed")
    (ours, our_public), (theirs, their_public) = lab.new_identity("ours.key"), lab.new_identity("theirs.key")
    server = lab.b.popen("wireguard-go", "-f", DEVICE, env={"GOMAXPROCS": "1"})  # it reads all before it computes any
    assert until(lambda: lab.b.run("wg", "show", DEVICE, check=False).returncode == 0, 5), str(server)
    peer = ("peer", our_public, "allowed-ips", f"{OURS}/32")
    lab.b.run("wg", "set", DEVICE, "private-key", theirs, "listen-port", str(WG_PORT), *peer)
    lab.b.run("ip", "address", "add", f"{THEIRS}/24", "dev", DEVICE)
    lab.b.run("ip", "link", "set", DEVICE, "up")

    def burst() -> None:
        lab.a.run(sys.executable, "-c", BURST, lab.b.four, str(WG_PORT), their_public)

    keys = ["--private-key", str(ours), "--peer", their_public, "--address", f"{OURS}/24"]
    with stopped(server):
        burst()
        full = waiting(lab, WG_PORT)
        client = lab.a.vpntun("-v", "-c", lab.b.four, "-p", str(WG_PORT), "-i", "tun11", "--transport", "udp", *keys)
        assert until(lambda: waiting(lab, WG_PORT) > full, 10), "no initiation waits at the server's socket"
    client.wait_for("is under load")
    with stopped(server):
        burst()
        full = waiting(lab, WG_PORT)
        assert until(lambda: waiting(lab, WG_PORT) > full, 10), "no second initiation waits at the server's socket"
    client.wait_for("session with", 3)
    lab.ping(lab.a, THEIRS)
