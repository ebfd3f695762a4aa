"""WireGuard's configuration protocol: what wg(8) sees, and the one thing that it may set.

test_unix_server.py has the limits on clients; tests/netns/test_wg_tool.py asks by wg(8) itself.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import ExpectedErrors
from tests.control.socket_client import SocketClient, sleeps
from tests.datapath.ends import ALICE, BOB, CAROL, PSK
from tests.link.test_link import Two
from tests.machine import HandLoop, logged
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.control.uapi import LARGEST_REQUEST, SETTABLE, UapiExchange, UapiServer, describe
from vpntun.crypto.keys import KeyPair
from vpntun.errors import VpntunError
from vpntun.link.link import Link

GET = "get=1\n\n"
WALL = 1_700_000_000.5
SETTINGS = PeerSettings(BOB.public, (ip_network("10.0.0.0/24"), ip_network("fd00::/64")), PSK, keepalive=25.0)
TUNNEL = Tunnel("tun3", ALICE, (SETTINGS,), 55555, "auto")


def set_request(**values: str) -> str:
    return "set=1\n" + "".join(f"{name}={value}\n" for name, value in values.items()) + "\n"


class Asked:
    """A socket, and the tunnel behind it, which has no key yet."""

    def __init__(self, loop: HandLoop, folder: Path) -> None:
        self.loop, self.folder = loop, folder
        self.lines = ["listen_port=55555"]
        self.keys: KeyPair | None = None
        self.error: Exception | None = None
        self.clients: list[SocketClient[str]] = []
        self.server = UapiServer("tun3", loop, get=self.get, give_key=self.give_key, folder=folder)

    def get(self) -> Iterator[str]:
        if self.error is not None:
            raise self.error
        return iter(self.lines)

    def give_key(self, keys: KeyPair) -> bool:
        if self.error is not None:
            raise self.error
        if self.keys is None:
            self.keys = keys
        return self.keys == keys

    def connect(self) -> SocketClient[str]:
        self.clients.append(SocketClient(self.loop, self.folder / "tun3.sock", take_answer))
        return self.clients[-1]

    def close(self) -> None:
        self.server.close()
        for client in self.clients:
            client.socket.close()


def take_answer(got: bytearray) -> str | None:
    answer, end, rest = got.partition(b"\n\n")
    if not end:
        return None
    got[:] = rest
    return answer.decode()


@pytest.fixture
def asked(loop: HandLoop, tmp_path: Path) -> Iterator[Asked]:
    made = Asked(loop, tmp_path)
    yield made
    made.close()


def failed(number: int) -> str:
    return f"errno={-number}"


def test_a_client_gets_the_answer_to_each_of_its_requests(asked: Asked) -> None:
    client = asked.connect()
    assert client.ask(GET) == "listen_port=55555\nerrno=0"
    client.send("get=1\n")
    client.send("\nget=1")
    client.send("\n\n")
    assert client.answers(2) == ["listen_port=55555\nerrno=0"] * 2


def test_only_the_owner_may_open_the_socket_which_is_removed_at_the_end(asked: Asked) -> None:
    path = asked.folder / "tun3.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    asked.server.close()
    assert not path.exists()


def test_a_name_that_another_process_answers_is_left_to_it(asked: Asked) -> None:
    with pytest.raises(VpntunError, match=rf"process {os.getpid()} answers at .*tun3\.sock"):
        Asked(asked.loop, asked.folder)
    assert asked.connect().ask(GET).endswith("errno=0")


def test_a_private_key_is_taken_once_and_never_logged(asked: Asked) -> None:
    client = asked.connect()
    with logged() as lines:
        assert client.ask(set_request(private_key=ALICE.private.hex())) == failed(0)
        assert client.ask(set_request(private_key=ALICE.private.hex())) == failed(0)
        assert client.ask(set_request(private_key=BOB.private.hex())) == failed(errno.EOPNOTSUPP)
    assert asked.keys == ALICE
    [line] = lines
    assert "may not change the private key of a running tunnel" in line
    assert BOB.private.hex() not in line


@pytest.mark.parametrize("name", sorted(SETTABLE - {"private_key"}))
def test_whatever_else_is_to_be_set_is_refused_as_a_whole_and_the_log_says_what(asked: Asked, name: str) -> None:
    with logged() as lines:
        request = set_request(private_key=ALICE.private.hex(), **{name: "secret"})
        assert asked.connect().ask(request) == failed(errno.EOPNOTSUPP)
    assert asked.keys is None
    [line] = lines
    assert f"nothing was changed ({name})" in line
    assert "secret" not in line


@pytest.mark.parametrize(
    "request_",
    [
        "set=1\nprivate_key=xyz\n\n",
        f"set=1\nprivate_key={ALICE.private.hex()}00\n\n",
        "set=1\nbrew=coffee\n\n",
        "set=2\n\n",
        "get=1\nset=1\n\n",
        "get=2\n\n",
        "GET / HTTP/1.1\n\n",
        "\n\n",
        "set=1\nprivate_key\n\n",
        "g\xe9t=1\n\n",
    ],
)
def test_a_request_that_is_none_is_invalid(asked: Asked, request_: str) -> None:
    with logged() as lines:
        assert asked.connect().ask(request_) == failed(errno.EINVAL)
    assert asked.keys is None
    assert "coffee" not in "".join(lines)


def test_a_key_is_not_taken_away_by_one_of_zeros(asked: Asked) -> None:
    with logged() as lines:
        assert asked.connect().ask(set_request(private_key="00" * 32)) == failed(errno.EOPNOTSUPP)
    assert len(lines) == 1


def test_a_request_that_does_not_end_is_cut_off_and_disturbs_nobody(asked: Asked) -> None:
    hog, other = asked.connect(), asked.connect()
    hog.socket.setblocking(True)
    for _ in range(LARGEST_REQUEST // 4096 + 1):
        hog.send("a=b\n" * 1024)
    assert hog.answers(1) == [failed(errno.EINVAL)]
    assert hog.is_closed()
    assert other.ask(GET).endswith("errno=0")


def test_a_client_that_sends_half_a_request_and_leaves_is_forgotten(asked: Asked) -> None:
    client = asked.connect()
    client.send("get=1\n")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.is_closed()
    assert sleeps(asked.loop)


def test_an_error_while_answering_ends_nothing(asked: Asked, expected_errors: ExpectedErrors) -> None:
    asked.error = VpntunError("tun3 is gone")
    with logged() as lines:
        assert asked.connect().ask(GET) == failed(errno.EINVAL)
    assert lines == ["a request of wg was refused: tun3 is gone"]
    asked.error = KeyError("a bug")
    assert asked.connect().ask(GET) == failed(errno.EIO)
    assert expected_errors.take() == ["KeyError('a bug')"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"get=1", b"set=1", b"\n", b"\n\n", b"private_key="])))
def test_arbitrary_bytes_raise_nothing_and_hold_no_memory(pieces: list[bytes]) -> None:
    exchange = UapiExchange(lambda operation, lines: "errno=0\n\n")
    for piece in filter(None, pieces):
        if exchange.ended:
            break
        exchange.take(piece)
        while (answer := exchange.next_answer()) is not None:
            assert answer[0].endswith(b"\n\n")
    if not exchange.ended:
        exchange.take(b"")
        while exchange.next_answer() is not None:
            pass
        assert exchange.ended


# What is told


@pytest.fixture
def two(loop: HandLoop) -> Iterator[Two]:
    made = Two(loop)
    yield made
    made.close()


def told(two: Two, tunnel: Tunnel = TUNNEL, **given: int) -> list[str]:
    def link_of(public: bytes) -> Link:
        return two.alice.links[two.alice.node.peers[public]]

    return list(describe(tunnel, link_of, **{"port": 55555, "mark": 0, **given}, clock=lambda: WALL))


def test_everything_is_told_as_wireguard_tells_it(two: Two) -> None:
    two.wire.shake_hands()
    peer = two.alice.link.peer
    two.loop.pass_time(60.25)
    lines = told(two, mark=51820)
    assert lines == [
        f"private_key={ALICE.private.hex()}",
        "listen_port=55555",
        "fwmark=51820",
        f"public_key={BOB.public.hex()}",
        f"preshared_key={PSK.hex()}",
        "protocol_version=1",
        f"endpoint={two.wire.to_right.where}",
        *(line for line in lines if line.startswith("last_handshake_time_")),
        f"tx_bytes={peer.sent_bytes}",
        f"rx_bytes={peer.received_bytes}",
        "persistent_keepalive_interval=25",
        "allowed_ip=10.0.0.0/24",
        "allowed_ip=fd00::/64",
    ]
    seconds, nanoseconds = (int(line.partition("=")[2]) for line in lines if line.startswith("last_handshake_time_"))
    assert peer.last_handshake is not None
    assert seconds + nanoseconds / 1e9 == pytest.approx(WALL - (two.loop.now - peer.last_handshake), abs=0.001)


def test_only_the_configuration_is_told_while_there_are_neither_keys_nor_links() -> None:
    tunnel = Tunnel("tun3", None, (SETTINGS,), None, None)
    assert list(describe(tunnel, lambda _: None, port=0, mark=0)) == [
        f"public_key={BOB.public.hex()}",
        f"preshared_key={PSK.hex()}",
        "protocol_version=1",
        "persistent_keepalive_interval=25",
        "allowed_ip=10.0.0.0/24",
        "allowed_ip=fd00::/64",
    ]


def test_before_the_first_handshake_no_time_is_told(two: Two) -> None:
    assert not any("handshake" in line for line in told(two))


def test_the_link_of_another_peer_is_not_mixed_up(two: Two) -> None:
    other = PeerSettings(CAROL.public, ())
    tunnel = Tunnel("tun3", ALICE, (other, SETTINGS), None, None)
    known = {BOB.public: two.alice.link}
    lines = list(describe(tunnel, known.get, port=0, mark=0))
    assert lines.index(f"public_key={CAROL.public.hex()}") < lines.index(f"public_key={BOB.public.hex()}")
    assert sum(line.startswith("endpoint=") for line in lines) == 1
