"""Packets for the tests, and RFC 1071's checksum summed word by word, as a reference for the fast one.

`tcp` and `udp` make finished packets; `tcp_superpacket` and `udp_superpacket` make the superpacket that a kernel with
offloads would give for a run of them.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

A4, B4 = ipaddress.ip_address("100.64.0.1").packed, ipaddress.ip_address("10.1.2.3").packed
A6, B6 = ipaddress.ip_address("fd00::1").packed, ipaddress.ip_address("2001:db8::2").packed
TIMESTAMPS = b"\x01\x01\x08\x0a" + struct.pack("!II", 77, 88)
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128

LOCAL_EXPERIMENT = 0x88B5
"""An EtherType that IEEE 802 gives away for experiments; no kernel answers it."""
LEADS = [14, 18, 22]
"""Bytes before the IP header in a frame without VLAN tags, with one, and with two."""


def lead_of(version: int, lead: int) -> bytes:
    """An Ethernet header and VLAN tags, `lead` bytes in all; none of them if `lead` is 0."""
    tags = bytes.fromhex("88a8 2007 8100 a00a")[22 - lead :]
    header = bytes.fromhex("02005e100001 02005e1000fe") + tags + bytes.fromhex("0800" if version == 4 else "86dd")
    return header[:lead]


def framed(packet: bytes, lead: int) -> bytes:
    """The frame that carries an IP packet behind `lead` bytes; the packet itself if `lead` is 0."""
    return lead_of(packet[0] >> 4, lead) + packet


def frame(destination: bytes, source: bytes, payload: bytes = b"", kind: int = LOCAL_EXPERIMENT, *tags: int) -> bytes:
    """An Ethernet frame. `kind`: its EtherType, or its length as of IEEE 802.3. `tags`: its VLAN tags of 32 bits."""
    return destination + source + struct.pack(f"!{len(tags)}IH", *tags, kind) + payload


def slow_sum(data: bytes) -> int:
    """The folded sum of 16-bit words, 0 to 0xffff."""
    if len(data) % 2:
        data += b"\0"
    total = 0
    for (word,) in struct.iter_unpack("!H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(packet: bytes, protocol: int, length: int) -> bytes:
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    return addresses + struct.pack("!II", length, protocol)


def ip(version: int, protocol: int, segment: bytes, *, identification: int = 5, tos: int = 0, df: bool = True) -> bytes:
    if version == 6:
        return struct.pack("!IHBB16s16s", 6 << 28 | tos << 20, len(segment), protocol, 64, A6, B6) + segment
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        tos,
        20 + len(segment),
        identification & 0xFFFF,
        0x4000 if df else 0,
        64,
        protocol,
        0,
        A4,
        B4,
    )
    return header[:10] + struct.pack("!H", slow_sum(header) ^ 0xFFFF) + header[12:] + segment


def start_of(packet: bytes) -> int:
    return (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40


def finished(packet: bytes, protocol: int, start: int) -> bytes:
    """The same packet with its transport checksum set by the word-by-word sum."""
    at = start + (16 if protocol == 6 else 6)
    packet = packet[:at] + b"\0\0" + packet[at + 2 :]
    segment = packet[start:]
    checksum = slow_sum(pseudo(packet, protocol, len(segment)) + segment) ^ 0xFFFF
    if protocol == 17 and not checksum:
        checksum = 0xFFFF
    return packet[:at] + struct.pack("!H", checksum) + packet[at + 2 :]


def unfinished(packet: bytes, protocol: int, start: int) -> bytes:
    at = start + (16 if protocol == 6 else 6)
    return packet[:at] + struct.pack("!H", slow_sum(pseudo(packet, protocol, len(packet) - start))) + packet[at + 2 :]


def tcp(
    version: int,
    payload: bytes,
    *,
    seq: int = 1000,
    flags: int = ACK,
    options: bytes = TIMESTAMPS,
    ports: tuple[int, int] = (40000, 5201),
    window: int = 500,
    identification: int = 5,
    tos: int = 0,
    df: bool = True,
) -> bytes:
    words = (5 + len(options) // 4) << 4
    header = struct.pack("!HHIIBBHHH", *ports, seq & 0xFFFFFFFF, 42, words, flags, window, 0, 0) + options
    packet = ip(version, 6, header + payload, identification=identification, tos=tos, df=df)
    return finished(packet, 6, start_of(packet))


def udp(
    version: int, payload: bytes, *, identification: int = 5, port: int = 53, tos: int = 0, df: bool = True
) -> bytes:
    header = struct.pack("!HHHH", 40000, port, 8 + len(payload), 0)
    packet = ip(version, 17, header + payload, identification=identification, tos=tos, df=df)
    return finished(packet, 17, start_of(packet))


def tcp_run(version: int, payload: bytes, size: int, *, flags: int = ACK, **fields: Any) -> list[bytes]:
    """The packets that carry `payload` in segments of `size`, as a kernel would send them."""
    seq, identification = fields.pop("seq", 1000), fields.pop("identification", 5)
    packets = []
    for index, at in enumerate(range(0, len(payload), size)):
        mine = flags if at == 0 else flags & ~CWR
        if at + size < len(payload):
            mine &= ~(FIN | PSH)
        piece = payload[at : at + size]
        packets.append(tcp(version, piece, seq=seq + at, flags=mine, identification=identification + index, **fields))
    return packets


def udp_run(version: int, payload: bytes, size: int, *, identification: int = 5) -> list[bytes]:
    return [
        udp(version, payload[at : at + size], identification=identification + index)
        for index, at in enumerate(range(0, len(payload), size))
    ]


def tcp_superpacket(
    version: int, payload: bytes, *, flags: int = ACK, seq: int = 1000, identification: int = 5, tos: int = 0
) -> bytes:
    packet = tcp(version, payload, flags=flags, seq=seq, identification=identification, tos=tos)
    return unfinished(packet, 6, start_of(packet))


def udp_superpacket(version: int, payload: bytes, *, identification: int = 5) -> bytes:
    packet = udp(version, payload, identification=identification)
    return unfinished(packet, 17, start_of(packet))


def payload(size: int) -> bytes:
    """Bytes that show their own position."""
    return bytes(number * 7 & 0xFF for number in range(size))


def but_for_what_df_frees(packet: bytes) -> bytes:
    """The packet with its identification and header checksum blanked if DF makes them meaningless (RFC 6864)."""
    if packet[0] != 0x45 or not packet[6] & 0x40:
        return packet
    return packet[:4] + bytes(2) + packet[6:10] + bytes(2) + packet[12:]


def is_right(packet: bytes) -> bool:
    """Whether lengths and checksums of a plain TCP or UDP packet are right, by the slow sum."""
    start = start_of(packet)
    protocol = packet[9] if packet[0] >> 4 == 4 else packet[6]
    if packet[0] >> 4 == 4:
        if slow_sum(packet[:start]) != 0xFFFF or struct.unpack_from("!H", packet, 2)[0] != len(packet):
            return False
    elif struct.unpack_from("!H", packet, 4)[0] != len(packet) - 40:
        return False
    if protocol == 17 and struct.unpack_from("!H", packet, start + 4)[0] != len(packet) - start:
        return False
    return slow_sum(pseudo(packet, protocol, len(packet) - start) + packet[start:]) == 0xFFFF
