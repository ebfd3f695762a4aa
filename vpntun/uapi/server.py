"""WireGuard's configuration protocol on /var/run/wireguard/INTERFACE.sock, by which wg(8) shows and changes a tunnel.

A request is "get=1" or "set=1", lines of KEY=VALUE, and an empty line. The answer ends with errno=NUMBER, which is 0 or
negative, and an empty line (https://www.wireguard.com/xplatform/).

    get=1    get.py
    set=1    parsed as it arrives (request.py), and applied once it is complete and can work (set.py): a
             request that is refused has changed nothing

A large request is parsed and a large answer is made a piece at a time, so that neither holds up the loop. The change
itself is one step, during which packets wait: a fraction of a second for 130,000 allowed IPs. Values are never logged.
unix_server.py decides who may connect, and clients.py how long a request may take.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from vpntun.errors import CannotChange, ConfigurationError, PortInUse, PrivilegeError, UapiInUse, VpntunError
from vpntun.runtime.log import NOTICE, LineLimit
from vpntun.runtime.loop import Loop
from vpntun.serving.exchange import Reply
from vpntun.serving.listening import SocketInUse
from vpntun.serving.unix_server import UnixServer
from vpntun.uapi.request import LONGEST_LINE, BadRequest, RequestParser, SetRequest

FOLDER = Path("/var/run/wireguard")
LARGEST_REQUEST = 16 << 20
"""Bytes of a request; 130,000 allowed IPs take 7 MB at most."""
LINES_OF_A_PIECE = 500
MOST_LINES = 5

REFUSED = "a request of wg was refused, and nothing was changed: %s"
FAILED = "a request of wg could not be carried out: %s"

ERROR_NUMBERS: list[tuple[type[VpntunError], int]] = [
    (CannotChange, errno.EOPNOTSUPP),
    (ConfigurationError, errno.EINVAL),
    (PortInUse, errno.EADDRINUSE),
    (PrivilegeError, errno.EPERM),
    (VpntunError, errno.EIO),
]
"""Error number of the answer for each error; the first that fits counts."""


class UapiServer:
    """Answers wg(8) until it is closed.

    `get` returns the lines of an answer, as `describe` in get.py makes them. `set` carries out a request; if it
    raises VpntunError, nothing has changed.
    """

    def __init__(
        self,
        interface: str,
        loop: Loop,
        *,
        get: Callable[[], Iterator[str]],
        set: Callable[[SetRequest], None],
        folder: Path = FOLDER,
    ) -> None:
        """Raises UapiInUse where another process listens, and VpntunError or PrivilegeError for other failures."""
        self._loop = loop
        self._get = get
        self._set = set
        self._lines = LineLimit(MOST_LINES, loop.time)
        path = folder / f"{interface}.sock"
        try:
            self._server = UnixServer("the socket for wg(8)", path, loop, lambda: UapiExchange(self._answer))
        except SocketInUse as taken:
            raise UapiInUse(f"{taken} answers at {path}: end it, or give this interface another name") from None

    @property
    def path(self) -> Path:
        """Where it listens."""
        return self._server.path

    def close(self) -> None:
        """Close all connections, and remove the socket unless its name belongs to another by now."""
        self._server.close()

    def _answer(self, asked: SetRequest | BadRequest | None) -> Iterator[str]:
        try:
            if isinstance(asked, BadRequest):
                raise asked
            if asked is not None:
                self._set(asked)
            else:
                yield from self._get()
            number = 0
        except BadRequest as bad:
            number = self._failed(REFUSED, bad, bad.number)
        except VpntunError as error:
            number = next(number for kind, number in ERROR_NUMBERS if isinstance(error, kind))
            number = self._failed(FAILED if asked is None else REFUSED, error, number)
        except OSError as error:
            number = self._failed(FAILED, error, error.errno or errno.EIO)
        except Exception:
            self._loop.internal_errors.note()
            number = errno.EIO
        yield f"errno={-number}"
        yield ""

    def _failed(self, text: str, error: Exception, number: int) -> int:
        self._lines.log(NOTICE, text, error)
        return number


class UapiExchange:
    """The requests and answers of one connection, as the `Exchange` of exchange.py.

    `answer` gets a set request, None for a get request, or what is wrong with a request; it returns the lines of the
    answer. The connection closes after a request that is too long.
    """

    def __init__(self, answer: Callable[[SetRequest | BadRequest | None], Iterator[str]]) -> None:
        self.ended = self.awaits_answer = False
        self.stream = None
        self._answer = answer
        self._received = bytearray()
        self._no_more = self._is_last = False
        self._lines: Iterator[str] | None = None
        self._begin()

    @property
    def idle(self) -> bool:
        """Whether no part of a request has arrived, and no part of an answer is left."""
        return not self._received and not self._size and self._lines is None

    def take(self, data: bytes) -> None:
        """Take bytes that came in; b"" is the end of the stream. Never called after that, or once `ended`."""
        self._received += data
        self._no_more = not data

    def next_answer(self) -> Reply | None:
        """Return the next piece of an answer, or None while there is none."""
        while not self.ended:
            if self._lines is None:
                self._parse()
            if self._lines is None:
                self.ended = self._no_more
                break
            if piece := "".join(f"{line}\n" for line in islice(self._lines, LINES_OF_A_PIECE)):
                return piece.encode(), None
            self._lines, self.ended = None, self._is_last
        return None

    def _begin(self) -> None:
        self._parser = RequestParser()
        self._size = 0

    def _parse(self) -> None:
        """Parse the lines that have arrived, up to the end of a request."""
        start = 0
        while self._lines is None and (end := self._received.find(b"\n", start)) >= 0:
            self._take_line(bytes(self._received[start:end]))
            start = end + 1
        del self._received[:start]
        if self._lines is None and len(self._received) > LONGEST_LINE:
            self._refuse_the_rest()

    def _take_line(self, line: bytes) -> None:
        self._size += len(line) + 1
        if self._size > LARGEST_REQUEST or len(line) > LONGEST_LINE:
            self._refuse_the_rest()
        elif line:
            self._parser.take(line)
        else:
            self._lines = self._answer(self._parser.result())
            self._begin()

    def _refuse_the_rest(self) -> None:
        """Answer a request that is too long, after which nothing can be read any more."""
        self._lines = self._answer(BadRequest(errno.EINVAL, "it is too long"))
        self._is_last = True
