"""Sockets that are bound to a device: what they send leaves by it, and what they accept has come by it.

SO_BINDTODEVICE alone (socket(7)) has an exception: packets of this machine itself to an address of the device come by
the loopback device, but count as if they came by the device. A filter that asks for the number of the device drops them
(packet(7), SO_ATTACH_FILTER). Connections inherit it from their listener.

A socket may be one of another network namespace: the device is found there.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

SIOCGIFINDEX = 0x8933
SO_ATTACH_FILTER = 26
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
DEVICE_NUMBER = 0xFFFFF000 + 8  # SKF_AD_OFF + SKF_AD_IFINDEX, linux/filter.h
WHOLE_PACKET = 0xFFFFFFFF

_INSTRUCTION = struct.Struct("=HBBI")
_IFREQ_NUMBER = struct.Struct("16si20x")


def bind_to_device(new: socket.socket, device: str) -> None:
    """Bind a socket to a device, which takes no privilege since Linux 5.7. Raises OSError."""
    new.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(device) + b"\0")


def accept_only_from(new: socket.socket, device: str) -> None:
    """Let the kernel drop what does not arrive on this device. Call it before the socket is bound. Raises OSError."""
    _, number = _IFREQ_NUMBER.unpack(fcntl.ioctl(new, SIOCGIFINDEX, _IFREQ_NUMBER.pack(os.fsencode(device), 0)))
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
