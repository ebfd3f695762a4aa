"""This end's half of an examination, for the peer that asks: its machine, its program, and the way to that peer.

It contains no secret and nothing about other peers: the subject that is examined has only the peer that asks. Checks
run in a thread, because a packet filter's rules may take a while to read. One peer is examined at a time.

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
from vpntun.doctor.clock import examine_clock
from vpntun.doctor.examination import Check, examine
from vpntun.doctor.finding import Finding, failed, ok
from vpntun.doctor.forwarding import FORWARDS, examine_filter, examine_firewall
from vpntun.doctor.host import Host
from vpntun.doctor.machine import examine_udp
from vpntun.doctor.program import judge, program_facts
from vpntun.doctor.routes import examine_endpoints, examine_mtu
from vpntun.doctor.running import examine_device
from vpntun.doctor.subject import Subject, of_running
from vpntun.types import Network

SECONDS_OF_A_CHECK = 2.0
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
    """Examines this end for peers, one at a time, and keeps each result until its peer asks again."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._peer: object = None
        self._found: list[Finding] | None = None

    def answer(
        self, peer: object, asked: Mapping[str, Any], status: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Return the answer to a peer's request; None if the examination has begun, or waits for another to end.

        `asked`: the body of the request, untrusted. `status`, `facts`: of the tunnel with this peer alone, as in
        doctor/subject.py.
        """
        if self._peer is None:
            self._begin(peer, asked, of_running(status, facts))
            return None
        if self._found is None or self._peer is not peer:
            self._forget_abandoned()
            return None
        found, self._peer, self._found = self._found, None, None
        return {
            "version": __version__,
            "time": round(time.time(), 3),
            "findings": [_cut(finding) for finding in found],
            "link": {name: value for name, value in status["peers"][0].items() if name in FIELDS_OF_THE_LINK},
        }

    def _begin(self, peer: object, asked: Mapping[str, Any], subject: Subject) -> None:
        self._peer, self._found = peer, None
        checks = list(checks_of_half(subject, networks_in(asked), self._host))

        def work() -> None:
            self._found = list(islice(examine(checks), MOST_FINDINGS))

        threading.Thread(target=work, name="examination", daemon=True).start()

    def _forget_abandoned(self) -> None:
        """Make room for the next examination if the peer of the last one has another result to fetch, but does not."""
        if self._found is not None:
            self._peer = self._found = None


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
    own = [address.network for address in subject.addresses]
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
            yield failed(
                "forwarding",
                f"packets to {networks} end there: the kernel does not forward IPv{version}",
                f"at the other end, 'sysctl -w {name.replace('/', '.')}=1'",
            )
    if not beyond:
        yield ok("forwarding", "nothing beyond the other end is routed to it")


def _cut(finding: Finding) -> dict[str, Any]:
    content = asdict(finding)
    del content["about"]
    return {name: str(text)[:LONGEST_TEXT] for name, text in content.items()}
