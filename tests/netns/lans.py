"""Two LANs of two hosts each, whose gateways join them by a tunnel of TAP devices, each in its gateway's bridge.

    c  10.20.0.3 ==+                                                              +== 10.20.0.5  e
                   +==  br0  tap11  a ==== 10.0.0.1 and 10.0.0.2 ==== b  tap3  br0 ==+
    d  10.20.0.4 ==+                                                              +== 10.20.0.6  f

The hosts' devices are veth0. `loop` joins the bridges by a second path, veth7, during its body.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.netns.lab import Lab
from tests.netns.taps import OURS, THEIRS, start_taps

BRIDGE, SHORTCUT = "br0", "veth7"


class Lans:
    """The machines of both LANs, joined."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.a, self.b = lab, lab.a, lab.b
        self.c, self.d, self.e, self.f = (lab.add(letter, f"10.20.0.{ord(letter) - 96}", "") for letter in "cdef")
        self.hosts = [self.c, self.d, self.e, self.f]
        for gateway, hosts in ((self.a, (self.c, self.d)), (self.b, (self.e, self.f))):
            gateway.run("ip", "link", "add", BRIDGE, "type", "bridge")
            gateway.run("ip", "link", "set", BRIDGE, "up")
            for number, host in enumerate(hosts, 1):
                lab.cable(host, "veth0", gateway, f"veth{number}")
                gateway.run("ip", "link", "set", f"veth{number}", "master", BRIDGE)
                host.run("ip", "address", "add", f"{host.four}/24", "dev", "veth0")
        self.server, self.client = start_taps(lab, "--bridge", BRIDGE)
        lab.ping(self.c, self.e.four)

    @contextmanager
    def loop(self) -> Iterator[None]:
        """Join the bridges by a second path during the body. STP prefers it to the tunnel."""
        self.lab.cable(self.a, SHORTCUT, self.b, SHORTCUT)
        for gateway, device in ((self.a, OURS), (self.b, THEIRS)):
            gateway.run("ip", "link", "set", SHORTCUT, "master", BRIDGE)
            gateway.run("bridge", "link", "set", "dev", device, "cost", "100")

        try:
            yield
        finally:
            self.a.run("ip", "link", "del", SHORTCUT)

    @contextmanager
    def stp(self) -> Iterator[None]:
        """Have STP on at both bridges during the body, with its shortest times."""
        for gateway in (self.a, self.b):
            for name, value in (("forward_delay", 200), ("hello_time", 100), ("stp_state", 1)):
                gateway.run("ip", "link", "set", BRIDGE, "type", "bridge", name, str(value))
        try:
            yield
        finally:
            for gateway in (self.a, self.b):
                gateway.run("ip", "link", "set", BRIDGE, "type", "bridge", "stp_state", "0")

    def states(self) -> dict[tuple[str, str], str]:
        """The state of each port of both bridges, by the gateway's name and the device."""
        return {
            (gateway.name[-1], port["ifname"]): port["state"]
            for gateway in (self.a, self.b)
            for port in json.loads(gateway.run("bridge", "-json", "link", "show").stdout)
        }
