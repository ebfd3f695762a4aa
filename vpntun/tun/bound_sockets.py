"""Sockets that are bound to a device: what they send leaves by it, and what they accept has come by it.

SO_BINDTODEVICE alone (socket(7)) has an exception: packets of this machine itself to an address of the device come by
the loopback device, but count as if they came by the device. A filter that asks for the number of the device drops them
(packet(7), SO_ATTACH_FILTER). Connections inherit it from their listener. Some kernels allow a filter to CAP_NET_ADMIN
alone: there the sockets of an ordinary user refuse senders whose address is one of this machine's.

A socket may be one of another network namespace: the device is found there.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

SIOCGIFINDEX = 0x8933
SO_ATTACH_FILTER = 26
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
DEVICE_NUMBER = 0xFFFFF000 + 8  # SKF_AD_OFF + SKF_AD_IFINDEX, linux/filter.h
WHOLE_PACKET = 0xFFFFFFFF
MOST_REMEMBERED = 1024

Probe = Callable[[int], socket.socket]
"""Makes a datagram socket of an address family."""

_INSTRUCTION = struct.Struct("=HBBI")
_IFREQ_NUMBER = struct.Struct("16si20x")


def _datagram(family: int) -> socket.socket:
    return socket.socket(family, socket.SOCK_DGRAM)


def bind_to_device(new: socket.socket, device: str) -> None:
    """Bind a socket to a device, which takes no privilege since Linux 5.7. Raises OSError."""
    new.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(device) + b"\0")


def accept_only_from(new: socket.socket, device: str, probe: Probe = _datagram) -> socket.socket:
    """Return the socket, which takes only what arrives on this device. Call it before the socket is bound.

    `probe`: makes datagram sockets in the network namespace of the device. Raises OSError.
    """
    _, number = _IFREQ_NUMBER.unpack(fcntl.ioctl(new, SIOCGIFINDEX, _IFREQ_NUMBER.pack(os.fsencode(device), 0)))
    try:
        _attach_filter(new, number)
    except PermissionError:
        return _FarSocket(new, probe)
    return new


def _attach_filter(new: socket.socket, number: int) -> None:
    """Let the kernel drop what does not arrive on the device with this number. Raises OSError."""
    program = b"".join(
        (
            _INSTRUCTION.pack(LOAD_WORD, 0, 0, DEVICE_NUMBER),
            _INSTRUCTION.pack(JUMP_IF_EQUAL, 0, 1, number),
            _INSTRUCTION.pack(RETURN, 0, 0, WHOLE_PACKET),
            _INSTRUCTION.pack(RETURN, 0, 0, 0),
        )
    )
    kept = ctypes.create_string_buffer(program, len(program))
    place = struct.pack("HP", len(program) // _INSTRUCTION.size, ctypes.addressof(kept))
    new.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, place)


class _FarSocket(socket.socket):
    """Socket that refuses senders of its own machine. They look as if nothing had come: BlockingIOError is raised."""

    def __init__(self, unbound: socket.socket, probe: Probe) -> None:
        is_blocking = unbound.getblocking()
        super().__init__(fileno=unbound.detach())
        self.setblocking(is_blocking)
        self._probe = probe
        self._far: set[str] = set()

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection. Raises OSError."""
        new, address = super().accept()
        try:
            self._refuse_near(address)
        except BlockingIOError:
            new.close()
            raise
        return new, address

    def recvfrom(self, *arguments: Any) -> tuple[bytes, Any]:
        """Receive a datagram. Raises OSError."""
        data, address = super().recvfrom(*arguments)
        self._refuse_near(address)
        return data, address

    def recvmsg_into(self, *arguments: Any) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
        """Receive a datagram into buffers. Raises OSError."""
        size, messages, flags, address = super().recvmsg_into(*arguments)
        self._refuse_near(address)
        return size, messages, flags, address

    def _refuse_near(self, address: Any) -> None:
        """Raise BlockingIOError for an address of this machine, which is one that a socket can be bound to."""
        host, _, *scope = address
        if host in self._far:
            return
        with suppress(OSError), self._probe(self.family) as probe:
            try:
                probe.bind((host, 0, *scope))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    if len(self._far) >= MOST_REMEMBERED:
                        self._far.clear()
                    self._far.add(host)
                    return
        raise BlockingIOError
