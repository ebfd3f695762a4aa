"""MAC addresses: as text, from an operator's text, and the one that a TAP device gets by default.

The first byte's bit 0 marks a group of stations, its bit 1 an address that no manufacturer has assigned (IEEE 802).
"""

from __future__ import annotations

import hashlib
import re

from vpntun.errors import ConfigurationError
from vpntun.wire.ethernet.frame import ADDRESS_SIZE

_GROUP, _LOCAL = 1, 2
_GREATEST = 0xFE
_LABEL = b"vpntun mac"
_TEXT = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}|[0-9a-f]{2}(?:-[0-9a-f]{2}){5}", re.ASCII | re.IGNORECASE)


def mac_text(address: bytes) -> str:
    """Return the address as six numbers of two hexadecimal digits, with colons between them."""
    return address.hex(":")


def parse_mac(text: str) -> bytes:
    """Return the address of one station, written with colons or hyphens. Raises ConfigurationError."""
    if not _TEXT.fullmatch(text):
        raise ConfigurationError(
            f"{text!r} is not a MAC address: give six numbers of two hexadecimal digits, such as 02:00:5e:10:00:01"
        )
    address = bytes.fromhex(text.replace("-", "").replace(":", ""))
    if address[0] & _GROUP:
        raise ConfigurationError(
            f"the MAC address {text} is that of a group of stations: give that of one, whose first number is even, "
            f"such as {mac_text(bytes((address[0] & ~_GROUP | _LOCAL, *address[1:])))}"
        )
    if not any(address):
        raise ConfigurationError(
            f"the MAC address {text} belongs to no station: give another one, such as 02:00:5e:10:00:01"
        )
    return address


def derived_mac(public_key: bytes) -> bytes:
    """Return the address, always the same, of a TAP device whose end has this public key.

    It begins with the greatest number that is possible. A bridge that was given no address takes the lowest of its
    ports', so its address does not change when the device joins it.
    """
    return bytes((_GREATEST, *hashlib.blake2s(_LABEL + public_key, digest_size=ADDRESS_SIZE - 1).digest()))
