"""What every carrier says of addresses: their bytes, and the device that a link-local one belongs to."""

from __future__ import annotations

import pytest

from vpntun.carriers.base import Flow, packed, scope_of
from vpntun.types import SocketAddress


@pytest.mark.parametrize(
    ("address", "host", "scope"),
    [
        (("203.0.113.2", 1), b"\xcb\x00\x71\x02", 0),
        (("2001:db8::2", 1, 0, 0), b"\x20\x01\x0d\xb8" + bytes(11) + b"\x02", 0),
        (("fe80::1", 1, 0, 3), b"\xfe\x80" + bytes(13) + b"\x01", 3),
        (("fe80::1%eth0", 1, 0, 3), b"\xfe\x80" + bytes(13) + b"\x01", 3),
    ],
)
def test_an_address_is_its_bytes_and_its_scope(address: SocketAddress, host: bytes, scope: int) -> None:
    assert packed(address) == host
    assert scope_of(address) == scope


def test_two_flows_of_the_same_ports_differ_by_their_addresses_alone() -> None:
    one = Flow(17, b"", 55555, b"\xcb\x00\x71\x02", 1234)
    assert one.ports == (17, 55555, 1234)
    assert one._replace(destination=b"\xcb\x00\x71\x03").ports == one.ports
    assert one._replace(destination=b"\xcb\x00\x71\x03") != one
