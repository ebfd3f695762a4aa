"""Another machine to be reached: its name, port and keys, and the checks that call it.

    name    its addresses, and how long the look-up takes
    UDP     whether it answers a handshake over UDP, address by address
    TCP     whether it does over TCP
    path    how long datagrams to it may be

A tunnel of this machine that uses the same keys would be disturbed: the other end answers a handshake with a new
session. So nothing is called then, and the tunnel's own state is reported. If a tunnel that this user may not ask could
use them, handshakes are made, which disturb nothing, but the session is not used to measure the path.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from vpntun.config.keys import Keys
from vpntun.config.tunnel import Tunnel
from vpntun.doctor.examination import Check
from vpntun.doctor.finding import Finding, failed, ok, parts_of, skipped, warning
from vpntun.doctor.reach.call import Called, call_by_tcp, call_by_udp
from vpntun.doctor.reach.handshake import Handshake
from vpntun.doctor.reach.path import learned_mtu, mtu_of_route, probed_mtu
from vpntun.doctor.reach.verdict import judge_calls, judge_path
from vpntun.errors import PrivilegeError
from vpntun.runtime.clock import boottime
from vpntun.runtime.resolver import Found, lookup
from vpntun.runtime.state import TimestampFile
from vpntun.types import CarrierName, Transport, carriers_of

MOST_ADDRESSES = 4
SECONDS_OF_A_NAME = 40.0
SECONDS_OF_CALLS = 60.0
SECONDS_BETWEEN_CALLS = 0.05
"""Pause after a call: an end consumes no initiation of a peer within 20 ms of the last."""
SLOW = 2.0
"""Seconds of a look-up from which it is called slow."""

InUse = Callable[[Keys], "tuple[str, Mapping[str, Any]] | None"]
"""Returns the interface of the running tunnel that uses keys, and the peer's part of its status; None without one.
Raises PrivilegeError if that is not known, since there are tunnels that this user may not ask."""


@dataclass(frozen=True)
class Target:
    """A machine to call, as the options of a client describe it. `has_shared_key`: it is certainly a vpntun."""

    host: str
    port: int
    transport: Transport
    has_shared_key: bool

    @property
    def carriers(self) -> tuple[CarrierName, ...]:
        """The carriers to call by, the preferred one first."""
        return carriers_of(self.transport)


def checks_of_target(target: Target, read_keys: Callable[[], Keys], in_use: InUse) -> Iterator[Check]:
    """Yield the checks of another machine. `read_keys` raises VpntunError if there are no good ones."""
    reach = _Reach(target, read_keys, in_use)
    about = f"{target.host} port {target.port}"
    yield Check("name", reach.examine_name, about, SECONDS_OF_A_NAME)
    yield Check("reach", reach.examine_calls, about, SECONDS_OF_CALLS)


def targets_of(tunnel: Tunnel) -> Iterator[tuple[Target, Keys]]:
    """Yield the peers that a configured tunnel calls, with the keys to call them."""
    if tunnel.identity is None:
        return
    for peer in tunnel.peers:
        if peer.host is not None:
            target = Target(peer.host, peer.port, peer.transport, peer.is_vpntun)
            yield target, Keys(tunnel.identity, peer.public, peer.psk)


class _Reach:
    """The checks of one machine. The second uses the addresses that the first has found."""

    def __init__(self, target: Target, read_keys: Callable[[], Keys], in_use: InUse) -> None:
        self._target = target
        self._read_keys = read_keys
        self._in_use = in_use
        self._found: Found = []

    def examine_name(self) -> Iterator[Finding]:
        """Look the name up."""
        target, began = self._target, boottime()
        try:
            self._found = lookup(target.host, target.port, 0)[:MOST_ADDRESSES]
        except (socket.gaierror, UnicodeError) as error:
            yield judge_failed_name(target.host, error, boottime() - began)
            return
        if not _is_literal(target.host):
            yield judge_name(target.host, [address[0] for _, address in self._found], boottime() - began)

    def examine_calls(self) -> Iterator[Finding]:
        """Call each address by each carrier, one after the other, and measure the path to the first that answers."""
        target = self._target
        keys = self._read_keys()
        unknown: PrivilegeError | None = None
        try:
            if (used := self._in_use(keys)) is not None:
                yield _running(*used)
                return
        except PrivilegeError as error:
            unknown = error
        if not self._found:
            yield skipped("reach", f"no address of {target.host} is known")
            return
        stamp = TimestampFile(keys.identity.public).next
        new_handshake = partial(Handshake, keys.identity, keys.peer, keys.psk, stamp)
        calls: list[tuple[str, Called]] = []
        paths: list[Finding] = []
        for family, address in self._found:
            if "udp" in target.carriers:
                with closing(socket.socket(family, socket.SOCK_DGRAM)) as link:
                    called = call_by_udp(link, address, new_handshake())
                    calls.append((address[0], called))
                    if called.session is not None and not paths:
                        paths.append(_path(link, called, unknown, probes=target.has_shared_key))
                time.sleep(SECONDS_BETWEEN_CALLS)
            if "tcp" in target.carriers:
                calls.append((address[0], call_by_tcp(family, address, new_handshake())))
                time.sleep(SECONDS_BETWEEN_CALLS)
        yield from judge_calls(target.port, calls)
        yield from paths


def _path(link: socket.socket, called: Called, unknown: PrivilegeError | None, *, probes: bool) -> Finding:
    """Measure the path. `unknown`: why nobody knows whether a tunnel uses the same keys; PROBEs could disturb it."""
    route = mtu_of_route(link)
    if probes and unknown is not None:
        return skipped("path MTU", *parts_of(unknown))
    if probes and called.session is not None:
        return judge_path(route, probed_mtu(link, called.session), probed=True)
    return judge_path(route, learned_mtu(link), probed=False)


def _running(interface: str, peer: Mapping[str, Any]) -> Finding:
    if peer["state"] == "connected":
        return ok(
            "reach",
            f"{interface} uses these keys and is connected to {peer['endpoint']} by {str(peer['carrier']).upper()}: "
            "nothing was sent beside it",
        )
    return skipped(
        "reach",
        f"{interface} uses these keys, and its state is {peer['state']}: a call beside it would disturb it",
        f"'vpntun doctor {interface}' examines it; after 'vpntun down {interface}', this command calls",
    )


def judge_name(host: str, addresses: list[str], seconds: float) -> Finding:
    """Return the finding about a name that was found."""
    text = f"{host} is {', '.join(addresses)}, found in {1000 * seconds:.0f} ms"
    if seconds >= SLOW:
        return warning("name", text, "one of the name servers in /etc/resolv.conf may not answer: remove it")
    return ok("name", text)


def judge_failed_name(host: str, error: Exception, seconds: float) -> Finding:
    """Return the finding about a name that was not found."""
    code = error.args[0] if isinstance(error, socket.gaierror) else None
    if code == socket.EAI_AGAIN:
        return failed(
            "name",
            f"no name server has answered for {host} within {seconds:.0f} s",
            "look at the name servers in /etc/resolv.conf and at the way there, or give an address instead of the name",
        )
    return failed(
        "name",
        f"there is no address for the name {host}, and no tunnel or configuration file of this name",
        "check its spelling, or give an address instead",
    )


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
