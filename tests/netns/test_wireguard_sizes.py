"""Full-size packets through tunnels of two MTUs, and iperf3's flows, with wireguard-go at the other end."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from tests.netns.lab import Lab, Machine
from tests.netns.wireguard import (
    OURS,
    OURS6,
    THEIRS,
    THEIRS6,
    Keys,
    as_client,
    start_vpntun,
    start_wireguard,
)

HEADERS = {4: 20 + 8, 6: 40 + 8}
"""Bytes of an IP header and of that of an ICMP echo request."""


@pytest.mark.parametrize(("outside", "mtu", "version"), [(1500, 1420, 6), (9100, 9000, 4)])
def test_full_size_packets_pass_unfragmented_inside_and_outside(
    lab: Lab, keys: Keys, outside: int, mtu: int, version: int
) -> None:
    for machine in (lab.a, lab.b):
        machine.run("ip", "link", "set", "veth0", "mtu", str(outside))
    start_wireguard(lab, keys, mtu=mtu)
    start_vpntun(lab, keys, *as_client(lab, version), "--mtu", str(mtu))
    lab.ping(lab.a, THEIRS)
    for source, address in ((lab.a, THEIRS), (lab.a, THEIRS6), (lab.b, OURS), (lab.b, OURS6)):
        size = mtu - HEADERS[6 if ":" in address else 4]
        done = whole_pings(source, address, size)
        assert done.returncode == 0, f"{done}\n{lab.logs()}"
        done = whole_pings(source, address, size + 1)
        assert "message too long" in done.stderr.lower(), done
    for machine in (lab.a, lab.b):
        assert fragments(machine) == 0


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not installed")
def test_iperf3_sends_over_tcp_and_udp_both_ways(lab: Lab, keys: Keys) -> None:
    start_wireguard(lab, keys)
    start_vpntun(lab, keys, *as_client(lab))
    lab.ping(lab.a, THEIRS)
    server = lab.b.popen("iperf3", "-s", "--forceflush")
    server.wait_for("Server listening")
    for direction in ((), ("--reverse",)):
        over_tcp = iperf3(lab.a, "-n", "20M", *direction)
        assert over_tcp["sum_received"]["bytes"] > 10 << 20  # it ends before the last ones have been read
        over_udp = iperf3(lab.a, "-u", "-b", "10M", "-n", "1M", *direction)["sum"]
        assert over_udp["lost_packets"] < over_udp["packets"], over_udp


def whole_pings(source: Machine, address: str, size: int) -> Any:
    """Send three pings of this many bytes, which may not be fragmented."""
    return source.run("ping", "-n", "-c3", "-i0.05", "-W2", "-Mdo", f"-s{size}", address, check=False)


def fragments(machine: Machine) -> int:
    """How many fragments this machine has made of packets of both IP versions."""
    names, values = machine.run("grep", "^Ip:", "/proc/net/snmp").stdout.splitlines()
    of_four = dict(zip(names.split(), values.split(), strict=True))["FragCreates"]
    return int(of_four) + int(machine.run("grep", "^Ip6FragCreates", "/proc/net/snmp6").stdout.split()[1])


def iperf3(client: Machine, *options: str) -> Any:
    """Run iperf3 from a to b, and return its result."""
    return json.loads(client.run("iperf3", "-c", THEIRS, "--json", *options).stdout)["end"]
