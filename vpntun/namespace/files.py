"""Files and sockets of a run's mount namespace, so that names are looked up inside the tunnel and nowhere else.

The C library finds name servers by /etc/resolv.conf, and other ways to look names up by /etc/nsswitch.conf. Several of
those leave a network namespace, because unix sockets with a path do.

1. A tmpfs holds all files of our own. It is mounted in this namespace alone and vanishes with it.
2. Folders with the sockets of programs that look names up for others are covered with empty ones.
3. For an ordinary user, /etc is covered by a read-only overlay, with our two files on top. Files bound over the
   machine's own would not do: when the machine replaces one of those, as DHCP clients do, the kernel detaches what
   is mounted on it, in every mount namespace.
4. root may want to write below /etc. Kernels before 5.11 have no overlay without root, and none has one where files
   below /etc are mounts themselves, as in containers. There our files are bound over the machine's own, one by one.
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

from vpntun.namespace.mounts import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REMOUNT, bind, detach, mount
from vpntun.netconf.dns import lines_of, server_of
from vpntun.runtime.log import notice

ETC = "/etc"
RESOLV_CONF, NSSWITCH_CONF = "resolv.conf", "nsswitch.conf"
RESOLVED = "/run/systemd/resolve"
SOCKET_FOLDERS = ("/run/nscd", "/var/run/nscd", "/run/avahi-daemon", "/var/run/avahi-daemon", RESOLVED)
"""Of nscd, which the C library asks before all else; of mDNS's daemon; and of systemd-resolved."""
RESOLVED_FILES = (RESOLV_CONF, "stub-resolv.conf")
"""Files in systemd-resolved's folder; /etc/resolv.conf is often a link to one of them."""
HEADING = "# Name servers of this vpntun run alone, asked through its tunnel\n"
NO_SERVER = "# The tunnel has no name server (DNS = ...), so no names are looked up\n"
SSH_FILES = "ssh/ssh_config.d/*.conf"
LOCKED = MS_NOSUID | MS_NODEV | MS_NOEXEC

_HOSTS_LINE = re.compile(r"^[ \t]*hosts:.*$", re.MULTILINE)
_PORT_53 = re.compile(r"\[([^\]]+)\]:53|([^:]+):53")


def mount_files(dns: Sequence[str]) -> None:
    """Let names be looked up as `dns` says, in this process's mount namespace. Raises OSError.

    `dns`: the values of `DNS`, which are addresses and search domains. No mount may propagate from this namespace.
    """
    resolv_conf = resolv_conf_of(dns)
    contents = {RESOLV_CONF: resolv_conf}
    with suppress(FileNotFoundError):  # as with musl, which looks names up in files and by DNS alone
        contents[NSSWITCH_CONF] = without_other_ways(Path(ETC, NSSWITCH_CONF).read_text(errors="surrogateescape"))
    sockets = [folder for folder in dict.fromkeys(map(os.path.realpath, SOCKET_FOLDERS)) if os.path.isdir(folder)]
    targets = {name: os.path.realpath(os.path.join(ETC, name)) for name in contents}
    ssh_files = dict(_included_by_ssh())
    etc = os.open(ETC, os.O_PATH | os.O_CLOEXEC)
    mount("tmpfs", ETC, "tmpfs", LOCKED, "mode=755,size=1m")
    ours = os.open(ETC, os.O_PATH | os.O_CLOEXEC)
    umask = os.umask(0o022)
    try:
        _write(ours, "etc", {**contents, **ssh_files})
        _write(ours, "empty", {})
        _write(ours, "resolved", dict.fromkeys(RESOLVED_FILES, resolv_conf))
        mount("", _through(ours), flags=MS_REMOUNT | MS_RDONLY | LOCKED)
        for folder in sockets:
            bind(_through(ours, "resolved" if folder == RESOLVED else "empty"), folder)
        if os.geteuid() == 0 or not _cover_etc(ours, etc):
            _bind_each(ours, etc, targets)
            detach(ETC)
    finally:
        os.umask(umask)
        os.close(ours)
        os.close(etc)


def resolv_conf_of(dns: Sequence[str]) -> str:
    """Return the lines of resolv.conf(5) for values of `DNS`. Name servers at other ports than 53 are left out."""
    values = [_without_port_53(each) for each in dns]
    unusable = [each for each in values if server_of(each) is not None and _has_port(each)]
    if unusable:
        notice("name servers at other ports than 53 are not asked in a run: %s", ", ".join(unusable))
    usable = [each for each in values if each not in unusable]
    has_server = any(server_of(each) is not None for each in usable)
    return HEADING + ("" if has_server else NO_SERVER) + lines_of(usable)


def without_other_ways(nsswitch: str) -> str:
    """Return the text of nsswitch.conf(5), changed so that names are looked up in /etc/hosts and by DNS alone."""
    others = _HOSTS_LINE.sub("", nsswitch).rstrip("\n")
    return f"{others}\nhosts: files dns\n"


def _cover_etc(ours: int, etc: int) -> bool:
    """Cover /etc with our files above the machine's. Return False where the kernel refuses."""
    try:
        mount("overlay", ETC, "overlay", LOCKED | MS_RDONLY, f"lowerdir={_through(ours, 'etc')}:{_through(etc)}")
    except OSError:
        return False
    return True


def _bind_each(ours: int, etc: int, targets: Mapping[str, str]) -> None:
    """Show our files in place of the machine's own, whose names are the keys, while /etc is covered."""
    for name, target in targets.items():
        in_etc = target.startswith(f"{ETC}/")
        try:
            bind(_through(ours, "etc", name), _through(etc, target.removeprefix(f"{ETC}/")) if in_etc else target)
        except FileNotFoundError:
            notice("this run has no %s of its own: the machine has no %s to be replaced", name, target)


def _included_by_ssh() -> Iterator[tuple[str, str]]:
    """Yield the names below /etc of the files that ssh_config(5) includes, with their contents."""
    for path in Path(ETC).glob(SSH_FILES):
        with suppress(OSError):  # one that is closed to this user is closed to ssh, too
            yield str(path.relative_to(ETC)), path.read_text(errors="surrogateescape")


def _write(ours: int, folder: str, contents: Mapping[str, str]) -> None:
    os.mkdir(_through(ours, folder))
    for name, text in contents.items():
        path = Path(_through(ours, folder, name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, errors="surrogateescape")


def _through(folder: int, *names: str) -> str:
    """Return a path through an open folder, which a mount above it does not cover."""
    return os.path.join(f"/proc/self/fd/{folder}", *names)


def _without_port_53(text: str) -> str:
    found = _PORT_53.fullmatch(text)
    return (found[1] or found[2]) if found else text


def _has_port(text: str) -> bool:
    return text.startswith("[") or text.count(":") == 1
