"""Name servers of a tunnel, set as an entry in whichever resolvconf this host has.

The resolvconfs of openresolv, Debian and systemd take the same commands. Debian's orders entries by how their names
begin, so there the entry gets a name that comes early. If there is no resolvconf, or it fails, a notice says so, and
the tunnel comes up without the name servers.

resolvconf adds the entry beside the loop, since it may take seconds while peers are up. Only the end waits for it.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar

from vpntun.netconf.changes import Changes
from vpntun.netconf.journal import Journal
from vpntun.netconf.netlink import Netlink
from vpntun.runtime.child import Child, child_environment, run_and_wait, search_path
from vpntun.runtime.log import notice
from vpntun.runtime.loop import Loop
from vpntun.types import IpAddress

SECONDS = 10.0
DEBIANS_ORDER = Path("/etc/resolvconf/interface-order")
WITH_PREFIX = re.compile(r"([A-Za-z0-9-]+)\*", re.ASCII)


@dataclass(frozen=True)
class NameServers:
    """An entry of resolvconf: its name, and the lines of a resolv.conf file."""

    entry: str
    lines: str

    on_device: ClassVar[bool] = False

    def make(self, _: Netlink) -> bool:
        """Return whether there is a resolvconf, by which `HostDns` adds the entry."""
        if _program() is not None:
            return True
        notice("the name servers stay as they are: there is no resolvconf to set them with")
        return False

    def take_back(self, _: Netlink) -> None:
        """Remove the entry."""
        _remove(self.entry)


class HostDns:
    """The values of `DNS`: addresses are name servers, all others are search domains, in order.

    A port goes to resolvconf as wg-quick hands it over; in the C library's resolv.conf it would be ignored.
    """

    def __init__(self, interface: str, servers: Sequence[str], journal: Journal, loop: Loop) -> None:
        self._interface = interface
        self._loop = loop
        self._child: Child | None = None
        self._on_set: list[Callable[[], None]] = []
        self._servers = servers
        self._changes = Changes(journal, device_is_ephemeral=False)

    def apply(self) -> None:
        """Begin to set the name servers and search domains, if there are any. Raises VpntunError."""
        if with_port := [each for each in self._servers if has_port(each)]:
            notice(
                "few resolvers ask name servers at other ports than 53 (systemd-resolved does): %s",
                ", ".join(with_port),
            )
        if self._servers:
            with Netlink() as netlink:
                entry = NameServers(entry_for(self._interface), lines_of(self._servers))
                self._changes.reconcile([entry], netlink)
            if entry in self._changes:
                self._add(entry)

    def when_set(self, callback: Callable[[], None]) -> None:
        """Call back once resolvconf has ended; at once if it is not running."""
        if self._child is not None and self._child.running:
            self._on_set.append(callback)
        else:
            callback()

    def undo(self) -> None:
        """Take them back."""
        if self._child is not None:
            self._child.stop(SECONDS)
        self._changes.undo()

    def _add(self, entry: NameServers) -> None:
        """Let resolvconf add the entry, so that it is used instead of all others."""
        arguments = [_program() or "resolvconf", "-a", entry.entry, "-m", "0", "-x"]
        try:
            with tempfile.TemporaryFile() as stdin:
                stdin.write(entry.lines.encode())
                stdin.seek(0)
                self._child = Child(
                    "resolvconf",
                    arguments,
                    child_environment(),
                    self._loop,
                    self._added,
                    seconds=SECONDS,
                    stdin=stdin.fileno(),
                )
        except OSError as error:
            _judge(f"cannot be run: {error.strerror}")

    def _added(self, problem: str | None) -> None:
        _judge(problem)
        waiting, self._on_set = self._on_set, []
        for callback in waiting:
            callback()


def lines_of(servers: Sequence[str]) -> str:
    """Return the lines of a resolv.conf (resolv.conf(5)). Without name servers only the search domains change."""
    addresses = [each for each in servers if server_of(each) is not None]
    domains = [each for each in servers if server_of(each) is None]
    search = [f"search {' '.join(domains)}"] if domains else []
    return "".join(f"{line}\n" for line in [*(f"nameserver {each}" for each in addresses), *search])


def server_of(text: str) -> IpAddress | None:
    """Return the address in a value of `DNS`, which may have a port and a scope; None for a search domain."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif has_port(text):
        text = text.partition(":")[0]
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def entry_for(interface: str, order: Path = DEBIANS_ORDER) -> str:
    """Return the entry's name: the interface's, after the first prefix in Debian's interface-order if there is one."""
    try:
        patterns = [WITH_PREFIX.fullmatch(line.strip()) for line in order.read_text().splitlines()]
    except OSError:
        return interface
    return next((f"{found[1]}.{interface}" for found in patterns if found), interface)


def _program() -> str | None:
    return shutil.which("resolvconf", path=search_path())


def _remove(entry: str) -> None:
    if (program := _program()) is None:
        return
    try:
        problem = run_and_wait("resolvconf", [program, "-d", entry, "-f"], child_environment(), seconds=SECONDS)
    except OSError as error:
        problem = f"cannot be run: {error.strerror}"
    _judge(problem)


def _judge(problem: str | None) -> None:
    if problem is not None:
        notice("resolvconf %s: the name servers may be wrong", problem)


def has_port(text: str) -> bool:
    """Whether a name server in `DNS` has a port."""
    return text.startswith("[") or text.count(":") == 1
