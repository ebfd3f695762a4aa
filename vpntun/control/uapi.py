"""WireGuard's configuration protocol on /var/run/wireguard/INTERFACE.sock, by which wg(8) asks a running tunnel.

A request is "get=1" or "set=1", lines of KEY=VALUE, and an empty line. The answer ends with errno=NUMBER, which is 0 or
negative, and an empty line (https://www.wireguard.com/xplatform/). Keys are in hexadecimal.

    get=1    everything that wg(8) shows, with this end's private key and the preshared keys
    set=1    private_key, while the tunnel has none: a file may leave it to PostUp, as in `wg set %i private-key FILE`

A request that sets anything else is refused as a whole: change the file, and reload it. Values are never logged.
unix_server.py decides who may connect and how much a client may ask for at once.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from logging import INFO
from pathlib import Path

from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.control.unix_server import Reply, SocketInUse, UnixServer
from vpntun.crypto.keys import KEY_SIZE, KeyPair
from vpntun.errors import UapiInUse, VpntunError
from vpntun.link.link import Link
from vpntun.runtime.log import NOTICE, LineLimit
from vpntun.runtime.loop import Loop

FOLDER = Path("/var/run/wireguard")
LARGEST_REQUEST = 64 * 1024
MOST_LINES = 5

SETTABLE = frozenset(
    {
        *("private_key", "listen_port", "fwmark", "replace_peers"),
        *("public_key", "remove", "update_only", "preshared_key", "endpoint", "persistent_keepalive_interval"),
        *("replace_allowed_ips", "allowed_ip", "protocol_version"),
    }
)
"""All keys of a set request, whether this program can set them or not."""

Lines = list[tuple[str, str]]


class UapiServer:
    """Answers wg(8) until it is closed.

    `get` returns the lines of an answer, as `describe` makes them. `give_key` takes this end's keys, and returns False
    if it has others already.
    """

    def __init__(
        self,
        interface: str,
        loop: Loop,
        *,
        get: Callable[[], Iterator[str]],
        give_key: Callable[[KeyPair], bool],
        folder: Path = FOLDER,
    ) -> None:
        """Raises UapiInUse where another process listens, and VpntunError or PrivilegeError for other failures."""
        self._loop = loop
        self._get = get
        self._give_key = give_key
        self._lines = LineLimit(MOST_LINES, loop.time)
        path = folder / f"{interface}.sock"
        try:
            self._server = UnixServer("the socket for wg(8)", path, loop, lambda: UapiExchange(self._answer))
        except SocketInUse as taken:
            raise UapiInUse(
                f"{taken} answers at {path}: end it, give this interface another name, or start with --no-uapi"
            ) from None

    @property
    def path(self) -> Path:
        """Where it listens."""
        return self._server.path

    def close(self) -> None:
        """Close all connections, and remove the socket unless its name belongs to another by now."""
        self._server.close()

    def _answer(self, operation: str, lines: Lines) -> str:
        try:
            if operation == "get=1" and not lines:
                return "".join(f"{line}\n" for line in self._get()) + _ended(0)
            return _ended(self._set(lines) if operation == "set=1" else errno.EINVAL)
        except (VpntunError, OSError) as error:
            self._lines.log(NOTICE, "a request of wg was refused: %s", error)
            return _ended(errno.EINVAL)
        except Exception:
            self._loop.internal_errors.note()
            return _ended(errno.EIO)

    def _set(self, lines: Lines) -> int:
        """Carry out a set request, and return its error number. Raises VpntunError."""
        names = list(dict.fromkeys(name for name, _ in lines))
        if not SETTABLE.issuperset(names):
            self._lines.log(INFO, "a request of wg was refused: it has a key that is not WireGuard's")
            return errno.EINVAL
        if names != ["private_key"]:
            others = ", ".join(name for name in names if name != "private_key") or "nothing"
            self._lines.log(
                NOTICE,
                "wg may set the private key only, and nothing was changed (%s): change the file, and reload it",
                others,
            )
            return errno.EOPNOTSUPP
        private = _key(lines[-1][1])
        if private is None:
            return errno.EINVAL
        if not any(private):
            self._lines.log(NOTICE, "wg may not take the private key away; nothing was changed")
            return errno.EOPNOTSUPP
        if not self._give_key(KeyPair.of(private)):
            self._lines.log(
                NOTICE, "wg may not change the private key of a running tunnel: change the file, and restart"
            )
            return errno.EOPNOTSUPP
        return 0


class UapiExchange:
    """The requests and answers of one connection, as the `Exchange` of unix_server.py.

    `answer` gets the first line of a request and its other lines. The connection closes after a
    request that is too long or malformed.
    """

    def __init__(self, answer: Callable[[str, Lines], str]) -> None:
        self.ended = False
        self._answer = answer
        self._received = bytearray()
        self._no_more = False

    @property
    def idle(self) -> bool:
        """Whether no part of a request has arrived."""
        return not self._received

    def take(self, data: bytes) -> None:
        """Take bytes that came in; b"" is the end of the stream. Never called after that, or once `ended`."""
        self._received += data
        self._no_more = not data

    def next_answer(self) -> Reply | None:
        """Return the next answer, or None while there is none."""
        request, end, rest = bytes(self._received).partition(b"\n\n")
        if self.ended or (not end and len(request) <= LARGEST_REQUEST):
            self.ended = self.ended or self._no_more
            return None
        self._received = bytearray(rest)
        parsed = _parsed(request) if end and len(request) <= LARGEST_REQUEST else None
        if parsed is None:
            self.ended = True
            self._received.clear()
            return _ended(errno.EINVAL).encode(), None
        return self._answer(*parsed).encode(), None


def describe(
    tunnel: Tunnel,
    link_of: Callable[[bytes], Link | None],
    *,
    port: int,
    mark: int,
    clock: Callable[[], float] = time.time,
) -> Iterator[str]:
    """Yield the lines of the answer to "get=1".

    `link_of`: the link of a public key; None while it has not been made. `port`: the port of the UDP sockets, 0 without
    any. `mark`: the mark of what the tunnel sends, 0 for none. `clock`: the wall clock.
    """
    wall = clock()
    if tunnel.identity is not None:
        yield f"private_key={tunnel.identity.private.hex()}"
    if port:
        yield f"listen_port={port}"
    if mark:
        yield f"fwmark={mark}"
    for settings in tunnel.peers:
        yield from _peer(settings, link_of(settings.public), wall)


def _peer(settings: PeerSettings, link: Link | None, wall: float) -> Iterator[str]:
    yield f"public_key={settings.public.hex()}"
    yield f"preshared_key={settings.psk.hex()}"
    yield "protocol_version=1"
    if link is not None:
        peer = link.peer
        if link.endpoint is not None:
            yield f"endpoint={link.endpoint.where}"
        if peer.last_handshake is not None:
            at = max(0.0, wall - (link.now - peer.last_handshake))
            yield f"last_handshake_time_sec={int(at)}"
            yield f"last_handshake_time_nsec={int(at % 1 * 1e9)}"
        yield f"tx_bytes={peer.sent_bytes}"
        yield f"rx_bytes={peer.received_bytes}"
    yield f"persistent_keepalive_interval={int(settings.keepalive)}"
    for network in settings.allowed_as_text:
        yield f"allowed_ip={network}"


def _parsed(request: bytes) -> tuple[str, Lines] | None:
    """Return the first line of a request and the others, split; None if it is malformed."""
    try:
        operation, *lines = request.decode("ascii").split("\n")
    except UnicodeDecodeError:
        return None
    pairs = [line.partition("=") for line in lines]
    return (operation, [(name, value) for name, _, value in pairs]) if all(pair[1] for pair in pairs) else None


def _key(text: str) -> bytes | None:
    """Return a key from its hexadecimal text; None for another text."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        return None
    return key if len(key) == KEY_SIZE else None


def _ended(number: int) -> str:
    return f"errno={-number}\n\n"
