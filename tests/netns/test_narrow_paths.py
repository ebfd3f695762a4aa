"""Paths between two vpntuns that are narrower than they look at first, or whose firewall drops the pieces of bursts.

    a  10.0.0.1 ==veth0, 1500== c ==veth0, narrow== d ==1500, veth0== 10.6.0.2  b

The routers c and d fragment what is too long, unless DF is set. Neither end's own link is narrow.
"""

from __future__ import annotations

import re

import pytest

from tests.netns.lab import Lab, Machine, far, firewall, start_pair
from tests.netns.test_offloads import drop_pieces, switch_off

INNER_MTU = 1400
FULL = INNER_MTU - 28
"""Bytes of data in a ping that fills the inner MTU."""


def give(machine: Machine, *lines: str) -> None:
    machine.run("sh", "-ec", "\n".join(lines))


def lay(lab: Lab, mtu: int, *, filtered: bool = False) -> None:
    """Put two routers between a and b, with `mtu` between them; `filtered`: their ICMP errors don't get through."""
    c, d = lab.add("c", "", ""), lab.add("d", "", "")
    lab.a.run("ip", "link", "del", "veth0")
    lab.cable(lab.a, "veth0", c, "veth1")
    lab.cable(c, "veth0", d, "veth0")
    lab.cable(d, "veth1", lab.b, "veth0")
    give(lab.a, "ip address add 10.0.0.1/24 dev veth0", "ip route add default via 10.0.0.254")
    give(lab.b, "ip address add 10.6.0.2/24 dev veth0", "ip route add default via 10.6.0.254")
    lab.b.four = "10.6.0.2"
    for router, outside, between, other in (
        (c, "10.0.0.254", "10.5.0.1", "10.5.0.2"),
        (d, "10.6.0.254", "10.5.0.2", "10.5.0.1"),
    ):
        give(
            router,
            f"ip address add {outside}/24 dev veth1",
            f"ip address add {between}/24 dev veth0",
            f"ip link set veth0 mtu {mtu}",
            f"ip route add default via {other}",
            "sysctl -qw net.ipv4.ip_forward=1",
        )
        if filtered:
            error = ["-p", "icmp", "--icmp-type", "fragmentation-needed"]
            router.run(firewall()[0], "-w", "-A", "OUTPUT", *error, "-j", "DROP")
        switch_off(router, device="veth1")
    switch_off(lab.a, lab.b, c, d)
    lab.ping(lab.a, lab.b.four)


def answers(lab: Lab, count: int, size: int, interval: float = 0.2) -> list[int]:
    """Ping b from a through the tunnel, `count` times; return the numbers, from 1 on, of the answered pings."""
    command = ["ping", "-n", f"-c{count}", f"-i{interval}", "-W5", f"-s{size}", far(lab)]
    said = lab.a.run(*command, check=False, timeout=60).stdout
    return sorted({int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", said)})


@pytest.mark.parametrize("filtered", [False, True], ids=["reported", "silent"])
@pytest.mark.parametrize("size", [56, FULL])
def test_on_a_path_of_576_bytes_no_first_ping_is_lost(lab: Lab, filtered: bool, size: int) -> None:
    lay(lab, 576, filtered=filtered)
    server, _ = start_pair(lab)
    assert answers(lab, 10, size) == list(range(1, 11)), lab.logs()
    assert server.running


def test_on_a_path_of_576_bytes_no_ping_is_lost_when_that_has_become_known(lab: Lab) -> None:
    lay(lab, 576)
    server, client = start_pair(lab, "--transport", "udp", "-v")
    assert answers(lab, 40, FULL) == list(range(1, 41)), lab.logs()
    for daemon in (client, server):
        assert daemon.stop() == 0
        assert "datagrams of 65507 bytes" in daemon.log, "uncut"


@pytest.mark.parametrize("late", [False, pytest.param(True, marks=pytest.mark.long)], ids=["from the start", "later"])
def test_a_firewall_that_drops_pieces_costs_at_most_three_seconds_of_long_packets(lab: Lab, late: bool) -> None:
    lay(lab, 1400)
    if not late:
        drop_pieces(lab.a)
        drop_pieces(lab.b)
    start_pair(lab, "--transport", "udp")
    if late:
        assert len(answers(lab, 20, FULL)) == 20, lab.logs()
        drop_pieces(lab.a)
        drop_pieces(lab.b)
    lost = set(range(1, 41)) - set(answers(lab, 40, FULL))  # bursts are tried again meanwhile
    assert lost, "the firewall has dropped no pieces"
    assert max(lost) <= 3.0 / 0.2, lab.logs()
