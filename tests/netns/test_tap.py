"""`vpntun -a`: the devices of both ends are one Ethernet, over either carrier.

    a  tap11  ==== vpntun, over 10.0.0.1 and 10.0.0.2 ====  tap3  b

The tests of a carrier share one pair, which each leaves as it was. Over TCP there are those that move most, since only
the carrier differs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.netns.datagrams import datagrams
from tests.netns.lab import STARTED, Daemon, Lab, Machine, until
from tests.netns.taps import (
    EVERYBODY,
    OURS,
    THEIRS,
    Watcher,
    drops,
    frame,
    link_local,
    mac,
    send,
    start_taps,
)
from tests.netns.wireguard import WG_PORT, Keys, start_wireguard

ARP, VLAN, SERVICE_VLAN = 0x0806, 0x8100, 0x88A8
FULL = 1472
"""Bytes of a ping that fill a packet of 1,500."""
NUMBER = 5
ABOVE = "vlan5"


class Pair:
    """Two ends whose tunnel is up."""

    def __init__(self, lab: Lab, *options: str) -> None:
        self.lab, self.a, self.b = lab, lab.a, lab.b
        self.server, self.client = start_taps(lab, *options)
        self.ours, self.theirs = self.a.address_of(OURS), self.b.address_of(THEIRS)
        lab.ping(self.a, self.theirs)

    def carries(self) -> None:
        """Assert that both programs run and that frames pass in both directions."""
        self.lab.ping(self.a, self.theirs)
        for daemon in (self.server, self.client):
            assert daemon.running, str(daemon)
            assert "Traceback" not in daemon.log, str(daemon)


@pytest.fixture(scope="module", params=["udp"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    lab = Lab(tmp_path_factory.mktemp("taps"))
    try:
        yield Pair(lab, "--transport", request.param)
    finally:
        lab.close()


over_both_carriers = pytest.mark.parametrize("pair", ["udp", "tcp"], indirect=True)


def whole_ping(machine: Machine, address: str, size: int = FULL) -> None:
    """Ping without fragments."""
    done = machine.run("ping", "-n", "-c2", "-i0.1", "-w3", "-Mdo", f"-s{size}", address, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{machine.lab.logs()}"


def test_ipv4_works_by_arp_across_the_tunnel(pair: Pair) -> None:
    pair.a.run("ip", "neigh", "flush", "dev", OURS)
    watcher = Watcher(pair.b, THEIRS, ARP)
    pair.lab.ping(pair.a, pair.theirs)
    ours = mac(pair.a, OURS)
    assert any(each.startswith(EVERYBODY + ours) for each in watcher.stop())
    known = pair.a.run("ip", "neigh", "show", pair.theirs, "dev", OURS).stdout
    assert mac(pair.b, THEIRS).hex(":") in known


def test_ipv6_works_by_neighbour_discovery_across_the_tunnel(pair: Pair) -> None:
    theirs = link_local(pair.b, THEIRS)
    pair.lab.ping(pair.a, f"{theirs}%{OURS}")
    known = pair.a.run("ip", "neigh", "show", theirs, "dev", OURS).stdout
    assert mac(pair.b, THEIRS).hex(":") in known
    pair.lab.ping(pair.b, pair.a.address_of(OURS, 6))


def test_packets_of_1500_bytes_pass_whole_over_a_path_of_1500(pair: Pair) -> None:
    for machine, device, other in ((pair.a, OURS, pair.theirs), (pair.b, THEIRS, pair.ours)):
        assert machine.run("cat", f"/sys/class/net/{device}/mtu").stdout == "1500\n"
        whole_ping(machine, other)


@over_both_carriers
def test_tcp_streams_arrive_intact(pair: Pair) -> None:
    pair.lab.transfer(10_000_000, pair.theirs)
    pair.lab.transfer(4_000_000, pair.a.address_of(OURS, 6), source=pair.b)


def test_datagrams_sent_many_in_a_call_arrive_intact(pair: Pair) -> None:
    datagrams(pair.lab, pair.theirs, count=1000)


def start_vlan(machine: Machine, device: str, address: str) -> Daemon:
    vlan = machine.popen(sys.executable, "-m", "tests.netns.vlan", device, str(NUMBER), ABOVE)
    vlan.wait_for("ready")
    machine.run("ip", "address", "add", f"{address}/24", "dev", ABOVE)
    return vlan


@over_both_carriers
def test_a_vlan_on_top_carries_full_packets_and_streams(pair: Pair) -> None:
    watcher = Watcher(pair.b, THEIRS, VLAN)
    vlans = [start_vlan(pair.a, OURS, "10.5.0.1"), start_vlan(pair.b, THEIRS, "10.5.0.2")]
    whole_ping(pair.a, "10.5.0.2")
    whole_ping(pair.b, "10.5.0.1")
    seen = watcher.stop()
    tag = VLAN.to_bytes(2, "big") + NUMBER.to_bytes(2, "big")
    assert max(map(len, seen)) == 1518
    assert {each[12:16] for each in seen} == {tag}
    pair.lab.transfer(2_000_000, "10.5.0.2")
    pair.lab.transfer(2_000_000, "10.5.0.1", source=pair.b)
    for vlan in vlans:
        assert vlan.running, str(vlan)
        vlan.stop()


def test_frames_of_every_protocol_pass_as_they_are(pair: Pair) -> None:
    ours, theirs = mac(pair.a, OURS), mac(pair.b, THEIRS)
    tagged, twice = bytes.fromhex("0007 88b5"), bytes.fromhex("0007 8100 0008 88b5")
    frames = [
        *(frame(theirs, ours, bytes(length)) for length in range(6)),
        frame(EVERYBODY, ours, bytes(range(46))),
        frame(theirs, ours, b"\xe0\xe0\x03" + b"IPX over LLC", 15),
        frame(theirs, ours, b"\x42\x42\x03" + bytes(40), 1500),  # an 802.3 length that is wrong
        frame(theirs, ours, tagged + bytes(1500), VLAN),
        frame(theirs, ours, twice + bytes(1492), SERVICE_VLAN),
        frame(theirs, ours, twice[:4] * 3 + twice, VLAN),
        frame(theirs, ours, bytes(3), 0x0800),  # no IP packet is as short
        frame(theirs, ours, b"\x65" + bytes(40), 0x86DD),
        frame(theirs, ours, b"", 0xFFFF),
        frame(theirs, ours, bytes(1500), 0),
    ]
    watcher = Watcher(pair.b, THEIRS, None)
    cut_off = frame(theirs, ours, tagged[:2], VLAN)  # the kernel there drops it
    send(pair.a, OURS, cut_off, *frames, last := frame(theirs, ours, b"the last"))
    assert watcher.saw(last), pair.lab.logs()
    arrived = watcher.stop()
    assert [each for each in frames if each not in arrived] == [], pair.lab.logs()
    pair.carries()


def test_frames_against_the_rules_are_dropped_and_counted(pair: Pair) -> None:
    ours, theirs = mac(pair.a, OURS), mac(pair.b, THEIRS)
    pair.a.run("ip", "link", "set", OURS, "mtu", "9000")
    watcher = Watcher(pair.b, THEIRS)
    group, nobody, jumbo = frame(theirs, EVERYBODY), frame(theirs, bytes(6)), frame(theirs, ours, bytes(8000))
    send(pair.a, OURS, group, nobody, jumbo, last := frame(theirs, ours, b"the last"))
    assert watcher.saw(last), pair.lab.logs()
    assert [each for each in watcher.stop() if each in (group, nobody, jumbo)] == []
    here, there = drops(pair.a, OURS), drops(pair.b, THEIRS)
    assert here["bad source MAC address"] == 2, pair.lab.logs()
    too_big = ("too big for the path", "too big for the device")  # whichever is asked first
    assert sum(drops[reason] for drops in (here, there) for reason in too_big) == 1, f"{here}, {there}"
    pair.a.run("ip", "link", "set", OURS, "mtu", "1500")
    pair.carries()


def test_full_packets_and_streams_pass_over_a_path_of_1400(pair: Pair) -> None:
    def set_mtu(mtu: int) -> None:
        for machine in (pair.a, pair.b):
            machine.run("ip", "link", "set", "veth0", "mtu", str(mtu))

    set_mtu(1400)
    try:
        pair.lab.ping(pair.a, pair.theirs, size=FULL)
        whole_ping(pair.a, pair.theirs)
        whole_ping(pair.b, pair.ours)
        pair.lab.transfer(2_000_000, pair.theirs)
        pair.lab.transfer(2_000_000, pair.ours, source=pair.b)
    finally:
        set_mtu(1500)
    pair.carries()


@pytest.mark.long
def test_ends_whose_devices_differ_say_so_once_and_deliver_nothing(lab: Lab) -> None:
    server = lab.b.vpntun("-s", "-a", "-i", THEIRS, "-k", lab.key)
    server.wait_for(STARTED)
    client = lab.a.vpntun("-c", lab.b.four, "-i", "tun11", "-k", lab.key)
    client.wait_for(STARTED)
    watchers = Watcher(lab.b, THEIRS, None), Watcher(lab.a, "tun11", None)
    server.wait_for("has a TUN device, and this end a TAP device")
    client.wait_for("has a TAP device, and this end a TUN device")
    lab.no_ping(lab.a, lab.b.address_of(THEIRS))
    lab.no_ping(lab.b, lab.a.address_of("tun11"))
    assert [watcher.stop() for watcher in watchers] == [[], []]
    kinds = [machine.status(device)["peers"][0]["device"] for machine, device in ((lab.b, THEIRS), (lab.a, "tun11"))]
    assert kinds == ["tun", "tap"]
    for daemon in (server, client):
        assert daemon.log.count("and this end a") == 1, str(daemon)
        assert daemon.running


@pytest.mark.long
def test_a_plain_wireguard_gets_no_frames_and_one_line_says_why(lab: Lab, keys: Keys) -> None:
    start_wireguard(lab, keys)
    identity = ["--private-key", str(keys.ours.file), "--peer", keys.theirs.public, "--address", "192.168.7.1/24"]
    daemon = lab.a.vpntun("-c", lab.b.four, "-p", str(WG_PORT), "-a", "-i", OURS, *identity)
    daemon.wait_for(STARTED)
    pinging = lab.a.popen("ping", "-n", "-q", "-i0.2", "192.168.7.2")  # HELLOs go with traffic
    answering = lab.b.popen("ping", "-n", "-q", "-i0.2", "192.168.7.1")  # and count if the peer was heard since
    assert until(lambda: "WireGuard" in daemon.log, 60), lab.logs()
    lab.no_ping(lab.a, "192.168.7.2")
    for ping in (pinging, answering):
        ping.process.terminate()
    assert daemon.log.count("WireGuard") == 1, str(daemon)
    assert daemon.running


@pytest.mark.long
@over_both_carriers
def test_hundreds_of_megabytes_arrive_intact(pair: Pair) -> None:
    pair.lab.transfer(300_000_000, pair.theirs)
    pair.lab.transfer(300_000_000, pair.a.address_of(OURS, 6), source=pair.b)
    pair.carries()
