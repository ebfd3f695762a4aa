"""Pairing by a code of eight characters: SPAKE2, and the key and proofs that both ends derive from it.

SPAKE2 turns a short code into a strong key. Taking part in an exchange tests one guess of the code, and recorded
messages test none. A code that leaks later does not reveal the key of an earlier exchange.

The client is SPAKE2's side A and the server its side B, in the group of Ed25519, as the Python package spake2 has it.
Their identities name role and version. From SPAKE2's key K come, as in shared.py, values of 32 bytes: BLAKE2b of no
data, keyed with K, with a label as the personalisation:

    label               value
    "vpntun pair key"   the shared key of both ends
    "vpntun pair N"     the proof in message number N (core/pairing/messages.py)

Python's arithmetic takes longer for some numbers than for others. All that is computed with the code itself is computed
once, before the first exchange, so the time of an answer tells nothing about the code.
"""

from __future__ import annotations

import copy
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from vpntun.errors import BadPacket, ConfigurationError, VpntunError

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no I, L, O or U. A typed I or L is read as 1, and O as 0, since people mistake them."""

CODE_SIZE = 8
ELEMENT_SIZE = 32
KEY_SIZE = 32
IDENTITIES = {"client": b"vpntun pairing 1 client", "server": b"vpntun pairing 1 server"}

_MISREAD = str.maketrans("ILO", "110", " -")
_FIELD = 2**255 - 19

Role = Literal["client", "server"]
Entropy = Callable[[int], bytes]


def new_code() -> str:
    """Return a new random code of 40 bits."""
    return "".join(secrets.choice(ALPHABET) for _ in range(CODE_SIZE))


def shown(code: str) -> str:
    """Return a code as people read it: two groups of four."""
    return f"{code[:4]}-{code[4:]}"


def parse_code(text: str) -> str:
    """Return the code that somebody has typed, in either case, with blanks and hyphens. Raises ConfigurationError."""
    code = "".join(text.split()).upper().translate(_MISREAD)
    if len(code) != CODE_SIZE or not set(code) <= set(ALPHABET):
        raise ConfigurationError(f"a code has {CODE_SIZE} letters and digits, such as 7KQ2-M9XD, without the letter U")
    return code


def check_installed() -> None:
    """Raise VpntunError if the package spake2 is missing."""
    try:
        import spake2  # noqa: F401  # only here and in PairingCode, since it may be missing, and takes 50 ms to load
    except ImportError:
        raise VpntunError(
            "the Python package spake2 is needed for --pair, and is not installed: install it (pip install spake2, or "
            "apt install python3-spake2), or copy the key file to the other machine instead"
        ) from None


@dataclass(frozen=True)
class PairingKeys:
    """What both ends of one exchange know if they had the same code."""

    _key: bytes = field(repr=False)

    @property
    def shared_key(self) -> bytes:
        """The 32 bytes for the key files of both ends."""
        return self._derive("key")

    def proof(self, number: int) -> bytes:
        """Return the proof in the message with this number: its sender has the same keys."""
        return self._derive(str(number))

    def _derive(self, item: str) -> bytes:
        return hashlib.blake2b(key=self._key, person=b"vpntun pair " + item.encode(), digest_size=KEY_SIZE).digest()


class PairingCode:
    """A code at one end, with which it begins exchanges. Raises VpntunError if spake2 is missing.

    `entropy` returns so many random bytes; a test vector gives others.
    """

    def __init__(self, code: str, role: Role, entropy: Entropy = secrets.token_bytes) -> None:
        check_installed()
        from spake2 import SPAKE2_A, SPAKE2_B
        from spake2.parameters.ed25519 import ParamsEd25519

        params = copy.copy(ParamsEd25519)
        scalar = params.group.password_to_scalar(code.encode())
        params.M, params.N = _Constant(params.M, scalar), _Constant(params.N, scalar)
        side = SPAKE2_A if role == "client" else SPAKE2_B
        self._new_side: Callable[[], Any] = lambda: side(
            code.encode(), IDENTITIES["client"], IDENTITIES["server"], params=params, entropy_f=entropy
        )
        self._other_side = b"B" if role == "client" else b"A"

    def begin(self) -> PairingExchange:
        """Begin an exchange with the other end."""
        return PairingExchange(self._new_side(), self._other_side)


class PairingExchange:
    """One exchange at one end. `element`: the 32 bytes for the other end."""

    def __init__(self, side: Any, other_side: bytes) -> None:
        self._side = side
        self._other_side = other_side
        self.element: bytes = side.start()[1:]

    def finish(self, element: bytes) -> PairingKeys:
        """Return the keys, given the other end's element. Untrusted bytes: raises BadPacket, also if called again.

        The keys are those of the other end if both have the same code; only a proof tells.
        """
        check_element(element)
        from spake2 import SPAKEError
        from spake2.ed25519_basic import NotOnCurve

        try:
            return PairingKeys(self._side.finish(self._other_side + element))
        except (SPAKEError, NotOnCurve, ValueError):
            raise BadPacket("bad pairing element") from None


def check_element(element: bytes) -> None:
    """Raise BadPacket unless the bytes can be the canonical form of an element. Orders 1, 2 and 4 have y = 1, -1 and 0.

    spake2 refuses all that is outside the group, but takes longer strings and larger numbers, such as p + 1 for the
    neutral element.
    """
    y = int.from_bytes(element, "little") & ~(1 << 255)
    if len(element) != ELEMENT_SIZE or not 1 < y < _FIELD - 1:
        raise BadPacket("bad pairing element")


class _Constant:
    """SPAKE2's constant M or N, with the two multiples that belong to a code, computed once."""

    def __init__(self, element: Any, scalar: int) -> None:
        self._multiples = {each: element.scalarmult(each) for each in (scalar, -scalar)}

    def scalarmult(self, scalar: int) -> Any:
        """Return one of the multiples."""
        return self._multiples[scalar]
