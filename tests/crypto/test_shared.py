"""Shared-key mode: the derivation must never change, since each end performs it by itself."""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Network, IPv6Network

from hypothesis import given
from hypothesis import strategies as st

from vpntun.crypto.keys import KeyPair, clamp
from vpntun.crypto.shared import SharedIdentity

secret = st.binary(min_size=32, max_size=32)


def test_the_derivation_from_a_known_secret_never_changes() -> None:
    identity = SharedIdentity.of(bytes(range(32)))
    assert identity.server.public.hex() == "c0cad7405470eaa15cf538699fa6046280908bd25f3dc10caf351818bed4133e"
    assert identity.client.public.hex() == "87bd1bb9ab078e08824a3913a7c929ec5db044ba02a30ef534e99884242b4b32"
    assert identity.psk.hex() == "08d7d65b6408f4daa6319cec87cd763960942a4949e640e6fc73e5613c70f565"
    assert str(identity.prefix6) == "fd3a:6ac6:7add:674f::/64"
    assert (str(identity.server4), str(identity.client4)) == ("100.86.122.57", "100.86.122.58")


def test_the_labels_are_those_of_the_protocol_document() -> None:
    key = bytes(range(32))

    def derived(label: bytes) -> bytes:
        return hashlib.blake2b(b"", key=key, person=label, digest_size=32).digest()

    identity = SharedIdentity.of(key)
    assert identity.server == KeyPair.of(clamp(derived(b"vpntun server")))
    assert identity.client == KeyPair.of(clamp(derived(b"vpntun client")))
    assert identity.psk == derived(b"vpntun psk")
    assert identity.prefix6.network_address.packed[:8] == b"\xfd" + derived(b"vpntun prefix6")[:7]
    pair = int.from_bytes(derived(b"vpntun pair4")[:4], "big") % 2**20
    assert int(identity.server4) == (100 << 24 | 64 << 16) + 4 * pair + 1


@given(secret)
def test_addresses_lie_where_they_should_and_belong_together(key: bytes) -> None:
    identity = SharedIdentity.of(key)
    assert identity.prefix6.prefixlen == 64
    assert identity.prefix6.subnet_of(IPv6Network("fd00::/8"))
    assert [identity.server6, identity.client6] == [identity.prefix6[1], identity.prefix6[2]]
    assert identity.server4 in IPv4Network("100.64.0.0/10")
    pair = IPv4Network((int(identity.server4) - 1, 30))
    assert list(pair.hosts()) == [identity.server4, identity.client4]
    assert not {identity.server4.packed[3], identity.client4.packed[3]} & {0, 255}


@given(secret, secret)
def test_another_secret_gives_another_identity(one: bytes, other: bytes) -> None:
    assert (SharedIdentity.of(one) == SharedIdentity.of(other)) == (one == other)


def test_no_secret_is_shown() -> None:
    identity = SharedIdentity.of(b"k" * 32)
    for hidden in (identity.psk, identity.server.private, identity.client.private):
        assert repr(hidden) not in repr(identity)
