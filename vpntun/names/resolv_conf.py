"""The machine's own name servers, as resolv.conf(5) lists them, read again when the file has changed.

At most once a second a look at the file's date, size and number tells whether it has. resolv.conf is often replaced, or
a link to a file that is, so the name is looked up each time. Without a file, or without a server in it, the server is
the one of this machine (127.0.0.1), as for the C library.
"""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from vpntun.config.values import DNS_PORT
from vpntun.types import Place

RESOLV_CONF = Path("/etc/resolv.conf")
LARGEST_FILE = 64 * 1024
MOST_SERVERS = 3
"""As many as the C library asks."""
SECONDS_BETWEEN = 1.0


class ResolvConf:
    """The name servers of a file."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._path = path
        self._look_at = float("-inf")
        self._seen: tuple[int, ...] | None = ()
        self._servers: tuple[Place, ...] = ()

    def servers(self, now: float) -> tuple[Place, ...]:
        """Return the servers, the first one first. `now`: seconds of the caller's clock."""
        if now >= self._look_at:
            self._look_at = now + SECONDS_BETWEEN
            seen = self._identity()
            if seen != self._seen:
                self._seen = seen
                self._servers = servers_in(self._read())
        return self._servers

    def _identity(self) -> tuple[int, ...] | None:
        with suppress(OSError):
            found = os.stat(self._path)
            return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
        return None

    def _read(self) -> str:
        with suppress(OSError), self._path.open("rb") as file:
            return file.read(LARGEST_FILE).decode("utf-8", "replace")
        return ""


def servers_in(text: str) -> tuple[Place, ...]:
    """Return the name servers in the text of a resolv.conf; lines that cannot be understood do not count."""
    servers: list[Place] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with suppress(ValueError):
                address, percent, zone = words[1].partition("%")
                servers.append((f"{ip_address(address)}{percent}{zone}", DNS_PORT))
    return tuple(servers[:MOST_SERVERS]) or (("127.0.0.1", DNS_PORT),)
