"""Tunnels of TAP devices: tap11 of the client in a, tap3 of the server in b, and what tests do with their frames."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.netns.lab import Daemon, Lab, Machine, until
from tests.wire.packets import LOCAL_EXPERIMENT
from tests.wire.packets import frame as frame  # exported: most tests that import this file make some

OURS, THEIRS = "tap11", "tap3"
EVERYBODY = b"\xff" * 6


def start_taps(
    lab: Lab, *both: str | Path, server: Sequence[str | Path] = (), client: Sequence[str | Path] = ()
) -> tuple[Daemon, Daemon]:
    """Start the two commands of the README with -a, each with the options `both` and its own."""
    there = lab.b.vpntun("-s", "-a", "-i", THEIRS, "-k", lab.key, *both, *server)
    there.wait_for("waiting for the peer")
    here = lab.a.vpntun("-c", lab.b.four, "-a", "-i", OURS, "-k", lab.key, *both, *client)
    here.wait_for("connected to")
    return there, here


def drops(machine: Machine, interface: str) -> Counter[str]:
    """What a tunnel has dropped, by reason, with what it counts for its only peer."""
    status = machine.status(interface)
    [peer] = status["peers"]
    return Counter(status["drops"]) + Counter(peer["drops"])


def mac(machine: Machine, device: str) -> bytes:
    """A device's MAC address."""
    return bytes.fromhex(machine.run("cat", f"/sys/class/net/{device}/address").stdout.replace(":", ""))


def link_local(machine: Machine, device: str) -> str:
    """A device's IPv6 link-local address, once the kernel has made it."""
    found: list[str] = []

    def look() -> bool:
        shown = machine.run("ip", "-json", "-6", "address", "show", "dev", device, "scope", "link").stdout
        entries = [entry for link in json.loads(shown) for entry in link.get("addr_info", [])]
        found[:] = [entry["local"] for entry in entries if "local" in entry]  # ip leaves {} for each that it hides
        return bool(found)

    assert until(look, 5), f"{device} in {machine.name} has no link-local address"
    return found[0]


def send(machine: Machine, device: str, *frames: bytes) -> None:
    """Put frames on a device as they are."""
    machine.run(sys.executable, "-m", "tests.netns.frames", "send", device, *(each.hex() for each in frames))


def storm(machine: Machine, device: str, repeated: bytes, count: int, rate: int) -> Daemon:
    """Begin to put the same frame on a device `count` times, `rate` times a second."""
    command = [sys.executable, "-m", "tests.netns.frames", "storm", device, repeated.hex(), str(count), str(rate)]
    started = machine.popen(*command)
    started.wait_for("ready")
    return started


class Watcher:
    """What arrives on a device, from now on: of one EtherType, or all with None."""

    def __init__(self, machine: Machine, device: str, kind: int | None = LOCAL_EXPERIMENT) -> None:
        chosen = [] if kind is None else [f"{kind:04x}"]
        self._program = machine.popen(sys.executable, "-m", "tests.netns.frames", "watch", device, *chosen)
        self._program.wait_for("ready")

    def frames(self) -> list[bytes]:
        """What has arrived so far."""
        lines = self._program.log.rpartition("\n")[0].splitlines()
        return [bytes.fromhex(line) for line in lines[1:]]

    def saw(self, expected: bytes, seconds: float = 5) -> bool:
        """Wait until this frame has arrived; False if it does not within this many seconds."""
        return until(lambda: expected in self.frames(), seconds)

    def stop(self) -> list[bytes]:
        """End the watch, and return what has arrived."""
        self._program.process.terminate()
        self._program.process.wait()
        return self.frames()
