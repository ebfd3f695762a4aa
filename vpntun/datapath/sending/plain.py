"""Sender of packets to a peer that takes no records: one packet a message, as WireGuard sends them.

1. A superpacket is split into packets with finished checksums.
2. Each packet is padded to a multiple of 16 bytes, but not beyond the MTU.
3. It is sealed into the batch, which is sent when no more packets are at hand (link/seal_buffer.py).

Nothing is sent to a peer whose device is of the other kind, nor are Ethernet frames ever sent in this way.
"""

from __future__ import annotations

from vpntun.crypto.session import Session
from vpntun.errors import BadPacket
from vpntun.link.link import Link
from vpntun.link.seal_buffer import SealBuffer
from vpntun.wire.gso import Splitter
from vpntun.wire.message import DATA_OVERHEAD, LARGEST

PADDING = 16
LARGEST_CARRIED = LARGEST - DATA_OVERHEAD


class PlainSender:
    """Sender of any link's packets, through the batch of the seal buffer."""

    def __init__(self, mtu: int, seal_buffer: SealBuffer) -> None:
        self.follow_mtu(mtu)
        self._seal_buffer = seal_buffer
        self._splitter = Splitter()
        self._plaintext = memoryview(bytearray(LARGEST + PADDING))

    def follow_mtu(self, mtu: int) -> None:
        """Pad packets no further than another MTU of the device, in bytes."""
        self._mtu = min(mtu, LARGEST_CARRIED)

    def send(self, link: Link, session: Session, packet: memoryview, field: int, tos: int) -> None:
        """Send a packet or superpacket, in datagrams with this TOS byte.

        Raises BadPacket if it cannot be split, is too long for a message, or must not be sent in this way.
        """
        link.check_plain(session)
        if not field:
            self._plaintext[: len(packet)] = packet
            self._seal(link, session, len(packet), tos)
            return
        splitter = self._splitter
        for index in range(splitter.split(packet, field)):
            self._seal(link, session, splitter.write_run(index, 1, self._plaintext, 0), tos)

    def _seal(self, link: Link, session: Session, length: int, tos: int) -> None:
        """Pad and seal the packet of `length` bytes at the start of the plaintext."""
        if length > LARGEST_CARRIED:
            raise BadPacket("too large")
        padded = max(length, min(length + -length % PADDING, self._mtu))
        plaintext = self._plaintext[:padded]
        plaintext[length:] = bytes(padded - length)
        self._seal_buffer.add(link, session, plaintext, tos, is_record=False)
