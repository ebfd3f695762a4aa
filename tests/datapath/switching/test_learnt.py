"""What a switch has learnt, by port: all addresses are counted, and the latest listed."""

from __future__ import annotations

from typing import cast

from vpntun.core.mac_table import AGE, LOCAL, MacTable
from vpntun.datapath.switching.learnt import MOST_LISTED, macs_of_ports
from vpntun.link.link import Link


def mac(number: int) -> bytes:
    return bytes((2, 0, 0, 0, number >> 8, number & 255))


def test_of_many_addresses_the_last_seen_are_listed_and_all_counted() -> None:
    table, link = MacTable[Link](), cast(Link, object())
    many = MOST_LISTED + 9
    for number in range(many):
        table.claim(mac(number), link, float(number))
    table.claim(mac(many), LOCAL, 0.0)
    found = macs_of_ports(table, 50.0)
    assert {port: learnt.count for port, learnt in found.items()} == {link: many, LOCAL: 1}
    assert list(found[link].latest) == [(mac(number), 50.0 - number) for number in range(9, many)]
    assert list(found[LOCAL].latest) == [(mac(many), 50.0)]


def test_a_port_whose_addresses_are_too_old_has_none() -> None:
    table, link = MacTable[Link](), cast(Link, object())
    table.claim(mac(1), link, 0.0)
    assert macs_of_ports(table, AGE) == {}
