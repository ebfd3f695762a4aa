"""The two machines of the benchmark, which are the namespaces a and b, and all processes that run in them.

1. `hide` gives this process private mounts, with an empty /run and /var/lib. Namespaces, control sockets, keys and
   vpntun's state are invisible to others and disappear with the last process, however the benchmark ends.
2. This module starts every process, and ends it by its id. The processes also end if the benchmark is killed.
3. Every wait has a time limit.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import namespaces
from benchmark.errors import BenchError
from namespaces import NamespaceError, inside

CHECKOUT = Path(__file__).parents[2]
WORK = Path("/run/bench")  # in a private mount, see `hide`
TOOLS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TICKS = os.sysconf("SC_CLK_TCK")


def hide() -> None:
    """Give this process private mounts, so that what it makes is invisible to others and does not stay."""
    with _as_bench_errors():
        namespaces.hide("/run", "/var/lib")
    WORK.mkdir(mode=0o700)


@contextlib.contextmanager
def _as_bench_errors() -> Iterator[None]:
    try:
        yield
    except NamespaceError as failed:
        raise BenchError(str(failed)) from None


class Process:
    """A program that runs in a namespace and whose output goes into a file."""

    def __init__(self, enter: Sequence[str], command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.command = tuple(command)
        self.log_file = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                [*enter, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd=CHECKOUT
            )
        self.pid = self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def tail(self, lines: int = 5) -> str:
        return "\n".join(self.log.splitlines()[-lines:])

    def wait(self, seconds: float) -> int | None:
        """Return the exit status, or None if the process is still running after this time."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """End the process with SIGTERM, and with SIGKILL if it does not react."""
        for wanted in (signal.SIGTERM, signal.SIGKILL):
            if self._popen.poll() is None:
                self._popen.send_signal(wanted)
                self.wait(3)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Stop the process during the body with SIGSTOP."""
        self._popen.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._popen.send_signal(signal.SIGCONT)

    def processor_seconds(self) -> float:
        """User and system time of all threads so far."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_mebibytes(self) -> float:
        resident = re.search(r"^VmRSS:\s*(\d+) kB$", self._proc("status"), re.MULTILINE)
        if not resident:
            raise BenchError(f"process {self.pid} has ended")
        return int(resident[1]) / 1024

    def descriptors(self) -> int:
        """The number of open descriptors."""
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except OSError:
            raise BenchError(f"process {self.pid} has ended") from None

    def wake_ups(self) -> int:
        """The number of voluntary context switches of all threads so far."""
        threads = Path(f"/proc/{self.pid}/task").glob("*")
        said = "\n".join(self._proc(f"task/{each.name}/status") for each in threads)
        return sum(map(int, re.findall(r"^voluntary_ctxt_switches:\s*(\d+)$", said, re.MULTILINE)))

    def _proc(self, name: str) -> str:
        try:
            return Path(f"/proc/{self.pid}/{name}").read_text()
        except OSError:
            raise BenchError(f"process {self.pid} has ended") from None


class Machine:
    """One namespace. `outer` is its address on the path between the two."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.outer = f"10.0.0.{number}"
        self._processes: list[Process] = []
        self._count = 0
        self._enter = [*namespaces.entering(name), "setpriv", "--pdeathsig", "KILL", "--"]
        with _as_bench_errors():
            namespaces.add(name)
        with inside(name):  # no flow may use what an earlier flow has learned
            Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")

    def run(
        self, *command: str | Path, timeout: float = 20, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end. Raises BenchError when it fails or takes too long."""
        try:
            done = subprocess.run(
                [*self._enter, *map(str, command)],
                check=False,
                capture_output=True,
                text=True,
                timeout=timeout,
                input=stdin or "",
                env=_environment(),
                cwd=CHECKOUT,
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"{command[0]} did not end within {timeout:.0f} s") from None
        if check and done.returncode != 0:
            raise BenchError(f"{' '.join(map(str, command))}: status {done.returncode}: {_last_words(done)}")
        return done

    def start(self, *command: str | Path, env: Mapping[str, str] | None = None) -> Process:
        """Start a program, to be ended by `Process.stop` or by `close`."""
        self._count += 1
        log = WORK / f"{self.name}{self._count}-{Path(command[0]).name}.log"
        process = Process(self._enter, [*map(str, command)], log, {**_environment(), **(env or {})})
        self._processes.append(process)
        return process

    def sent_bytes(self, device: str) -> int:
        """The bytes that a device has sent so far, including Ethernet headers."""
        with inside(self.name):
            counters = Path("/proc/thread-self/net/dev").read_text()
        found = re.search(rf"^ *{device}:(.*)$", counters, re.MULTILINE)
        if not found:
            raise BenchError(f"{self.name} has no device {device}")
        return int(found[1].split()[8])

    def listens(self, port: int) -> bool:
        """Whether a TCP socket listens on this port."""
        with inside(self.name):
            sockets = "".join(Path(f"/proc/thread-self/net/{name}").read_text() for name in ("tcp", "tcp6"))
        return re.search(rf":{port:04X} \S+ 0A ", sockets) is not None

    def ip(self, *arguments: str | Path) -> None:
        with _as_bench_errors():
            namespaces.ip("-n", self.name, *map(str, arguments))

    def cable(self, device: str, other: Machine) -> None:
        """Join both machines by a veth pair, which is down at first. Both ends have this name."""
        with _as_bench_errors():
            namespaces.cable(self.name, device, other.name, device)

    def forget(self, process: Process) -> None:
        """Stop a process that is no longer needed, and remove its log."""
        process.stop()
        process.log_file.unlink(missing_ok=True)
        self._processes.remove(process)

    def close(self) -> None:
        for process in self._processes:
            process.stop()
        with _as_bench_errors():
            namespaces.remove(self.name)


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    with contextlib.ExitStack() as stack:
        a = Machine("a", 1)
        stack.callback(a.close)
        b = Machine("b", 2)
        stack.callback(b.close)
        yield a, b


def _environment() -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**env, "PATH": TOOLS, "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C"}


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    return " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
