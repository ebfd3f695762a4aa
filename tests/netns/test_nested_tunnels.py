"""A tunnel inside a tunnel: the inner one's ends call each other at addresses of the outer one.

    a  10.0.0.1 ==========  10.0.0.2   b
    a  10.9.0.1 ==outer===  10.9.0.2   b
    a  10.10.0.1 ==inner==  10.10.0.2  b

Each end of either tunnel runs vpntun or wireguard-go.
"""

from __future__ import annotations

import pytest

from tests.netns.lab import PORT, Lab, Machine
from tests.netns.wireguard import WireGuard, start_from_file


class End:
    """One end of a tunnel: a device of vpntun or of wireguard-go."""

    def __init__(self, machine: Machine, name: str, program: str) -> None:
        self.machine, self.name, self.program = machine, name, program
        self.key, self.public = machine.lab.new_identity(f"{name}.key")

    def start(self, address: str, port: int, other: End, *, calls: str = "") -> None:
        """Start it with the other end as its peer, at `calls` if it is to call."""
        endpoint = f"{calls}:{port}"
        if self.program == "wireguard":
            device = WireGuard(self.machine, self.key, device=self.name, port=0 if calls else port)
            device.set("peer", other.public, "allowed-ips", "0.0.0.0/0", *(("endpoint", endpoint) if calls else ()))
            device.up(f"{address}/24")
            return
        own = f"[Interface]\nPrivateKey = {self.key.read_text()}\nAddress = {address}/24\nTable = off\n"
        peer = f"[Peer]\nPublicKey = {other.public}\nAllowedIPs = 0.0.0.0/0\n"
        if calls:
            start_from_file(self.machine, self.name, f"{own}{peer}Endpoint = {endpoint}\n")
        else:
            start_from_file(self.machine, self.name, f"{own}ListenPort = {port}\n{peer}")


@pytest.mark.usefixtures("keys")  # skips it where wireguard-go is missing
@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (("vpntun", "vpntun"), ("vpntun", "wireguard")),
        (("vpntun", "wireguard"), ("wireguard", "vpntun")),
        (("wireguard", "wireguard"), ("vpntun", "vpntun")),
    ],
    ids=["in vpntun's", "in a mixed one", "in WireGuard's"],
)
def test_a_tunnel_inside_a_tunnel_carries_packets_of_all_sizes(
    lab: Lab, outer: tuple[str, str], inner: tuple[str, str]
) -> None:
    for name, programs, port, net, calls in (
        ("outer", outer, PORT, "10.9.0", lab.b.four),
        ("inner", inner, 4500, "10.10.0", "10.9.0.2"),
    ):
        client, server = (End(m, f"{name}-{m.name[-1]}", p) for m, p in zip(lab.machines, programs, strict=True))
        server.start(f"{net}.2", port, client)
        client.start(f"{net}.1", port, server, calls=calls)
        lab.ping(lab.a, f"{net}.2")
    for size in (1200, 1392, 5000):
        lab.ping(lab.a, "10.10.0.2", size=size)
        lab.ping(lab.b, "10.10.0.1", size=size)
    lab.transfer(5_000_000, "10.10.0.2")
    lab.transfer(5_000_000, "10.10.0.1", source=lab.b)
