"""Switch off offloads that put several packets into one buffer, as `ethtool -K` does: `python offloads.py DEVICE...`

Afterwards each datagram travels, is counted and is lost separately, and UDP_SEGMENT is refused (EIO).
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
import sys

SIOCETHTOOL = 0x8946
STXCSUM, SSG, STSO, SGSO, SGRO = 0x17, 0x19, 0x1F, 0x24, 0x2C


def switch_off(device: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in (STSO, SGSO, SGRO, SSG, STXCSUM):
            value = array.array("B", struct.pack("=II", command, 0))
            fcntl.ioctl(control, SIOCETHTOOL, struct.pack("16sP16x", device.encode(), value.buffer_info()[0]))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        switch_off(name)
