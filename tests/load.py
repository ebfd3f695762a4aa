"""Measurement of the memory, processor time and delays that many peers cost a server. Needs no root; takes a minute.

    scripts/load [PEERS [ALLOWED_IPS]]     1,000 and 130,000 unless given

The server is this process. The peers are another process, the crowd, so that memory and processor time are the server's
alone. They are connected over the loopback, and every second peer is a plain WireGuard. The crowd reads commands from
its standard input, and prints a line when it is done:

    connect    every member asks for a session
    idle       every member keeps its path open, and gets a new session every two minutes, spread evenly over the time
    talk       every member sends 20 packets, and waits for the answer to each
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.carriers.test_udp_socket import free_port
from tests.many import KEEPALIVE, Crowd, Member, Server, memory, settings_of, write_file
from vpntun.config.file import read_file
from vpntun.core.wireguard.timers import REKEY_TIMEOUT
from vpntun.crypto.session import REKEY_AFTER_TIME
from vpntun.runtime.log import log
from vpntun.runtime.loop import Loop
from vpntun.runtime.schedule import Schedule

ROUNDS = 20
AT_ONCE = 100
"""Members that send at the same time."""
PAYLOAD = bytes(1000)
LONGEST = 100.0
"""Seconds after which a step is given up."""
CHECKOUT = Path(__file__).parents[1]


def main(*words: str) -> None:
    """Measure, or run the crowd."""
    log.disabled = True
    if words[:1] == ("crowd",):
        BusyCrowd(int(words[1]), int(words[2])).serve()
        return
    try:
        peers, allowed = (*map(int, words), *(1000, 130_000)[len(words) :])
    except ValueError:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        measure_peers(peers, Path(folder))
        measure_allowed_ips(peers, allowed // peers, Path(folder))


def print_line(what: str, text: str) -> None:
    """Print one line of figures."""
    print(f"    {what:<12}{text}", flush=True)


def measure_peers(count: int, folder: Path) -> None:
    """Measure a server with many peers, from its start to a reload."""
    port = free_port(2)
    with crowd_of(count, port) as crowd:
        server = BusyServer(count, folder, crowd, port)
        before = memory()

        def each() -> str:
            return f"{(memory() - before) / count:.0f} kB a peer"

        print(f"{count:,} peers")
        took = seconds(server.start)
        print_line("configured", f"in {took:.2f} s, {each()}")

        _, used = server.while_the_crowd("connect")
        server.serve_for(REKEY_TIMEOUT)
        print_line("connected", f"{1000 * used / count:.2f} ms a handshake, {count / used:,.0f} a second; {each()}")

        took, used = server.while_the_crowd("idle")
        print_line("idle", f"{1000 * used / took:.0f} per mille of one processor; {each()}")

        _, used = server.while_the_crowd("talk")
        print_line("talking", f"{1e6 * used / server.answered:.0f} us a packet and its answer; {each()}")

        changed = [replace(server.peers[0], keepalive=7.0), *server.peers[1:]]
        print_line("reload", f"{1000 * seconds(lambda: server.links.change(changed)):.1f} ms, one peer changed")
        lost = count - server.connected(), count * ROUNDS - server.answered, sum(server.all_drops().values())
        if any(lost):
            print_line("but", "{:,} were not connected, {:,} packets did not arrive, {:,} were dropped".format(*lost))
        server.close()


def measure_allowed_ips(count: int, each: int, folder: Path) -> None:
    """Measure the time from a file to the complete route table, and a reload with one peer changed."""
    file = write_file(folder, count, each - 1)
    before = memory()
    print(f"{count * each:,} allowed IPs")
    started = time.perf_counter()
    peers = read_file(file, "many0").peers
    print_line("read", f"in {time.perf_counter() - started:.2f} s")
    server = Server(Loop(), free_port(2), peers, folder)
    took = seconds(server.start)
    print_line("set up", f"in {took:.2f} s; {(memory() - before) / 1024:.0f} MB with their peers")
    started = time.perf_counter()
    again = read_file(file, "many0").peers
    server.links.change([replace(again[0], keepalive=7.0), *again[1:]])
    print_line("reload", f"{time.perf_counter() - started:.2f} s, one peer changed")
    server.close()


def seconds(act: Callable[[], object]) -> float:
    """Return how many seconds a call takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def serve(loop: Loop, schedule: Schedule, condition: Callable[[], object], longest: float = LONGEST) -> None:
    """Serve until the condition holds, for at most `longest` seconds."""
    end = time.monotonic() + longest
    while not condition() and time.monotonic() < end:
        loop.turn(lambda now: min(schedule.deadline(now), end), schedule.handle)


class BusyServer(Server):
    """Server that answers each packet that comes out of its device. `answered`: the number of these packets."""

    def __init__(self, count: int, folder: Path, crowd: subprocess.Popen[str], port: int) -> None:
        super().__init__(Loop(), port, map(settings_of, range(count)), folder)
        self.answered = 0
        self._crowd = crowd

    def serve_for(self, longest: float) -> None:
        """Serve for `longest` seconds."""
        serve(self.loop, self.schedule, lambda: False, longest)

    def while_the_crowd(self, word: str) -> tuple[float, float]:
        """Serve until the crowd has carried out a command; return the seconds and the processor seconds that took."""
        assert self._crowd.stdin is not None
        assert self._crowd.stdout is not None
        self._crowd.stdin.write(word + "\n")
        self._crowd.stdin.flush()
        started, used = time.perf_counter(), time.process_time()
        done: list[str] = []
        self.loop.watch(self._crowd.stdout.fileno(), lambda: done.append(word))
        serve(self.loop, self.schedule, lambda: self._answer() or done)
        self.loop.forget(self._crowd.stdout.fileno())
        took, used = time.perf_counter() - started, time.process_time() - used
        if not done or self._crowd.stdout.readline() != f"{word} is done\n":
            raise RuntimeError(f"the crowd did not carry out {word!r}")
        return took, used

    def _answer(self) -> bool:
        packets = self.device.packets
        self.answered += len(packets)
        self.send([(packet[13] << 8) + packet[14] for packet in packets], PAYLOAD)
        self.device.clear()
        return False


class BusyCrowd(Crowd):
    """The crowd's process."""

    def __init__(self, count: int, port: int) -> None:
        super().__init__(Loop(), port, count, keepalive=0)
        self._words: list[str] = []
        self.loop.watch(0, lambda: self._words.append(sys.stdin.readline().strip()))

    def serve(self) -> None:
        """Carry out commands until the input ends."""
        commands = {"": sys.exit, "connect": self.connect, "idle": self.idle, "talk": self.talk}
        while True:
            self._until(lambda: self._words, float("inf"))
            word = self._words.pop(0)
            commands[word]()
            print(f"{word} is done", flush=True)

    def connect(self) -> None:
        """Let every member ask for a session, a few at a time."""
        for number, member in enumerate(self.members, 1):
            member.start()
            self._until(lambda: self.connected() > number - 20, 1.0)  # noqa: B023
        self._until(lambda: self.connected() == len(self.members))

    def idle(self) -> None:
        """Let every member keep its path open once, and as many get a new session as are due in that time."""
        for member in self.members:
            share = member.number / len(self.members)
            self.loop.call_later(share * KEEPALIVE, partial(self._keep_open, member))
            if share * REKEY_AFTER_TIME < KEEPALIVE:
                self.loop.call_later(share * REKEY_AFTER_TIME, partial(self._have_new_session, member))
        self._until(lambda: False, KEEPALIVE)

    def talk(self) -> None:
        """Let members send packets, 100 at a time; all of them are answered before others send."""
        for few in range(0, ROUNDS * len(self.members), AT_ONCE):
            members = [self.members[number % len(self.members)] for number in range(few, few + AT_ONCE)]
            got = sum(member.got for member in members)
            self.send(members, PAYLOAD)
            self._until(lambda: sum(member.got for member in members) == got + AT_ONCE, 1.0)  # noqa: B023

    def _until(self, condition: Callable[[], object], longest: float = LONGEST) -> None:
        serve(self.loop, self.schedule, condition, longest)

    def _keep_open(self, member: Member) -> None:
        member.act(member.peer.keepalive(member.to_server, self.loop.now))

    def _have_new_session(self, member: Member) -> None:
        member.act(member.peer.initiate(member.to_server, self.loop.now))


@contextmanager
def crowd_of(count: int, port: int) -> Iterator[subprocess.Popen[str]]:
    """Run the crowd's process, which ends when its input ends."""
    command = [sys.executable, "-m", "tests.load", "crowd", str(count), str(port)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
        yield crowd


if __name__ == "__main__":
    main(*sys.argv[1:])
