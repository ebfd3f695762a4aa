"""Flows: the ports and addresses of what an endpoint sends."""

from __future__ import annotations

from vpntun.core.endpoint import Flow


def test_two_flows_of_the_same_ports_differ_by_their_addresses_alone() -> None:
    one = Flow(17, b"", 55555, b"\xcb\x00\x71\x02", 1234)
    assert one.ports == (17, 55555, 1234)
    assert one._replace(destination=b"\xcb\x00\x71\x03").ports == one.ports
    assert one._replace(destination=b"\xcb\x00\x71\x03") != one
