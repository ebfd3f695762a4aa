"""The pattern IKpsk2 without WireGuard around it: both ends agree if they hold the same keys, and only then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crypto.pair import LEFT, LOW_ORDER_POINTS, RIGHT
from vpntun.crypto import ikpsk2
from vpntun.crypto.keys import KeyPair, clamp
from vpntun.crypto.symmetric import SymmetricState
from vpntun.errors import BadPacket

PROLOGUE = b"a prologue"
E_LEFT, E_RIGHT = KeyPair.of(clamp(b"1" * 32)), KeyPair.of(clamp(b"2" * 32))
STRANGER = KeyPair.of(clamp(b"x" * 32))
PSK = b"p" * 32
payloads = st.binary(max_size=100)


class First:
    """The first message, and both ends' states after it."""

    def __init__(self, payload: bytes = b"first", *, expects: KeyPair = RIGHT, prologue: bytes = PROLOGUE) -> None:
        self.left = ikpsk2.start(PROLOGUE, expects.public)
        self.static, self.payload = ikpsk2.write_first(self.left, LEFT, E_LEFT, expects.public, payload)
        self.right = ikpsk2.start(prologue, RIGHT.public)

    def read(self, *, ephemeral: bytes = E_LEFT.public) -> tuple[bytes, bytes]:
        """At the responder: whom it is from, and its payload."""
        public = ikpsk2.read_static(self.right, RIGHT, ephemeral, self.static)
        return public, ikpsk2.read_first_payload(self.right, RIGHT, public, self.payload)

    def answer(self, payload: bytes = b"second", psk: bytes = PSK) -> bytes:
        """The second message."""
        return ikpsk2.write_second(self.right, E_RIGHT, LEFT.public, E_LEFT.public, psk, payload)

    def read_answer(self, sealed: bytes, *, psk: bytes = PSK, identity: KeyPair = LEFT) -> bytes:
        return ikpsk2.read_second(self.left, identity, E_LEFT, E_RIGHT.public, psk, sealed)


def keys_of(state: SymmetricState) -> object:
    return state.split()


@given(payloads, payloads)
def test_both_payloads_and_the_initiators_key_arrive_and_both_ends_have_the_same_keys(
    first: bytes, second: bytes
) -> None:
    message = First(first)
    assert message.read() == (LEFT.public, first)
    assert message.read_answer(message.answer(second)) == second
    assert keys_of(message.left) == keys_of(message.right)


def test_each_part_is_sixteen_bytes_longer_than_what_it_seals() -> None:
    message = First(b"x" * 12)
    assert (len(message.static), len(message.payload)) == (48, 28)
    message.read()
    assert len(message.answer(b"")) == 16


def test_a_message_to_another_key_or_behind_another_prologue_cannot_be_read() -> None:
    for message in (First(expects=STRANGER), First(prologue=b"another")):
        with pytest.raises(BadPacket, match="bad tag"):
            message.read()


def test_another_ephemeral_than_the_one_it_was_made_with_opens_nothing() -> None:
    with pytest.raises(BadPacket, match="bad tag"):
        First().read(ephemeral=E_RIGHT.public)


@pytest.mark.parametrize("part", ["static", "payload"])
def test_a_changed_bit_opens_nothing(part: str) -> None:
    message = First()
    sealed = getattr(message, part)
    setattr(message, part, bytes([sealed[0] ^ 1]) + sealed[1:])
    with pytest.raises(BadPacket, match="bad tag"):
        message.read()


def test_a_payload_of_somebody_who_only_claims_to_be_the_initiator_is_refused() -> None:
    message = First()
    state = ikpsk2.start(PROLOGUE, RIGHT.public)
    message.static, message.payload = ikpsk2.write_first(
        state, KeyPair(STRANGER.private, LEFT.public), E_LEFT, RIGHT.public, b"forged"
    )
    with pytest.raises(BadPacket, match="bad tag"):
        message.read()


def test_an_answer_under_another_preshared_key_or_to_somebody_else_is_refused() -> None:
    for wrong in ({"psk": b"q" * 32}, {"identity": STRANGER}):
        message = First()
        message.read()
        with pytest.raises(BadPacket, match="bad tag"):
            message.read_answer(message.answer(), **wrong)


@pytest.mark.parametrize("point", LOW_ORDER_POINTS)
def test_a_point_nobody_should_agree_on_is_refused_by_name(point: bytes) -> None:
    with pytest.raises(BadPacket, match="low-order point"):
        First().read(ephemeral=point)
