"""Shared-key mode: the keys and addresses of both ends, derived from one secret of 32 bytes.

Each item is BLAKE2b (RFC 7693) of no data, 32 bytes long, keyed with the secret, with the item's label as the
personalisation (ASCII, padded with zeros to 16 bytes):

    label               item
    "vpntun server"     the server's private key, clamped for X25519
    "vpntun client"     the client's private key, clamped
    "vpntun psk"        the preshared key of the handshake
    "vpntun prefix6"    0xfd and the first 7 bytes: a /64 of its own in fd00::/8; ::1 is the server, ::2 the client
    "vpntun pair4"      the first 4 bytes, big endian, modulo 2^20: the number of a /30 in 100.64.0.0/10;
                        the server has its first host address, the client its second

The handshake is then the ordinary one with fresh ephemeral keys, so a stolen secret does not decrypt recorded traffic.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from vpntun.crypto.keys import KEY_SIZE, KeyPair, clamp

_CARRIER_GRADE_NAT = IPv4Network("100.64.0.0/10")  # RFC 6598
_ADDRESSES_IN_A_PAIR = 4


@dataclass(frozen=True)
class SharedIdentity:
    """Both ends' keys and default addresses."""

    server: KeyPair
    client: KeyPair
    psk: bytes = field(repr=False)
    prefix6: IPv6Network
    server4: IPv4Address
    client4: IPv4Address
    server6: IPv6Address
    client6: IPv6Address

    @classmethod
    def of(cls, secret: bytes) -> SharedIdentity:
        """Derive the identity from a secret of 32 bytes."""
        prefix6 = IPv6Network((b"\xfd" + _derive(secret, b"vpntun prefix6")[:7] + bytes(8), 64))
        pairs = _CARRIER_GRADE_NAT.num_addresses // _ADDRESSES_IN_A_PAIR
        pair = int.from_bytes(_derive(secret, b"vpntun pair4")[:4], "big") % pairs
        # In a /30 neither host address ends in .0 or .255, which some old hosts take for a broadcast.
        base4 = _CARRIER_GRADE_NAT[pair * _ADDRESSES_IN_A_PAIR]
        return cls(
            server=KeyPair.of(clamp(_derive(secret, b"vpntun server"))),
            client=KeyPair.of(clamp(_derive(secret, b"vpntun client"))),
            psk=_derive(secret, b"vpntun psk"),
            prefix6=prefix6,
            server4=base4 + 1,
            client4=base4 + 2,
            server6=prefix6[1],
            client6=prefix6[2],
        )


def _derive(secret: bytes, label: bytes) -> bytes:
    return hashlib.blake2b(key=secret, person=label, digest_size=KEY_SIZE).digest()
