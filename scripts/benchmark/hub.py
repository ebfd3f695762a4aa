"""A hub with two links. One of them is measured; the other, over TCP, is left alone, or held blocked meanwhile.

    b   the hub: `vpntun up` with two peers
    a   the peer that is measured, over UDP, and beside it the other one, over TCP

Held blocked: the other peer's process is stopped, so that it reads nothing any more, and b goes on sending to it. What
the kernels keep of that is full before anything is measured, and the hub's own queue for that link is full to the end,
which the hub is asked. TCP gives a connection up after 15 s of this, so no load may take as long.
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
RATE = 1000  # datagrams a second that are sent to it, 11 Mbit/s


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
    """The other link takes nothing, and is sent to all the time."""
    former = _dropped(_wait(site, _takes_all, "has not come back"))
    process = next(process for _, process in site.processes if f"{_device(site, OTHER)}.conf" in process.command[-1])
    with process.held(), offered(site.b, _address_of_other(site), RATE):
        full = _dropped(_wait(site, lambda other: _dropped(other) > former, "takes all that is sent to it"))
        yield
        after = _ask(site)
        if after["carrier"] != "tcp" or not after["queue"]["packets"] or _dropped(after) == full:
            raise BenchError(f"{site.name}'s other link was not blocked all the time: {after}")


def _takes_all(other: dict[str, Any]) -> bool:
    return other["state"] == "connected" and not other["queue"]["packets"]


def _dropped(other: dict[str, Any]) -> int:
    """How many packets had no room in its queue so far."""
    return int(other["drops"].get("queue full", 0))


def _wait(site: Site, holds: Callable[[dict[str, Any]], bool], otherwise: str) -> dict[str, Any]:
    """What the hub says of the other link once that holds."""
    said: dict[str, Any] = {}

    def asked() -> bool:
        said.update(_ask(site))
        return holds(said)

    if not until(asked, 20, 0.1):
        raise BenchError(f"{site.name}'s other link {otherwise}: {said}")
    return said


def _ask(site: Site) -> dict[str, Any]:
    """What the hub says of the other link."""
    done = site.b.run(*VPNTUN, "show", _device(site, "hub"), "--json", check=False)
    peers = json.loads(done.stdout)["peers"] if done.returncode == 0 else []
    return next((peer for peer in peers if peer["name"] == OTHER), {"state": "not there"})


def _device(site: Site, name: str) -> str:
    return {"hub": site.device(site.b), "measured": site.device(site.a)}.get(name) or f"{site.device(site.a)}-other"


def _address_of_other(site: Site) -> str:
    return f"10.10.{site.number}.3"


HUBS = (
    Subject("hub", _hub, hub=True),
    Subject("hub-blocked", _hub, hub=True, meanwhile=_other_blocked),
)
