"""The client's part of --pair: it asks for the code, agrees on a key with the server, and writes the key file.

The key file is written under a temporary name before the server is told to write its own, and gets its name once the
server has. If the server's last word does not arrive, even over new connections, the file gets its name all the same:
most probably the server has the key then, and the link will tell.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from vpntun.config.keyfile import check_free, prepared_shared
from vpntun.core.pairing.client import Agreed, Event, PairingClient, Prove, Refused, Settled
from vpntun.core.pairing.messages import SIZE, OtherVersion, Reason
from vpntun.core.pairing.server import MOST_TRIES, describe_tries
from vpntun.crypto.pairing import PairingCode, check_installed
from vpntun.errors import BadPacket, KeyFileError, PairingFailed
from vpntun.pairing.interrupts import Interrupted
from vpntun.pairing.terminal import tell_broken_off, tell_paired
from vpntun.runtime.clock import boottime
from vpntun.runtime.log import tell
from vpntun.types import written
from vpntun.wire.stream_framing import PREFIX_SIZE, prefix

SECONDS_TO_CONNECT = 10.0
SECONDS_TO_ANSWER = 6.0
SECONDS_TO_SETTLE = 3.0
MOST_CONNECTIONS = 3
SECONDS_BETWEEN = 0.5

Sleep = Callable[[float], None]


def pair_as_client(path: Path, host: str, port: int, ask: Callable[[], str], sleep: Sleep = time.sleep) -> None:
    """Agree on a key with the server at `host`, which shows a code, and write the key to `path`.

    `ask` returns the code that somebody has typed. Raises PairingFailed, KeyFileError or VpntunError.
    """
    check_free(path)
    check_installed()
    for _ in range(MOST_TRIES):
        with closing(Call(host, port, PairingCode(ask(), "client"), sleep)) as call:
            event = call.prove()
            if isinstance(event, Agreed):
                _keep(path, call, event)
                return
            tell("wrong code: %s", describe_tries(event.tries_left))
            if not event.tries_left:
                break
    raise PairingFailed("the code is void now: start the other end again for a new one, then this end")


def _keep(path: Path, call: Call, agreed: Agreed) -> None:
    """Write the key file; give it its name once the server has written its own, or may have."""
    with prepared_shared(path, agreed.secret) as publish:
        try:
            settled = call.settle(agreed)
            if settled is not None and not settled.is_written:
                raise PairingFailed("the other end could not write its key file, and says why; no key was written here")
            publish()
        except KeyFileError as error:
            raise KeyFileError(f"{error}. The other end has the key already: remove it there and pair again") from None
        except Interrupted:
            tell_broken_off(path)
            raise
    if settled is not None:
        tell_paired(call.where, path)
    else:
        tell(
            "this end has the key, in %s, but did not hear whether the other end has it too: if the link does not come "
            "up, remove the key file at both ends and pair again",
            path,
        )


class Call:
    """An exchange with the server, over a connection that is opened again where that costs no try of the code."""

    def __init__(self, host: str, port: int, code: PairingCode, sleep: Sleep) -> None:
        self.where = written((host, port))
        self._address = host, port
        self._code = code
        self._sleep = sleep
        self._client = PairingClient(code)
        self._socket: socket.socket | None = None

    def prove(self) -> Agreed | Refused:
        """Prove to know the code; return what is agreed, or the refusal of a wrong code. Raises PairingFailed."""
        prove = self._open()
        try:
            event = self._exchange(prove.message, SECONDS_TO_ANSWER)
        except OSError:
            raise PairingFailed(
                f"the connection to {self.where} broke off before the other end had proven anything; no key was "
                "written here: start this end again"
            ) from None
        if isinstance(event, Refused) and event.reason == Reason.BUSY:
            raise PairingFailed(
                f"{self.where} is pairing with another client, or its connection has just broken off: start this end "
                "again in ten seconds"
            )
        assert isinstance(event, Agreed | Refused)
        return event

    def settle(self, agreed: Agreed) -> Settled | None:
        """Tell the server that this end is ready; return whether the server has written its key, or None if unknown."""
        for number in range(MOST_CONNECTIONS):
            try:
                if number:
                    self._sleep(SECONDS_BETWEEN)
                    self._connect()
                event = self._exchange(agreed.ready, SECONDS_TO_SETTLE)
            except (OSError, PairingFailed):
                continue
            assert isinstance(event, Settled)
            return event
        return None

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> Prove:
        """Connect and open an exchange. Nothing is tested before the proof, so a lost connection is opened again."""
        for number in range(MOST_CONNECTIONS):
            if number:
                self._sleep(SECONDS_BETWEEN)
            self._connect()
            self._client = PairingClient(self._code)
            try:
                event = self._exchange(self._client.first, SECONDS_TO_ANSWER)
            except TimeoutError:
                break
            except OSError:
                continue
            if isinstance(event, Refused):
                raise PairingFailed(f"{self.where} refuses to pair: install the same version of vpntun at both ends")
            assert isinstance(event, Prove)
            return event
        raise PairingFailed(
            f"no pairing is open at {self.where}: start 'vpntun -s -i NAME --pair' there, and give the code that it "
            "shows. A tunnel that runs already takes no codes"
        )

    def _connect(self) -> None:
        """Open a connection. Raises PairingFailed."""
        self.close()
        try:
            self._socket = socket.create_connection(self._address, SECONDS_TO_CONNECT)
        except OSError as error:
            reason = error.strerror or "no answer"
            raise PairingFailed(
                f"{self.where} cannot be reached over TCP ({reason}): start 'vpntun -s -i NAME --pair' there first, "
                "and let its firewall accept this TCP port"
            ) from None

    def _exchange(self, message: bytes, seconds: float) -> Event:
        """Send a message, and return what follows from the answer. Raises OSError, and PairingFailed for rubbish."""
        assert self._socket is not None
        end = boottime() + seconds
        self._socket.settimeout(seconds)
        self._socket.sendall(prefix(len(message)) + message)
        try:
            size = int.from_bytes(self._read(PREFIX_SIZE, end), "big")
            if size > SIZE:
                raise BadPacket("bad frame length")
            return self._client.receive(self._read(size, end))
        except OtherVersion:
            raise PairingFailed(f"{self.where} pairs in another way: install the same version at both ends") from None
        except BadPacket as bad:
            raise PairingFailed(
                f"{self.where} does not answer as a pairing vpntun ({bad.reason}); no key was written here. Check the "
                "name and the port; somebody else may answer in its place"
            ) from None

    def _read(self, size: int, end: float) -> bytes:
        """Read exactly so many bytes until a time. Raises OSError."""
        assert self._socket is not None
        received = b""
        while len(received) < size:
            left = end - boottime()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            more = self._socket.recv(size - len(received))
            if not more:
                raise ConnectionResetError
            received += more
        return received
