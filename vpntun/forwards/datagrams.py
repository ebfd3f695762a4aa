"""Forward of datagrams: a flow for each client address, and what ends it.

1. The first datagram of a client begins a flow. The target's answers go back from the address that the client has sent
   to.
2. A flow ends after SECONDS_IDLE without a datagram, and after SECONDS_UNANSWERED as long as nothing was answered
   (RFC 4787, section 4.3, has two minutes). One that has failed ends after SECONDS_FAILED.
3. Where there is no room for another flow, the unanswered one that has been idle longest ends: a flood of invented
   clients displaces only itself. If all were answered, one ends that has been idle for SECONDS_SAFE, such as that of a
   question to a name server. If there is none, the datagram is refused.
4. BURST_OF_FLOWS may begin at once, and FLOWS_PER_SECOND from then on: a flood leaves time for the tunnel's packets.
   A datagram of a flow's own socket begins none: where forwards lead back to themselves, it would go round for ever.
5. The target is looked up once for all flows that wait for it, and MOST_CONNECTED_PER_TURN of them are connected before
   the loop serves others.

An ICMP error of the target cannot be carried over to the client, since that takes a raw socket.
"""

from __future__ import annotations

import socket
from functools import partial
from itertools import chain, islice

from vpntun.carriers.ancillary import IP_PKTINFO, IPV6_RECVPKTINFO, Ancillary, received
from vpntun.config.forwards import Forward, spelled
from vpntun.core.bucket import TokenBucket
from vpntun.forwards.connecting import look_up
from vpntun.forwards.connections import Connections, Counters
from vpntun.forwards.flow import Flow
from vpntun.forwards.opening import ListeningSockets
from vpntun.forwards.side import Side
from vpntun.runtime.log import NOTICE, Limited
from vpntun.runtime.loop import Loop
from vpntun.runtime.resolver import Found

SECONDS_IDLE = 120.0
SECONDS_UNANSWERED = 30.0
SECONDS_FAILED = 1.0
SECONDS_SAFE = 30.0
SECONDS_BETWEEN_LOOKS = 10.0
MOST_DATAGRAMS_PER_TURN = 64
MOST_CONNECTED_PER_TURN = 16
FLOWS_PER_SECOND, BURST_OF_FLOWS = 256.0, 1024
LARGEST = 65536
_ROOM_FOR_ANCILLARY = 64

Client = tuple[int, object]
"""Descriptor of the listening socket, and the client's address."""


class DatagramForward:
    """One forward of datagrams. `side`: where the target is reached."""

    def __init__(
        self, loop: Loop, forward: Forward, listening: ListeningSockets, side: Side, connections: Connections
    ) -> None:
        self.forward = forward
        self.counters = Counters()
        self._loop = loop
        self._listening = listening
        self._side = side
        self._connections = connections
        self._buffer = bytearray(LARGEST)
        self._flows: dict[Client, Flow] = {}
        """All flows; the one that has been without a datagram of its client for longest is first."""
        self._new_flows = TokenBucket(FLOWS_PER_SECOND, BURST_OF_FLOWS)
        self._asked: Forward | None = None
        """The forward whose target is being looked up."""
        self._is_looking = False
        self._full = Limited(NOTICE, "refused: there is no room for another client of %s")
        self._unreachable = Limited(NOTICE, "refused: %s cannot be reached for %s: %s")
        for each in listening.sockets:
            _tell_addresses(each)

    def begin(self) -> None:
        """Take datagrams from now on. Until then they wait in the kernel."""
        for each in self._listening.sockets:
            self._loop.watch(each.fileno(), partial(self._receive, each))

    def retarget(self, forward: Forward) -> None:
        """Pass datagrams on to the target of this forward, which listens where the former did."""
        self.forward, self._asked = forward, None
        self._end_flows()

    def close(self) -> None:
        """Stop listening, and end all flows."""
        for each in self._listening.sockets:
            self._loop.forget(each.fileno())
        self._listening.close()
        self._end_flows()

    def _receive(self, listener: socket.socket) -> None:
        """Pass on what clients have sent to one of the forward's sockets."""
        for _ in range(MOST_DATAGRAMS_PER_TURN):
            try:
                size, messages, _, address = listener.recvmsg_into([self._buffer], _ROOM_FOR_ANCILLARY)
            except OSError:  # nothing waits any more, or a client could not be reached with an answer
                return
            client = listener.fileno(), address
            flow = self._flows.pop(client, None)
            if flow is None:
                if self._connections.own.have_sent(listener, address):
                    continue
                _, local, _ = received(messages)
                flow = self._new_flow(client, partial(_send, listener, address, local))
                if flow is None:
                    continue
            self._flows[client] = flow
            flow.send(memoryview(self._buffer)[:size])

    def _new_flow(self, client: Client, answer: partial[None]) -> Flow | None:
        """Begin a flow, if there is room for it."""
        if not self._new_flows.take(self._loop.now):
            self.counters.refused += 1
            self._full(self.forward)
            return None
        if not self._connections.have_room_for(self.counters):
            self._displace()
        if not self._connections.admit(self.counters):
            self._full(self.forward)
            return None
        failed = partial(self._failed, client)
        flow = Flow(self._loop, self._side, self.counters, self._connections, self._buffer, answer, failed)
        self._look_up()
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_later(SECONDS_BETWEEN_LOOKS, self._end_idle)
        return flow

    def _look_up(self) -> None:
        """Have the target looked up, unless it is being looked up."""
        forward = self.forward
        if self._asked is not forward:
            self._asked = forward
            assert isinstance(forward.target, tuple)  # Forward takes nothing else for datagrams
            look_up(self._loop, self._side, forward.target, partial(self._found, forward))

    def _found(self, asked: Forward, found: Found, error: Exception | None) -> None:
        """Connect the flows that wait for the target's addresses, some of them in this turn."""
        if self._asked is not asked:  # there is another target by now
            return
        waiting = [flow for flow in self._flows.values() if flow.awaits_address]
        for flow in waiting[:MOST_CONNECTED_PER_TURN]:
            self._loop.call_later(0.0, partial(flow.connect, found, error))
        if len(waiting) > MOST_CONNECTED_PER_TURN:
            self._loop.call_later(0.0, partial(self._found, asked, found, error))
        else:
            self._asked = None

    def _displace(self) -> None:
        """End the flow that gives way to another one, if there is one."""
        safe_since = self._loop.now - SECONDS_SAFE
        unanswered = (client for client, flow in self._flows.items() if not flow.answered)
        unused = (client for client, flow in self._flows.items() if flow.used_at <= safe_since)
        for client in islice(chain(unanswered, unused), 1):
            self._end(client)

    def _end_idle(self) -> None:
        """End the flows that have been idle for too long, and look again later if any are left."""
        for client, flow in list(self._flows.items()):
            idle = self._loop.now - flow.used_at
            if idle >= (SECONDS_IDLE if flow.answered else SECONDS_UNANSWERED):
                self._end(client)
        self._is_looking = bool(self._flows)
        if self._is_looking:
            self._loop.call_later(SECONDS_BETWEEN_LOOKS, self._end_idle)

    def _failed(self, client: Client, error: OSError) -> None:
        self._unreachable(spelled(self.forward.target), self.forward, self.counters.note_failure(error))
        flow = self._flows.get(client)
        if flow is not None and not flow.is_connected:
            self._loop.call_later(SECONDS_FAILED, partial(self._end_failed, client, flow))

    def _end_failed(self, client: Client, flow: Flow) -> None:
        if self._flows.get(client) is flow:
            self._end(client)

    def _end_flows(self) -> None:
        for client in list(self._flows):
            self._end(client)

    def _end(self, client: Client) -> None:
        self._flows.pop(client).close()
        self._connections.dismiss(self.counters)


def _tell_addresses(listener: socket.socket) -> None:
    """Have a socket tell which of this machine's addresses each datagram was sent to."""
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
    else:
        listener.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def _send(listener: socket.socket, address: object, local: Ancillary, datagram: memoryview) -> None:
    """Send a datagram to a client, from the address that it has sent to. Raises OSError."""
    listener.sendmsg([datagram], local, 0, address)  # type: ignore[arg-type]  # as recvmsg gave it
