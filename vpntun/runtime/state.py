"""State that outlives the process: the peers' last endpoints, and the last handshake timestamp.

Both are small files in the state folder, and are replaced as a whole.

    endpoints    the address at which a server last saw each peer, so that it can call them after a restart. In /run,
                 so they last until the machine reboots. The file's name contains the network namespace. Written at
                 once, then at most once a second, so that a thousand peers that move at the same time cause one write
    timestamp    at least as great as every TAI64N timestamp sent with a key, so that a host that boots with a wrong
                 clock still sends a greater one. In /var/lib. Written ahead of the clock, at most every ten seconds:
                 writing a file for each handshake would take longer than the handshake

Neither file is secret, and without them the link only takes longer to come up. A file that cannot be read counts as
empty, and one that cannot be written causes a debug line. A process that is about to give up its privileges keeps its
files open and writes them in place from then on: folder and files still belong to root, which will read them again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from vpntun.crypto.timestamp import tai64n
from vpntun.runtime.folders import lasting_folder, make_folder, named_here, run_folder
from vpntun.runtime.log import log
from vpntun.runtime.loop import Loop

LARGEST = 1 << 24
SECONDS_BETWEEN_WRITES = 1.0
SECONDS_AHEAD = 10.0


class Endpoints:
    """Last UDP address of each peer of one tunnel: public key in hexadecimal -> [host, port]."""

    def __init__(self, interface: str, loop: Loop, folder: Path | None = None) -> None:
        self._file = StateFile((folder or run_folder()) / f"{named_here(interface)}.endpoints.json")
        self._loop = loop
        self._places = self._read()
        self._unwritten = False
        self._resting = False

    def recall(self, public: bytes) -> tuple[str, int] | None:
        """Return the peer's last host and port, or None."""
        match self._places.get(public.hex()):
            case [str() as host, int() as port] if 0 < port < 65536:
                return host, port
        return None

    def remember(self, public: bytes, host: str, port: int) -> None:
        """Note the peer's current host and port."""
        if self._places.get(public.hex()) != [host, port]:
            self._places[public.hex()] = [host, port]
            self._changed()

    def forget(self, public: bytes) -> None:
        """Forget the endpoint of a peer that was removed."""
        if self._places.pop(public.hex(), None) is not None:
            self._changed()

    def save(self) -> None:
        """Write changes that are not written yet."""
        if self._unwritten:
            self._unwritten = False
            self._file.write(json.dumps(self._places))

    def hold(self) -> None:
        """Keep the file open, before privileges are given up."""
        self._file.hold()

    def _changed(self) -> None:
        self._unwritten = True
        if not self._resting:
            self._save_and_rest()

    def _save_and_rest(self) -> None:
        self._resting = self._unwritten
        if self._resting:
            self._loop.call_later(SECONDS_BETWEEN_WRITES, self._save_and_rest)
            self.save()

    def _read(self) -> dict[str, object]:
        try:
            places = json.loads(self._file.read())
        except (ValueError, RecursionError):
            return {}
        return places if isinstance(places, dict) else {}


class TimestampFile:
    """Timestamps for the handshakes of one key pair: the wall clock's, but always greater than the last one sent."""

    def __init__(self, public: bytes, folder: Path | None = None) -> None:
        name = hashlib.blake2s(public, digest_size=8).hexdigest()
        self._file = StateFile((folder or lasting_folder()) / f"{name}.timestamp")
        try:
            self._last = bytes.fromhex(self._file.read())
        except ValueError:
            self._last = b""
        if not is_timestamp(self._last):
            self._last = bytes(12)
        self._written = self._last

    def next(self) -> bytes:
        """Return 12 bytes, greater than any timestamp before, including those of earlier processes."""
        clock = time.time()
        stamp = tai64n(clock)
        if stamp <= self._last:
            stamp = successor(self._last)
        self._last = stamp
        if stamp > self._written:
            # Ahead of the clock, not of the last timestamp: frequent restarts must not add up.
            self._written = max(stamp, tai64n(clock + SECONDS_AHEAD))
            self._file.write(self._written.hex())
        return stamp

    def hold(self) -> bool:
        """Keep the file open, before privileges are given up. Return whether that has worked."""
        return self._file.hold()


class StateFile:
    """Small text file that is replaced as a whole, or written in place once it is held open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: int | None = None

    def read(self) -> str:
        """Return the content, or the empty text if it cannot be read."""
        try:
            with self._path.open("rb") as file:
                return file.read(LARGEST).decode("ascii", "replace").strip()
        except OSError:
            return ""

    def write(self, text: str) -> None:
        """Replace the content, if this process may."""
        try:
            if self._held is None:
                self._replace(text)
            else:
                os.pwrite(self._held, text.encode(), 0)
                os.ftruncate(self._held, len(text))
        except OSError as error:
            log.debug("%s cannot be written: %s", self._path, error.strerror)

    def hold(self) -> bool:
        """Open the file and keep it open, so that it can still be written without privileges, if this process may."""
        try:
            self._make_folder()
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._held = os.open(self._path, flags, 0o600)
        except OSError as error:
            log.debug("%s cannot be held open: %s", self._path, error.strerror)
        return self._held is not None

    def _replace(self, text: str) -> None:
        self._make_folder()
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:
            file.write(text)
        fresh.replace(self._path)

    def _make_folder(self) -> None:
        make_folder(self._path.parent)


def is_timestamp(stamp: bytes) -> bool:
    """Whether these are 12 bytes of TAI64N: seconds within its range, and less than 10^9 nanoseconds."""
    return len(stamp) == 12 and stamp[0] < 0x80 and int.from_bytes(stamp[8:], "big") < 1_000_000_000


def successor(stamp: bytes) -> bytes:
    """Return the least TAI64N timestamp after `stamp` whose low 24 bits of nanoseconds are zero."""
    seconds, nanoseconds = int.from_bytes(stamp[:8], "big"), int.from_bytes(stamp[8:], "big")
    step = (nanoseconds & 0xFF000000) + 0x01000000
    if step >= 1_000_000_000:
        seconds, step = seconds + 1, 0
    return seconds.to_bytes(8, "big") + step.to_bytes(4, "big")
