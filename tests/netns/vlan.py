"""VLAN device in user space, for kernels without one: `python -m tests.netns.vlan DEVICE NUMBER NAME`.

1. NAME is a TAP device made here, with the MAC address of DEVICE. It ends with this program.
2. What the kernel sends through NAME gets the tag, and leaves through DEVICE by a packet socket.
3. What arrives through DEVICE with this tag enters the kernel through NAME, without the tag.
4. Both carry superpackets and unfinished checksums (virtio_net_hdr), as a VLAN device of the kernel does. The header's
   two offsets count from the frame's first byte, so the tag moves them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys

from tests.netns.frames import ALL_PROTOCOLS, SOL_PACKET, opened, tag_of

PACKET_VNET_HDR = 15
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
TAP_WITH_HEADERS = 0x0002 | 0x1000 | 0x4000  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
CHECKSUMS_AND_TSO = 0x01 | 0x02 | 0x04
VIRTIO = struct.Struct("=BBHHHH")
NEEDS_CHECKSUM = 1
TPID = 0x8100


def moved(header: bytes, by: int) -> bytes:
    """A virtio_net_hdr whose frame has become longer in front of the IP header."""
    flags, kind, length, size, start, offset = VIRTIO.unpack(header)
    return VIRTIO.pack(flags, kind, length + by * (kind != 0), size, start + by * (flags & NEEDS_CHECKSUM), offset)


def tap(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP_WITH_HEADERS))
    fcntl.ioctl(descriptor, TUNSETOFFLOAD, CHECKSUMS_AND_TSO)
    return descriptor


def relay(device: socket.socket, name: int, tag: bytes) -> None:
    size = VIRTIO.size
    while True:
        ready, _, _ = select.select([device.fileno(), name], [], [])
        if name in ready:
            got = os.read(name, 1 << 17)
            try:
                device.send(moved(got[:size], len(tag)) + got[size : size + 12] + tag + got[size + 12 :])
            except OSError as full:
                if full.errno != errno.ENOBUFS:
                    raise
        if device.fileno() in ready:
            got, ancillary, _, _ = device.recvmsg(1 << 17, 64)
            if tag_of(ancillary) == tag:
                os.write(name, got)


if __name__ == "__main__":
    below, number, above = sys.argv[1:]
    descriptor = tap(above)
    with open(f"/sys/class/net/{below}/address") as address:
        subprocess.run(["ip", "link", "set", above, "address", address.read().strip()], check=True)
    subprocess.run(["ip", "link", "set", above, "up"], check=True)
    with opened(below, ALL_PROTOCOLS) as raw:
        raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        print("ready", flush=True)
        relay(raw, descriptor, struct.pack("!HH", TPID, int(number)))
