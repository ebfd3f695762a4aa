"""Command `capture`: shows the packets inside a tunnel, or writes them as pcapng for wireshark and tcpdump.

The first signal (SIGINT, SIGTERM) asks the tunnel for the end of the capture, which completes the file. The second one
ends the command at once.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from types import FrameType

import click

from vpntun.capture.describing import describe
from vpntun.capture.describing_frames import describe_frame
from vpntun.capture.reading import CapturedPacket, CaptureReader
from vpntun.control.client import ControlClient
from vpntun.errors import BadPacket, VpntunError
from vpntun.runtime.logform import escape
from vpntun.serving.http import target_of

STDOUT = 1
NANOSECONDS = 1_000_000_000


@click.command()
@click.argument("interface")
@click.option("-w", "file", metavar="FILE", help="Write pcapng to FILE, which is replaced; - is the standard output.")
@click.option("--print", "prints", is_flag=True, help="Print a line for each packet (the default on a terminal).")
@click.option("--peer", multiple=True, metavar="PEER", help="Only packets of this peer: its name or public key.")
@click.option("--net", multiple=True, metavar="CIDR", help="Only packets from or to this network.")
@click.option("--packets", type=click.IntRange(1), metavar="N", help="End after N packets.")
@click.option("--bytes", "size", type=click.IntRange(4096), metavar="N", help="End before the pcapng exceeds N bytes.")
@click.option("--seconds", type=click.FloatRange(0), metavar="N", help="End after N seconds.")
@click.option("--snaplen", type=click.IntRange(1, 65535), metavar="N", help="Take only N bytes of each packet.")
def capture(interface: str, file: str | None, prints: bool, **bounds: object) -> None:
    """Show the packets inside the tunnel of INTERFACE.

    They are shown as they enter and leave the tunnel, unencrypted. Without -w and --print, the standard output gets
    pcapng unless it is a terminal. Ctrl-C ends the capture.
    """
    if file is None and not prints:
        prints, file = (True, None) if sys.stdout.isatty() else (False, "-")
    if file == "-" and (prints or sys.stdout.isatty()):
        raise click.UsageError("pcapng cannot go to a terminal or between printed lines: give -w a FILE, or a pipe")
    reader = CaptureReader()
    with ExitStack() as stack:
        tunnel = stack.enter_context(ControlClient(interface))
        pieces = tunnel.stream("GET", _target(bounds))
        stack.enter_context(_ended_by_signals(tunnel.end_stream))
        output = stack.enter_context(_output(file)) if file is not None else None
        if prints or output == STDOUT:
            _end_without_reader(tunnel.end_stream)
        with suppress(BrokenPipeError):
            for piece in pieces:
                _take(piece, reader, output, prints)
    click.echo(_count(reader), err=True)


def _take(piece: bytes, reader: CaptureReader, output: int | None, prints: bool) -> None:
    """Write a piece of the capture, and print its packets. Raises VpntunError if that is impossible."""
    if output is not None:
        _write(output, piece)
    try:
        lines = [line_of(packet) for packet in reader.take(piece) if prints]
    except BadPacket as bad:
        raise VpntunError("the tunnel sent something else than a capture: is it of another version?") from bad
    if lines:
        _write(STDOUT, "".join(f"{line}\n" for line in lines).encode(errors="replace"))


def line_of(packet: CapturedPacket) -> str:
    """Return the line that is printed for a packet: time, direction, peer, and what it is."""
    at = datetime.fromtimestamp(packet.at // NANOSECONDS)
    arrow = "->" if packet.outbound else "<-"
    when = f"{at:%H:%M:%S}.{packet.at % NANOSECONDS // 1000:06d}"
    what = (describe_frame if packet.is_frame else describe)(packet.data, packet.length)
    return escape(f"{when} {arrow} {packet.peer}: {what}")


def _target(bounds: dict[str, object]) -> str:
    """Return the target of the request, with the options as its fields."""
    names = {"size": "bytes"}
    given = {names.get(name, name): value for name, value in bounds.items() if value is not None and value != ()}
    return target_of("/v1/capture", given)


@contextmanager
def _output(file: str) -> Iterator[int]:
    """Open the file, which only its owner may read: what was secret on the way is in it. Raises VpntunError."""
    if file == "-":
        yield STDOUT
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise VpntunError(f"{file} cannot be written: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    """Write everything. Raises VpntunError, and BrokenPipeError if nobody reads any more."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise VpntunError(f"the capture cannot be written: {error.strerror}") from error


@contextmanager
def _ended_by_signals(end: Callable[[], None]) -> Iterator[None]:
    """Call `end` at the first signal; at the second one, act as without this."""

    def handle(number: int, frame: FrameType | None) -> None:
        restore()
        end()

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in former:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def _end_without_reader(end: Callable[[], None]) -> None:
    """Call `end` when standard output is a pipe that nobody reads any more, although there may be nothing to write."""

    def wait() -> None:
        waiting = select.poll()
        waiting.register(STDOUT, 0)  # errors and hangups are always reported
        waiting.poll()
        end()

    threading.Thread(target=wait, daemon=True).start()


def _count(reader: CaptureReader) -> str:
    packets = f"{reader.packets:,} packet{'' if reader.packets == 1 else 's'} captured"
    return f"{packets}, {reader.lost:,} lost: they came faster than they were read" if reader.lost else packets
