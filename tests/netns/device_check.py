"""Check wire/ against a real TUN device. Run in a network namespace; prints a JSON object, which test_kernel.py judges.

1. Write superpackets with the headers that `header_for` makes, and receive the datagrams into which the kernel cuts
   them from a socket.
2. Send superpackets from a socket, cut what the kernel passes to the device with `Splitter`, and verify the checksums
   word by word.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from tests.wire import packets
from vpntun.errors import BadPacket
from vpntun.wire.gso import Splitter
from vpntun.wire.ip import length_of
from vpntun.wire.vnet import UNFINISHED, VNET_HEADER, VNET_HEADER_SIZE, header_for, segment_field_of

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x1, 0x1000, 0x4000
TCP_OFFLOADS, ALL_OFFLOADS = 0x07, 0x67
PAYLOAD = bytes(number * 7 & 0xFF for number in range(60000))


def open_device() -> int:
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tw0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(device, TUNSETOFFLOAD, TCP_OFFLOADS)
    try:
        fcntl.ioctl(device, TUNSETOFFLOAD, ALL_OFFLOADS)
    except OSError:  # a kernel before 6.2
        print(json.dumps({"too old": True}))
        raise SystemExit from None
    for command in (
        "link set tw0 up",
        "address add 10.1.2.3/24 dev tw0",
        "address add 2001:db8::2/64 dev tw0 nodad",
        "route add 100.64.0.0/10 dev tw0",
        "route add 10.9.9.0/24 dev tw0",
        "-6 route add fd00::/64 dev tw0",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    os.set_blocking(device, False)
    return device


def drain(device: int) -> Iterator[memoryview]:
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        read = bytearray(70000)
        try:
            size = os.readv(device, [read])
        except BlockingIOError:
            time.sleep(0.01)
        else:
            yield memoryview(read)[:size]


def written(device: int) -> dict[str, int]:
    """Write each superpacket; return, by name, 0 where the kernel took all of it, else the errno or the difference."""
    behind_options = packets.ip(6, 60, b"\x06" + bytes(7) + packets.tcp(6, PAYLOAD[:6000])[40:])
    given: dict[str, tuple[bytes, int]] = {
        "TCP over IPv4": (packets.tcp_superpacket(4, PAYLOAD), 1448),
        "TCP over IPv6": (packets.tcp_superpacket(6, PAYLOAD), 1428),
        "with CWR": (packets.tcp_superpacket(4, PAYLOAD, flags=packets.ACK | packets.CWR), 1448),
        "the smallest segments": (packets.tcp_superpacket(4, PAYLOAD[: 256 * 48]), 48),
        "UDP over IPv4": (packets.udp_superpacket(4, PAYLOAD), 1448),
        "UDP over IPv6": (packets.udp_superpacket(6, PAYLOAD), 1448),
        "an unfinished checksum": (packets.udp_superpacket(6, PAYLOAD[:600]), 0),
        "behind an extension header": (behind_options, 1428),
    }
    results = {}
    for name, (packet, size) in given.items():
        header = bytearray(VNET_HEADER_SIZE)
        header_for(packet, length_of(packet), UNFINISHED | size, header)
        try:
            results[name] = os.writev(device, [header, packet]) - VNET_HEADER_SIZE - len(packet)
        except OSError as refused:
            results[name] = refused.errno or 1
    return results


def received(sink: socket.socket) -> list[bytes]:
    sink.settimeout(1)
    got = []
    try:
        while True:
            got.append(sink.recv(65535))
    except TimeoutError:
        return got


def sink_at(family: int, address: str) -> socket.socket:
    sink = socket.socket(family, socket.SOCK_DGRAM)
    sink.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)
    sink.bind((address, 53))
    return sink


def cut(device: int) -> list[dict[str, Any]]:
    """Split the kernel's superpackets and return what was found in each."""
    for family, address in ((socket.AF_INET, "10.9.9.9"), (socket.AF_INET6, "fd00::9")):
        with socket.socket(family, socket.SOCK_DGRAM) as source:
            source.setsockopt(17, 103, 1200)
            source.sendto(PAYLOAD[:30000], (address, 9))
        with socket.socket(family, socket.SOCK_DGRAM) as source:
            source.sendto(PAYLOAD[:901], (address, 9))
    splitter, results = Splitter(), []
    for read in drain(device):
        packet = read[VNET_HEADER_SIZE:]
        try:
            field = segment_field_of(read[:VNET_HEADER_SIZE], packet)
        except BadPacket:
            continue
        if not field or packet[9 if packet[0] < 0x50 else 6] != 17:  # the kernel's own ICMPv6 and TCP resets
            continue
        out = memoryview(bytearray(2048))
        count = splitter.split(packet, field)
        pieces = [bytes(out[: splitter.write_run(index, 1, out, 0)]) for index in range(count)]
        header = 28 if packet[0] < 0x50 else 48
        results.append(
            {
                "version": packet[0] >> 4,
                "gso type": VNET_HEADER.unpack_from(read)[1],
                "count": count,
                "right": all(map(packets.is_right, pieces)),
                "whole": PAYLOAD.startswith(b"".join(piece[header:] for piece in pieces)),
            }
        )
    return results


def main() -> None:
    device = open_device()
    sinks = {4: sink_at(socket.AF_INET, "10.1.2.3"), 6: sink_at(socket.AF_INET6, "2001:db8::2")}
    report: dict[str, Any] = {"written": written(device)}
    for version, sink in sinks.items():
        got = received(sink)
        expected = [PAYLOAD[at : at + 1448] for at in range(0, len(PAYLOAD), 1448)]
        report[f"received {version}"] = got[: len(expected)] == expected
        sink.close()
    for _ in drain(device):
        pass
    report["cut"] = cut(device)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
