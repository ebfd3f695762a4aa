"""Two LANs as one: what hosts on either do by Ethernet, and a second path between the LANs (lans.py)."""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.lab import Lab, Machine, until
from tests.netns.lans import BRIDGE, Lans
from tests.netns.taps import EVERYBODY, OURS, THEIRS, drops, frame, link_local, mac, send

UDHCPC = """
case $1 in
    bound) ip address add "$ip/$mask" dev "$interface" && echo "leased $ip of $serverid via $router" ;;
esac
"""
LIMIT = 4000
"""Frames for all that a switch lets pass a second from each side, and at once."""
PATIENCE = 15 + 5
"""Seconds after which a host is believed that was elsewhere before (core/mac_table.py), and some for the machine. The
kernel's bridges take a few, too."""


@pytest.fixture(scope="module")
def lans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lans]:
    """Both LANs, which each test leaves as they were."""
    lab = Lab(tmp_path_factory.mktemp("lans"))
    try:
        yield Lans(lab)
    finally:
        lab.close()


def test_all_pairs_of_hosts_reach_each_other(lans: Lans) -> None:
    for one, other in itertools.permutations(lans.hosts, 2):
        lans.lab.ping(one, other.four)
    for gateway, device in ((lans.a, OURS), (lans.b, THEIRS)):
        shown = gateway.run("ip", "-o", "link", "show", "dev", device).stdout
        assert f"master {BRIDGE}" in shown
        assert gateway.addresses(device) == []


def test_hosts_find_each_other_by_ipv6_neighbour_discovery(lans: Lans) -> None:
    for one, other in ((lans.c, lans.e), (lans.f, lans.d)):
        address = link_local(other, "veth0")
        lans.lab.ping(one, f"{address}%veth0")
        assert mac(other, "veth0").hex(":") in one.run("ip", "neigh", "show", address, "dev", "veth0").stdout


def test_a_stream_between_the_lans_arrives_intact(lans: Lans) -> None:
    lans.lab.transfer(4_000_000, lans.f.four, source=lans.c, sink=lans.f)
    lans.lab.transfer(2_000_000, lans.c.four, source=lans.f, sink=lans.c)


@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed")
@pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is not installed")
def test_a_host_gets_its_address_from_a_dhcp_server_on_the_other_lan(lans: Lans, tmp_path: Path) -> None:
    server, client = lans.c, lans.e
    script = tmp_path / "udhcpc"
    script.write_text(f"#!/bin/sh\n{UDHCPC}")
    script.chmod(0o700)
    server.run("ip", "address", "add", "10.21.0.1/24", "dev", "veth0")
    files = [
        f"--conf-file={tmp_path / 'none'}",
        f"--dhcp-leasefile={tmp_path / 'leases'}",
        f"--pid-file={tmp_path / 'pid'}",
    ]
    (tmp_path / "none").touch()
    of_network = ["--dhcp-range=10.21.0.100,10.21.0.110,1h", "--dhcp-option=3,10.21.0.254", "--dhcp-authoritative"]
    dnsmasq = server.popen(
        *("dnsmasq", "--no-daemon", "--port=0", "--user=root", "--interface=veth0", "--bind-interfaces"),
        *("--no-ping", *files, *of_network),
    )
    dnsmasq.wait_for("started")
    done = client.run(
        *("busybox", "udhcpc", "-f", "-q", "-n", "-i", "veth0", "-t", "5", "-T", "1", "-s", str(script)), check=False
    )
    assert "of 10.21.0.1 via 10.21.0.254" in done.stdout, f"{done}\n{lans.lab.logs()}"
    [leased] = [each for each in client.addresses("veth0") if each.startswith("10.21.0.1")]
    lans.lab.ping(client, "10.21.0.1")
    assert mac(client, "veth0").hex(":") in (tmp_path / "leases").read_text()
    client.run("ip", "address", "del", leased, "dev", "veth0")
    server.run("ip", "address", "del", "10.21.0.1/24", "dev", "veth0")
    dnsmasq.stop()


def blocked(lans: Lans) -> list[str]:
    """The ports that STP keeps from carrying, once no port is about to change; empty before."""
    states = lans.states()
    if set(states.values()) - {"forwarding", "blocking"}:
        return []
    return [device for (_, device), state in states.items() if state == "blocking"]


@pytest.mark.long
def test_stp_cuts_a_loop_and_the_tunnel_takes_over_when_the_other_path_is_gone(lans: Lans) -> None:
    def all_pass() -> None:
        for one, other in ((lans.c, lans.e), (lans.f, lans.d)):
            lans.lab.ping(one, other.four, within=PATIENCE)

    with lans.stp():
        with lans.loop():
            assert until(lambda: blocked(lans) in ([OURS], [THEIRS]), 15), f"{lans.states()}\n{lans.lab.logs()}"
            all_pass()
            for host in lans.hosts:
                send(host, "veth0", frame(EVERYBODY, mac(host, "veth0")))  # as for ARP; a gateway's device hears it
        assert until(lambda: set(lans.states().values()) == {"forwarding"}, 15), lans.states()
        all_pass()


def dropped(lans: Lans) -> Counter[str]:
    """What both ends of the tunnel have dropped, by reason."""
    return drops(lans.a, OURS) + drops(lans.b, THEIRS)


def send_in_circles(lans: Lans, count: int) -> None:
    """Send this many frames for all into the loop, and wait until the log of a gateway names one that came back."""
    named = re.compile("a frame of [0-9a-f:]{17}, which is at (the peer, came from this side|this side, came from)")
    source = mac(lans.c, "veth0")
    send(lans.c, "veth0", *(frame(EVERYBODY, source, bytes([number])) for number in range(count)))
    assert until(lambda: any(named.search(each.log) for each in (lans.client, lans.server)), 10), lans.lab.logs()


def test_without_stp_frames_that_come_back_are_named_and_the_lans_recover_once_the_loop_is_cut(lans: Lans) -> None:
    with lans.loop():
        send_in_circles(lans, 20)
    assert dropped(lans)["frame came back"]
    for daemon in (lans.client, lans.server):
        assert daemon.running
        assert len(daemon.log) < 10_000, str(daemon)
    lans.lab.ping(lans.c, lans.e.four, within=PATIENCE)


def received(machine: Machine) -> int:
    return int(machine.run("cat", "/sys/class/net/veth0/statistics/rx_packets").stdout)


@pytest.mark.long
def test_without_stp_the_storm_of_a_loop_is_bounded(lans: Lans) -> None:
    before = received(lans.e)
    with lans.loop():
        send_in_circles(lans, 200)
        assert until(lambda: received(lans.e) - before > 2 * LIMIT, 10), "no storm"
        started, before = time.monotonic(), received(lans.e)
        time.sleep(1)
        passed, spent = received(lans.e) - before, time.monotonic() - started
    assert passed < 2 * LIMIT * (spent + 1), "no limit"  # frames go round both ways
    assert dropped(lans)["too many frames for all"], "no limit"
    lans.lab.ping(lans.c, lans.e.four, within=PATIENCE)
