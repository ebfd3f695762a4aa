"""This end's half of an examination, for the peer that asks: its machine, its program, and the way to that peer.

It contains no secret and nothing about other peers: the subject that is examined has only the peer that asks. Checks
run in a thread, because a packet filter's rules may take a while to read. One peer is examined at a time, and no peer
can take the turns of others by asking more often.

Content of the answer:

    version     the version of vpntun
    time        the wall clock, in seconds since 1970
    findings    what the checks found, as in doctor/finding.py, without "about"
    link        what this end knows of the link: FIELDS_OF_THE_LINK, as in control/status.py
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from ipaddress import ip_network
from itertools import islice
from typing import Any

from vpntun import __version__
from vpntun.doctor.bridge import examine_bridge
from vpntun.doctor.clock import examine_clock
from vpntun.doctor.examination import Check, examine
from vpntun.doctor.finding import Finding, failed, ok, warning
from vpntun.doctor.forwarding import FORWARDS, examine_filter, examine_firewall
from vpntun.doctor.host import Host
from vpntun.doctor.machine import examine_udp
from vpntun.doctor.program import judge, program_facts
from vpntun.doctor.routes import examine_endpoints, examine_mtu
from vpntun.doctor.running import examine_device, examine_kinds
from vpntun.doctor.subject import Subject, of_running
from vpntun.runtime.clock import boottime
from vpntun.types import Network

SECONDS_OF_A_CHECK = 2.0
KEPT_FOR = 10.0
"""Seconds until a result is forgotten; the peer has given its request up by then."""
PATIENCE = 3.0
"""Seconds without a repeat of its request after which a peer waits no more."""
MOST_FINDINGS = 24
MOST_NETWORKS = 20
LONGEST_TEXT = 400
FIELDS_OF_THE_LINK = (
    *("endpoint", "carrier", "state", "carrier_up", "carrier_reason", "handshake_fresh", "data_verified"),
    *("data_verified_age", "latest_handshake_age", "latest_received_age", "received_bytes", "sent_bytes"),
    *("round_trip", "loss", "span", "protected", "path_mtu", "delivered_rate", "datagrams_sent", "datagrams_lost"),
    *("records_restored", "records_unfinished", "drops"),
)


class Examiner:
    """Examines this end for peers, one at a time, in the order in which they ask.

    A result is kept until its peer asks again. A peer that waits for its turn keeps it by repeating its request.
    `clock`: seconds of a clock that nobody sets.
    """

    def __init__(self, host: Host, clock: Callable[[], float] = boottime) -> None:
        self._host = host
        self._clock = clock
        self._running: _Examination | None = None
        self._ended: dict[object, tuple[float, list[Finding]]] = {}
        self._waiting: dict[object, float] = {}

    def answer(
        self, peer: object, asked: Mapping[str, Any], status: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Return the answer to a peer's request; None if the examination has begun, or waits for others to end.

        `asked`: the body of the request, untrusted. `status`, `facts`: of the tunnel with this peer alone, as in
        doctor/subject.py.
        """
        now = self._clock()
        self._follow(now)
        if peer in self._ended:
            _, found = self._ended.pop(peer)
            return {
                "version": __version__,
                "time": round(time.time(), 3),
                "findings": [_cut(finding) for finding in found],
                "link": {name: value for name, value in status["peers"][0].items() if name in FIELDS_OF_THE_LINK},
            }
        if self._running is None or self._running.peer is not peer:
            self._waiting[peer] = now
        if self._running is None and next(iter(self._waiting)) is peer:
            checks = checks_of_half(of_running(status, facts), networks_in(asked), self._host)
            self._running = _Examination(peer, list(checks))
            del self._waiting[peer]
        return None

    def _follow(self, now: float) -> None:
        """Note an examination that has ended, and forget the peers that do not ask any more."""
        if self._running is not None and self._running.has_ended:
            self._ended[self._running.peer] = now, self._running.found
            self._running = None
        self._ended = {peer: kept for peer, kept in self._ended.items() if now - kept[0] < KEPT_FOR}
        self._waiting = {peer: asked for peer, asked in self._waiting.items() if now - asked < PATIENCE}


class _Examination:
    """Checks that a thread runs for a peer. `has_ended`: whether `found` is complete."""

    def __init__(self, peer: object, checks: list[Check]) -> None:
        self.peer = peer
        self.found: list[Finding] = []
        self.has_ended = False
        self._checks = checks
        threading.Thread(target=self._run, name="examination", daemon=True).start()

    def _run(self) -> None:
        try:
            self.found.extend(islice(examine(self._checks), MOST_FINDINGS))
        finally:
            self.has_ended = True


def networks_in(asked: Mapping[str, Any]) -> list[Network]:
    """Return the networks that a request says are routed to this end; what is no network is ignored."""
    named = asked.get("networks")
    networks = []
    for each in named[:MOST_NETWORKS] if isinstance(named, list) else ():
        with suppress(ValueError):
            networks.append(ip_network(str(each), strict=False))
    return networks


def checks_of_half(subject: Subject, wanted: Iterable[Network], host: Host) -> Iterator[Check]:
    """Yield the checks that a peer may have made. `wanted`: the networks that it routes to this end."""
    looks: dict[str, Callable[[], Iterable[Finding]]] = {
        "program": _examine_program,
        "kernel": examine_udp,
        "offloads": partial(examine_device, subject),
        "clock": examine_clock,
        "route to peer": partial(examine_endpoints, subject, host),
        "MTU": partial(examine_mtu, subject, host),
        "device": partial(examine_kinds, subject),
        "bridge": partial(examine_bridge, subject, host),
        "forwarding": partial(examine_wanted, subject, list(wanted), host),
        "rp_filter": partial(examine_filter, subject, host),
        "firewall": partial(examine_firewall, subject, host),
    }
    for name, look in looks.items():
        yield Check(name, look, seconds=SECONDS_OF_A_CHECK)


def _examine_program() -> Iterator[Finding]:
    """Examine the program, without the path of the interpreter, which may contain a user's name."""
    return judge(program_facts()._replace(executable="python3"), is_of_this_machine=False)


def examine_wanted(subject: Subject, wanted: Iterable[Network], host: Host) -> Iterator[Finding]:
    """Examine whether the kernel forwards to the networks that the peer routes to this end."""
    if subject.device == "tap":
        return
    own = [address.network for address in subject.addresses]
    own += [ip_network(each.address) for each in host.addresses()]
    beyond = [each for each in wanted if not any(each.version == net.version and each.subnet_of(net) for net in own)]  # type: ignore[arg-type]
    for version, name in FORWARDS.items():
        networks = ", ".join(str(each) for each in beyond if each.version == version)
        if not networks:
            continue
        if host.setting(name):
            yield ok("forwarding", f"the kernel forwards IPv{version}, to {networks}")
        elif subject.relay:
            yield ok("forwarding", f"the kernel does not forward IPv{version}, but vpntun relays between its peers")
        else:
            text = f"packets to {networks} end there: the kernel does not forward IPv{version}"
            remedy = f"at the other end, 'sysctl -w {name.replace('/', '.')}=1'"
            if any(address.version == version for address in subject.addresses):
                yield failed("forwarding", text, remedy)
            else:  # a full tunnel often takes the other version in, only so that nothing leaves beside it
                yield warning("forwarding", text, f"unless they are meant to, {remedy}")
    if not beyond:
        yield ok("forwarding", "nothing beyond the other end is routed to it")


def _cut(finding: Finding) -> dict[str, Any]:
    content = asdict(finding)
    del content["about"]
    return {name: str(text)[:LONGEST_TEXT] for name, text in content.items()}
