"""Router messages are found behind extension headers and in fragments, and nothing else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.packets import ip, payload, tcp, udp
from vpntun.errors import BadPacket
from vpntun.wire.ip import length_of
from vpntun.wire.router_messages import MAY_BE_ROUTER_MESSAGE, refuse_router_message

STEERS, DISCOVERY, HIDDEN = "router message", "neighbor discovery", "bad extension header"
BODY = bytes(23)
ADVERTISEMENT = bytes([134]) + BODY
PING = bytes([128]) + BODY


def reason(packet: bytes, padding: int = 0) -> str:
    """Return the reason why a packet is refused, "" if it is not, as the data path asks for it."""
    given = memoryview(packet + bytes(padding))
    if given[9 if given[0] < 0x50 else 6] not in MAY_BE_ROUTER_MESSAGE:
        return ""
    try:
        refuse_router_message(given, length_of(given))
    except BadPacket as bad:
        return bad.reason
    return ""


def icmp(version: int, kind: int) -> bytes:
    return ip(version, 1 if version == 4 else 58, bytes([kind]) + BODY)


def options(behind: int, size: int = 0) -> bytes:
    """An extension header of 8 * (size + 1) bytes; `behind`: the next header."""
    return bytes([behind, size]) + bytes(6 + 8 * size)


def fragment(behind: int, offset: int = 0, *, more: bool = True) -> bytes:
    """A fragment header; `offset` in units of 8 bytes."""
    return bytes([behind, 0]) + (offset << 3 | more).to_bytes(2, "big") + bytes(4)


def fragmented4(packet: bytes, offset: int, *, more: bool = True) -> bytes:
    """The packet, marked as a fragment of another."""
    return packet[:6] + (offset | more << 13).to_bytes(2, "big") + packet[8:]


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (icmp(6, 133), DISCOVERY),
        (icmp(6, 134), STEERS),
        (icmp(6, 135), DISCOVERY),
        (icmp(6, 136), DISCOVERY),
        (icmp(6, 137), STEERS),
        (icmp(4, 5), STEERS),
    ],
)
def test_neighbor_discovery_and_redirects_are_refused(packet: bytes, expected: str) -> None:
    assert reason(packet) == expected
    assert reason(packet, padding=13) == expected


@pytest.mark.parametrize(
    "packet",
    [
        *(icmp(6, kind) for kind in (1, 2, 3, 4, 128, 129, 130, 131, 132, 138, 143)),
        *(icmp(4, kind) for kind in (0, 3, 4, 6, 8, 11, 134)),
        *(make(version, b"\x05\x86") for make in (tcp, udp) for version in (4, 6)),
        ip(6, 59, ADVERTISEMENT),
        ip(6, 1, bytes([5]) + BODY),
        ip(4, 58, ADVERTISEMENT),
        ip(6, 60, options(17) + ADVERTISEMENT),
        ip(6, 60, options(59)),
        ip(6, 44, fragment(17) + ADVERTISEMENT),
        ip(6, 44, fragment(58) + PING),
        ip(6, 44, fragment(58, 1) + ADVERTISEMENT),
        ip(6, 44, fragment(60, 1) + b"\x3a"),
        fragmented4(icmp(4, 8), 0),
        fragmented4(icmp(4, 5), 3),
    ],
)
def test_everything_else_passes(packet: bytes) -> None:
    assert reason(packet) == ""


def test_options_in_an_ipv4_header_hide_no_redirect() -> None:
    plain = icmp(4, 5)
    packet = b"\x46" + plain[1:2] + (len(plain) + 4).to_bytes(2, "big") + plain[4:20] + bytes(4) + plain[20:]
    assert reason(packet) == STEERS


@pytest.mark.parametrize(
    "packet",
    [
        *(ip(6, first, options(58) + ADVERTISEMENT) for first in (0, 43, 60)),
        ip(6, 60, options(58, 30) + ADVERTISEMENT),
        ip(6, 0, options(43) + options(60) + options(58) + ADVERTISEMENT),
        ip(6, 60, options(60) * 6 + options(58) + ADVERTISEMENT),
    ],
)
def test_extension_headers_hide_no_advertisement(packet: bytes) -> None:
    assert reason(packet) == STEERS


@pytest.mark.parametrize(
    "packet",
    [
        ip(6, 44, fragment(58) + ADVERTISEMENT[:8]),
        ip(6, 44, fragment(58, more=False) + ADVERTISEMENT),
        ip(6, 60, options(44) + fragment(60) + options(58) + ADVERTISEMENT[:8]),
        ip(6, 44, fragment(44) + fragment(58) + ADVERTISEMENT[:8]),
        fragmented4(icmp(4, 5), 0),
    ],
)
def test_fragmentation_hides_none_either(packet: bytes) -> None:
    assert reason(packet) == STEERS


@pytest.mark.parametrize(
    "packet",
    [
        ip(6, 44, fragment(60) + options(58)),  # ICMPv6 begins in the next fragment
        ip(6, 44, fragment(60) + options(58, 2)[:16]),
        ip(6, 44, fragment(58)),
        ip(6, 44, fragment(44) + fragment(58)),
        ip(6, 60, options(58)),
        ip(6, 60, b"\x3a\x00"),
        ip(6, 60, options(58, 255)),
        ip(6, 60, options(60) * 8 + ADVERTISEMENT),
        ip(6, 58, b""),
    ],
)
def test_a_packet_whose_headers_do_not_end_in_it_is_refused(packet: bytes) -> None:
    assert reason(packet) == HIDDEN
    assert reason(packet, padding=40) == HIDDEN


def test_a_long_ping_in_fragments_passes_as_a_whole() -> None:
    body = PING + payload(2000)
    pieces = [body[at : at + 1232] for at in range(0, len(body), 1232)]
    assert [reason(ip(6, 44, fragment(58, at * 154) + piece)) for at, piece in enumerate(pieces)] == ["", ""]


@given(
    first=st.sampled_from(sorted(MAY_BE_ROUTER_MESSAGE)),
    body=st.lists(
        st.one_of(
            st.binary(max_size=12),
            st.builds(options, st.integers(0, 60), st.integers(0, 3)),
            st.builds(fragment, st.integers(0, 60), st.integers(0, 3)),
        ),
        max_size=12,
    ),
    version=st.sampled_from([4, 6]),
)
def test_arbitrary_headers_raise_nothing_else(first: int, body: list[bytes], version: int) -> None:
    assert reason(ip(version, first, b"".join(body))) in ("", STEERS, DISCOVERY, HIDDEN)
