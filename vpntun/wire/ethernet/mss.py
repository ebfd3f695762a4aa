"""Maximum segment size of TCP connections in Ethernet frames: lowered in the SYNs that a sender passes on.

The MSS option says how much payload the other end may put in one segment. It counts no options of IP or TCP, so a
sender with options sends less payload (RFC 9293 section 3.7.1, RFC 6691). So the frame of a full segment is never
longer than its Ethernet header, an IP and a TCP header without options, and the MSS.

A SYN without the option is left alone: the MSS is then 536 or 1220. So is one behind IPv6 extension headers.
"""

from __future__ import annotations

from vpntun.errors import BadPacket
from vpntun.wire.checksum import TCP
from vpntun.wire.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE, length_of
from vpntun.wire.transport_header import SYN, TCP_CHECKSUM, TCP_FLAGS, TCP_HEADER_SIZE, shape_of

_END, _NOTHING, _MSS = 0, 1, 2
_MSS_SIZE = 4


def lower_mss(frame: memoryview, lead: int, longest: int, *, is_unfinished: bool) -> None:
    """Lower the MSS of a TCP SYN in place, so that frames of its connection have at most `longest` bytes.

    `lead`: offset of the IP header, as `ip_at` found it. `is_unfinished`: whether the TCP checksum is unfinished, which
    then does not cover the option. A finished one is adjusted (RFC 1624); one that was wrong stays wrong. Untrusted
    bytes; raises nothing.
    """
    is_ipv4 = frame[lead] < 0x50
    flags_at = lead + ((frame[lead] & 15) << 2 if is_ipv4 else IPV6_HEADER_SIZE) + TCP_FLAGS
    if len(frame) <= flags_at or not frame[flags_at] & SYN or frame[lead + (9 if is_ipv4 else 6)] != TCP:
        return
    packet = frame[lead:]
    try:
        _, start, end = shape_of(packet, length_of(packet))
    except BadPacket:
        return
    most = max(0, longest - lead - (IPV4_HEADER_SIZE if is_ipv4 else IPV6_HEADER_SIZE) - TCP_HEADER_SIZE)
    at = start + TCP_HEADER_SIZE
    while at < end and packet[at] != _END:
        if packet[at] == _NOTHING:
            at += 1
            continue
        size = packet[at + 1] if at + 1 < end else 0
        if size < 2 or at + size > end:
            return
        if packet[at] == _MSS and size == _MSS_SIZE:
            _lower(packet, start, at + 2, most, is_unfinished=is_unfinished)
        at += size


def _lower(packet: memoryview, start: int, at: int, most: int, *, is_unfinished: bool) -> None:
    """Lower the number at offset `at` to `most`. An odd offset puts each byte in the other half of a word."""
    lowered = (packet[at] << 8 | packet[at + 1]) - most
    if lowered <= 0:
        return
    packet[at], packet[at + 1] = most >> 8, most & 0xFF
    if is_unfinished:
        return
    if at - start & 1:
        lowered <<= 8
    field = start + TCP_CHECKSUM
    checksum = ((packet[field] << 8 | packet[field + 1]) + lowered) % 0xFFFF
    packet[field], packet[field + 1] = checksum >> 8, checksum & 0xFF
