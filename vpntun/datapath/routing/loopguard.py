"""Loop guard, which keeps the tunnel's own packets out of the tunnel.

Authentic data may come from any outer address, so it may come from one that this host routes into the tunnel's device.
If that became the endpoint, each packet to the peer would come out of the device and be sent again, endlessly. Only an
address that some peer's allowed IPs cover can cause this: packets to any other address match no link.

    refusing    A covered address does not become an endpoint while its route leads to the device (WireGuard: ELOOP).
                The kernel is asked, and its answer is used for two seconds. A peer that hops from address to address is
                refused once it has caused too many questions.
    dropping    Routes may change later. So a packet from the device to a covered endpoint, with the ports of the
                tunnel's own packets, is dropped with all its fragments (outbound.py). A forwarded flow with the same
                two ports is mistaken for the tunnel's own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from ipaddress import ip_address

from vpntun.core.bucket import TokenBucket
from vpntun.core.endpoint import Endpoint, Flow
from vpntun.link.link import Link
from vpntun.runtime.log import NOTICE, Limited
from vpntun.runtime.loop import Loop
from vpntun.wire.message import Buffer
from vpntun.wire.transport_header import Ports, ports_of

SECONDS_AN_ANSWER_SERVES = 2.0
MOST_ANSWERS = 1024
QUESTIONS_PER_SECOND, QUESTIONS_AT_ONCE = 10, 20
"""Limits on the questions to the kernel that one peer can cause."""
LEADS_INSIDE = (
    "the route to %s leads into the tunnel itself, so no peer can be reached there: give that address a route by "
    "another device, or leave it out of AllowedIPs"
)


class LoopGuard:
    """Guard of one device's links.

    `covers`: whether packets to an address may enter the tunnel. `leads_inside`: whether the kernel routes a flow to
    the device. `empty_caches`: forgets what outbound.py has concluded, which follows from `endpoints`, too.

    `endpoints`: for each covered address at which a peer is reached, the ports of the packets sent there. It is usually
    empty except in a full tunnel.
    """

    def __init__(
        self,
        loop: Loop,
        covers: Callable[[bytes], bool],
        leads_inside: Callable[[Flow], bool],
        empty_caches: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._covers = covers
        self._leads_inside = leads_inside
        self._empty_caches = empty_caches
        self._answers: dict[Flow, tuple[float, bool]] = {}
        self._flows: dict[Link, Flow] = {}
        self.endpoints: dict[bytes, list[Ports]] = {}
        self._dropped_fragment = b""
        self._notice = Limited(NOTICE, LEADS_INSIDE)

    def for_a_peer(self) -> Callable[[Endpoint], bool]:
        """Return the check of one peer's endpoints, with its own limits on questions and notices."""
        questions = TokenBucket(QUESTIONS_PER_SECOND, QUESTIONS_AT_ONCE)
        return partial(self._may_be_at, questions, Limited(NOTICE, LEADS_INSIDE))

    def refuses(self, endpoint: Endpoint) -> bool:
        """Return whether the route to an endpoint leads into the device.

        The number of questions is not limited, so use this only for addresses that no peer chooses.
        """
        return self._is_inside(endpoint.flow, self._notice)

    def follow(self, link: Link) -> None:
        """Update the watched ports after a link's path or the allowed IPs changed."""
        self.forget(link)
        if link.endpoint is not None:
            flow = link.endpoint.flow
            if self._covers(flow.destination):
                self._flows[link] = flow
                self._empty_caches()
                self.endpoints.setdefault(flow.destination, []).append(flow.ports)

    def forget(self, link: Link) -> None:
        """Stop watching the ports of a link."""
        flow = self._flows.pop(link, None)
        if flow is not None:
            ports = self.endpoints[flow.destination]
            ports.remove(flow.ports)
            if not ports:
                del self.endpoints[flow.destination]

    def catches(self, packet: Buffer, destination: bytes) -> bool:
        """Return whether a packet from the device, to one of `endpoints`, is one of the tunnel's own packets."""
        ports, fragment = ports_of(packet)
        if ports is None:  # the kernel sends the fragments of a packet in succession
            return bool(fragment) and destination + fragment == self._dropped_fragment
        if ports not in self.endpoints[destination]:
            return False
        self._dropped_fragment = destination + fragment
        self._notice(ip_address(destination))
        return True

    def _may_be_at(self, questions: TokenBucket, notice: Limited, endpoint: Endpoint) -> bool:
        flow = endpoint.flow
        if not self._covers(flow.destination):
            return True
        if self._known(flow) is None and not questions.take(self._loop.now):
            return False
        return not self._is_inside(flow, notice)

    def _is_inside(self, flow: Flow, notice: Limited) -> bool:
        inside = self._known(flow)
        if inside is None:
            if len(self._answers) >= MOST_ANSWERS:
                self._answers.clear()
            inside = self._leads_inside(flow)
            self._answers[flow] = self._loop.now + SECONDS_AN_ANSWER_SERVES, inside
        if inside:
            notice(ip_address(flow.destination))
        return inside

    def _known(self, flow: Flow) -> bool | None:
        until, inside = self._answers.get(flow, (0.0, False))
        return inside if self._loop.now < until else None
