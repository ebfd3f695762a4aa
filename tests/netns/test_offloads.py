"""Superpackets, records and bursts between real kernels, over devices and paths with different abilities and losses.

TCP streams are checksummed at both ends, datagrams are numbered, and the log must show no unexpected drops.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.datagrams import datagrams
from tests.netns.lab import (
    PORT,
    STARTED,
    Daemon,
    Lab,
    Machine,
    far,
    firewall,
    start_client,
    start_pair,
    start_server,
    until,
)

HERE = Path(__file__).parent
OFFLOADS, NO_OFFLOADS = HERE / "offloads.py", HERE / "no_offloads.py"

carriers = pytest.mark.parametrize("carrier", ["udp", "tcp"])


def switch_off(*machines: Machine, device: str = "veth0") -> None:
    for machine in machines:
        machine.run(sys.executable, OFFLOADS, device)


def pair(lab: Lab, *options: str, host: str) -> tuple[Daemon, Daemon]:
    """Start the server, then a client that calls this address."""
    return start_server(lab, *options), start_client(lab, *options, host=host)


def all_kinds(lab: Lab, nbytes: int = 20_000_000, ordered: bool = True) -> None:
    """Send TCP in both directions over both IP versions and, if `ordered`, UDP superpackets."""
    near = lab.a.address_of("tun11"), lab.a.address_of("tun11", 6)
    lab.transfer(nbytes, far(lab))
    lab.transfer(nbytes // 4, far(lab, 6))
    lab.transfer(nbytes // 4, near[0], source=lab.b)
    lab.transfer(nbytes, near[1], source=lab.b)
    if ordered:
        datagrams(lab, far(lab))
        datagrams(lab, near[1], source=lab.b)


def drops_of(daemon: Daemon) -> dict[str, int]:
    """Stop a program that runs with -v, and return the drops that it logs at its end, by reason."""
    assert daemon.stop() == 0
    said = re.search(r"dropped: (.*)", daemon.log)
    return {reason: int(count) for count, reason in re.findall(r"(\d+) ([^,]+)", said[1])} if said else {}


def payload_of(daemon: Daemon) -> int:
    """Stop a program that runs with -v, and return the datagram size that it logs at its end."""
    assert daemon.stop() == 0
    said = re.search(r"datagrams of (\d+) bytes", daemon.log)
    assert said, str(daemon)
    return int(said[1])


@carriers
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("offloads", [True, False], ids=["offloads", "no offloads"])
def test_everything_arrives_over_devices_with_and_without_offloads(
    lab: Lab, carrier: str, version: int, offloads: bool
) -> None:
    if not offloads:
        switch_off(lab.a, lab.b)
    server, client = pair(lab, "--transport", carrier, "-v", host=lab.b.four if version == 4 else lab.b.six)
    lab.ping(lab.a, far(lab))
    all_kinds(lab)
    for daemon in (client, server):
        assert not drops_of(daemon).keys() - {"queue full", "undeliverable"}, lab.logs()
        assert "Traceback" not in daemon.log


def test_two_vpntuns_with_wireguard_keys_recognise_each_other_and_everything_arrives(lab: Lab) -> None:
    identities = {}
    for machine in (lab.a, lab.b):
        file, public = lab.new_identity(f"{machine.name}.key")
        identities[machine] = str(file), public
    ends = []
    for machine, other, role, number in (
        (lab.b, lab.a, ("-s", "-i", "tun3"), 1),
        (lab.a, lab.b, ("-c", lab.b.four, "-i", "tun11"), 2),
    ):
        keys = "--private-key", identities[machine][0], "--peer", identities[other][1]
        addresses = "--address", f"192.168.7.{number}/24", "--address", f"fd66::{number}/64"
        ends.append(machine.vpntun(*role, *keys, *addresses, "-v"))
        ends[-1].wait_for(STARTED)
    lab.ping(lab.a, far(lab))
    all_kinds(lab)
    for daemon in ends:
        assert payload_of(daemon) == 1472


@pytest.mark.parametrize("refusing", ["client", "server", "both"])
@carriers
def test_a_device_that_refuses_offloads_gets_single_packets_and_everything_arrives(
    lab: Lab, carrier: str, refusing: str
) -> None:
    def start(machine: Machine, refuses: bool, *arguments: str) -> Daemon:
        program = [str(NO_OFFLOADS)] if refuses else ["-m", "vpntun"]
        options = ("-k", str(lab.key), "--transport", carrier, "-v")
        started = machine.popen(
            sys.executable, *program, *arguments, *options, env={"PYTHONPATH": str(HERE.parents[1])}
        )
        started.wait_for(STARTED)
        return started

    server = start(lab.b, refusing != "client", "-s", "-i", "tun3")
    client = start(lab.a, refusing != "server", "-c", lab.b.four, "-i", "tun11")
    lab.ping(lab.a, far(lab))
    all_kinds(lab, 8_000_000)
    for daemon in (client, server):
        assert not drops_of(daemon).keys() - {"queue full", "undeliverable"}, lab.logs()


@carriers
def test_superpackets_of_a_flow_that_an_end_forwards_arrive(lab: Lab, carrier: str) -> None:
    behind = lab.add("c", "10.1.0.2", "fd02::2")
    lab.cable(behind, "veth0", lab.a, "veth1")
    for machine, device, number in ((behind, "veth0", 2), (lab.a, "veth1", 1)):
        machine.run("ip", "address", "add", f"10.1.0.{number}/24", "dev", device)
        machine.run("ip", "address", "add", f"fd02::{number}/64", "dev", device, "nodad")
    behind.run("ip", "route", "add", "default", "via", "10.1.0.1")
    behind.run("ip", "-6", "route", "add", "default", "via", "fd02::1")
    lab.a.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    options = ["--route", "10.1.0.0/24", "--route", "fd02::/64"]
    start_pair(lab, "--transport", carrier, "-v", server=options)
    lab.ping(behind, far(lab))
    lab.transfer(20_000_000, far(lab), source=behind)
    lab.transfer(20_000_000, far(lab, 6), source=behind)
    datagrams(lab, far(lab), source=behind)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mtu", [1400, 1280])
def test_a_device_with_a_smaller_mtu_carries_the_same(lab: Lab, mtu: int, version: int) -> None:
    for machine in (lab.a, lab.b):
        machine.run("ip", "link", "set", "veth0", "mtu", str(mtu))
    server, client = pair(lab, "--transport", "udp", "-v", host=lab.b.four if version == 4 else lab.b.six)
    lab.ping(lab.a, far(lab), size=1472)
    all_kinds(lab, 8_000_000)
    largest = mtu - (28 if version == 4 else 48)
    for daemon in (client, server):
        assert largest - 8 <= payload_of(daemon) <= largest, lab.logs()


def test_datagrams_shrink_with_an_mtu_that_shrinks_during_a_transfer(lab: Lab) -> None:
    server, client = start_pair(lab, "--transport", "udp", "-v")
    lab.ping(lab.a, far(lab))
    lab.transfer(8_000_000, far(lab))
    for machine in (lab.a, lab.b):
        machine.run("ip", "link", "set", "veth0", "mtu", "1300")
    lab.transfer(20_000_000, far(lab))
    lab.transfer(8_000_000, lab.a.address_of("tun11"), source=lab.b)
    for daemon in (client, server):
        assert payload_of(daemon) <= 1272


def hole(lab: Lab, mtu: int) -> tuple[Machine, Callable[[int], None]]:
    """Put a switch between a and b that silently drops packets longer than `mtu`.

    Return the switch and a function that changes this length.
    """
    switch = lab.add("c", "", "")
    for machine, port in ((lab.a, "veth1"), (lab.b, "veth2")):
        machine.run("ip", "link", "del", "veth0", check=False)
        lab.cable(machine, "veth0", switch, port)
        machine.run("ip", "address", "add", f"{machine.four}/24", "dev", "veth0")
        machine.run("ip", "address", "add", f"{machine.six}/64", "dev", "veth0", "nodad")
        switch_off(machine)
    switch.run("ip", "link", "add", "br0", "type", "bridge")
    for port in ("veth1", "veth2"):
        switch.run("ip", "link", "set", port, "master", "br0")
    switch.run("ip", "link", "set", "br0", "up")

    def narrow(to: int) -> None:
        for port in ("veth1", "veth2"):
            switch.run("ip", "link", "set", port, "mtu", str(to))

    narrow(mtu)
    return switch, narrow


@pytest.mark.parametrize("mtu", [1400, 1280])
def test_a_black_hole_is_found_and_everything_arrives(lab: Lab, mtu: int) -> None:
    hole(lab, mtu)
    server, client = start_pair(lab, "--transport", "udp", "-v")
    lab.ping(lab.a, far(lab), size=1472)
    all_kinds(lab, 4_000_000)
    for daemon in (client, server):
        assert 1200 <= payload_of(daemon) <= mtu - 28, lab.logs()


def test_a_black_hole_that_opens_under_traffic_is_found(lab: Lab) -> None:
    _, narrow = hole(lab, 1500)
    server, client = start_pair(lab, "--transport", "udp", "-v")
    lab.ping(lab.a, far(lab))
    lab.transfer(8_000_000, far(lab))
    time.sleep(2)  # the search for the length
    narrow(1300)
    started = time.monotonic()
    lab.transfer(8_000_000, far(lab))
    assert time.monotonic() - started < 15
    assert payload_of(client) <= 1272, lab.logs()
    assert server.running


def connected_then_lossy(lab: Lab, *options: str) -> tuple[Daemon, Daemon]:
    """Return a connected pair that from then on loses one datagram in a hundred each way, at random.

    The loss begins after the handshake: one in fifty would lose a message, which is repeated only 5 s later.
    """
    switch_off(lab.a, lab.b)  # otherwise a whole burst is one packet to the firewall
    ends = start_pair(lab, *options)
    lab.ping(lab.a, far(lab))
    for machine in (lab.a, lab.b):
        rule = ["-p", "udp", "--dport" if machine is lab.b else "--sport", str(PORT)]
        chance = ["-m", "statistic", "--mode", "random", "--probability", "0.01", "-j", "DROP"]
        machine.run(firewall()[0], "-w", "-A", "INPUT", *rule, *chance)
    return ends


def test_transfers_complete_with_one_datagram_in_a_hundred_lost(lab: Lab) -> None:
    server, client = connected_then_lossy(lab, "--transport", "udp", "-v")
    all_kinds(lab, 8_000_000, ordered=False)
    for daemon in (client, server):
        assert "Traceback" not in daemon.log


def test_records_are_protected_if_datagrams_are_lost_at_random(lab: Lab) -> None:
    connected_then_lossy(lab, "--transport", "udp")

    def protected() -> bool:
        lab.transfer(4_000_000, far(lab))
        return lab.a.status("tun11")["peers"][0]["protected"] is True

    assert until(protected, 90), lab.logs()


def drop_pieces(machine: Machine) -> None:
    """Act as a middlebox that knows only WireGuard: drop messages of type 4 whose reserved bytes are not zero."""
    rule = ["-p", "udp", "-m", "u32", "--u32", "0>>22&0x3C@8&0xFF00=0x0100:0xFF00", "-j", "DROP"]
    done = machine.run(firewall()[0], "-w", "-A", "INPUT", *rule, check=False)
    if done.returncode:
        pytest.skip(f"no u32 match here: {done.stderr.strip()}")


@pytest.mark.parametrize("late", [False, True], ids=["from the start", "later"])
def test_small_records_get_through_a_middlebox_that_drops_the_pieces_of_bursts(lab: Lab, late: bool) -> None:
    switch_off(lab.a, lab.b)
    if not late:
        drop_pieces(lab.a)
        drop_pieces(lab.b)
    server, client = start_pair(lab, "--transport", "udp", "-v")
    if late:
        lab.ping(lab.a, far(lab))
        lab.transfer(8_000_000, far(lab))
        drop_pieces(lab.a)
        drop_pieces(lab.b)
    lab.ping(lab.a, far(lab), within=10, size=1300)
    lab.transfer(4_000_000, far(lab))
    lab.transfer(1_000_000, lab.a.address_of("tun11"), source=lab.b)
    for daemon in (client, server):
        assert daemon.running
