"""Selection of packets for a capture: by peer and by network."""

from __future__ import annotations

from collections.abc import Iterable

from vpntun.errors import BadPacket
from vpntun.types import Network
from vpntun.wire.ethernet.frame import ip_at
from vpntun.wire.ip import destination_of, length_of, source_of
from vpntun.wire.message import Buffer


class Selection:
    """What a capture shows. `peers`: public keys, none for all. `networks`: of the source or the destination."""

    def __init__(self, peers: Iterable[bytes] = (), networks: Iterable[Network] = ()) -> None:
        self._peers = frozenset(peers)
        self._networks = [
            (network.max_prefixlen // 8, int(network.network_address), int(network.netmask)) for network in networks
        ]

    def takes_peer(self, public: bytes) -> bool:
        """Return whether any packets of the peer with this public key are shown."""
        return not self._peers or public in self._peers

    def takes(self, packet: Buffer) -> bool:
        """Return whether a packet, which `ip.length_of` accepted, is from or for one of the networks."""
        if not self._networks:
            return True
        source, destination = source_of(packet), destination_of(packet)
        size, first, second = len(source), int.from_bytes(source, "big"), int.from_bytes(destination, "big")
        return any(
            size == length and network in (first & mask, second & mask) for length, network, mask in self._networks
        )

    def takes_frame(self, frame: Buffer) -> bool:
        """Return whether an Ethernet frame carries a packet from or for one of the networks. Untrusted bytes."""
        if not self._networks:
            return True
        packet = frame[ip_at(frame) :]
        try:
            return len(packet) < len(frame) and self.takes(packet[: length_of(packet)])
        except BadPacket:
            return False
