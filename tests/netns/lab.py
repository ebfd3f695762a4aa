"""Two network namespaces, `a` and `b`, joined by a veth pair, in which tests run the real program.

    a  10.0.0.1/24  fd01::1/64  veth0 ======== veth0  10.0.0.2/24  fd01::2/64  b

1. The names of namespaces contain the process id of the test run and a count. `Lab.close` ends every process in the
   namespaces and removes them; `sweep` removes those of test runs that were killed. Processes in namespaces of their
   own, such as the program of a run whose parent was killed, are known by their environment (leftovers.py).
2. Waits poll instead of sleeping for a fixed time. Each has a limit and says what it waited for.
3. A failed wait shows the logs of all daemons.
4. A test fails if a daemon logged an internal error anywhere in the lab's folder, unless the test expected it
   (`Daemon.expects_bugs`).
5. Each machine has its own copy of the folders that programs keep state in (`STATE`), within the lab's folder. So no
   lab sees the state of another one.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import namespaces
from namespaces import NamespaceError
from namespaces import until as until  # exported: most tests poll
from tests.netns.leftovers import MARK, end_processes
from vpntun.config.keyfile import create_shared
from vpntun.crypto.keys import KeyPair, format_key

CHECKOUT = Path(__file__).parents[2]
TRANSFER = CHECKOUT / "scripts" / "transfer"
STATE = (Path("/run/vpntun"), Path("/var/lib/vpntun"), Path("/run/wireguard"))
PORT = 55555
NOBODY = 65534
STARTED = "this end "  # in the line that the program logs once its device is up
STATELESS = frozenset({"ip", "ping", "ss", "sysctl"})
"""Commands that keep nothing in `STATE`: three mounts fewer for each of the thousands that a test run starts."""

_counter = itertools.count()


def why_not() -> str | None:
    """Return the reason why no lab can be built here, or None."""
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
    try:
        namespaces.add(probe)
    except NamespaceError as refused:
        return f"no network namespace can be made: {refused}"
    namespaces.remove(probe)
    return None


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
        """Wait until the log contains the text at least `count` times."""
        until(lambda: self.log.count(text) >= count or not self.running, seconds)
        assert self.log.count(text) >= count, f"no {text!r} within {seconds} s from {self}"

    def wait(self, seconds: float = 10) -> int:
        """Wait for the process to end by itself, and return its exit status."""
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
        """Return the command line that runs a command in this namespace, as `user` if one is given.

        Each path in `binds` is bind-mounted over the path that is its key. `ip netns exec` gives each command its own
        mount namespace, so the binds are invisible elsewhere.
        """
        if command[0] in STATELESS and user is None and not binds:
            return ["ip", "netns", "exec", self.name, *map(str, command)]
        prelude = [f"export {MARK}={self.lab.a.name}", *(_open_to_all() if user is not None else ())]
        binds = {**self._state, **(binds or {})}
        for target, source in binds.items():
            make, bind = f"mkdir -p '{target}'", f"mount --bind '{source}' '{target}'"
            # Another test run that ends removes a folder that is empty, even now.
            prelude.append(f"test -e '{target}' || {make}; {bind} 2>/dev/null || {{ {make}; {bind}; }}")
        enter = [*namespaces.entering(self.name), "sh", "-ec", "\n".join([*prelude, 'exec "$@"']), "sh"]
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
        """Start vpntun; `wait_for(STARTED)` returns once its device is up."""
        return self.popen(sys.executable, "-m", "vpntun", *arguments, env=env, user=user, binds=binds)

    def ask(self, *arguments: str | Path) -> tuple[int, str]:
        """Run vpntun to its end; return its exit status and its output."""
        done = self.run(sys.executable, "-m", "vpntun", *arguments, check=False)
        return done.returncode, done.stdout + done.stderr

    def status(self, interface: str) -> dict[str, Any]:
        """The status of root's tunnel, from its control socket: without a process, whose start takes half a second.

        Unlike `vpntun show --json`, this does not ask the peers first whether data arrives.
        """
        folder = os.open(self._state["/run/vpntun"], os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX) as connected:
                connected.settimeout(10)
                connected.connect(f"/proc/self/fd/{folder}/{interface}.sock")  # the path itself can be too long
                http = HTTPConnection("vpntun")
                http.sock = connected
                http.request("GET", "/v1/status")
                status: dict[str, Any] = json.loads(http.getresponse().read())
                return status
        finally:
            os.close(folder)

    def addresses(self, device: str) -> list[str]:
        """The addresses of a device with their prefix lengths, IPv4 first, except the kernel's link-local one."""
        shown = self.run("ip", "-json", "address", "show", "dev", device, check=False).stdout or "[]"
        return [
            f"{entry['local']}/{entry['prefixlen']}"
            for link in json.loads(shown)
            for entry in link.get("addr_info", [])
            if entry["scope"] != "link"
        ]

    def address_of(self, device: str, version: int = 4) -> str:
        """The device's first address of this IP version."""
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
            namespaces.add(machine.name)
        namespaces.cable(self.a.name, "veth0", self.b.name, "veth0")
        for machine in self.machines:
            namespaces.up(machine.name, "veth0", f"{machine.four}/24", f"{machine.six}/64")

    def add(self, letter: str, four: str, six: str) -> Machine:
        """Add a machine, c to h. The test connects it with `cable`."""
        machine = Machine(self, self.a.name[:-1] + letter, four, six)
        self.machines += (machine,)
        namespaces.add(machine.name)
        return machine

    def cable(self, one: Machine, its: str, other: Machine, others: str) -> None:
        """Join two machines by a veth pair and set both devices up."""
        namespaces.cable(one.name, its, other.name, others)
        namespaces.up(one.name, its)
        namespaces.up(other.name, others)

    def close(self) -> None:
        for machine in self.machines:
            namespaces.remove(machine.name)
        until(lambda: not end_processes(lambda name: name == self.a.name), 10)
        for daemon in self.daemons:
            daemon.process.wait()
        for home in self._homes:
            shutil.rmtree(home)
        expected = {daemon.path for daemon in self.daemons if daemon.expects_bugs}
        logs = {path for path in self.folder.rglob("*") if path.is_file() and "internal error, " in _text(path)}
        assert logs <= expected, f"internal errors were logged: {logs - expected}\n{self.logs()}"

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
        """Make a folder that an ordinary user owns and can reach; pytest's folders are closed to other users."""
        home = Path(tempfile.mkdtemp(prefix=f"{self.a.name}-"))
        self._homes.append(home)
        os.chown(home, user, user)
        return home

    def logs(self) -> str:
        return "\n".join(map(str, self.daemons))

    def ping(self, machine: Machine, address: str, within: float = 5, size: int = 56) -> float:
        """Ping until the first answer; return the seconds that it took."""
        started = time.monotonic()
        command = ["ping", "-n", "-c1", "-i0.1", f"-s{size}", address]
        while (spent := time.monotonic() - started) < within:
            # With a deadline (-w), -c1 counts answers: ping keeps sending until an answer or an error arrives.
            if machine.run(*command, f"-w{max(1, round(within - spent))}", check=False, timeout=60).returncode == 0:
                spent = time.monotonic() - started
                if spent <= within:
                    return spent
            else:
                time.sleep(0.02)
        raise AssertionError(f"{address} has not answered {machine.name} within {within} s\n{self.logs()}")

    def no_ping(self, machine: Machine, address: str, seconds: float = 1) -> None:
        """Ping for this many seconds and assert that nothing answers."""
        done = machine.run("ping", "-n", "-i0.1", f"-w{seconds:.0f}", address, check=False)
        assert done.returncode != 0, f"{address} has answered {machine.name}\n{self.logs()}"

    def transfer(
        self, nbytes: int, to: str, source: Machine | None = None, port: int = 5000, sink: Machine | None = None
    ) -> Transfer:
        """Send random bytes over TCP to an address of another machine, and compare the checksums of both ends."""
        source = source or self.a
        sink = sink or (self.a if source is self.b else self.b)
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
        """Drop incoming UDP or TCP packets of this port silently on all machines."""
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
    namespaces.add(probe)
    try:
        for variant in ("", "-nft", "-legacy"):
            tools = (f"iptables{variant}", f"ip6tables{variant}")
            with contextlib.suppress(subprocess.CalledProcessError, FileNotFoundError):
                for tool in tools:
                    rule = [tool, "-A", "INPUT", "-p", "udp", "--dport", "1", "-j", "DROP"]
                    subprocess.run([*namespaces.entering(probe), *rule], check=True, capture_output=True)
                return tools
    finally:
        namespaces.remove(probe)
    raise AssertionError("neither variant of iptables works with this kernel")


@contextlib.contextmanager
def state_folders() -> Iterator[None]:
    """Make the folders of `STATE`, which the labs bind over; remove those that are empty at the end."""
    for path in STATE:
        path.mkdir(mode=0o700, exist_ok=True)
    yield
    remove_state_folders()


def remove_state_folders() -> None:
    """Remove the folders of `STATE` that are empty, unless another worker of this run or an outer one may use them.

    The kernel detaches what is mounted on a removed folder, in all mount namespaces.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    for path in STATE:
        with contextlib.suppress(OSError):
            path.rmdir()


def _text(path: Path) -> str:
    """Return the first MiB of a file, which is enough to recognise a log."""
    with path.open(errors="replace") as file:
        return file.read(1 << 20)


def _open_to_all() -> Iterator[str]:
    """Shell lines that give an ordinary user access to everything the tests run, within the current mount namespace.

    They make a TUN node of mode 0666, and open the trees that contain Python and the program if these are in a home
    folder that is closed to others.
    """
    yield "mount -t tmpfs tmpfs /mnt"
    yield "mknod -m 0666 /mnt/tun c 10 200"
    yield "mount --bind /mnt/tun /dev/net/tun"
    for number, (closed, trees) in enumerate(_closed_trees().items()):
        for index, tree in enumerate(trees):
            yield f"mkdir -p /mnt/{number}.{index}; mount --bind '{tree}' /mnt/{number}.{index}"
        yield f"mount -t tmpfs -o mode=0755 tmpfs '{closed}'"
        for index, tree in enumerate(trees):
            yield f"mkdir -p '{tree}'; mount --bind /mnt/{number}.{index} '{tree}'"


def _closed_trees() -> dict[Path, list[Path]]:
    """The trees that an ordinary user needs and cannot enter, by the topmost folder that is closed to them."""
    closed: dict[Path, list[Path]] = {}
    for tree in dict.fromkeys(Path(name).resolve() for name in (CHECKOUT, sys.prefix, sys.base_prefix)):
        for folder in reversed([tree, *tree.parents]):
            if not folder.stat().st_mode & 0o001:
                closed.setdefault(folder, []).append(tree)
                break
    return closed


def start_server(lab: Lab, *options: str | Path) -> Daemon:
    """Start the README's first command in b, on tun3, with more options."""
    server = lab.b.vpntun("-s", "-i", "tun3", "-k", lab.key, *options)
    server.wait_for(STARTED)
    return server


def start_client(lab: Lab, *options: str | Path, host: str | None = None) -> Daemon:
    """Start the README's second command in a, on tun11, with more options."""
    client = lab.a.vpntun("-c", host or lab.b.four, "-i", "tun11", "-k", lab.key, *options)
    client.wait_for(STARTED)
    return client


def start_pair(
    lab: Lab, *both: str | Path, server: Sequence[str | Path] = (), client: Sequence[str | Path] = ()
) -> tuple[Daemon, Daemon]:
    """Start the server, then the client, each with the options `both` and its own."""
    return start_server(lab, *both, *server), start_client(lab, *both, *client)


def start_client_and_ping(lab: Lab, address: str, *options: str | Path, within: float) -> Daemon:
    """Start a client and ping through it within this many seconds; up to five clients are tried.

    The limit is so short that other work of a busy machine may exceed it.
    """
    for _ in range(5):
        started = time.monotonic()
        client = start_client(lab, *options)
        lab.ping(lab.a, address, within=10)
        if time.monotonic() - started <= within:
            return client
        assert client.stop() == 0
    raise AssertionError(f"{address} has not answered a fresh client within {within} s, five times\n{lab.logs()}")


def memory(daemon: Daemon) -> int:
    """Return the process's resident memory in bytes."""
    return int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * 4096


def far(lab: Lab, version: int = 4) -> str:
    """The server's address in the tunnel."""
    return lab.b.address_of("tun3", version)
