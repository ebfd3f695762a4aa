"""A hub with two links. One link is measured; the other one, over TCP, is idle or blocked meanwhile.

    b   the hub: `vpntun up` with two peers
    a   the measured peer, over UDP, and the other peer, over TCP

To block the other link, its peer's process is stopped, so that it reads nothing, while b keeps sending to it. The
kernels' buffers are full before the measurement begins. The hub's queue for that link is full until the measurement
ends, which its status confirms. TCP closes a connection after 15 s in this state, so each load must be shorter.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from benchmark.errors import BenchError
from benchmark.loads import offered
from benchmark.subjects import VPNTUN, Site, Subject
from namespaces import until

OTHER = "other"
RATE = 1000  # datagrams sent to the other peer each second, 11 Mbit/s


def _hub(site: Site) -> None:
    ends = {"hub": site.b, "measured": site.a, OTHER: site.a}
    private = {name: machine.run(*VPNTUN, "genkey").stdout.strip() for name, machine in ends.items()}
    public = {name: site.a.run(*VPNTUN, "pubkey", stdin=key).stdout.strip() for name, key in private.items()}
    addresses = {"hub": site.address(site.b), "measured": site.address(site.a), OTHER: _address_of_other(site)}

    def start(name: str, interface: str, *peers: str) -> None:
        file = site.folder / f"{_device(site, name)}.conf"
        file.touch(mode=0o600)
        own = f"[Interface]\nPrivateKey = {private[name]}\nTable = off\n{interface}"
        file.write_text(own + "".join(f"[Peer]\n{peer}" for peer in peers))
        site.start(ends[name], *VPNTUN, "up", file)

    def peer(name: str) -> str:
        return f"Name = {name}\nPublicKey = {public[name]}\nAllowedIPs = {addresses[name]}/32\n"

    called = f"{peer('hub')}Endpoint = {site.b.outer}:{site.port}\nPersistentKeepalive = 25\n"
    waits = f"ListenPort = {site.port}\nTransport = auto\n"
    start("hub", f"Address = {addresses['hub']}/24\n{waits}", peer("measured"), peer(OTHER))
    start("measured", f"Address = {addresses['measured']}/24\n", f"{called}Transport = udp\n")
    start(OTHER, f"Address = {addresses[OTHER]}/32\n", f"{called}Transport = tcp\n")
    _wait(site, lambda other: other["state"] == "connected", "has not connected")


@contextlib.contextmanager
def _other_blocked(site: Site) -> Iterator[None]:
    """Block the other link: its peer reads nothing while datagrams are sent to it."""
    former = _dropped(_wait(site, _takes_all, "has not recovered"))
    process = next(process for _, process in site.processes if f"{_device(site, OTHER)}.conf" in process.command[-1])
    with process.held(), offered(site.b, _address_of_other(site), RATE):
        full = _dropped(_wait(site, lambda other: _dropped(other) > former, "accepts everything that is sent to it"))
        yield
        after = _ask(site)
        if after["carrier"] != "tcp" or not after["queue"]["packets"] or _dropped(after) == full:
            raise BenchError(f"{site.name}'s other link was not blocked all the time: {after}")


def _takes_all(other: dict[str, Any]) -> bool:
    return other["state"] == "connected" and not other["queue"]["packets"]


def _dropped(other: dict[str, Any]) -> int:
    """The number of packets dropped so far because the other link's queue was full."""
    return int(other["drops"].get("queue full", 0))


def _wait(site: Site, holds: Callable[[dict[str, Any]], bool], otherwise: str) -> dict[str, Any]:
    """Wait until the hub's status of the other link satisfies a condition, and return the status."""
    said: dict[str, Any] = {}

    def asked() -> bool:
        said.update(_ask(site))
        return holds(said)

    if not until(asked, 20, 0.1):
        raise BenchError(f"{site.name}'s other link {otherwise}: {said}")
    return said


def _ask(site: Site) -> dict[str, Any]:
    """The hub's status of the other link."""
    done = site.b.run(*VPNTUN, "show", _device(site, "hub"), "--json", check=False)
    peers = json.loads(done.stdout)["peers"] if done.returncode == 0 else []
    return next((peer for peer in peers if peer["name"] == OTHER), {"state": "not there"})


def _device(site: Site, name: str) -> str:
    return {"hub": site.device(site.b), "measured": site.device(site.a)}.get(name) or f"{site.device(site.a)}-other"


def _address_of_other(site: Site) -> str:
    return f"10.10.{site.number}.3"


HUBS = (
    Subject("hub", _hub, only_on=["hub"]),
    Subject("hub-blocked", _hub, only_on=["hub"], meanwhile=_other_blocked),
)
