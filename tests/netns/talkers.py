"""A server and its clients, which talk through forwards.

    python -m tests.netns.talkers serve HOST PORT     serve TCP and UDP until killed
    python -m tests.netns.talkers crowd HOST PORT N   be many clients of it, then print "crowd served"
    python -m tests.netns.talkers each HOST PORT      be a client of each of CROWD ports, then print "each served"
    python -m tests.netns.talkers ask HOST PORT WORD  say one word to it, print what happens
    python -m tests.netns.talkers udp HOST PORT       have 50 datagrams answered, then print "datagrams answered"

A connection's first line is a word. The server answers

    echo      by what follows, up to its end
    fill      by FILL bytes, whether they are read or not
    reset     by a reset
    wait      by one byte, which the client answers by a reset; it prints how the connection ends

and a datagram by the same in capitals. The crowd is one client that reads nothing of what it has asked for until all
others are served: CROWD at once, then N short ones, SIDE_BY_SIDE at a time.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

PATIENCE = 60.0
CROWD, SIDE_BY_SIDE = 200, 16
FILL = 32 << 20
RESET = struct.pack("ii", 1, 0)


def say(text: str) -> None:
    print(text, flush=True)


class Talk(socketserver.StreamRequestHandler):
    """One connection at the server."""

    def handle(self) -> None:
        connected: socket.socket = self.request
        connected.settimeout(PATIENCE)
        match self.rfile.readline().strip():
            case b"echo":
                self.wfile.write(self.rfile.read())
            case b"fill":
                connected.sendall(bytes(FILL))
            case b"reset":
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            case b"wait":
                connected.sendall(b".")
                say(f"server saw {end_of(connected)}")


def end_of(connected: socket.socket) -> str:
    try:
        while connected.recv(65536):
            pass
    except ConnectionResetError:
        return "a reset"
    return "an end"


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def shutdown_request(self, request: object) -> None:
        self.close_request(request)  # type: ignore[arg-type]  # without a shutdown, which would precede a reset


def serve(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, Server((host, port), Talk) as server:
        datagrams.bind((host, port))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        say("ready")
        while True:
            datagram, client = datagrams.recvfrom(65536)
            datagrams.sendto(datagram.upper(), client)


def connect(place: tuple[str, int], word: bytes) -> socket.socket:
    new = socket.create_connection(place, timeout=PATIENCE)
    new.sendall(word + b"\n")
    return new


def rest_of(connected: socket.socket) -> bytes:
    got = bytearray()
    while piece := connected.recv(1 << 16):
        got += piece
    return bytes(got)


def finish(connected: socket.socket, text: bytes) -> None:
    """Send a text, end, and check that it comes back."""
    with connected:
        connected.sendall(text)
        connected.shutdown(socket.SHUT_WR)
        assert rest_of(connected) == text


def crowd(place: tuple[str, int], short: int) -> None:
    with connect(place, b"fill") as slow:
        many = [connect(place, b"echo") for _ in range(CROWD)]
        for number, each in enumerate(many):
            finish(each, b"client %d" % number)
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            list(pool.map(lambda number: finish(connect(place, b"echo"), b"%d" % number), range(short)))
        assert rest_of(slow) == bytes(FILL)
    say("crowd served")


def each(host: str, first: int) -> None:
    many = [connect((host, first + number), b"echo") for number in range(CROWD)]
    for number, client in enumerate(many):
        finish(client, b"client of %d" % number)
    say("each served")


def ask(place: tuple[str, int], word: str) -> None:
    try:
        connected = socket.create_connection(place, timeout=PATIENCE)
    except ConnectionResetError:  # so soon that it comes before this side knows that it is connected
        say("client saw a reset")
        return
    with connected:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # refused already, as will be seen
            connected.sendall(word.encode() + b"\n")
        if word == "wait":
            connected.recv(1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        else:
            say(f"client saw {end_of(connected)}")


def udp(place: tuple[str, int]) -> None:
    for number in range(50):
        with socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(place)
            client.settimeout(1)
            for _ in range(30):
                client.send(b"datagram %d" % number)
                try:
                    assert client.recv(100) == b"DATAGRAM %d" % number
                    break
                except TimeoutError:
                    continue
            else:
                raise AssertionError(f"no answer to datagram {number}")
    say("datagrams answered")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", host, port]:
            serve(host, int(port))
        case ["crowd", host, port, short]:
            crowd((host, int(port)), int(short))
        case ["each", host, port]:
            each(host, int(port))
        case ["ask", host, port, word]:
            ask((host, int(port)), word)
        case ["udp", host, port]:
            udp((host, int(port)))
        case _:
            sys.exit(__doc__)
