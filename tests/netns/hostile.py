"""A peer with valid keys that sends from a different address than it called from. Its argument is one JSON object:

    role            "caller" or "server"
    private, public its own private key and the other end's public key, in hexadecimal digits
    at              the address that a caller calls, or that a server listens on
    own             the address from which a caller shakes hands
    later, carrier  the address from which it sends the packet, and the carrier, "udp" or "tcp"
    go, packet      the file that it waits for, and the inner packet that it then sends, in hexadecimal digits

1. It establishes a session and prints "session".
2. Once the file exists, it sends the packet: over UDP, or over a TCP connection that it opened at the start. It prints
   "sent" and keeps running, so that its ports send no ICMP errors.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path

from vpntun.crypto.keys import KeyPair
from vpntun.crypto.noise import Initiator, consume_initiation
from vpntun.crypto.session import Session
from vpntun.crypto.timestamp import tai64n
from vpntun.wire.message import DATA_OVERHEAD, INITIATION, RESPONSE, Response

PSK = bytes(32)
INDEX = 7
PORT = 55555


def udp_from(host: str, port: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((host, port))
    made.settimeout(10)
    return made


def sealed(session: Session, plaintext: bytes) -> bytes:
    message = bytearray(len(plaintext) + DATA_OVERHEAD)
    session.seal_into(plaintext, memoryview(message))
    return bytes(message)


def call(own: str, keys: KeyPair, public: bytes, there: str) -> tuple[Session, socket.socket]:
    """Establish a session as the initiator; return it and the socket that was used."""
    asking = udp_from(own)
    initiator = Initiator(keys, public, PSK)
    asking.sendto(initiator.initiation(INDEX, tai64n(time.time())), (there, PORT))
    while (message := asking.recv(65535))[0] != RESPONSE:
        pass
    session_keys, theirs = initiator.consume_response(message), Response.parse(message).sender
    session = Session(session_keys, INDEX, theirs, True, time.monotonic())
    asking.sendto(sealed(session, b""), (there, PORT))
    return session, asking


def serve(waiting: socket.socket, keys: KeyPair) -> tuple[Session, tuple[str, int]]:
    """Wait for a handshake and confirm the session; return it and the initiator's address."""
    while True:
        message, there = waiting.recvfrom(65535)
        if message[0] == INITIATION:
            received = consume_initiation(keys, message)
            answer, session_keys = received.respond(PSK, INDEX)
            waiting.sendto(answer, there)
            waiting.recv(65535)
            session = Session(session_keys, INDEX, received.sender, False, time.monotonic())
            waiting.sendto(sealed(session, b""), there)
            return session, there


def main() -> None:
    wanted: dict[str, str] = json.loads(sys.argv[1])
    keys, public = KeyPair.of(bytes.fromhex(wanted["private"])), bytes.fromhex(wanted["public"])
    there = wanted["at"], PORT
    over_tcp = wanted.get("carrier") == "tcp"
    stream = socket.create_connection(there, 10, (wanted["later"], 0)) if over_tcp else None
    if wanted["role"] == "caller":
        session, kept = call(wanted["own"], keys, public, wanted["at"])
    else:
        kept = udp_from(wanted["at"], PORT)
        session, there = serve(kept, keys)
    print("session", flush=True)
    while not Path(wanted["go"]).exists():
        time.sleep(0.02)
    message = sealed(session, bytes.fromhex(wanted["packet"]))
    if stream is not None:
        stream.sendall(len(message).to_bytes(2, "big") + message)
    else:
        elsewhere = udp_from(wanted["later"])
        elsewhere.sendto(message, there)
    print("sent", flush=True)
    time.sleep(60)


if __name__ == "__main__":
    main()
