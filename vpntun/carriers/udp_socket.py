"""UDP socket of one IP version, and the endpoints reached through it.

    sending      UDP_SEGMENT sends many datagrams of one size by one call. If the path's device does not support it,
                 each datagram takes a call
    receiving    arrivals.py

Datagrams for which the kernel has no room are held until it has, and nothing is sealed meanwhile; so the newest message
is never lost between here and the wire. Datagrams that this host cannot send at all (no route, a firewall) are dropped
and counted, and the link stays up. A server answers from the address to which the peer sent, until this host loses that
address.
"""

from __future__ import annotations

import errno
import itertools
import socket
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from vpntun.carriers.ancillary import Ancillary, segmented, sent_from, source_of, with_tos
from vpntun.carriers.arrivals import Receiver
from vpntun.carriers.base import Arrival
from vpntun.carriers.sockets import bind, marked, origin_of, packed, scope_of, set_mark, where_of
from vpntun.core.endpoint import Flow, Outcome, Reachable
from vpntun.runtime.loop import Loop
from vpntun.types import CarrierName, SocketAddress
from vpntun.wire.checksum import UDP
from vpntun.wire.message import DATA, HANDSHAKE_TOS, Buffer
from vpntun.wire.stream_framing import PREFIX_SIZE

SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
BUFFER_SIZE = 4 * 1024 * 1024
MOST_KNOWN_ENDPOINTS = 1024
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 10, 23
PMTUDISC_DONT, PMTUDISC_PROBE = 0, 3
MOST_HELD = 8
STALE_SOURCE = frozenset({errno.ENETUNREACH, errno.EINVAL, errno.EADDRNOTAVAIL})
"""Errors by which the kernel may refuse a source address. EINVAL has other reasons too, so only another try tells."""
REFUSED = frozenset({Outcome.TOO_BIG, Outcome.UNDELIVERABLE})

_numbers = itertools.count()

OnOutcome = Callable[["UdpEndpoint", Outcome, int, int], None]
"""Called with the outcome of held datagrams: endpoint, outcome, number of datagrams, bytes of the longest."""


@dataclass(slots=True, unsafe_hash=True)
class UdpEndpoint:
    """A UDP address of a peer. `local`: the address of this host to send from; empty: the kernel chooses one.

    Only `local` changes. It is left out of comparisons: it tells how to answer the peer, not which endpoint this is.
    """

    family: int
    address: SocketAddress
    socket: UdpSocket = field(repr=False, compare=False)
    local: Ancillary = field(default=(), repr=False, compare=False)
    carrier: ClassVar[CarrierName] = "udp"
    is_stream: ClassVar[bool] = False
    is_open: ClassVar[bool] = True

    @property
    def ipv6(self) -> bool:
        """Whether datagrams are sent over IPv6."""
        return self.family == socket.AF_INET6

    @property
    def origin(self) -> bytes:
        """The peer's address and port, as bytes."""
        return origin_of(self.address)

    @property
    def via(self) -> Hashable:
        """The socket's number: the socket itself, kept with a cookie, would stay in memory after it was closed."""
        return self.socket.number

    @property
    def where(self) -> str:
        """The peer's address and port."""
        return where_of(self.address)

    @property
    def flow(self) -> Flow:
        """The flow of the datagrams that are sent to this endpoint."""
        address = self.address
        return Flow(UDP, source_of(self.local), self.socket.port, packed(address), address[1], scope_of(address))

    def send_from(self, source: bytes) -> None:
        """Send from this address from now on; empty: from the one that the kernel chooses."""
        self.socket.forget(self)
        self.local = sent_from(source) if source else ()

    def __str__(self) -> str:
        return f"{self.where} over UDP"

    def clogged(self) -> bool:
        """Return False: a datagram either leaves or is lost."""
        return False

    def ready(self) -> bool:
        """Return whether the socket accepts a datagram now."""
        return not self.socket.held

    def send(self, buffers: list[memoryview], segment: int = 0, *, dont_fragment: bool = True, tos: int = 0) -> Outcome:
        """Send one message, or datagrams of `segment` bytes. Call it when `ready`."""
        return self.socket.send(buffers, segment, self, dont_fragment, tos)

    def send_frame(self, frame: memoryview, *, dont_fragment: bool = True, tos: int = 0) -> Outcome:
        """Send one message, without a length before it: a datagram has one of its own."""
        return self.socket.send([frame[PREFIX_SIZE:]], 0, self, dont_fragment, tos)

    def send_first(self, message: Buffer) -> Outcome:
        """Send one handshake or keepalive message. Handshakes get the DSCP that WireGuard gives them."""
        return self.socket.send([memoryview(message)], 0, self, None, 0 if message[0] == DATA else HANDSHAKE_TOS)

    def expect(self, peer: Reachable) -> None:
        """Do nothing: there is no connection to keep."""

    def belongs_to(self, peer: Reachable) -> None:
        """Do nothing: any peer may send from any address."""

    def hang_up_later(self) -> None:
        """Do nothing: there is no connection to close."""


_Held = tuple[list[memoryview], int, UdpEndpoint, bool | None, int]
"""The arguments of a send."""


class UdpSocket:
    """One bound socket of one IP version.

    `mark`: the mark of every datagram, for this host's routing rules; 0 for none.
    """

    def __init__(self, family: int, port: int, loop: Loop, *, answers_from_where_asked: bool, mark: int = 0) -> None:
        self.number = next(_numbers)
        """A number that no other socket of this process has had."""
        self._family = family
        self._loop = loop
        new = marked(socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK), mark)
        self._socket = bind(new, port, "UDP")
        self._known: dict[Any, UdpEndpoint] = {}
        self.held: deque[_Held] = deque(maxlen=MOST_HELD)
        """Datagrams that wait for room in the kernel; nothing more is sealed meanwhile."""
        self._has_segmentation = True
        self._dont_fragment: bool | None = None
        for forced, allowed in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, forced, BUFFER_SIZE)
            except PermissionError:  # take as much as the system allows every user
                self._socket.setsockopt(socket.SOL_SOCKET, allowed, BUFFER_SIZE)

        receiver = Receiver(self._socket, loop, self.endpoint, answers_from_where_asked=answers_from_where_asked)
        self._forget_last = receiver.forget_last
        self.answer_from_where_asked: Callable[[bool], None] = receiver.answer_from_where_asked
        self.receive: Callable[[], Iterable[Arrival]] = receiver.receive
        self.expect_bursts: Callable[[int], None] = receiver.expect_bursts
        self.expect_pieces: Callable[[int], None] = receiver.expect_pieces
        self.note_whole_message: Callable[[int, int], None] = receiver.note_whole_message
        """All are the receiver's own, the last four as DatagramSource describes them: a look-up less for each read."""

    def set_mark(self, mark: int) -> None:
        """Give every datagram that leaves from now on this mark, 0 for none. Raises PrivilegeError."""
        set_mark(self._socket, mark)

    @property
    def port(self) -> int:
        """The port that the socket sends from; 0 until the kernel has chosen one."""
        return int(self._socket.getsockname()[1])

    def fileno(self) -> int:
        """Return the descriptor, for the loop."""
        return self._socket.fileno()

    def endpoint(self, address: SocketAddress, local: Ancillary = ()) -> UdpEndpoint:
        """Return the endpoint of an address, usually the same object for the same address."""
        known = self._known.get((address, local))
        if known is None:
            if len(self._known) >= MOST_KNOWN_ENDPOINTS:  # keep those whose source address was chosen by this end
                self._known = {key: each for key, each in self._known.items() if key != (each.address, each.local)}
            known = self._known[address, local] = UdpEndpoint(self._family, address, self, local)
        return known

    def send(
        self, buffers: list[memoryview], segment: int, endpoint: UdpEndpoint, dont_fragment: bool | None, tos: int
    ) -> Outcome:
        """Send or hold datagrams, as Endpoint.send. `dont_fragment` None: leave the socket as it is set."""
        if self.held:
            return self._hold(buffers, segment, endpoint, dont_fragment, tos)
        if dont_fragment is not self._dont_fragment and dont_fragment is not None:
            self._allow_fragmentation(not dont_fragment)
        ancillary = endpoint.local
        if segment:
            if not self._has_segmentation:
                return self._send_one_by_one(buffers, segment, endpoint, dont_fragment, tos)
            ancillary = (*ancillary, segmented(segment))
        if tos:
            ancillary = (*ancillary, with_tos(self._family, tos))
        try:
            self._socket.sendmsg(buffers, ancillary, 0, endpoint.address)
        except BlockingIOError:
            return self._hold(buffers, segment, endpoint, dont_fragment, tos)
        except OSError as error:
            return self._send_otherwise(error, (buffers, segment, endpoint, dont_fragment, tos))
        return Outcome.SENT

    def forget(self, endpoint: UdpEndpoint) -> None:
        """Drop an endpoint from the cache, so that the peer's next datagram gets a new one."""
        if endpoint.local and self._known.get((endpoint.address, endpoint.local)) is endpoint:
            del self._known[endpoint.address, endpoint.local]
        self._forget_last()

    def flush(self, on_outcome: OnOutcome) -> bool:
        """Send the held datagrams, now that the socket is writable; return whether it accepts more.

        `on_outcome` is called for those that were refused or rerouted: their senders know only that they were held.
        """
        while self.held:
            held = self.held.popleft()
            behind = list(self.held)
            self.held.clear()
            outcome = self.send(*held)
            is_held = bool(self.held)
            self.held.extend(behind)
            if outcome in REFUSED or outcome is Outcome.REROUTED:
                [burst], segment, endpoint, _, _ = held
                size = min(segment or len(burst), len(burst))
                on_outcome(endpoint, outcome, -(-len(burst) // max(1, size)), size)
            if is_held:
                return False
        self._loop.await_writable(self.fileno(), False)
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send_otherwise(self, error: OSError, refused: _Held) -> Outcome:
        """Retry refused datagrams in another way, if there is one; return the outcome."""
        _, segment, endpoint, dont_fragment, _ = refused
        is_too_big = self._is_too_big(error, segment)
        if is_too_big and segment and not dont_fragment:  # the kernel fragments datagrams, but not those of UDP_SEGMENT
            return self._send_one_by_one(*refused)
        if endpoint.local and error.errno in STALE_SOURCE:
            return self._send_from_elsewhere(*refused)
        if error.errno == errno.EIO and segment:
            self._has_segmentation = False
            return self._send_one_by_one(*refused)
        return Outcome.TOO_BIG if is_too_big and dont_fragment else Outcome.UNDELIVERABLE

    def _send_from_elsewhere(
        self, buffers: list[memoryview], segment: int, endpoint: UdpEndpoint, dont_fragment: bool | None, tos: int
    ) -> Outcome:
        """Send datagrams from an address of the kernel's choice. If they leave, the former address is forgotten."""
        other = UdpEndpoint(endpoint.family, endpoint.address, self)
        outcome = self.send(buffers, segment, other, dont_fragment, tos)
        if outcome in REFUSED:  # the address was not the reason
            return outcome
        endpoint.send_from(b"")
        return Outcome.REROUTED

    def _hold(
        self, buffers: list[memoryview], segment: int, endpoint: UdpEndpoint, dont_fragment: bool | None, tos: int
    ) -> Outcome:
        self.held.append(([memoryview(b"".join(buffers))], segment, endpoint, dont_fragment, tos))
        self._loop.await_writable(self.fileno(), True)
        return Outcome.HELD

    def _send_one_by_one(
        self, buffers: list[memoryview], segment: int, endpoint: UdpEndpoint, dont_fragment: bool | None, tos: int
    ) -> Outcome:
        """Send each datagram by a call of its own, for a device without UDP_SEGMENT."""
        burst = memoryview(b"".join(buffers))
        outcome, is_rerouted = Outcome.SENT, False
        for at in range(0, len(burst), segment):
            outcome = self.send([burst[at : at + segment]], 0, endpoint, dont_fragment, tos)
            is_rerouted |= outcome is Outcome.REROUTED
            if self.held:
                self.held.clear()
                self._hold([burst[at:]], segment, endpoint, dont_fragment, tos)
                break
            if outcome in REFUSED:
                return outcome
        return Outcome.REROUTED if is_rerouted else outcome

    def _allow_fragmentation(self, allowed: bool) -> None:
        self._dont_fragment = not allowed
        mode = PMTUDISC_DONT if allowed else PMTUDISC_PROBE
        if self._family == socket.AF_INET:
            self._socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, mode)
        else:
            self._socket.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, mode)

    @staticmethod
    def _is_too_big(error: OSError, segment: int) -> bool:
        """Return whether datagrams are too big for the device. For those of UDP_SEGMENT the kernel reports EINVAL."""
        return error.errno == errno.EMSGSIZE or (error.errno == errno.EINVAL and segment > 0)
