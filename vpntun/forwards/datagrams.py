"""Forward of datagrams: a flow for each client address, and what ends it.

1. The first datagram of a client begins a flow. The target's answers go back from the address that the client has sent
   to.
2. A flow ends after SECONDS_IDLE without a datagram, and after SECONDS_UNANSWERED as long as nothing was answered
   (RFC 4787, section 4.3, has two minutes). One that has failed ends after SECONDS_FAILED.
3. Where there is no room for another flow, the unanswered one that has been idle longest ends: a flood of invented
   clients displaces only itself. If all were answered, the datagram is refused.

An ICMP error of the target cannot be carried over to the client, since that takes a raw socket.
"""

from __future__ import annotations

import socket
from functools import partial

from vpntun.carriers.ancillary import IP_PKTINFO, IPV6_RECVPKTINFO, Ancillary, received
from vpntun.config.forwards import Forward, spelled
from vpntun.forwards.connecting import look_up
from vpntun.forwards.connections import Connections, Counters
from vpntun.forwards.flow import Flow
from vpntun.forwards.opening import ListeningSockets
from vpntun.forwards.side import Side
from vpntun.runtime.log import NOTICE, Limited
from vpntun.runtime.loop import Loop

SECONDS_IDLE = 120.0
SECONDS_UNANSWERED = 30.0
SECONDS_FAILED = 1.0
SECONDS_BETWEEN_LOOKS = 10.0
MOST_DATAGRAMS_PER_TURN = 64
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
        self.forward = forward
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
                _, local, _ = received(messages)
                flow = self._new_flow(client, partial(_send, listener, address, local))
                if flow is None:
                    continue
            self._flows[client] = flow
            flow.send(memoryview(self._buffer)[:size])

    def _new_flow(self, client: Client, answer: partial[None]) -> Flow | None:
        """Begin a flow, if there is room for it."""
        if not self._connections.have_room_for(self.counters):
            self._displace()
        if not self._connections.admit(self.counters):
            self._full(self.forward)
            return None
        flow = Flow(self._loop, self._side, self.counters, self._buffer, answer, partial(self._failed, client))
        assert isinstance(self.forward.target, tuple)  # Forward takes nothing else for datagrams
        look_up(self._loop, self._side, self.forward.target, flow.connect)
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_later(SECONDS_BETWEEN_LOOKS, self._end_idle)
        return flow

    def _displace(self) -> None:
        oldest = next((client for client, flow in self._flows.items() if not flow.answered), None)
        if oldest is not None:
            self._end(oldest)

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
        reason = error.strerror or str(error)
        self.counters.failed += 1
        self.counters.last_failure = reason
        self._unreachable(spelled(self.forward.target), self.forward, reason)
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
