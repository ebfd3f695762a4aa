"""A hub of TAP devices is a switch: three sites, each with a machine of its own cable to the hub.

    a  10.0.0.1 ==veth0==+
    c  10.0.1.3 ==veth1==+  b, the hub  10.30.0.2 inside
    d  10.0.2.4 ==veth2==+

Inside, a is 10.30.0.1, c 10.30.0.3 and d 10.30.0.4. All devices are tap0. d's AllowedMACs at the hub name its own
address alone.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Iterator

import pytest

from tests.netns.lab import STARTED, Daemon, Lab, Machine, until
from tests.netns.taps import EVERYBODY, Watcher, frame, mac, send, storm
from vpntun.crypto.keys import KeyPair, format_key
from vpntun.wire.ethernet.mac import mac_text

DEVICE = "tap0"
OF_D = "0a:00:00:00:00:0d"
UNKNOWN, VICTIM = bytes.fromhex("0a0000000099"), bytes.fromhex("0a0000000088")
PACE, SECONDS = 8, 1
"""Mbit/s and seconds of a flow: a small part of what slow machines forward, so that only a storm takes it away."""
STORM_RATE, STORM_FRAMES = 4000, 40_000
"""Frames a second of a storm, and how many they are at most."""
LIMIT = 4000 // 3
"""Frames for all of one site that the hub lets pass a second, and at once: 4,000 copies, for three other ports."""
ATTEMPTS = 3
"""Measurements, of which one must be good: other programs may use the processors, too."""


class Hub:
    """Three sites whose tunnels to the hub are up."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.a, self.hub = lab, lab.a, lab.b
        self.c, self.d = lab.add("c", "10.0.1.3", ""), lab.add("d", "10.0.2.4", "")
        self.sites = {"a": self.a, "c": self.c, "d": self.d}
        for number, site in enumerate((self.c, self.d), 1):
            lab.cable(site, "veth0", self.hub, f"veth{number}")
            site.run("ip", "address", "add", f"{site.four}/24", "dev", "veth0")
            self.hub.run("ip", "address", "add", f"10.0.{number}.2/24", "dev", f"veth{number}")
        self._keys = {name: KeyPair.generate() for name in ("hub", *self.sites)}
        peers = "".join(self._peer(name) for name in self.sites).rstrip() + f"\nAllowedMACs = {OF_D}\n"
        self.daemon = self._up("hub", self.hub, f"{self._interface('hub', 2)}ListenPort = 55555\n{peers}")
        self.daemon.wait_for(STARTED)
        for name, number, host in (("a", 1, "10.0.0.2"), ("c", 3, "10.0.1.2"), ("d", 4, "10.0.2.2")):
            interface = self._interface(name, number) + (f"MAC = {OF_D}\n" if name == "d" else "")
            peer = f"{self._peer('hub')}Endpoint = {host}:55555\nPersistentKeepalive = 5\n"
            self._up(name, self.sites[name], interface + peer)
        for site in self.sites.values():
            lab.ping(site, "10.30.0.2", within=20)

    def drops(self, name: str) -> dict[str, int]:
        """What the hub has dropped of a site's frames, by reason."""
        [found] = [peer["drops"] for peer in self.hub.status(DEVICE)["peers"] if peer["name"] == name]
        told: dict[str, int] = found
        return told

    def _interface(self, name: str, number: int) -> str:
        private = format_key(self._keys[name].private)
        return f"[Interface]\nPrivateKey = {private}\nDevice = tap\nAddress = 10.30.0.{number}/24\n"

    def _peer(self, name: str) -> str:
        return f"[Peer]\nName = {name}\nPublicKey = {format_key(self._keys[name].public)}\n"

    def _up(self, name: str, machine: Machine, text: str) -> Daemon:
        folder = self.lab.folder / name
        folder.mkdir()
        file = folder / f"{DEVICE}.conf"
        file.touch(mode=0o600)
        file.write_text(text)
        return machine.vpntun("up", file)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The hub and its sites, which each test leaves as they were."""
    lab = Lab(tmp_path_factory.mktemp("hub"))
    try:
        yield Hub(lab)
    finally:
        lab.close()


def test_all_sites_reach_each_other_and_the_hub_tells_which_address_is_where(hub: Hub) -> None:
    for one, other in itertools.permutations((1, 3, 4), 2):
        site = {1: hub.a, 3: hub.c, 4: hub.d}[one]
        hub.lab.ping(site, f"10.30.0.{other}")
    hub.lab.ping(hub.hub, "10.30.0.3")
    places = {}
    for peer in hub.hub.status(DEVICE)["peers"]:
        for each in peer["macs"]:
            places[each["address"]] = peer["name"]
    for name, site in hub.sites.items():
        assert places[mac_text(mac(site, DEVICE))] == name
    assert mac(hub.d, DEVICE).hex(":") == OF_D


def test_a_stream_between_two_sites_arrives_intact(hub: Hub) -> None:
    hub.lab.transfer(4_000_000, "10.30.0.4", source=hub.c, sink=hub.d)


def test_frames_for_an_unknown_address_go_to_all_others_and_those_for_a_known_one_only_there(hub: Hub) -> None:
    hub.lab.ping(hub.c, "10.30.0.1")
    source, known = mac(hub.a, DEVICE), mac(hub.c, DEVICE)
    watchers = {machine: Watcher(machine, DEVICE) for machine in (hub.a, hub.hub, hub.c, hub.d)}
    private, flooded, last = frame(known, source, b"for c"), frame(UNKNOWN, source, b"?"), frame(EVERYBODY, source)
    send(hub.a, DEVICE, private, flooded, last)
    for machine, watcher in watchers.items():
        if machine is not hub.a:
            assert watcher.saw(last), hub.lab.logs()
    seen = {machine: watcher.stop() for machine, watcher in watchers.items()}
    assert seen[hub.c] == [private, flooded, last]
    assert seen[hub.d] == seen[hub.hub] == [flooded, last]
    assert seen[hub.a] == []


def test_a_site_that_takes_anothers_address_is_refused_and_the_other_keeps_its_traffic(hub: Hub) -> None:
    hub.lab.ping(hub.a, "10.30.0.4")
    of_d, attacker = mac(hub.d, DEVICE), mac(hub.c, DEVICE)
    watchers = {machine: Watcher(machine, DEVICE) for machine in (hub.a, hub.c, hub.d)}
    send(hub.a, DEVICE, first := frame(of_d, VICTIM))  # c's own program, which would refuse it, does not hear of it
    assert watchers[hub.d].saw(first), hub.lab.logs()
    stolen = [frame(EVERYBODY, VICTIM, bytes([number])) for number in range(50)]
    send(hub.c, DEVICE, *stolen, last := frame(EVERYBODY, attacker, b"the last"))
    assert watchers[hub.d].saw(last), hub.lab.logs()
    send(hub.d, DEVICE, answer := frame(VICTIM, of_d))
    assert watchers[hub.a].saw(answer), hub.lab.logs()
    seen = {machine: watcher.stop() for machine, watcher in watchers.items()}
    assert seen == {hub.a: [last, answer], hub.c: [], hub.d: [first, last]}
    assert hub.drops("c")["MAC address of another peer"] == 50
    assert hub.daemon.log.count(f"a frame of {mac_text(VICTIM)}, which is at a, came from c") == 1
    pinged = hub.d.run("ping", "-n", "-q", "-c10", "-i0.05", "-W2", "10.30.0.1").stdout
    assert "10 received" in pinged


def test_only_the_addresses_that_the_hub_allows_a_site_pass(hub: Hub) -> None:
    watcher = Watcher(hub.c, DEVICE)
    other, own = frame(EVERYBODY, UNKNOWN), frame(EVERYBODY, mac(hub.d, DEVICE))
    send(hub.d, DEVICE, other, own)
    assert watcher.saw(own), hub.lab.logs()
    assert watcher.stop() == [own]
    assert hub.drops("d")["MAC address not allowed"] == 1
    hub.daemon.wait_for(f"a frame of {mac_text(UNKNOWN)} came from d")


def rate_of_flow(sender: Machine, receiver: Machine, address: str) -> float:
    """Bits a second that a paced TCP flow between two sites brings."""
    server = receiver.popen("iperf3", "-s", "-1")
    assert until(lambda: receiver.listens(5201), 10), str(server)
    said = sender.run("iperf3", "-J", "-c", address, "-t", str(SECONDS), "-b", f"{PACE}M").stdout
    server.wait()
    rate: float = json.loads(said)["end"]["sum_received"]["bits_per_second"]
    return rate


def received(machine: Machine) -> int:
    return int(machine.run("cat", f"/sys/class/net/{DEVICE}/statistics/rx_packets").stdout)


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="no iperf3")
def test_a_storm_at_one_site_leaves_the_others_their_throughput(hub: Hub) -> None:
    ratios = []
    for _ in range(ATTEMPTS):
        before = rate_of_flow(hub.a, hub.d, "10.30.0.4")
        started, count = time.monotonic(), received(hub.hub)
        raging = storm(hub.c, DEVICE, frame(EVERYBODY, mac(hub.c, DEVICE), bytes(46)), STORM_FRAMES, STORM_RATE)
        during = rate_of_flow(hub.a, hub.d, "10.30.0.4")
        assert raging.running, "the storm ended before the flow"
        raging.process.terminate()
        raging.process.wait()
        passed, spent = received(hub.hub) - count, time.monotonic() - started
        assert LIMIT / 2 < passed < LIMIT * (spent + 1.2), "no storm, or no limit"
        ratios.append(during / before)
        if ratios[-1] >= 0.8:
            dropped = [peer["drops"].get("too many frames for all", 0) for peer in hub.hub.status(DEVICE)["peers"]]
            assert sum(map(bool, dropped)) == 1
            return
    raise AssertionError(f"throughput during a storm / before: {ratios}\n{hub.lab.logs()}")
