"""Length of the datagrams that pass to another machine.

With a session, PROBEs of several lengths are sent in it, and the longest that is echoed has passed. Only a vpntun
echoes. A PROBE does not move the endpoint, but confirms the session. Without one, datagrams that mean nothing make
the kernel learn from routers what passes; routers that say nothing are not noticed.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress

from vpntun.crypto.session import Session
from vpntun.errors import BadPacket
from vpntun.runtime.clock import boottime
from vpntun.wire.message import DATA_OVERHEAD, LARGEST
from vpntun.wire.record import ECHO, Echo, Probe

IP_MTU_DISCOVER, IP_MTU, IPV6_MTU_DISCOVER, IPV6_MTU = 10, 14, 23, 24
PMTUDISC_DO, PMTUDISC_PROBE = 2, 3
HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}
USUAL = (9000, 1500, 1492, 1480, 1460, 1440, 1420, 1400, 1380, 1340, 1280, 1200, 1100, 1000, 576)
"""Lengths of IP packets that some kind of link or tunnel takes."""
ROUNDS = 2
SECONDS_OF_A_ROUND = 1.0
SECONDS_TO_LEARN = 0.5


def mtu_of_route(link: socket.socket) -> int:
    """Return the MTU that the kernel knows for the path of a connected UDP socket."""
    if link.family == socket.AF_INET6:
        return link.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)
    return link.getsockopt(socket.IPPROTO_IP, IP_MTU)


def probed_mtu(link: socket.socket, session: Session) -> int | None:
    """Return the greatest usual MTU that the path takes, found by PROBEs; None if no PROBE is echoed."""
    _discover(link, PMTUDISC_PROBE)
    headers = HEADERS[socket.AddressFamily(link.family)]
    limit = mtu_of_route(link)
    sizes = sorted({size for size in (*USUAL, limit) if size <= limit}, reverse=True)
    echoed = 0
    for _ in range(ROUNDS):
        for size in sizes:
            if size > echoed:
                _send(link, sealed(session, Probe(size, size - headers - DATA_OVERHEAD)))
        end = boottime() + SECONDS_OF_A_ROUND
        while echoed < sizes[0] and (left := end - boottime()) > 0:
            link.settimeout(left)
            with suppress(BadPacket, OSError):
                echoed = max(echoed, echo_in(session, link.recv(LARGEST)) if left else 0)
    return echoed or None


def learned_mtu(link: socket.socket) -> int:
    """Return the MTU of the path as routers tell the kernel, after datagrams that fill it."""
    _discover(link, PMTUDISC_DO)
    headers = HEADERS[socket.AddressFamily(link.family)]
    for _ in range(ROUNDS):
        _send(link, bytes(mtu_of_route(link) - headers))
        link.settimeout(SECONDS_TO_LEARN)
        with suppress(OSError):
            link.recv(LARGEST)
    return mtu_of_route(link)


def sealed(session: Session, probe: Probe) -> bytes:
    """Return the data message of a PROBE."""
    plaintext = probe.pack()
    message = memoryview(bytearray(len(plaintext) + DATA_OVERHEAD))
    session.seal_into(plaintext, message)
    return bytes(message)


def echo_in(session: Session, message: bytes) -> int:
    """Return the token of an ECHO, 0 for another record. Raises BadPacket."""
    plaintext = memoryview(bytearray(len(message)))
    size = session.open_into(memoryview(message), plaintext)
    return Echo.parse(plaintext[:size]).token if size and plaintext[0] == ECHO else 0


def _send(link: socket.socket, datagram: bytes) -> None:
    """Send a datagram if this host takes it."""
    try:
        link.send(datagram)
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise


def _discover(link: socket.socket, mode: int) -> None:
    if link.family == socket.AF_INET6:
        link.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, mode)
    else:
        link.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, mode)
