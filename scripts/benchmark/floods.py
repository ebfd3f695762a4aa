"""A server under a flood of handshakes from a thousand addresses, beside one link and a new peer.

    b   the server: `vpntun up` with two peers
    a   the measured peer, over UDP, the flood, and from time to time a new peer, over UDP alone

Three servers of the same kind take turns: one without a flood, one with initiations that fail at mac1, which anybody
can send, and one with initiations that have a valid mac1, for which the sender needs the server's public key. The flood
begins a second before each load and ends with it. It shares the machine's processors with both ends of the link.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmark.errors import BenchError
from benchmark.handshakes import JUNK, SOURCES
from benchmark.machines import Process
from benchmark.readings import read_flood
from benchmark.subjects import VPNTUN, Site, Subject
from namespaces import until

SENDER = "scripts.benchmark.handshakes"
RATE = 5000
LEAST_RATE = 0.9  # of RATE, or else the reading does not count
LEAD = 1.0  # seconds between the beginning of the flood and that of the load
LONGEST_JOIN = 60.0
NEW = "new"


def _start(site: Site) -> None:
    ends = {"server": site.b, "measured": site.a, NEW: site.a}
    private = {name: machine.run(*VPNTUN, "genkey").stdout.strip() for name, machine in ends.items()}
    public = {name: site.a.run(*VPNTUN, "pubkey", stdin=key).stdout.strip() for name, key in private.items()}
    (site.folder / "public").write_text(public["server"])
    addresses = {"server": site.address(site.b), "measured": site.address(site.a), NEW: f"10.10.{site.number}.3"}

    def write(name: str, interface: str, *peers: str) -> None:
        file = _file(site, name)
        file.touch(mode=0o600)
        own = f"[Interface]\nPrivateKey = {private[name]}\nTable = off\n{interface}"
        file.write_text(own + "".join(f"[Peer]\n{peer}" for peer in peers))

    def peer(name: str) -> str:
        return f"Name = {name}\nPublicKey = {public[name]}\nAllowedIPs = {addresses[name]}/32\n"

    called = f"{peer('server')}Endpoint = {site.b.outer}:{site.port}\nTransport = udp\nPersistentKeepalive = 25\n"
    waits = f"ListenPort = {site.port}\n"
    write("server", f"Address = {addresses['server']}/24\n{waits}", peer("measured"), peer(NEW))
    write("measured", f"Address = {addresses['measured']}/24\n", called)
    write(NEW, f"Address = {addresses[NEW]}/32\n", called)
    site.b.ip("route", "replace", str(SOURCES), "via", site.a.outer)
    site.a.ip("route", "replace", "local", str(SOURCES), "dev", "lo")
    for name in ("server", "measured"):
        site.start(ends[name], *VPNTUN, "up", _file(site, name))


@contextlib.contextmanager
def _flooded(site: Site, *, junk: bool) -> Iterator[None]:
    """Send initiations to the server during the body."""
    key = JUNK if junk else (site.folder / "public").read_text()
    sender = site.a.start(sys.executable, "-m", SENDER, site.b.outer, str(site.port), key, str(RATE))
    try:
        if not until(lambda: "ready" in sender.log or not sender.running, 20) or not sender.running:
            raise BenchError(f"the flood has not begun: {sender.tail()}")
        time.sleep(LEAD)
        yield
        sender.stop()
        if (reached := read_flood(sender.log)) < LEAST_RATE * RATE:
            raise BenchError(f"the flood had only {reached:.0f} messages a second: this machine is too busy")
    finally:
        site.a.forget(sender)


def join(site: Site) -> float:
    """Start the new peer; return the seconds until it is connected. Raises BenchError after a minute."""
    begun = time.monotonic()
    process = site.a.start(*VPNTUN, "up", _file(site, NEW))
    try:
        is_in = until(lambda: _is_connected(site) or not process.running, LONGEST_JOIN, 0.1)
        if not process.running or not is_in:
            raise BenchError(f"the new peer did not get in within {LONGEST_JOIN:.0f} s: {process.tail()}")
        return time.monotonic() - begun
    finally:
        site.a.forget(process)


def server_of(site: Site) -> Process:
    """The server's process."""
    return next(process for machine, process in site.processes if machine is site.b)


def _is_connected(site: Site) -> bool:
    done = site.a.run(*VPNTUN, "show", _device(site, NEW), "--json", check=False)
    return done.returncode == 0 and json.loads(done.stdout)["peers"][0]["state"] == "connected"


def _file(site: Site, name: str) -> Path:
    return site.folder / f"{_device(site, name)}.conf"


def _device(site: Site, name: str) -> str:
    return {"server": site.device(site.b), "measured": site.device(site.a)}.get(name) or f"{site.device(site.a)}-{name}"


SERVERS = (
    Subject("server", _start, only_on=["flood"]),
    Subject("server-junk", _start, only_on=["flood"], meanwhile=partial(_flooded, junk=True)),
    Subject("server-mac1", _start, only_on=["flood"], meanwhile=partial(_flooded, junk=False)),
)
