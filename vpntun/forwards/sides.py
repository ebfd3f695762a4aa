"""Sides of a tunnel: this machine, and a device, of this machine or in the namespace of a run.

Sockets of a device's side are bound to it (tun/bound_sockets.py). So whatever routes and rules say, connections to a
target leave by the tunnel or not at all. Listeners take what comes out of the tunnel, and nothing that arrives by
another device, nor what programs of the same machine or namespace send to the device's own address.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from functools import partial

from vpntun.carriers.sockets import bound, family_of
from vpntun.forwards.side import Side
from vpntun.netconf.localnets import addresses_of
from vpntun.runtime.resolver import Found, Lookups, OnFound
from vpntun.tun.bound_sockets import accept_only_from, bind_to_device
from vpntun.types import Place

MOST_WAITING_TO_BE_ACCEPTED = 1024
MOST_ANSWERED_PER_TURN = 16
IPV6_FREEBIND = 78


class MachineSide:
    """This machine: its addresses, its routes and its resolvers.

    A name that many connections want at once is looked up once for all of them, so that they take one of the few
    threads. They get the answer a few at a time, since each begins to connect then.
    """

    def __init__(self, lookups: Lookups) -> None:
        self._lookups = lookups
        self._asked: dict[Place, list[OnFound]] = {}

    def open(self, family: int, kind: int) -> socket.socket:
        """As Side.open."""
        return socket.socket(family, kind | socket.SOCK_NONBLOCK)

    def listen(self, kind: int, host: str, port: int) -> list[socket.socket]:
        """As Side.listen; one socket takes connections to all addresses, of both IP versions where there are two."""
        if host:
            return [listening(self.open(family_of((host, port)), kind), host, port)]
        try:
            return [listening(self.open(socket.AF_INET6, kind), "::", port)]
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            return [listening(self.open(socket.AF_INET, kind), "0.0.0.0", port)]

    def look_up(self, host: str, port: int, answer: OnFound) -> None:
        """As Side.look_up."""
        waiting = self._asked.setdefault((host, port), [])
        waiting.append(answer)
        if len(waiting) == 1:
            self._lookups.ask(host, port, partial(self._answer, (host, port)))

    def _answer(self, place: Place, found: Found, error: Exception | None) -> None:
        waiting = self._asked.pop(place)
        now, later = waiting[:MOST_ANSWERED_PER_TURN], waiting[MOST_ANSWERED_PER_TURN:]
        for answer in now:
            self._lookups.loop.call_later(0.0, partial(answer, found, error))  # separately, since one of them may fail
        if later:
            self._asked[place] = later
            self._lookups.loop.call_later(0.0, partial(self._answer, place, found, error))


class DeviceSide:
    """A device of another side, and the peers behind it. `addresses`: lists the addresses that the device has now."""

    def __init__(self, of: Side, device: str, addresses: Callable[[], Iterable[str]]) -> None:
        self._of = of
        self._device = device
        self._addresses = addresses

    def open(self, family: int, kind: int) -> socket.socket:
        """As Side.open."""
        new = self._of.open(family, kind)
        try:
            bind_to_device(new, self._device)
        except OSError:
            new.close()
            raise
        return new

    def listen(self, kind: int, host: str, port: int) -> list[socket.socket]:
        """As Side.listen; "" is each address that the device has now."""
        if host:
            return [self._listen(kind, host, port)]
        made: list[socket.socket] = []
        try:
            for address in self._addresses():
                made.append(self._listen(kind, address, port, is_any=True))
        except OSError:
            for each in made:
                each.close()
            raise
        if not made:
            raise OSError(errno.EADDRNOTAVAIL, f"{self._device} has no address")
        return made

    def look_up(self, host: str, port: int, answer: OnFound) -> None:
        """As Side.look_up."""
        self._of.look_up(host, port, answer)

    def _listen(self, kind: int, address: str, port: int, *, is_any: bool = False) -> socket.socket:
        """Return a socket that takes only what comes out of the device. Raises OSError."""
        new = self.open(family_of((address, port)), kind)
        try:
            new = accept_only_from(new, self._device, lambda family: self._of.open(family, socket.SOCK_DGRAM))
        except OSError:
            new.close()
            raise
        if new.family == socket.AF_INET6 and is_any:
            # The kernel may still be looking for duplicates of an address that it was given just now.
            new.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        return listening(new, address, port)


def addresses_of_device(device: str) -> list[str]:
    """List the addresses of a device, without the link-local ones. Raises OSError or DeviceError."""
    return [str(each.ip) for each in addresses_of(device)]


def listening(new: socket.socket, host: str, port: int) -> socket.socket:
    """Bind a fresh socket, have a stream listen, and return it. Raises OSError, and then it is closed."""
    return bound(new, host, port, backlog=MOST_WAITING_TO_BE_ACCEPTED, takes_ipv4=host == "::")
