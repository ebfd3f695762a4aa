"""Files and sockets of a run's mount namespace, so that names are looked up inside the tunnel and nowhere else.

The C library finds name servers by /etc/resolv.conf, and other ways to look names up by /etc/nsswitch.conf. Several of
those leave a network namespace, because unix sockets with a path do.

1. A tmpfs has all files of our own. It is mounted in this namespace alone, below /etc, and vanishes with it.
2. For an ordinary user, a read-only overlay is mounted on /etc, with our files above the machine's. Files bound over
   the machine's own would not do: when the machine replaces one of those, as DHCP clients do, the kernel detaches what
   is mounted on it, in every mount namespace.
3. root may want to write below /etc. Kernels before 5.11 have no overlay without root, and none has one where files
   below /etc are mounts themselves, as in containers. There our files are bound over the machine's own, one by one,
   and once more when they were detached.
4. Empty folders are bound over those with the sockets of programs that look names up for others, and over those that
   such a program makes when it is started later (file_watch.py).
5. ssh(1) refuses to include files that belong neither to root nor to its user, and in a user namespace with one user
   root's files belong to nobody. So the overlay has copies of those, which are the user's.

With no name server in resolv.conf, the C library asks 127.0.0.1, where nobody answers in a new network namespace.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from vpntun.namespace.file_watch import ChangeWatch
from vpntun.namespace.mounts import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REMOUNT, attach, bind, copy_of, mount
from vpntun.netconf.dns import has_port, lines_of, server_of
from vpntun.runtime.log import notice
from vpntun.runtime.loop import Loop

ETC, NETNS = "/etc", "/etc/netns"
RESOLV_CONF, NSSWITCH_CONF = "resolv.conf", "nsswitch.conf"
RESOLVED = "/run/systemd/resolve"
SOCKET_FOLDERS = ("/run/nscd", "/var/run/nscd", "/run/avahi-daemon", "/var/run/avahi-daemon", RESOLVED)
"""Of nscd, which the C library asks before all else; of mDNS's daemon; and of systemd-resolved."""
FOLDERS_OF_SOCKET_FOLDERS = ("/run", "/run/systemd")
RESOLVED_FILES = (RESOLV_CONF, "stub-resolv.conf")
"""Files in systemd-resolved's folder; /etc/resolv.conf is often a link to one of them."""
HEADING = "# Name servers of this vpntun run alone, asked through its tunnel\n"
NO_SERVER = "# The tunnel has no name server (DNS = ...), so no names are looked up\n"
SSH_FILES = ("ssh/ssh_config.d/*.conf", "crypto-policies/back-ends/openssh.config")
"""Files that ssh_config(5) includes, on Debian and its kin, and on Fedora and its kin."""
LOCKED = MS_NOSUID | MS_NODEV | MS_NOEXEC

_HOSTS_LINE = re.compile(r"^[ \t]*hosts:.*$", re.MULTILINE)
_PORT_53 = re.compile(r"\[([^\]]+)\]:53|([^:]+):53")


class NamespaceFiles:
    """The files of this process's mount namespace, for names to be looked up as `dns` says.

    `dns`: the values of `DNS`, which are addresses and search domains. `netns`: the network namespace's name; its own
    name servers (ip-netns(8)) count where `dns` is empty. No mount may propagate from this namespace.
    """

    def __init__(self, dns: Sequence[str], netns: str | None = None) -> None:
        """Mount the files. Raises OSError."""
        resolv_conf = resolv_conf_of(dns)
        if netns is not None and not dns:
            with suppress(FileNotFoundError):
                resolv_conf = Path(NETNS, netns, RESOLV_CONF).read_text(errors="surrogateescape")
        contents = {RESOLV_CONF: resolv_conf}
        with suppress(FileNotFoundError):  # as with musl, which looks names up in files and by DNS alone
            contents[NSSWITCH_CONF] = without_other_ways(Path(ETC, NSSWITCH_CONF).read_text(errors="surrogateescape"))
        ssh_files = dict(_included_by_ssh())
        etc = os.open(ETC, os.O_PATH | os.O_CLOEXEC)
        copy = copy_of(ETC)
        mount("tmpfs", ETC, "tmpfs", LOCKED, "mode=755,size=1m")
        self._ours = os.open(ETC, os.O_PATH | os.O_CLOEXEC)
        self._bound: tuple[str, ...] = ()
        _write(self._path("etc"), {**contents, **ssh_files})
        _write(self._path("empty"), {})
        _write(self._path("resolved"), dict.fromkeys(RESOLVED_FILES, resolv_conf))
        mount("", self._path(), flags=MS_REMOUNT | MS_RDONLY | LOCKED)
        if os.geteuid() == 0 or not self._cover(etc):
            attach(copy, ETC)
            self._bound = tuple(contents)
        os.close(copy)
        os.close(etc)
        self.renew()
        if self._bound and not os.path.exists(os.path.join(ETC, RESOLV_CONF)):
            notice("this run has no name servers: the machine has no /etc/resolv.conf in whose place they could be")

    def keep(self, loop: Loop) -> None:
        """Keep them there from now on, whatever the machine does. Raises OSError."""
        ChangeWatch((*FOLDERS_OF_SOCKET_FOLDERS, *([ETC] if self._bound else [])), loop, self.renew)

    def renew(self) -> None:
        """Bind ours over files and folders of the machine: at first, and when it has made or replaced some."""
        for folder in dict.fromkeys(map(os.path.realpath, SOCKET_FOLDERS)):
            self._show("resolved" if folder == RESOLVED else "empty", folder)
        for name in self._bound:
            self._show(f"etc/{name}", os.path.realpath(os.path.join(ETC, name)))

    def _show(self, own: str, target: str) -> None:
        """Bind one of ours over a file or folder, unless it is there already, or there is none."""
        with suppress(FileNotFoundError):
            if os.stat(target).st_dev != os.stat(self._path()).st_dev:
                bind(self._path(own), target)

    def _cover(self, etc: int) -> bool:
        """Cover /etc with our files above the machine's. Return False where the kernel refuses."""
        try:
            mount("overlay", ETC, "overlay", MS_RDONLY, f"lowerdir={self._path('etc')}:{_path_of(etc)}")
        except OSError:
            return False
        return True

    def _path(self, own: str = "") -> str:
        return os.path.join(_path_of(self._ours), own)


def resolv_conf_of(dns: Sequence[str]) -> str:
    """Return the lines of resolv.conf(5) for values of `DNS`. Name servers at other ports than 53 are left out."""
    values = [_without_port_53(each) for each in dns]
    unusable = [each for each in values if server_of(each) is not None and has_port(each)]
    if unusable:
        notice("name servers at other ports than 53 are not asked in a run: %s", ", ".join(unusable))
    usable = [each for each in values if each not in unusable]
    has_server = any(server_of(each) is not None for each in usable)
    return HEADING + ("" if has_server else NO_SERVER) + lines_of(usable)


def without_other_ways(nsswitch: str) -> str:
    """Return the text of nsswitch.conf(5), changed so that names are looked up in /etc/hosts and by DNS alone.

    nss-myhostname(8) stays if it is there: it knows this machine's own name, and asks nobody.
    """
    others = _HOSTS_LINE.sub("", nsswitch).rstrip("\n")
    own = " myhostname" if any("myhostname" in line.split() for line in _HOSTS_LINE.findall(nsswitch)) else ""
    return f"{others}\nhosts: files{own} dns\n"


def _included_by_ssh() -> Iterator[tuple[str, str]]:
    """Yield the names below /etc of files that ssh includes, with their contents."""
    for pattern in SSH_FILES:
        for path in Path(ETC).glob(pattern):
            with suppress(OSError):  # one that is closed to this user is closed to ssh, too
                yield str(path.relative_to(ETC)), path.read_text(errors="surrogateescape")


def _write(folder: str, contents: Mapping[str, str]) -> None:
    """Make a folder with these files, which everybody may read. Raises OSError."""
    umask = os.umask(0o022)
    try:
        os.mkdir(folder)
        for name, text in contents.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, errors="surrogateescape")
    finally:
        os.umask(umask)


def _path_of(folder: int) -> str:
    """Return a path to an open folder, which holds whatever is mounted above it."""
    return f"/proc/self/fd/{folder}"


def _without_port_53(text: str) -> str:
    found = _PORT_53.fullmatch(text)
    return (found[1] or found[2]) if found else text
