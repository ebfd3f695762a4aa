"""Ethernet frames in hex on a device, below IP: `watch`, `send` and `storm`.

    watch DEVICE [TYPE]               print each frame that arrives, with its VLAN tag, if it has this EtherType
    send DEVICE FRAME...              send each frame once
    storm DEVICE FRAME COUNT RATE     send one frame COUNT times, RATE a second

The kernel takes the outer VLAN tag from a frame that arrives and hands it over beside it (`PACKET_AUXDATA`).
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
import time

SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 263, 8, 23
ALL_PROTOCOLS = 3
TAG_IS_VALID = 1 << 4
TURN = 0.005  # seconds between two parts of a storm


def opened(device: str, protocol: int = 0) -> socket.socket:
    """A socket for whole frames of a device. With protocol 0 it receives none."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    made.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    made.setsockopt(socket.SOL_SOCKET, 33, 1 << 23)  # SO_RCVBUFFORCE
    made.bind((device, protocol))
    return made


def tag_of(ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """The VLAN tag that the kernel took from a frame, or nothing."""
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, *_, number, protocol = struct.unpack("=IIIHHHH", data[:20])
            return struct.pack("!HH", protocol, number) if status & TAG_IS_VALID else b""
    return b""


def watch(device: str, kind: bytes) -> None:
    with opened(device, ALL_PROTOCOLS) as watched:
        print("ready", flush=True)
        while True:
            frame, ancillary, _, _ = watched.recvmsg(1 << 17, 64)
            whole = frame[:12] + tag_of(ancillary) + frame[12:]
            if whole[12:14].startswith(kind):
                print(whole.hex(), flush=True)


def send(device: str, frames: list[bytes]) -> None:
    with opened(device) as sender:
        for frame in frames:
            sender.send(frame)


def storm(device: str, frame: bytes, count: int, rate: int) -> None:
    started, sent = time.monotonic(), 0
    with opened(device) as sender:
        print("ready", flush=True)
        while sent < count:
            due = min(count, int((time.monotonic() - started) * rate) + 1)
            for _ in range(sent, due):
                try:
                    sender.send(frame)
                except OSError as full:
                    if full.errno != errno.ENOBUFS:
                        raise
            sent = due
            time.sleep(TURN)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["watch", device, *kind]:
            watch(device, bytes.fromhex("".join(kind)))
        case ["send", device, *frames]:
            send(device, [bytes.fromhex(each) for each in frames])
        case ["storm", device, frame, count, rate]:
            storm(device, bytes.fromhex(frame), int(count), int(rate))
