"""The ports of a packet, and the identification that its fragments share."""

from __future__ import annotations

import pytest

from tests.wire.packets import payload, tcp, tcp_superpacket, udp, udp_superpacket
from vpntun.wire.transport_header import ports_of

versions = pytest.mark.parametrize("version", [4, 6])


def fragment(version: int, offset: int, *, more: bool, protocol: int = 17) -> bytes:
    """A fragment of a UDP datagram from port 1 to port 2; `offset` in units of 8 bytes."""
    body = bytes((0, 1, 0, 2)) + bytes(20)
    if version == 4:
        flags = (0x2000 if more else 0) | offset
        header = bytes((0x45, 0, 0, 44, 0xAB, 0xCD)) + flags.to_bytes(2, "big") + bytes((64, protocol, 0, 0))
        return header + bytes(8) + body
    header = bytes((0x60, 0, 0, 0, 0, 32, 44, 64)) + bytes(32)
    return header + bytes((protocol, 0)) + (offset << 3 | more).to_bytes(2, "big") + b"\1\2\3\4" + body


@versions
def test_a_whole_packet_has_ports_and_no_identification(version: int) -> None:
    assert ports_of(udp(version, b"x", port=4444)) == ((17, 40000, 4444), b"")
    assert ports_of(udp_superpacket(version, payload(9000))) == ((17, 40000, 53), b"")
    ports, identification = ports_of(tcp_superpacket(version, payload(9000)))
    assert ports is not None
    assert (ports[0], identification) == (6, b"")


@versions
def test_only_the_first_fragment_has_ports_and_all_have_the_identification(version: int) -> None:
    identification = b"\xab\xcd" if version == 4 else b"\1\2\3\4"
    assert ports_of(fragment(version, 0, more=True)) == ((17, 1, 2), identification)
    for offset, more in ((1, True), (0x1F, False), (0x20, False), (0x100, True)):
        assert ports_of(fragment(version, offset, more=more)) == (None, identification)


@versions
def test_other_protocols_have_no_ports(version: int) -> None:
    packet = bytearray(udp(version, b"x"))
    packet[9 if version == 4 else 6] = 47
    assert ports_of(packet) == (None, b"")
    assert ports_of(fragment(version, 0, more=True, protocol=58))[0] is None


def test_ports_are_read_behind_the_options_of_ipv4() -> None:
    packet = tcp(4, b"x")
    with_options = bytes((0x46,)) + packet[1:20] + bytes(4) + packet[20:]
    assert ports_of(with_options) == ports_of(packet)


@versions
def test_a_packet_that_is_cut_short_has_no_ports(version: int) -> None:
    header = 20 if version == 4 else 40
    for length in range(header, header + 4):
        assert ports_of(udp(version, b"x")[:length]) == (None, b"")
    for length in range(header, header + 12 if version == 6 else header + 4):
        assert ports_of(fragment(version, 0, more=True)[:length])[0] is None
