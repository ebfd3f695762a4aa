"""A Debian system with only make and git installed, for tests: debootstrap fills a folder, and chroot enters it.

1. It fetches packages as the host does, with apt's sources, keys and fetch settings, pip's settings and the files they
   name, and the certificates that the administrator has added.
2. Each command has its own mount and process namespaces, so mounts and processes disappear with it in any case.
3. It shares the network of the host.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PLACE = "/root/checkout"
APT = ("sources.list", "sources.list.d", "auth.conf.d", "trusted.gpg.d", "keyrings", "preferences.d")
OF_THE_ADMINISTRATOR = Path("/usr/local/share/ca-certificates")
FETCHING = re.compile(r"PIP_.*|SSL_CERT_.*|REQUESTS_CA_BUNDLE|(?:https?|no)_proxy", re.IGNORECASE)

# The arguments are the root, files and folders of the host to bind into it, --, a working folder, and the command.
# ip-netns(8) and mount namespaces need a root that is a mount point.
ENTER = """
root=$1
shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t sysfs sysfs "$root/sys"
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "$root$1"; else mkdir -p "$root${1%/*}" && touch "$root$1"; fi
    mount --bind "$1" "$root$1"
    shift
done
shift
exec chroot "$root" sh -ec 'cd "$0" && exec "$@"' "$@"
"""


def why_not() -> str | None:
    """Return the reason why no such system can be made here, or None."""
    if os.geteuid() != 0:
        return "not root: debootstrap and chroot need it"
    for tool in ("debootstrap", "apt-get", "git", "unshare"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if not _sources():
        return "apt has no list of packages: apt-get update"
    return None


class BareMachine:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._shared = _paths_of_pip()
        address, release = _sources()[0]
        making = ["debootstrap", "--variant=minbase", "--include=make,git", release, str(root), address]
        done = subprocess.run([*_apart(), *making], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        self._set_up_fetching()
        self._copy_checkout()

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the checkout, as root with root's environment, without a terminal."""
        fetching = {name: value for name, value in os.environ.items() if FETCHING.fullmatch(name)}
        own = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C"}
        enter = [*_apart(), "sh", "-ec", ENTER, "sh", str(self.root), *self._shared, "--", PLACE]
        return subprocess.run(
            [*enter, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env={**fetching, **own, **environment},
        )

    def packages(self) -> set[str]:
        """The names of the installed packages."""
        done = self.run("dpkg-query", "--show", "--showformat", "${Package}\\n")
        assert done.returncode == 0, done.stderr
        return set(done.stdout.split())

    def _set_up_fetching(self) -> None:
        for name in APT:
            _copy(Path("/etc/apt") / name, self.root)
        settings = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True).stdout
        (self.root / "etc" / "apt" / "apt.conf.d" / "99fetching").write_text(settings)
        for path in (Path("/etc/resolv.conf"), Path("/etc/hosts"), OF_THE_ADMINISTRATOR, *_files_of_pip()):
            _copy(path, self.root)

    def _copy_checkout(self) -> None:
        """Copy the files that git tracks, and new ones that it does not ignore, with their current contents."""
        listing = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(listing, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            if (CHECKOUT / name).exists():
                there = self.root / PLACE.lstrip("/") / name
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, there, follow_symlinks=False)


@contextmanager
def bare_machine() -> Iterator[BareMachine]:
    folder = Path(tempfile.mkdtemp(prefix="vpntun-bare-"))
    try:
        yield BareMachine(folder / "root")
    finally:
        shutil.rmtree(folder)


def _apart() -> list[str]:
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--"]


def _sources() -> list[tuple[str, str]]:
    """The addresses and releases that apt installs from on the host, the distribution itself before its updates."""
    show = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Identifier: Packages"]
    shown = subprocess.run(show, capture_output=True, text=True, check=False).stdout
    return [(address, release) for address, _, release in (line.partition(" ") for line in shown.splitlines())]


def _pip(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", *arguments],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def _files_of_pip() -> list[Path]:
    return [Path(path) for path in re.findall(r"^\s*(/.*), exists: True$", _pip("debug"), re.MULTILINE)]


def _paths_of_pip() -> list[str]:
    """Files, folders and whole package indexes that pip's settings name, without the distribution's certificates."""
    named = re.findall(r"(?<![:/])(?:file://)?(/[^/\s'\"][^\s'\"]*)", _pip("list"))
    whole = {path.rstrip("/").removesuffix("/simple") for path in named if not path.startswith("/etc/ssl/")}
    return sorted(path for path in whole if os.path.exists(path))


def _copy(path: Path, root: Path) -> None:
    there = root / str(path).lstrip("/")
    there.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, there, dirs_exist_ok=True)
    elif path.exists():
        shutil.copy(path, there)
