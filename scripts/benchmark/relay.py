"""A long path between two network namespaces, where the kernel has no netem: delay, rate, queue and loss. As root.

    scripts/wan A B [--delay MS] [--rate MBIT] [--queue KB] [--loss PERCENT] [--mtu N] [--seed N]

1. A TAP device wan0 in each of the two namespaces, up, without addresses and without offloads: a frame is a packet.
   Then "ready" on standard output.
2. Both directions alike, as way.py has it, by the numbers given: one way's delay, one way's rate.
3. Ends on SIGTERM or Ctrl-C, and says what became of the frames in each direction. The devices go with it.

It wakes up a few thousand times a second at most and moves what has come and what is due, so frames travel in small
groups, as they do from a real network card. A frame may be that pause early or late; how late the worst was, when the
processor was busy elsewhere, is said at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import struct
import sys
import time

from benchmark.namespaces import inside
from benchmark.way import Terms, Way

DEVICE = "wan0"
PAUSE = 0.0002  # seconds between two looks at the devices while frames travel
AT_ONCE = 256  # frames read from a device in one go
LONGEST_FRAME = 9100 + 14
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFMTU, SIOCSIFTXQLEN, IFF_UP = 0x8913, 0x8914, 0x8922, 0x8943, 0x1


def open_tap(namespace: str, mtu: int) -> int:
    """The descriptor of a new TAP device in a namespace, up."""
    with inside(namespace):
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        name = DEVICE.encode()
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name, IFF_TAP | IFF_NO_PI))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, SIOCSIFMTU, struct.pack("16si20x", name, mtu))
            fcntl.ioctl(control, SIOCSIFTXQLEN, struct.pack("16si20x", name, 5000))
            flags = struct.unpack("16sH22x", fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16s24x", name)))[1]
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", name, flags | IFF_UP))
    return tap


def read_into(way: Way, tap: int) -> None:
    """Everything that waits at a device goes on its way."""
    now, read, take = time.monotonic(), os.read, way.take
    with contextlib.suppress(BlockingIOError):
        for _ in range(AT_ONCE):
            take(read(tap, LONGEST_FRAME), now)


def write_out_of(way: Way, tap: int) -> None:
    """Every frame that is due comes out."""
    write = os.write
    for frame in way.give(time.monotonic() + PAUSE):  # for the pause with which it was read
        try:
            write(tap, frame)
        except OSError:  # the other end's device is full or down; a frame is lost there, as anywhere
            way.dropped += 1


def relay(taps: tuple[int, int], ways: tuple[Way, Way]) -> None:
    """Carry frames until interrupted."""
    readers = ((taps[0], ways[0]), (taps[1], ways[1]))
    writers = ((ways[0], taps[1]), (ways[1], taps[0]))
    while True:
        dues = [due for way in ways if (due := way.next_due) is not None]
        wait = max(0.0, min(dues) - time.monotonic()) if dues else None
        select.select(taps, (), (), wait)
        time.sleep(PAUSE)
        for tap, way in readers:
            read_into(way, tap)
        for way, tap in writers:
            write_out_of(way, tap)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/wan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", metavar="A", help="a network namespace")
    parser.add_argument("b", metavar="B", help="the other")
    parser.add_argument("--delay", type=float, default=10, metavar="MS", help="of one way (10)")
    parser.add_argument("--rate", type=float, default=300, metavar="MBIT", help="a second; 0: no limit (300)")
    parser.add_argument("--queue", type=float, default=1500, metavar="KB", help="before the rate; then drops (1500)")
    parser.add_argument("--loss", type=float, default=0, metavar="PERCENT", help="of the frames, by chance (0)")
    parser.add_argument("--mtu", type=int, default=1500, metavar="N", help="at most 9100 (1500)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the chance (1)")
    options = parser.parse_args()
    terms = Terms(options.delay / 1e3, options.rate * 1e6 / 8, int(options.queue * 1e3), options.loss / 100)
    ways = (Way(terms, options.seed), Way(terms, options.seed + 1))
    try:
        taps = (open_tap(options.a, options.mtu), open_tap(options.b, options.mtu))
    except OSError as refused:
        print(f"scripts/wan: {refused}", file=sys.stderr)
        return 1
    with contextlib.suppress(OSError):
        # The path is not what is measured, and shall not be what is slow. It sleeps in every turn.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    gc.disable()  # nothing here is ever part of a cycle, and thousands of frames wait in a list
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("ready", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        relay(taps, ways)
    for direction, way in zip((f"{options.a} to {options.b}", f"{options.b} to {options.a}"), ways, strict=True):
        late = f"at most {way.most_late * 1e3:.1f} ms late"
        print(f"{direction}: {way.carried} carried, {way.lost} lost, {way.dropped} dropped, {late}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
