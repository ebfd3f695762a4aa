"""Switch off a device's offloads with the ioctl of `ethtool -K`.

These are all features that put several packets into one buffer (all kinds of segmentation, GRO), and those that they
depend on (checksums by the device, scattered buffers). Afterwards each datagram travels separately, as over a simple
network card.
"""

from __future__ import annotations

import array
import fcntl
import re
import socket
import struct
from collections.abc import Iterable

from benchmark.errors import BenchError
from namespaces import inside

_SIOCETHTOOL = 0x8946
_GSTRINGS, _GSSET_INFO, _GFEATURES, _SFEATURES = 0x1B, 0x37, 0x3A, 0x3B
_FEATURES = 4  # the set of strings that names the features
_NAME = 32
_OFF = re.compile(
    r"tx-checksum-ip.*|tx-scatter-gather|tx-.*segmentation|tx-gso-.*|rx-gro.*|rx-udp-gro-forwarding|.*lro"
)


def switch_off(namespace: str, device: str) -> None:
    """Switch the offloads off, and verify that they are."""
    with inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        features = _names(control, device)
        unwanted = [number for number, name in features.items() if _OFF.fullmatch(name)]
        _request_off(control, device, unwanted, len(features))
        active = _active(control, device, len(features))
    left = [features[number] for number in unwanted if active >> number & 1]
    if left:
        raise BenchError(f"{device} does not let these offloads be switched off: {', '.join(left)}")


def _names(control: socket.socket, device: str) -> dict[int, str]:
    answer = _ethtool(control, device, struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _FEATURES, 0))
    count = struct.unpack_from("=I", answer, 16)[0]
    request = struct.pack("=III", _GSTRINGS, _FEATURES, count) + bytes(count * _NAME)
    names = _ethtool(control, device, request)[12:]
    return {n: names[n * _NAME : (n + 1) * _NAME].rstrip(b"\0").decode() for n in range(count)}


def _request_off(control: socket.socket, device: str, numbers: Iterable[int], count: int) -> None:
    blocks = [0] * ((count + 31) // 32)
    for number in numbers:
        blocks[number // 32] |= 1 << number % 32
    pairs = b"".join(struct.pack("=II", valid, 0) for valid in blocks)  # which bits to set, and their new values
    _ethtool(control, device, struct.pack("=II", _SFEATURES, len(blocks)) + pairs)


def _active(control: socket.socket, device: str, count: int) -> int:
    """Return the active features, one bit each."""
    size = (count + 31) // 32
    answer = _ethtool(control, device, struct.pack("=II", _GFEATURES, size) + bytes(size * 16))
    # A block is: available, requested, active, never changed.
    active: int = sum(struct.unpack_from("=I", answer, 8 + 16 * n + 8)[0] << 32 * n for n in range(size))
    return active


def _ethtool(control: socket.socket, device: str, request: bytes) -> bytes:
    buffer = array.array("B", request)
    try:
        fcntl.ioctl(control, _SIOCETHTOOL, struct.pack("16sP16x", device.encode(), buffer.buffer_info()[0]))
    except OSError as refused:
        raise BenchError(f"the offloads of {device} cannot be changed: {refused.strerror}") from refused
    return buffer.tobytes()
