"""Parser of the requests of WireGuard's configuration protocol, line by line as they arrive.

A request is "get=1" or "set=1", lines of KEY=VALUE, and an empty line (https://www.wireguard.com/xplatform/). Keys are
in hexadecimal, and numbers in decimal.

    of this end    private_key, listen_port, fwmark, replace_peers
    public_key     begins a peer, to which the lines that follow belong
    of a peer      remove, update_only, preshared_key, endpoint, persistent_keepalive_interval, replace_allowed_ips,
                   allowed_ip (with "-" before the prefix: no longer this peer's), protocol_version

Nothing is changed while a request is parsed: a set request becomes a `SetRequest`, which set.py applies. The
error of a bad line names its key at most, since its value may be a secret. Error numbers are wireguard-go's.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from vpntun.crypto.keys import KEY_SIZE
from vpntun.types import Network, Place

LONGEST_LINE = 1024
LARGEST_PORT, LARGEST_MARK = 0xFFFF, 0xFFFFFFFF
LONGEST_INTERVAL = 0xFFFF
"""Seconds between persistent keepalives."""
_DIGITS = frozenset("0123456789")
_MOST_DIGITS = 10


class BadRequest(Exception):
    """A request that is malformed or has a value that cannot be. `number`: the error number of the answer."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


@dataclass
class PeerChange:
    """Changes of one peer; None: it stays as it is.

    `remove`: the peer is removed. `update_only`: it is not added if it is not there. `psk`: 32 bytes, zeros for none.
    `allowed`: True for each allowed IP that becomes the peer's, False for each that it loses, in the order given.
    """

    public: bytes
    remove: bool = False
    update_only: bool = False
    psk: bytes | None = field(default=None, repr=False)
    endpoint: Place | None = None
    keepalive: int | None = None
    replace_allowed: bool = False
    allowed: dict[Network, bool] = field(default_factory=dict)


@dataclass
class SetRequest:
    """Changes of a tunnel; None: it stays as it is. `private`: 32 bytes, zeros for none; `mark`: 0 for none."""

    private: bytes | None = field(default=None, repr=False)
    port: int | None = None
    mark: int | None = None
    replace_peers: bool = False
    peers: list[PeerChange] = field(default_factory=list)


class RequestParser:
    """Parser of one request. `take` gets its lines, without the empty one at the end."""

    def __init__(self) -> None:
        self._has_begun = False
        self._request: SetRequest | None = None
        self._bad: BadRequest | None = None

    def take(self, line: bytes) -> None:
        """Take in the next line; after a bad one, ignore the others."""
        if self._bad is None:
            try:
                self._parse(line)
            except BadRequest as bad:
                self._bad = bad

    def result(self) -> SetRequest | BadRequest | None:
        """Return the changes of a set request, None for a get request, or what is wrong; call it at the empty line."""
        if not self._has_begun:
            return BadRequest(errno.EINVAL, "a request begins with get=1 or set=1")
        return self._bad or self._request

    def _parse(self, line: bytes) -> None:
        if not self._has_begun:
            self._begin(line)
            return
        if self._request is None:
            raise BadRequest(errno.EINVAL, "a get request has no more lines")
        try:
            name, equals, value = line.decode("ascii").partition("=")
        except UnicodeDecodeError:
            raise BadRequest(errno.EPROTO, "a line is not ASCII") from None
        if not equals:
            raise BadRequest(errno.EPROTO, "a line is not KEY=VALUE")
        if name == "public_key":
            self._request.peers.append(PeerChange(_key(name, value)))
        elif self._request.peers:
            _take_for_peer(self._request.peers[-1], name, value)
        else:
            _take_for_tunnel(self._request, name, value)

    def _begin(self, line: bytes) -> None:
        self._has_begun = True
        if line not in (b"get=1", b"set=1"):
            raise BadRequest(errno.EINVAL, "a request begins with get=1 or set=1")
        self._request = SetRequest() if line == b"set=1" else None


def _take_for_tunnel(request: SetRequest, name: str, value: str) -> None:
    if name == "private_key":
        request.private = _key(name, value)
    elif name == "listen_port":
        request.port = _number(name, value, LARGEST_PORT)
    elif name == "fwmark":
        request.mark = _number(name, value, LARGEST_MARK)
    elif name == "replace_peers":
        request.replace_peers = _true(name, value)
    else:
        raise BadRequest(errno.EINVAL, "unknown key for the interface")


def _take_for_peer(peer: PeerChange, name: str, value: str) -> None:
    take = _OF_A_PEER.get(name)
    if take is None:
        raise BadRequest(errno.EINVAL, "unknown key for a peer")
    take(peer, name, value)


def _allowed_ip(peer: PeerChange, name: str, value: str) -> None:
    is_added = not value.startswith("-")
    network = _network(name, value if is_added else value[1:])
    peer.allowed.pop(network, None)  # so that the last line about it counts, and has its place
    peer.allowed[network] = is_added


def _replace_allowed_ips(peer: PeerChange, name: str, value: str) -> None:
    peer.replace_allowed = _true(name, value)
    peer.allowed.clear()


def _remove(peer: PeerChange, name: str, value: str) -> None:
    peer.remove = _true(name, value)


def _update_only(peer: PeerChange, name: str, value: str) -> None:
    peer.update_only = _true(name, value)


def _preshared_key(peer: PeerChange, name: str, value: str) -> None:
    peer.psk = _key(name, value)


def _endpoint(peer: PeerChange, name: str, value: str) -> None:
    peer.endpoint = _place(name, value)


def _keepalive(peer: PeerChange, name: str, value: str) -> None:
    peer.keepalive = _number(name, value, LONGEST_INTERVAL)


def _protocol_version(peer: PeerChange, name: str, value: str) -> None:
    if value != "1":
        raise BadRequest(errno.EINVAL, f"{name} is not 1")


_OF_A_PEER: dict[str, Callable[[PeerChange, str, str], None]] = {
    "allowed_ip": _allowed_ip,
    "replace_allowed_ips": _replace_allowed_ips,
    "remove": _remove,
    "update_only": _update_only,
    "preshared_key": _preshared_key,
    "endpoint": _endpoint,
    "persistent_keepalive_interval": _keepalive,
    "protocol_version": _protocol_version,
}


def _true(name: str, value: str) -> bool:
    if value != "true":
        raise BadRequest(errno.EINVAL, f"{name} can only be true")
    return True


def _number(name: str, value: str, largest: int) -> int:
    if not value or len(value) > _MOST_DIGITS or not _DIGITS.issuperset(value) or int(value) > largest:
        raise BadRequest(errno.EINVAL, f"{name} is not a number up to {largest}")
    return int(value)


def _key(name: str, value: str) -> bytes:
    try:
        key = bytes.fromhex(value)
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE or len(value) != 2 * KEY_SIZE:
        raise BadRequest(errno.EINVAL, f"{name} is not a key in hexadecimal")
    return key


def _place(name: str, value: str) -> Place:
    """Parse ADDRESS:PORT or [ADDRESS]:PORT, in which an IPv6 address may have a zone."""
    host, _, port = value.rpartition(":")
    number = _number(name, port, LARGEST_PORT)
    is_ipv6 = host.startswith("[") and host.endswith("]")
    address, percent, zone = (host[1:-1] if is_ipv6 else host).partition("%")
    packed = _packed(socket.AF_INET6 if is_ipv6 else socket.AF_INET, address)
    if packed is None or not number or bool(percent) != bool(zone) or (zone and not is_ipv6):
        raise BadRequest(errno.EINVAL, f"{name} is not an address and a port")
    return socket.inet_ntop(socket.AF_INET6 if is_ipv6 else socket.AF_INET, packed) + percent + zone, number


def _network(name: str, value: str) -> Network:
    """Parse a prefix, with its host bits masked off."""
    address, _, length = value.partition("/")
    is_ipv6 = ":" in address
    packed = _packed(socket.AF_INET6 if is_ipv6 else socket.AF_INET, address)
    if packed is None:
        raise BadRequest(errno.EINVAL, f"{name} is not a prefix")
    number = _number(name, length, 8 * len(packed))
    return (IPv6Network if is_ipv6 else IPv4Network)((packed, number), strict=False)


def _packed(family: int, address: str) -> bytes | None:
    try:
        return socket.inet_pton(family, address)
    except (OSError, ValueError):
        return None
