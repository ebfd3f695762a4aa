"""Lines of configuration files, and the keys in them."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

from vpntun.crypto.keys import KeyPair, clamp, format_key

OWN = KeyPair.of(clamp(b"o" * 32))
LAPTOP = KeyPair.of(clamp(b"l" * 32)).public
OFFICE = KeyPair.of(clamp(b"f" * 32)).public
PSK = bytes(range(32))
SHARED = bytes(range(100, 132))
SECRETS = [format_key(each) for each in (OWN.private, PSK, SHARED)]

INTERFACE = ["[Interface]", f"PrivateKey = {format_key(OWN.private)}"]
PEER = ["[Peer]", f"PublicKey = {format_key(LAPTOP)}"]
SERVER = ["[Interface]", "Role = server", f"SharedKey = {format_key(SHARED)}"]
CLIENT = ["[Interface]", "Role = client", f"SharedKey = {format_key(SHARED)}"]


def write(path: Path, content: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


def networks(*texts: str) -> tuple[Any, ...]:
    return tuple(map(ip_network, texts))
