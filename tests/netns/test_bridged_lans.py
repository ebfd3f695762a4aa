"""Two LANs as one: what hosts on either do by Ethernet, and a second path between the LANs (lans.py)."""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.lab import Lab, Machine, until
from tests.netns.lans import BRIDGE, Lans
from tests.netns.taps import EVERYBODY, OURS, THEIRS, frame, link_local, mac, send

UDHCPC = """
case $1 in
    bound) ip address add "$ip/$mask" dev "$interface" && echo "leased $ip of $serverid via $router" ;;
esac
"""
MOST_A_SECOND = 12_000
"""Frames of a storm that may reach a host: 4,000 from either side of a switch, and a burst of as many."""
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
    lans.lab.transfer(10_000_000, lans.f.four, source=lans.c, sink=lans.f)
    lans.lab.transfer(5_000_000, lans.c.four, source=lans.f, sink=lans.c)


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


def received(machine: Machine) -> int:
    return int(machine.run("cat", "/sys/class/net/veth0/statistics/rx_packets").stdout)


def test_without_stp_a_storm_is_bounded_and_the_log_names_the_frames_that_came_back(lans: Lans) -> None:
    gateways = ((lans.client, lans.a, OURS), (lans.server, lans.b, THEIRS))
    named = re.compile("a frame of [0-9a-f:]{17}, which is at the peer, came from this side")
    with lans.loop():
        send(lans.c, "veth0", *(frame(EVERYBODY, mac(lans.c, "veth0"), bytes([each])) for each in range(200)))
        assert until(lambda: any(named.search(daemon.log) for daemon, _, _ in gateways), 10), lans.lab.logs()
        before = received(lans.e)
        time.sleep(1)
        assert received(lans.e) - before < MOST_A_SECOND
    drops = [gateway.status(device)["drops"] for _, gateway, device in gateways]
    assert any(each.get("frame came back") for each in drops), drops
    for daemon, _, _ in gateways:
        assert daemon.running
        assert len(daemon.log) < 10_000, str(daemon)
    lans.lab.ping(lans.c, lans.e.four, within=PATIENCE)
