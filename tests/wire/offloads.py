"""Cut superpackets and join segments, as the tests of both need it."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.wire import packets
from tests.wire.packets import ACK, CWR, ECE, FIN, PSH
from vpntun.wire import ip
from vpntun.wire.gro_coalescer import GroCoalescer
from vpntun.wire.gso import Splitter
from vpntun.wire.vnet import UNFINISHED, VNET_HEADER

versions = st.sampled_from([4, 6])
leads = st.sampled_from(packets.LEADS)
tcp_flags = st.sampled_from([ACK, ACK | PSH, ACK | FIN, ACK | PSH | FIN | CWR, ACK | ECE | CWR])
identifications = st.sampled_from([0, 5, 65530])
sequences = st.sampled_from([0, 1000, 2**32 - 1000])


def pieces_of(splitter: Splitter, at: int = 3, gap: int = 5) -> list[bytes]:
    """All pieces, each written with a gap around it that must stay untouched."""
    pieces = []
    for index in range(splitter.count):
        out = memoryview(bytearray(b"\xee" * (at + splitter.length + gap)))
        length = splitter.write_run(index, 1, out, at)
        assert length == splitter.length if index < splitter.count - 1 else 0 < length <= splitter.length
        assert bytes(out[:at]) == b"\xee" * at
        assert bytes(out[at + length :]).strip(b"\xee") == b""
        pieces.append(bytes(out[at : at + length]))
    return pieces


def split(packet: bytes, size: int, lead: int = 0) -> list[bytes]:
    splitter = Splitter()
    count = splitter.split(memoryview(packet), UNFINISHED | size, lead)
    pieces = pieces_of(splitter)
    assert len(pieces) == count
    return pieces


def joined(stream: list[bytes], udp: bool = True) -> list[tuple[bytes, bytes]]:
    written: list[tuple[bytes, bytes]] = []
    coalescer = GroCoalescer(lambda view: written.append((bytes(view[:10]), bytes(view[10:]))), udp)
    for packet in stream:
        coalescer.add(memoryview(packet + b"\0\0\0"), ip.length_of(packet))
    coalescer.flush()
    coalescer.flush()
    return written


def joined_frames(stream: list[bytes], lead: int) -> list[tuple[bytes, bytes]]:
    written: list[tuple[bytes, bytes]] = []
    coalescer = GroCoalescer(lambda view: written.append((bytes(view[:10]), bytes(view[10:]))), udp=True)
    for frame in stream:
        coalescer.add(memoryview(frame), len(frame), lead=lead)
    coalescer.flush()
    return written


def moved(header: bytes, lead: int) -> bytes:
    """A virtio header for the same packet behind `lead` bytes."""
    flags, gso_type, hdr_len, size, start, offset = VNET_HEADER.unpack(header)
    if not flags:
        return header
    return VNET_HEADER.pack(flags, gso_type, hdr_len and hdr_len + lead, size, start + lead, offset)


def without_identification(packet: bytes) -> bytes:
    assert packets.is_right(packet)
    return packet[:4] + b"\0\0" + packet[6:10] + b"\0\0" + packet[12:] if packet[0] == 0x45 else packet


FIRST = packets.tcp(4, b"a" * 100, df=False)
SECOND = packets.tcp(4, b"b" * 100, seq=1100, identification=6, df=False)
UDP_FIRST = packets.udp(4, b"a" * 100)
