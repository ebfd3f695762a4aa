"""The subjects of the comparison: the bare path, vpntun in several variants, its bound, and other tunnels.

A subject's function starts both ends in a `Site` and returns once the commands have been given. `Tunnel` then waits for
the first answer to a ping. In tunnel number n, a has the address 10.10.n.1 and calls; b has 10.10.n.2 and serves. The
programs run as their manuals recommend, with their own MTU and without compression. others.py sets up those that are
neither vpntun nor WireGuard.

A subject with "tap" or "switch" in its name carries Ethernet frames between two TAP devices with the addresses above,
without a bridge. The device of vpntun, OpenVPN and tinc keeps the MTU 1500 of an Ethernet, and all three lower the MSS
of TCP inside so that a full frame of a connection fits into one datagram.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.errors import BenchError
from benchmark.machines import TOOLS, WORK, Machine, Process
from namespaces import until
from vpntun.crypto.aead import WHY_NOT_OPENSSL
from vpntun.types import DeviceKind

VPNTUN = (sys.executable, "-m", "vpntun")
BOUND = "scripts.benchmark.bound"
"""Module of the bound (bound.py), found from the checkout, as vpntun is."""
WIREGUARD_GO = "wireguard-go"
TWIN = 100  # added to a tunnel's number for a second tunnel of the same kind
TAP_PATHS = ("veth", "no-offloads")
"""The paths on which TAP is measured beside TUN: what loss does to a flow does not depend on the device."""


@dataclass
class Site:
    """The place of one tunnel: two machines, and a unique number, from which devices, ports and addresses follow."""

    a: Machine
    b: Machine
    number: int
    name: str
    processes: list[tuple[Machine, Process]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        folder = WORK / self.name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    @property
    def port(self) -> int:
        return 40000 + self.number

    def device(self, machine: Machine) -> str:
        """The device at one end. Its control socket has its name, and both ends share /run, so their names differ."""
        return f"t{self.number}{machine.name}"

    def address(self, machine: Machine) -> str:
        return f"10.10.{self.number}.{machine.number}"

    def prefix(self, machine: Machine) -> str:
        return f"{self.address(machine)}/24"

    def other(self, machine: Machine) -> Machine:
        return self.b if machine is self.a else self.a

    def start(self, machine: Machine, *command: str | Path, **env: str) -> Process:
        """Start one end of the tunnel."""
        process = machine.start(*command, env=env)
        self.processes.append((machine, process))
        return process


def _nothing_else(_site: Site) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Subject:
    name: str
    start: Callable[[Site], None]
    needs: Sequence[str] = ()
    quick: bool = True  # measured in a quick run
    only_on: Sequence[str] = ()  # the paths that it is measured on, if it is measured nowhere else
    grid: bool = False  # measured on the grid too
    meanwhile: Callable[[Site], AbstractContextManager[None]] = _nothing_else  # runs beside a load

    def missing(self) -> str | None:
        """The first needed program that is not installed."""
        return next((tool for tool in self.needs if shutil.which(tool, path=TOOLS) is None), None)

    def version(self) -> str | None:
        """The version that the first needed program prints."""
        if not self.needs:
            return None
        command, env = [self.needs[0], "--version"], {"PATH": TOOLS}
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, env=env)
        said = re.search(r"v?\d+\.?\d[\w.~-]*", done.stdout + done.stderr)
        return said[0] if said else None


class Tunnel:
    """A subject running between two machines."""

    def __init__(self, subject: Subject, a: Machine, b: Machine, number: int) -> None:
        self.subject = subject
        self.name = subject.name
        self.bare = subject.name == BARE
        self.site = Site(a, b, number, subject.name)
        self.far = b.outer if self.bare else self.site.address(b)
        self.started = False

    @property
    def processes(self) -> list[Process]:
        return [process for _, process in self.site.processes]

    @property
    def own(self) -> list[Process]:
        """The processes of vpntun if the other end runs another program, otherwise all."""
        own = [process for process in self.processes if process.command[: len(VPNTUN)] == VPNTUN]
        return own or self.processes

    @property
    def running(self) -> bool:
        return self.started and not self._has_ended

    @property
    def _has_ended(self) -> bool:
        return not all(process.running for process in self.processes)

    def start(self) -> None:
        """Start both ends and wait for the first answer. Raises BenchError."""
        self.stop()
        self.subject.start(self.site)
        a = self.site.a

        def answers() -> bool:
            return a.run("ping", "-n", "-c1", "-W1", self.far, check=False).returncode == 0 or self._has_ended

        if not until(answers, 20) or self._has_ended:
            said = self.last_words()
            self.stop()
            raise BenchError(f"no ping gets through {self.name}; its last output\n{said}")
        self.started = True

    def stop(self) -> None:
        self.started = False
        while self.site.processes:
            machine, process = self.site.processes.pop()
            machine.forget(process)

    @contextlib.contextmanager
    def twin(self) -> Iterator[Tunnel]:
        """Run a second tunnel of the same kind between the same machines during the body."""
        site = self.site
        twin = Tunnel(self.subject, site.a, site.b, site.number + TWIN)
        try:
            twin.start()
            yield twin
        finally:
            twin.stop()

    def meanwhile(self) -> AbstractContextManager[None]:
        """The context in which each load runs."""
        return self.subject.meanwhile(self.site)

    def last_words(self) -> str:
        return "\n".join(f"    {line}" for process in self.processes for line in process.tail().splitlines())

    def processor_seconds(self) -> float:
        return sum(process.processor_seconds() for process in self.processes)

    def resident_mebibytes(self) -> float:
        """The resident memory of the bigger of its `own` processes."""
        return max(process.resident_mebibytes() for process in self.own)


BARE = "bare"


def _bare(site: Site) -> None:
    pass


def _program(_machine: Machine) -> Sequence[str | Path]:
    return VPNTUN


def vpntun(
    transport: str,
    program: Callable[[Machine], Sequence[str | Path]] = _program,
    *,
    kind: DeviceKind = "tun",
) -> Callable[[Site], None]:
    """Set up two vpntuns with a shared key. `program` returns the command that starts each, without its arguments."""
    device = ["--tap"] if kind == "tap" else []

    def start(site: Site) -> None:
        key = site.folder / "key"
        if not key.exists():
            site.a.run(*VPNTUN, "keygen", key)
        for machine, role in ((site.b, ["-s"]), (site.a, ["-c", site.b.outer])):
            where = ["-i", site.device(machine), "-p", str(site.port), "--address", site.prefix(machine)]
            site.start(machine, *program(machine), *role, *device, *where, "-k", key, "--transport", transport)

    return start


def _bound(site: Site) -> None:
    """Set up the loop that checks nothing (bound.py)."""
    if WHY_NOT_OPENSSL:
        raise BenchError(f"bound needs the extra 'fast': {WHY_NOT_OPENSSL}")
    site.start(site.b, sys.executable, "-m", BOUND, site.device(site.b), str(site.port))
    if not until(lambda: site.b.listens(site.port), 5):
        raise BenchError("bound.py does not listen")
    site.start(site.a, sys.executable, "-m", BOUND, site.device(site.a), str(site.port), site.b.outer)
    for machine in (site.a, site.b):
        configure(site, machine)


def configure(site: Site, machine: Machine) -> None:
    """Wait for the device, then set the address and the link up, which a program leaves to its operator."""
    if not until(lambda: machine.run("ip", "link", "show", site.device(machine), check=False).returncode == 0, 5):
        raise BenchError(f"{site.name} did not make its device")
    machine.ip("address", "add", site.prefix(machine), "dev", site.device(machine))
    machine.ip("link", "set", site.device(machine), "up")


def wireguard_keys(site: Site, machine: Machine) -> tuple[Path, str]:
    """Return the file of a machine's private key, made on the first call, and the public key."""
    path = site.folder / f"{machine.name}.key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(machine.run("wg", "genkey").stdout)
    return path, machine.run("wg", "pubkey", stdin=path.read_text()).stdout.strip()


def wireguard_go(site: Site, machine: Machine, program: str, *, calls: bool) -> None:
    """Start wireguard-go as one end."""
    other = site.other(machine)
    private, _ = wireguard_keys(site, machine)
    _, public = wireguard_keys(site, other)
    device = f"wg{site.number}{machine.name}"  # unique for both ends, whose control sockets share a folder
    daemon = site.start(machine, program, "-f", device, LOG_LEVEL="error", WG_PROCESS_FOREGROUND="1")
    socket = Path(f"/run/wireguard/{device}.sock")
    if not until(socket.exists, 5):
        raise BenchError(f"wireguard-go did not start: {daemon.tail()}")
    peer = ["peer", public, "allowed-ips", f"{site.address(other)}/32"]
    if calls:
        peer += ["endpoint", f"{other.outer}:{site.port}", "persistent-keepalive", "25"]
    port = [] if calls else ["listen-port", str(site.port)]
    machine.run("wg", "set", device, "private-key", private, *port, *peer)
    machine.ip("address", "add", site.prefix(machine), "dev", device)
    machine.ip("link", "set", device, "up")


def own(wireguard: str = WIREGUARD_GO) -> Sequence[Subject]:
    """The bare path, vpntun, and wireguard-go, whose speed is the aim; `wireguard` is its name on PATH or its path."""

    def wireguard_to_itself(site: Site) -> None:
        wireguard_go(site, site.b, wireguard, calls=False)
        wireguard_go(site, site.a, wireguard, calls=True)

    def vpntun_to_wireguard(site: Site) -> None:
        wireguard_go(site, site.b, wireguard, calls=False)
        private, _ = wireguard_keys(site, site.a)
        _, public = wireguard_keys(site, site.b)
        keys: list[str | Path] = ["--private-key", private, "--peer", public, "--allowed", f"{site.address(site.b)}/32"]
        where = ["-c", site.b.outer, "-p", str(site.port), "-i", site.device(site.a), "--address", site.prefix(site.a)]
        site.start(site.a, *VPNTUN, *where, *keys)

    return (
        Subject(BARE, _bare),
        Subject("vpntun-udp", vpntun("udp"), grid=True),
        Subject("vpntun-tcp", vpntun("tcp"), grid=True),
        Subject("vpntun-tap-udp", vpntun("udp", kind="tap"), quick=False, only_on=TAP_PATHS),
        Subject("vpntun-tap-tcp", vpntun("tcp", kind="tap"), quick=False, only_on=TAP_PATHS),
        Subject("bound", _bound),
        Subject("vpntun-wg", vpntun_to_wireguard, needs=(wireguard, "wg")),
        Subject(WIREGUARD_GO, wireguard_to_itself, needs=(wireguard, "wg"), grid=True),
    )


OWN = own()
