"""IP packets in one readable line each: protocol, addresses, ports, flags and lengths.

    TCP 10.0.0.1:40000 > 10.0.0.2:5201 [SYN, ACK], seq 1, ack 2, win 64240, 0 bytes
    UDP [fd00::1]:40000 > [fd00::2]:53, 32 bytes
    ICMP 10.0.0.1 > 10.0.0.2 echo request, id 7, seq 1, 64 bytes
    malformed, 12 bytes

The bytes may be anybody's, and may have been cut: what is there is described.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from vpntun.errors import BadPacket
from vpntun.wire.checksum import TCP, UDP
from vpntun.wire.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE

ICMP, ICMPV6 = 1, 58
NAMES = {
    1: "ICMP",
    2: "IGMP",
    4: "IPIP",
    41: "IPv6",
    47: "GRE",
    50: "ESP",
    51: "AH",
    58: "ICMPv6",
    89: "OSPF",
    132: "SCTP",
}
FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
TYPES = {0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request", 11: "time exceeded"}
TYPES_V6 = {
    1: "unreachable",
    2: "packet too big",
    3: "time exceeded",
    128: "echo request",
    129: "echo reply",
    133: "router solicitation",
    134: "router advertisement",
    135: "neighbor solicitation",
    136: "neighbor advertisement",
    143: "multicast listener report",
}
ECHOES = frozenset({(ICMP, 0), (ICMP, 8), (ICMPV6, 128), (ICMPV6, 129)})

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_EXTENSIONS = frozenset({_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION})

_V4 = struct.Struct("!BxHxxHxB2x4s4s")
_V6 = struct.Struct("!4xHBx16s16s")
_TCP = struct.Struct("!HHIIBBH")
_UDP = struct.Struct("!HHH2x")
_ECHO = struct.Struct("!4xHH")


def describe(packet: bytes, length: int) -> str:
    """Return a line about a packet of `length` bytes, of which those of `packet` are known. Raises nothing."""
    try:
        return _described(packet, length)
    except BadPacket:
        return f"malformed, {bytes_text(length)}"


def _described(packet: bytes, length: int) -> str:
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        first, total, fragment, protocol, source, destination = _read(_V4, packet, 0)
        start, family, offset = (first & 15) << 2, socket.AF_INET, (fragment & 0x1FFF) << 3
        is_fragment = bool(fragment & 0x3FFF)
        if start < IPV4_HEADER_SIZE:
            raise BadPacket("malformed")
    elif version == 6:
        payload, protocol, source, destination = _read(_V6, packet, 0)
        start, family, total = IPV6_HEADER_SIZE, socket.AF_INET6, IPV6_HEADER_SIZE + payload
        protocol, start, offset, is_fragment = _behind_extensions(packet, protocol, start)
    else:
        raise BadPacket("malformed")
    if not start <= total <= length:
        raise BadPacket("malformed")
    addresses = socket.inet_ntop(family, source), socket.inet_ntop(family, destination)
    if offset:
        where = " > ".join(addresses)
        return f"{_name(protocol)} {where} fragment at {offset}, {bytes_text(total - start)}"
    about = _about(packet, protocol, start, total - start, addresses)
    return f"{about}, first fragment" if is_fragment else about


def _about(packet: bytes, protocol: int, start: int, size: int, addresses: tuple[str, str]) -> str:
    """Describe what follows the IP header, `size` bytes from `start` on. Raises BadPacket."""
    if protocol == TCP:
        first, second, sequence, acknowledged, header, flags, window = _read(_TCP, packet, start)
        header = header >> 4 << 2
        if not 20 <= header <= size:
            raise BadPacket("malformed")
        shown = ", ".join(name for bit, name in enumerate(FLAGS) if flags >> bit & 1)
        behind = f", ack {acknowledged}" if flags & 0x10 else ""
        where = _between(addresses, first, second)
        return f"TCP {where} [{shown}], seq {sequence}{behind}, win {window}, {bytes_text(size - header)}"
    if protocol == UDP:
        first, second, _ = _read(_UDP, packet, start)
        if size < _UDP.size:
            raise BadPacket("malformed")
        return f"UDP {_between(addresses, first, second)}, {bytes_text(size - _UDP.size)}"
    where = f"{_name(protocol)} {' > '.join(addresses)}"
    if protocol not in (ICMP, ICMPV6):
        return f"{where}, {bytes_text(size)}"
    if size < 4 or len(packet) < start + 2:
        raise BadPacket("malformed")
    kind, code = packet[start], packet[start + 1]
    if (protocol, kind) in ECHOES:
        identifier, sequence = _read(_ECHO, packet, start)
        code_or_echo = f", id {identifier}, seq {sequence}"
    else:
        code_or_echo = f", code {code}" if code else ""
    name = (TYPES if protocol == ICMP else TYPES_V6).get(kind, f"type {kind}")
    return f"{where} {name}{code_or_echo}, {bytes_text(size)}"


def _behind_extensions(packet: bytes, protocol: int, start: int) -> tuple[int, int, int, bool]:
    """Return protocol and start of what follows IPv6's extension headers, and the offset of a fragment."""
    offset, is_fragment = 0, False
    while protocol in _EXTENSIONS and not offset:
        if len(packet) < start + 8:
            raise BadPacket("malformed")
        length = packet[start + 1]
        if protocol == _FRAGMENT:
            offset, is_fragment, length = (packet[start + 2] << 8 | packet[start + 3]) & 0xFFF8, True, 0
        protocol, start = packet[start], start + 8 + (length << 3)
    return protocol, start, offset, is_fragment


def _read(layout: struct.Struct, packet: bytes, start: int) -> tuple[Any, ...]:
    if len(packet) < start + layout.size:
        raise BadPacket("malformed")
    return layout.unpack_from(packet, start)


def _between(addresses: tuple[str, str], first: int, second: int) -> str:
    source, destination = (f"[{each}]" if ":" in each else each for each in addresses)
    return f"{source}:{first} > {destination}:{second}"


def _name(protocol: int) -> str:
    return {TCP: "TCP", UDP: "UDP"}.get(protocol) or NAMES.get(protocol) or f"protocol {protocol}"


def bytes_text(count: int) -> str:
    """Write a number of bytes with its unit."""
    return "1 byte" if count == 1 else f"{count} bytes"
