"""Keys of both ends of a tunnel with one peer: derived from a shared key, or WireGuard's, read from their files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Literal

from vpntun.config.keyfile import create_shared, default_path, read_bare, read_shared
from vpntun.config.peer import NO_PSK
from vpntun.crypto.keys import KeyPair, agree, parse_key
from vpntun.crypto.shared import SharedIdentity
from vpntun.errors import BadPacket, ConfigurationError, KeyFileError
from vpntun.runtime.log import notice
from vpntun.types import Interface, IpAddress

Role = Literal["server", "client"]


@dataclass(frozen=True)
class Keys:
    """Keys of both ends, and, with a shared key, the default addresses that are derived from it."""

    identity: KeyPair
    peer: bytes
    psk: bytes = field(repr=False)
    derived_addresses: tuple[Interface, ...] = ()
    derived_peer_addresses: tuple[IpAddress, ...] = ()


def shared_keys(role: Role, path: Path | None, host: str | None) -> Keys:
    """Derive all keys from the shared key file. A server without -k creates the file if it does not exist.

    Raises KeyFileError or PrivilegeError.
    """
    return derived_keys(role, _shared_secret(role, path, host))


def derived_keys(role: Role, secret: bytes) -> Keys:
    """Derive the keys and addresses of one end from a shared key of 32 bytes."""
    shared = SharedIdentity.of(secret)
    server = (IPv4Interface(f"{shared.server4}/30"), IPv6Interface(f"{shared.server6}/64"))
    client = (IPv4Interface(f"{shared.client4}/30"), IPv6Interface(f"{shared.client6}/64"))
    if role == "server":
        return Keys(shared.server, shared.client.public, shared.psk, server, tuple(each.ip for each in client))
    return Keys(shared.client, shared.server.public, shared.psk, client, tuple(each.ip for each in server))


def wireguard_keys(private_key: Path, peer: str, psk: Path | None) -> Keys:
    """Read WireGuard keys from files and options. Raises KeyFileError, PrivilegeError or ConfigurationError."""
    identity = KeyPair.of(read_bare(private_key))
    try:
        public = parse_key(peer)
        agree(identity.private, public)
    except ConfigurationError as error:
        raise ConfigurationError(f"--peer: {error}") from None
    except BadPacket:
        raise ConfigurationError(
            "--peer: this public key is unsafe: anybody could compute the secrets of its tunnel"
        ) from None
    if public == identity.public:
        raise ConfigurationError("--peer is this end's own public key: give the other machine's")
    return Keys(identity, public, read_bare(psk) if psk is not None else NO_PSK)


def _shared_secret(role: Role, given: Path | None, host: str | None) -> bytes:
    if given is not None:
        return read_shared(given)
    path = default_path()
    if os.path.lexists(path):
        return read_shared(path)
    if role == "server":
        secret = create_shared(path)
        notice(
            "made a new shared key, %s; copy it to the other machine, where %s must exist: scp -p %s root@OTHER:%s",
            path,
            path.parent,
            path,
            path,
        )
        return secret
    raise KeyFileError(
        f"there is no shared key in {path}. The server makes one when it is first started; copy it from there: "
        f"scp -p root@{host}:/etc/vpntun/vpntun.key {path}; or make it at both ends with --pair, or give "
        "another file with -k"
    )
