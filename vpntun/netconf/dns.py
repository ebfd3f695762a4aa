"""Name servers of a tunnel, set as an entry in whichever resolvconf this host has.

The resolvconfs of openresolv, Debian and systemd take the same commands. Debian's orders entries by how their names
begin, so there the entry gets a name that comes early. If there is no resolvconf, or it fails, a notice says so, and
the tunnel comes up without the name servers.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar

from vpntun.netconf.changes import Changes
from vpntun.netconf.journal import Journal
from vpntun.netconf.netlink import Netlink
from vpntun.runtime.child import child_environment, run_and_wait, search_path
from vpntun.runtime.log import notice
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
        """Add the entry, so that it is used instead of all others. Returns False if there is no resolvconf."""
        if _resolvconf("-a", self.entry, "-m", "0", "-x", lines=self.lines):
            return True
        notice("the name servers stay as they are: there is no resolvconf to set them with")
        return False

    def take_back(self, _: Netlink) -> None:
        """Remove the entry."""
        _resolvconf("-d", self.entry, "-f")


class HostDns:
    """The values of `DNS`: addresses are name servers, all others are search domains, in order.

    A port goes to resolvconf as wg-quick hands it over; in the C library's resolv.conf it would be ignored.
    """

    def __init__(self, interface: str, servers: Sequence[str], journal: Journal) -> None:
        self._interface = interface
        self._servers = servers
        self._changes = Changes(journal, device_is_ephemeral=False)

    def apply(self) -> None:
        """Set the name servers and search domains, if there are any."""
        if with_port := [each for each in self._servers if _has_port(each)]:
            notice(
                "few resolvers ask name servers at other ports than 53 (systemd-resolved does): %s",
                ", ".join(with_port),
            )
        if self._servers:
            with Netlink() as netlink:
                self._changes.reconcile([NameServers(entry_for(self._interface), lines_of(self._servers))], netlink)

    def undo(self) -> None:
        """Take them back."""
        self._changes.undo()


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
    elif _has_port(text):
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


def _resolvconf(*arguments: str, lines: str = "") -> bool:
    """Run resolvconf. Returns False if there is none. If it fails or takes too long, log a notice."""
    program = shutil.which("resolvconf", path=search_path())
    if program is None:
        return False
    with tempfile.TemporaryFile() as stdin:
        stdin.write(lines.encode())
        stdin.seek(0)
        try:
            problem = run_and_wait(
                "resolvconf", [program, *arguments], child_environment(), seconds=SECONDS, stdin=stdin.fileno()
            )
        except OSError as error:
            problem = f"cannot be run: {error.strerror}"
    if problem is not None:
        notice("resolvconf %s: the name servers may be wrong", problem)
    return True


def _has_port(text: str) -> bool:
    return text.startswith("[") or text.count(":") == 1
