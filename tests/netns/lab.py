"""Two machines on one: network namespaces `a` and `b` joined by a veth pair, with the real program in them.

    a  10.0.0.1/24  fd01::1/64  veth0 ======== veth0  10.0.0.2/24  fd01::2/64  b

1. Names carry the process id of the test run, and a count. `Lab.close` ends every process in both namespaces and
   removes them; `sweep` does so for runs that were killed before they could.
2. Nothing sleeps for a fixed time: what takes a while is polled, and each wait has an end and says what it waited for.
3. A failed wait shows the logs of all daemons.
4. A daemon that has survived a bug fails the test, unless the test expected that (`Daemon.expects_bugs`), wherever in
   the lab's folder it logs.
5. What programs keep on a machine (`STATE`) they keep in a folder of the lab's, one for each machine: no lab meets
   what another has left, or is just removing.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vpntun.config.keyfile import create_shared
from vpntun.crypto.keys import KeyPair, format_key

CHECKOUT = Path(__file__).parents[2]
TRANSFER = CHECKOUT / "scripts" / "transfer"
NETNS = Path("/run/netns")
STATE = (Path("/run/vpntun"), Path("/var/lib/vpntun"), Path("/run/wireguard"))
PORT = 55555
NOBODY = 65534
STARTED = "this end "  # what the program says once its device is up
STATELESS = frozenset({"ip", "ping", "ss", "sysctl"})
"""Commands that keep nothing in `STATE`: three mounts fewer for each of the thousands that a test run starts."""

_counter = itertools.count()


def why_not() -> str | None:
    """The reason why no lab can be built here, or None."""
    if os.geteuid() != 0:
        return "not root: network namespaces and TUN devices need it"
    for tool in ("ip", "ping", "iptables", "ip6tables", "setpriv", "sysctl"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as refused:
        return f"/dev/net/tun cannot be used: {refused.strerror}"
    probe = f"vt{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"no network namespace can be made: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return None


def until(condition: Callable[[], bool], seconds: float, interval: float = 0.02) -> bool:
    """Polls until the condition holds; False when it has not within so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(interval)
    return True


class Daemon:
    """A running process whose standard output and error go into one file."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.path = log
        self.command = command
        self.expects_bugs = False
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd=CHECKOUT
            )

    @property
    def log(self) -> str:
        return self.path.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait_for(self, text: str, seconds: float = 10, count: int = 1) -> None:
        """Returns once the text stands in the log so many times."""
        until(lambda: self.log.count(text) >= count or not self.running, seconds)
        assert self.log.count(text) >= count, f"no {text!r} within {seconds} s from {self}"

    def wait(self, seconds: float = 10) -> int:
        """The exit status of a process that ends by itself."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s: {self}") from None

    def stop(self, seconds: float = 10) -> int:
        self.process.terminate()
        return self.wait(seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __str__(self) -> str:
        status = "running" if self.running else f"status {self.process.returncode}"
        return f"{' '.join(self.command)} ({status})\n{self.log}"


class Machine:
    """One namespace."""

    def __init__(self, lab: Lab, name: str, four: str, six: str) -> None:
        self.lab, self.name, self.four, self.six = lab, name, four, six
        self._state = {str(path): lab.folder / f"{name}{str(path).replace('/', '-')}" for path in STATE}
        for folder in self._state.values():
            folder.mkdir()

    def enter(
        self, command: Sequence[str | Path], user: str | None = None, binds: Mapping[str, Path] | None = None
    ) -> list[str]:
        """The command line that runs a command in here, with folders bound over others, as an ordinary user if asked.

        `ip netns exec` gives each command a mount namespace of its own, so that no bind is seen elsewhere.
        """
        if command[0] in STATELESS and user is None and not binds:
            return ["ip", "netns", "exec", self.name, *map(str, command)]
        prelude = list(_open_to_all()) if user is not None else []
        binds = {**self._state, **(binds or {})}
        for target, source in binds.items():
            make, bind = f"mkdir -p '{target}'", f"mount --bind '{source}' '{target}'"
            # Another test run that ends removes a folder that is empty, even now.
            prelude.append(f"test -e '{target}' || {make}; {bind} 2>/dev/null || {{ {make}; {bind}; }}")
        enter = ["ip", "netns", "exec", self.name, "sh", "-ec", "\n".join([*prelude, 'exec "$@"']), "sh"]
        if user is not None:
            enter += ["setpriv", f"--reuid={user}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", "--"]
        return [*enter, *map(str, command)]

    def run(
        self,
        *command: str | Path,
        check: bool = True,
        timeout: float = 30,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        binds: Mapping[str, Path] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.enter(command, user, binds),
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            cwd=CHECKOUT,
            input="" if input is None else input,
        )
        assert not check or done.returncode == 0, f"status {done.returncode}: {done}"
        return done

    def popen(
        self,
        *command: str | Path,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        binds: Mapping[str, Path] | None = None,
    ) -> Daemon:
        log = self.lab.folder / f"{len(self.lab.daemons)}-{self.name}.log"
        daemon = Daemon(self.enter(command, user, binds), log, {**os.environ, **(env or {})})
        self.lab.daemons.append(daemon)
        return daemon

    def vpntun(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        binds: Mapping[str, Path] | None = None,
    ) -> Daemon:
        """The program, started; `wait_for(STARTED)` returns when its device is up."""
        return self.popen(sys.executable, "-m", "vpntun", *arguments, env=env, user=user, binds=binds)

    def ask(self, *arguments: str | Path) -> tuple[int, str]:
        """The program, run to its end: its status, and what it has said."""
        done = self.run(sys.executable, "-m", "vpntun", *arguments, check=False)
        return done.returncode, done.stdout + done.stderr

    def addresses(self, device: str) -> list[str]:
        """The addresses with prefix of a device, v4 before v6, without the link-local one that the kernel adds."""
        shown = self.run("ip", "-json", "address", "show", "dev", device, check=False).stdout or "[]"
        return [
            f"{entry['local']}/{entry['prefixlen']}"
            for link in json.loads(shown)
            for entry in link.get("addr_info", [])
            if entry["scope"] != "link"
        ]

    def address_of(self, device: str, version: int = 4) -> str:
        """The first address of this version that a device has."""
        for address in self.addresses(device):
            if (":" in address) == (version == 6):
                return address.partition("/")[0]
        raise AssertionError(f"{device} in {self.name} has no IPv{version} address")

    def has_device(self, device: str) -> bool:
        return self.run("ip", "link", "show", "dev", device, check=False).returncode == 0

    def listens(self, port: int) -> bool:
        return f":{port} " in self.run("ss", "--tcp", "--listening", "--numeric").stdout


class Transfer(NamedTuple):
    nbytes: int
    seconds: float

    @property
    def mbits(self) -> float:
        return self.nbytes * 8 / self.seconds / 1e6


class Lab:
    def __init__(self, folder: Path) -> None:
        number = next(_counter)
        self.folder = folder
        self.daemons: list[Daemon] = []
        self._homes: list[Path] = []
        self.a = Machine(self, f"vt{os.getpid()}-{number}a", "10.0.0.1", "fd01::1")
        self.b = Machine(self, f"vt{os.getpid()}-{number}b", "10.0.0.2", "fd01::2")
        self.machines: tuple[Machine, ...] = (self.a, self.b)
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        for machine in self.machines:
            _ip("netns", "add", machine.name)
        _ip(*f"link add veth0 netns {self.a.name} type veth peer name veth0 netns {self.b.name}".split())
        for machine in self.machines:
            _ip("-n", machine.name, "link", "set", "lo", "up")
            _ip("-n", machine.name, "address", "add", f"{machine.four}/24", "dev", "veth0")
            _ip("-n", machine.name, "address", "add", f"{machine.six}/64", "dev", "veth0", "nodad")
            _ip("-n", machine.name, "link", "set", "veth0", "up")

    def add(self, letter: str, four: str, six: str) -> Machine:
        """One more machine, c or d, whose cables the test lays."""
        machine = Machine(self, self.a.name[:-1] + letter, four, six)
        self.machines += (machine,)
        _ip("netns", "add", machine.name)
        _ip("-n", machine.name, "link", "set", "lo", "up")
        return machine

    def cable(self, one: Machine, its: str, other: Machine, others: str) -> None:
        """A veth pair between two machines, up."""
        _ip(*f"link add {its} netns {one.name} type veth peer name {others} netns {other.name}".split())
        _ip("-n", one.name, "link", "set", its, "up")
        _ip("-n", other.name, "link", "set", others, "up")

    def close(self) -> None:
        for machine in self.machines:
            _remove(machine.name)
        for daemon in self.daemons:
            daemon.process.wait()
        for home in self._homes:
            shutil.rmtree(home)
        expected = {daemon.path for daemon in self.daemons if daemon.expects_bugs}
        logs = {path for path in self.folder.rglob("*") if path.is_file() and "internal error, " in _text(path)}
        assert logs <= expected, f"a bug was survived: {logs - expected}\n{self.logs()}"

    @functools.cached_property
    def key(self) -> Path:
        """A shared key for both ends."""
        return self.new_key("shared.key")

    def new_key(self, name: str) -> Path:
        path = self.folder / name
        create_shared(path)
        return path

    def new_identity(self, name: str) -> tuple[Path, str]:
        """A file with a private key, and the public key that belongs to it."""
        path, keys = self.folder / name, KeyPair.generate()
        path.touch(mode=0o600)
        path.write_text(format_key(keys.private))
        return path, format_key(keys.public)

    def home(self, user: int = NOBODY) -> Path:
        """A folder of an ordinary user, where they can reach it; pytest's own are for its user alone."""
        home = Path(tempfile.mkdtemp(prefix=f"{self.a.name}-"))
        self._homes.append(home)
        os.chown(home, user, user)
        return home

    def logs(self) -> str:
        return "\n".join(map(str, self.daemons))

    def ping(self, machine: Machine, address: str, within: float = 5, size: int = 56) -> float:
        """Pings until the first answer; returns how many seconds that took."""
        started = time.monotonic()
        command = ["ping", "-n", "-c1", "-i0.1", f"-s{size}", address]
        while (spent := time.monotonic() - started) < within:
            # With a deadline, -c1 means one answer: ping goes on asking until it comes or an error does.
            if machine.run(*command, f"-w{max(1, round(within - spent))}", check=False, timeout=60).returncode == 0:
                spent = time.monotonic() - started
                if spent <= within:
                    return spent
            else:
                time.sleep(0.02)
        raise AssertionError(f"{address} has not answered {machine.name} within {within} s\n{self.logs()}")

    def no_ping(self, machine: Machine, address: str, seconds: float = 1) -> None:
        """Pings for so long and finds that nothing answers."""
        done = machine.run("ping", "-n", "-i0.1", f"-w{seconds:.0f}", address, check=False)
        assert done.returncode != 0, f"{address} has answered {machine.name}\n{self.logs()}"

    def transfer(self, nbytes: int, to: str, source: Machine | None = None, port: int = 5000) -> Transfer:
        """Sends random bytes over TCP to an address of the other machine, checksummed at both ends."""
        source = source or self.a
        sink = self.a if source is self.b else self.b
        receiver = sink.popen("sh", "-c", f'exec "$0" "$1" receive {port} >/dev/null', sys.executable, TRANSFER)
        receiver.wait_for("ready")
        feed = f'head -c {nbytes} /dev/urandom | "$0" "$1" send {to} {port}'
        sent = source.run("sh", "-c", feed, sys.executable, TRANSFER, check=False, timeout=100)
        assert sent.returncode == 0, f"{sent.stderr}\n{self.logs()}"
        assert receiver.wait() == 0, self.logs()
        total, seconds, digest = sent.stderr.split()
        assert (int(total), digest) == (nbytes, receiver.log.split()[-1]), self.logs()
        return Transfer(nbytes, float(seconds))

    def block(self, protocol: str, port: int = PORT) -> None:
        """A firewall that drops UDP or TCP of a port as it comes in, on both machines, so that no sender is told."""
        self._filter("-A", protocol, port)

    def unblock(self, protocol: str, port: int = PORT) -> None:
        self._filter("-D", protocol, port)

    def _filter(self, action: str, protocol: str, port: int) -> None:
        for machine in self.machines:
            for tool in firewall():
                for side in ("--dport", "--sport"):
                    machine.run(tool, "-w", action, "INPUT", "-p", protocol, side, str(port), "-j", "DROP")


@functools.cache
def firewall() -> tuple[str, str]:
    """The names of iptables and ip6tables in the variant that this kernel supports."""
    probe = f"vt{os.getpid()}-firewall"
    _ip("netns", "add", probe)
    try:
        for variant in ("", "-nft", "-legacy"):
            tools = (f"iptables{variant}", f"ip6tables{variant}")
            with contextlib.suppress(subprocess.CalledProcessError, FileNotFoundError):
                for tool in tools:
                    rule = [tool, "-A", "INPUT", "-p", "udp", "--dport", "1", "-j", "DROP"]
                    subprocess.run(["ip", "netns", "exec", probe, *rule], check=True, capture_output=True)
                return tools
    finally:
        _remove(probe)
    raise AssertionError("neither variant of iptables works with this kernel")


@contextlib.contextmanager
def state_folders() -> Iterator[None]:
    """Makes sure that there is something to bind over; the folders that are empty at the end go."""
    for path in STATE:
        path.mkdir(mode=0o700, exist_ok=True)
    yield
    if "PYTEST_XDIST_WORKER" not in os.environ:  # another worker may still use them
        remove_state_folders()


def remove_state_folders() -> None:
    """Leaves no empty folder behind."""
    for path in STATE:
        with contextlib.suppress(OSError):
            path.rmdir()


def sweep() -> None:
    """Removes what test runs have left that were killed: namespaces that carry the id of a process that is no more.

    Workers do so one after the other: what one is just removing, another would fail to remove.
    """
    if not NETNS.exists():
        return
    folder = os.open(NETNS, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        for path in NETNS.glob("vt*-*"):
            named = re.fullmatch(r"vt(\d+)-(\d+[a-d]|probe|firewall)", path.name)
            if named and not Path(f"/proc/{named[1]}").exists():
                _remove(path.name)
    finally:
        os.close(folder)


def _text(path: Path) -> str:
    """The beginning of a file, where a log is."""
    with path.open(errors="replace") as file:
        return file.read(1 << 20)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _remove(namespace: str) -> None:
    if not (NETNS / namespace).exists():
        return

    def none_left() -> bool:
        shown = subprocess.run(["ip", "netns", "pids", namespace], check=True, capture_output=True, text=True)
        for pid in shown.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        return not shown.stdout

    # Killed children of ours stay in the list until they are waited for; that is the lab's business, not an error.
    until(none_left, 1)
    _ip("netns", "del", namespace)


def _open_to_all() -> Iterator[str]:
    """Shell lines that let an ordinary user reach what the tests run, in the mount namespace they are run in.

    A TUN node of mode 0666, and the trees that Python and the program are in, should they lie in somebody's home.
    """
    yield "mount -t tmpfs tmpfs /mnt"
    yield "mknod -m 0666 /mnt/tun c 10 200"
    yield "mount --bind /mnt/tun /dev/net/tun"
    for number, (closed, trees) in enumerate(_behind_closed_doors().items()):
        for index, tree in enumerate(trees):
            yield f"mkdir -p /mnt/{number}.{index}; mount --bind '{tree}' /mnt/{number}.{index}"
        yield f"mount -t tmpfs -o mode=0755 tmpfs '{closed}'"
        for index, tree in enumerate(trees):
            yield f"mkdir -p '{tree}'; mount --bind /mnt/{number}.{index} '{tree}'"


def _behind_closed_doors() -> dict[Path, list[Path]]:
    """The trees an ordinary user needs and cannot enter, by the topmost folder that keeps them out."""
    closed: dict[Path, list[Path]] = {}
    for tree in dict.fromkeys(Path(name).resolve() for name in (CHECKOUT, sys.prefix, sys.base_prefix)):
        for folder in reversed([tree, *tree.parents]):
            if not folder.stat().st_mode & 0o001:
                closed.setdefault(folder, []).append(tree)
                break
    return closed


def start_server(lab: Lab, *options: str | Path) -> Daemon:
    """The README's first command, with more options: in b, on tun3."""
    server = lab.b.vpntun("-s", "-i", "tun3", "-k", lab.key, *options)
    server.wait_for(STARTED)
    return server


def start_client(lab: Lab, *options: str | Path, host: str | None = None) -> Daemon:
    """The README's second command, with more options: in a, on tun11."""
    client = lab.a.vpntun("-c", host or lab.b.four, "-i", "tun11", "-k", lab.key, *options)
    client.wait_for(STARTED)
    return client


def start_pair(
    lab: Lab, *both: str | Path, server: Sequence[str | Path] = (), client: Sequence[str | Path] = ()
) -> tuple[Daemon, Daemon]:
    """Server, then client, with the options of both and those of each."""
    return start_server(lab, *both, *server), start_client(lab, *both, *client)


def start_client_and_ping(lab: Lab, address: str, *options: str | Path, within: float) -> Daemon:
    """A client that is through within so many seconds, at the latest when it is started for the third time.

    What else a busy machine does in such a short time is not this program's.
    """
    for _ in range(3):
        started = time.monotonic()
        client = start_client(lab, *options)
        lab.ping(lab.a, address, within=10)
        if time.monotonic() - started <= within:
            return client
        assert client.stop() == 0
    raise AssertionError(f"{address} has not answered a fresh client within {within} s, three times\n{lab.logs()}")


def memory(daemon: Daemon) -> int:
    """Bytes that it has now."""
    return int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * 4096


def far(lab: Lab, version: int = 4) -> str:
    """The server's address in the tunnel."""
    return lab.b.address_of("tun3", version)
