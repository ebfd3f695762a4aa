"""Strangers who reach a pairing's port."""

from __future__ import annotations

import socket

from vpntun.core.pairing.client import PairingClient, Prove
from vpntun.crypto.pairing import PairingCode

WRONG = PairingCode("00000000", "client")


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def guess(port: int, host: str = "127.0.0.1") -> bytes:
    """Try a wrong code; return the server's refusal, or nothing if it closed the connection."""
    with socket.create_connection((host, port), timeout=20) as connection:
        client = PairingClient(WRONG)
        connection.sendall(framed(client.first))
        answer = connection.recv(64)
        if not answer:
            return b""
        prove = client.receive(answer[2:])
        assert isinstance(prove, Prove)
        connection.sendall(framed(prove.message))
        return connection.recv(64)[2:]
