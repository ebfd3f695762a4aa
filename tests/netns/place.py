"""A network of a hub, one of its peers, and a hostile machine whose key the hub knows as well.

    a  10.0.0.1 ==veth0== 10.0.0.2  b, the hub  10.0.1.2, fd02::2 ==veth1== 10.0.1.3, fd02::3  c, hostile

In the tunnel the hub is 10.9.0.1 and fd09::1; a's addresses end in 2 and c's in 3. c's AllowedIPs include 10.66.0.0/16
and fd66::/64.
"""

from __future__ import annotations

import json
import sys

from tests.datapath.ends import ipv4
from tests.netns.lab import PORT, STARTED, Daemon, Lab, Machine
from vpntun.crypto.keys import KeyPair, format_key
from vpntun.wire.checksum import ones_sum

INSIDE, INSIDE6 = "10.66.1.1", "fd66::1"

SNIFF = """
import socket, struct, sys
sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
sniffer.bind(("veth0", 3))
sniffer.settimeout(5)
print("looking", flush=True)
while True:
    packet = sniffer.recv(65535)
    udp = packet[20:] if packet[0] == 0x45 else packet[40:]
    protocol = packet[9] if packet[0] == 0x45 else packet[6]
    if protocol == 17 and udp[2:4] == struct.pack("!H", int(sys.argv[1])) and udp[8:9] == bytes([4]):
        print(udp[12:16][::-1].hex())
        break
"""


def echo_request(source: str, destination: str) -> bytes:
    """A ping as an IPv4 packet."""
    packet = bytearray(ipv4(source, destination, bytes((8, 0, 0xF7, 0xFF, 0, 0, 0, 0))))
    packet[9] = 1
    packet[10:12] = (ones_sum(bytes(packet[:20])) ^ 0xFFFF).to_bytes(2, "big")
    return bytes(packet)


class Place:
    """The machines and keys of the hub and its peers. The tests start the programs."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.a, self.hub = lab, lab.a, lab.b
        self.c = lab.add("c", "10.0.1.3", "fd02::3")
        lab.cable(self.hub, "veth1", self.c, "veth0")
        self.hub.run("sh", "-ec", "ip addr add 10.0.1.2/24 dev veth1; ip addr add fd02::2/64 dev veth1 nodad")
        lend = [f"ip addr add {each} dev veth0" for each in ("10.0.1.3/24", f"{INSIDE}/32")]
        lend += [f"ip addr add {each} dev veth0 nodad" for each in ("fd02::3/64", f"{INSIDE6}/128")]
        self.c.run("sh", "-ec", "; ".join(lend))
        self.keys = {name: KeyPair.generate() for name in ("hub", "a", "c")}
        self.go = lab.folder / "go"

    def up(self, machine: Machine, name: str, interface: str, *peers: str) -> Daemon:
        """Write a configuration file, and start vpntun with it."""
        file = self.lab.folder / f"{name}.conf"
        file.touch(mode=0o600)
        own = f"[Interface]\nPrivateKey = {format_key(self.keys[name].private)}\n{interface}\n"
        file.write_text(own + "".join(f"[Peer]\n{peer}\n" for peer in peers))
        daemon = machine.vpntun("up", file, "-v")
        daemon.wait_for(STARTED)
        return daemon

    def start_hub(self, *lines: str) -> Daemon:
        interface = "\n".join(("Address = 10.9.0.1/24, fd09::1/64", f"ListenPort = {PORT}", "Transport = auto", *lines))
        networks = {"a": "10.9.0.2, fd09::2", "c": "10.9.0.3, fd09::3, 10.66.0.0/16, fd66::/64"}
        peers = [
            f"PublicKey = {format_key(self.keys[name].public)}\nAllowedIPs = {allowed}"
            for name, allowed in networks.items()
        ]
        return self.up(self.hub, "hub", interface, *peers)

    def start_a(self, allowed: str = "10.9.0.0/24, fd09::/64", endpoint: str = "10.0.0.2") -> Daemon:
        public = format_key(self.keys["hub"].public)
        peer = f"PublicKey = {public}\nEndpoint = {endpoint}:{PORT}\nAllowedIPs = {allowed}"
        return self.up(self.a, "a", "Address = 10.9.0.2/24, fd09::2/64", peer)

    def hostile_caller(self, *, later: str = INSIDE, carrier: str = "udp") -> Daemon:
        """Start hostile.py in c; return once it has a session with the hub from its own address."""
        own, there = ("fd02::3", "fd02::2") if ":" in later else ("10.0.1.3", "10.0.1.2")
        packet = echo_request("10.9.0.3", "10.9.0.1")
        caller = self._hostile(
            self.c, "c", "hub", role="caller", own=own, at=there, later=later, carrier=carrier, packet=packet
        )
        caller.wait_for("session")
        return caller

    def hostile_server(self, later: str) -> Daemon:
        """Start hostile.py in the hub's place; it waits for a's call."""
        self.hub.run("ip", "addr", "add", f"{later}/32", "dev", "veth0")
        packet = echo_request("10.9.0.1", "10.9.0.2")
        return self._hostile(self.hub, "hub", "a", role="server", at="10.0.0.2", later=later, packet=packet)

    def index_of_messages_to(self, port: int) -> int:
        """Read the index of the data messages to this port, as anybody on a's wire can."""
        seen = self.a.popen(sys.executable, "-c", SNIFF, str(port))
        seen.wait_for("looking")
        self.lab.ping(self.a, "10.9.0.1")
        assert seen.wait() == 0
        return int(seen.log.split()[-1], 16)

    def vandal(
        self, what: str, at: str, port: int = PORT, *, index: int = 0, carrier: str = "udp", seconds: float = 2.5
    ) -> Daemon:
        """Start this attack of vandal.py from c, on the hub or, without a key, on a; return once it has begun."""
        own = "fd02::3" if ":" in at else "10.0.1.3"
        return self._vandal(
            self.c, "c", "hub", what=what, at=at, port=port, own=own, index=index, carrier=carrier, seconds=seconds
        )

    def vandal_as_hub(self, what: str) -> Daemon:
        """Start this attack of vandal.py in the hub's place; it begins when a calls."""
        return self._vandal(self.hub, "hub", "a", what=what, at="10.0.0.2", port=PORT, role="server", seconds=2.5)

    def _vandal(self, machine: Machine, who: str, other: str, **wanted: str | float) -> Daemon:
        keys = {"private": self.keys[who].private.hex(), "public": self.keys[other].public.hex()}
        wanted = {"role": "caller", "carrier": "udp", **keys, **wanted}
        vandal = machine.popen(sys.executable, "-m", "tests.netns.vandal", json.dumps(wanted))
        if wanted["role"] == "caller":
            vandal.wait_for("at it")
        return vandal

    def _hostile(self, machine: Machine, who: str, other: str, packet: bytes, **wanted: str) -> Daemon:
        wanted |= {"private": self.keys[who].private.hex(), "public": self.keys[other].public.hex()}
        wanted |= {"go": str(self.go), "packet": packet.hex()}
        return machine.popen(sys.executable, "-m", "tests.netns.hostile", json.dumps(wanted))

    def send(self, hostile: Daemon) -> None:
        self.go.touch()
        hostile.wait_for("sent")

    def endpoint(self, machine: Machine, name: str, number: int) -> str:
        return str(machine.status(name)["peers"][number]["endpoint"])

    def dropped(self) -> int:
        return int(self.hub.status("hub")["drops"].get("routing loop", 0))
