"""A vpntun hub that relays between three peers, which run wireguard-go. Their networks overlap.

    hub    a  10.9.0.1
    north  b  10.9.0.2  10.20.1.1  AllowedIPs 10.20.0.0/16
    south  c  10.9.0.3  10.20.7.1  AllowedIPs 10.20.7.0/24
    east   d  10.9.0.4  10.20.7.65 AllowedIPs 10.20.7.64/26

The sockets of all three are in b. The devices of south and east were moved to c and d, which have no other network.
"""

from __future__ import annotations

import pytest

from tests.netns.lab import PORT, Lab, Machine
from tests.netns.wireguard import Keys, WireGuard, start_from_file

HUB = "10.9.0.1"
NETWORKS = {"north": "10.20.0.0/16", "south": "10.20.7.0/24", "east": "10.20.7.64/26"}
ADDRESSES = {"north": "10.9.0.2", "south": "10.9.0.3", "east": "10.9.0.4"}
BEHIND = {"north": "10.20.1.1", "south": "10.20.7.1", "east": "10.20.7.65"}
PEER = "[Peer]\nName = {name}\nPublicKey = {public}\nAllowedIPs = {address}/32, {network}\n"


class Hub:
    """The hub and its peers, all connected."""

    def __init__(self, lab: Lab, keys: Keys) -> None:
        self.lab = lab
        machines = lab.b, lab.add("c", "10.0.1.3", "fd02::3"), lab.add("d", "10.0.1.4", "fd02::4")
        self.machines: dict[str, Machine] = dict(zip(NETWORKS, machines, strict=True))
        identities = {name: lab.new_identity(name) for name in NETWORKS}
        own = f"PrivateKey = {keys.ours.file.read_text()}\nListenPort = {PORT}\nAddress = {HUB}/24\nRelay = yes"
        peers = (
            PEER.format(name=name, public=public, address=ADDRESSES[name], network=NETWORKS[name])
            for name, (_, public) in identities.items()
        )
        start_from_file(lab.a, "hub", f"[Interface]\n{own}\n{''.join(peers)}")
        for port, name in enumerate(NETWORKS, 51821):
            peer = WireGuard(lab.b, identities[name][0], device=name, port=port)
            hub = "endpoint", f"{lab.a.four}:{PORT}", "allowed-ips", "0.0.0.0/0"
            peer.set("peer", keys.ours.public, *hub)
            peer.move_to(self.machines[name])
            peer.up(f"{ADDRESSES[name]}/24", f"{BEHIND[name]}/32")
            lab.ping(self.machines[name], HUB)

    def refused(self) -> dict[str, int]:
        """How many packets of each peer were dropped for their source address."""
        peers = self.lab.a.status("hub")["peers"]
        return {peer["name"]: peer["drops"].get("source not allowed", 0) for peer in peers}


@pytest.fixture
def hub(lab: Lab, keys: Keys) -> Hub:
    return Hub(lab, keys)


def test_the_longest_prefix_chooses_the_peer(hub: Hub) -> None:
    hub.lab.a.run("ip", "route", "replace", "10.20.0.0/16", "dev", "hub", "src", HUB)
    for address in BEHIND.values():
        hub.lab.ping(hub.lab.a, address, within=10)
    # An address that nobody has goes to the peer with the longest prefix, and to no other.
    before = {name: received(hub, name) for name in NETWORKS}
    hub.lab.no_ping(hub.lab.a, "10.20.7.66")
    assert {name for name in NETWORKS if received(hub, name) > before[name]} == {"east"}


def test_case_18_a_source_of_another_peer_or_of_none_is_dropped_and_counted(hub: Hub) -> None:
    spoof(hub.machines["east"], "east", BEHIND["south"])
    spoof(hub.machines["south"], "south", BEHIND["north"])
    spoof(hub.machines["south"], "south", "198.51.100.7")
    spoof(hub.machines["north"], "north", BEHIND["east"])
    for machine in hub.machines.values():
        hub.lab.ping(machine, HUB, within=10)
    assert hub.refused() == {"north": 5, "south": 10, "east": 5}


def test_the_hub_relays_packets_of_all_sizes_from_peer_to_peer(hub: Hub) -> None:
    for size in (0, 1392, 5000):
        hub.lab.ping(hub.machines["north"], ADDRESSES["south"], size=size)
        hub.lab.ping(hub.machines["east"], ADDRESSES["north"], size=size)


def spoof(machine: Machine, device: str, source: str) -> None:
    """Send the hub five packets with a source address that is not the peer's own."""
    machine.run("ip", "address", "add", f"{source}/32", "dev", device)
    machine.run("ping", "-c5", "-i0.02", "-W0.1", "-I", source, HUB, check=False)
    machine.run("ip", "address", "del", f"{source}/32", "dev", device)


def received(hub: Hub, name: str) -> int:
    """How many packets a peer's device has delivered."""
    counter = f"/sys/class/net/{name}/statistics/rx_packets"
    return int(hub.machines[name].run("cat", counter).stdout)
