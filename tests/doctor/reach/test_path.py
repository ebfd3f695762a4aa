"""The path's MTU: PROBEs of several lengths over loopback, of which the other end echoes those that it sees."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest

from vpntun.crypto.noise import SessionKeys
from vpntun.crypto.session import Session
from vpntun.doctor.reach import path
from vpntun.doctor.reach.path import echo_in, learned_mtu, mtu_of_route, probed_mtu, sealed
from vpntun.errors import BadPacket
from vpntun.wire.record import Echo, Hello, Probe

HERE = SessionKeys(b"a" * 32, b"b" * 32)
THERE = SessionKeys(b"b" * 32, b"a" * 32)


def sessions() -> tuple[Session, Session]:
    return Session(HERE, 1, 2, True, 0.0), Session(THERE, 2, 1, False, 0.0)


def reply(session: Session, record: bytes) -> bytes:
    message = memoryview(bytearray(len(record) + 32))
    session.seal_into(record, message)
    return bytes(message)


@pytest.fixture(autouse=True)
def _in_short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path, "SECONDS_OF_A_ROUND", 0.3)
    monkeypatch.setattr(path, "SECONDS_TO_LEARN", 0.1)


@pytest.mark.parametrize(("longest", "found"), [(65535, 9000), (1492, 1492), (1300, 1280), (0, None)])
def test_the_longest_probe_that_is_echoed_counts(
    longest: int, found: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "mtu_of_route", lambda link: 9000)
    ours, theirs = sessions()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as link:
        server.bind(("127.0.0.1", 0))
        server.settimeout(2)
        link.connect(server.getsockname())

        def serve() -> None:
            with suppress(OSError):
                while True:
                    message, sender = server.recvfrom(65535)
                    if len(message) + 28 > longest:
                        continue
                    plaintext = memoryview(bytearray(len(message)))
                    size = theirs.open_into(memoryview(message), plaintext)
                    probe = Probe.parse(plaintext[:size])
                    server.sendto(b"noise", sender)
                    server.sendto(reply(theirs, Hello(False, 0).pack()), sender)
                    server.sendto(reply(theirs, Echo(probe.token, probe.size).pack()), sender)

        threading.Thread(target=serve, daemon=True).start()
        assert probed_mtu(link, ours) == found


def test_the_kernel_knows_the_mtu_of_loopback() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as link:
        server.bind(("127.0.0.1", 0))
        link.connect(server.getsockname())
        assert learned_mtu(link) == mtu_of_route(link) >= 1500


def test_only_an_authentic_echo_has_a_token() -> None:
    ours, theirs = sessions()
    assert echo_in(ours, reply(theirs, Echo(1400, 1300).pack())) == 1400
    assert echo_in(ours, reply(theirs, Hello(False, 0).pack())) == 0
    assert echo_in(ours, reply(theirs, b"")) == 0
    with pytest.raises(BadPacket):
        echo_in(ours, bytes(50))
    assert len(sealed(ours, Probe(1, 100))) == 132
