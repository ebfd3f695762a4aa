"""Ethernet frames in one readable line each: what their IP packets are, or else protocol and MAC addresses.

    TCP 10.0.0.1:40000 > 10.0.0.2:5201 [SYN], seq 1, win 64240, 0 bytes
    VLAN 7, UDP 10.0.0.1:68 > 10.0.0.2:67, 300 bytes
    ARP 52:54:00:00:00:01 > ff:ff:ff:ff:ff:ff who-has 10.0.0.2 tell 10.0.0.1
    ARP 52:54:00:00:00:02 > 52:54:00:00:00:01 10.0.0.2 is-at 52:54:00:00:00:02
    STP 52:54:00:00:00:01 > 01:80:c2:00:00:00, 43 bytes
    802.3 52:54:00:00:00:01 > 52:54:00:00:00:02, 43 bytes
    EtherType 0x88b5 52:54:00:00:00:01 > 52:54:00:00:00:02, 46 bytes

The bytes may be anybody's, and may have been cut: what is there is described.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from vpntun.capture.describing import bytes_text, describe
from vpntun.wire.ethernet.frame import ADDRESS_SIZE, HEADER_SIZE, MOST_TAGS, TAG_SIZE, TAGS, ip_at
from vpntun.wire.ethernet.mac import mac_text

ARP = 0x0806
NAMES = {
    0x0842: "wake-on-LAN",
    0x8137: "IPX",
    0x8847: "MPLS",
    0x8863: "PPPoE discovery",
    0x8864: "PPPoE",
    0x888E: "EAPOL",
    0x88CC: "LLDP",
    0x9000: "loopback",
}
LARGEST_LENGTH = 1500
"""A greater number in the place of a length is an EtherType (IEEE 802.3)."""
SPANNING_TREE = bytes.fromhex("42 42 03")
"""How the LLC header of a bridge's spanning tree message begins (IEEE 802.1D)."""
VLAN_NUMBER = 0x0FFF

_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET_AND_IPV4 = (1, 0x0800, 6, 4)
_REQUEST, _REPLY = 1, 2


def describe_frame(frame: bytes, length: int) -> str:
    """Return a line about a frame of `length` bytes, of which those of `frame` are known. Raises nothing."""
    if len(frame) < HEADER_SIZE:
        return f"malformed, {bytes_text(length)}"
    return ", ".join((*(f"VLAN {number}" for number in _vlans(frame)), _described(frame, length)))


def _described(frame: bytes, length: int) -> str:
    lead = ip_at(frame)
    if lead:
        return describe(frame[lead:], length - lead)
    destination, source = (mac_text(frame[at : at + ADDRESS_SIZE]) for at in (0, ADDRESS_SIZE))
    start = _start_of(frame)
    kind, payload = int.from_bytes(frame[start - 2 : start], "big"), frame[start:]
    name, size = _named(kind, payload), length - start
    if kind == ARP and (about := _about_arp(payload)):
        return f"ARP {source} > {destination} {about}"
    if kind <= LARGEST_LENGTH:
        size = min(size, kind)
    return f"{name} {source} > {destination}, {bytes_text(size)}"


def _vlans(frame: bytes) -> Iterator[int]:
    """Yield the number in each VLAN tag, the outer one first."""
    for at in range(HEADER_SIZE, _start_of(frame), TAG_SIZE):
        yield int.from_bytes(frame[at : at + 2], "big") & VLAN_NUMBER


def _start_of(frame: bytes) -> int:
    """Return where the payload begins, behind the tags that are there in full."""
    start = HEADER_SIZE
    for _ in range(MOST_TAGS):
        if int.from_bytes(frame[start - 2 : start], "big") not in TAGS or len(frame) < start + TAG_SIZE:
            break
        start += TAG_SIZE
    return start


def _named(kind: int, payload: bytes) -> str:
    if kind <= LARGEST_LENGTH:
        return "STP" if payload.startswith(SPANNING_TREE) else "802.3"
    return "ARP" if kind == ARP else NAMES.get(kind, f"EtherType 0x{kind:04x}")


def _about_arp(payload: bytes) -> str:
    """Write what an ARP message about IPv4 asks or tells; empty for another one, or if it was cut."""
    if len(payload) < _ARP.size:
        return ""
    *kinds, operation, sender_mac, sender, _, target = _ARP.unpack_from(payload)
    if tuple(kinds) != _ETHERNET_AND_IPV4:
        return ""
    if operation == _REQUEST:
        return f"who-has {socket.inet_ntoa(target)} tell {socket.inet_ntoa(sender)}"
    if operation == _REPLY:
        return f"{socket.inet_ntoa(sender)} is-at {mac_text(sender_mac)}"
    return ""
