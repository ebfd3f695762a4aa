"""The server against real clients and strangers, under the test's own clock where time matters."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from select import select

import pytest

from tests.carriers.test_udp_socket import free_port
from tests.machine import HandLoop
from tests.pairing.ends import HOST, Server, no_pause, serving, typed
from tests.pairing.strangers import framed, guess
from vpntun.carriers.sockets import bind
from vpntun.config.keyfile import create_shared, read_shared
from vpntun.core.pairing.client import Agreed, PairingClient, Prove
from vpntun.core.pairing.messages import SIZE, Message, Reason
from vpntun.core.pairing.server import SECONDS_OF_CODE, PairingServer
from vpntun.crypto.pairing import PairingCode
from vpntun.errors import KeyFileError, PairingFailed, PortInUse
from vpntun.pairing.calling import pair_as_client
from vpntun.pairing.listening import PairingListener, pair_as_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "server.key") as server:
        yield server


def test_strangers_that_say_nothing_or_rubbish_neither_block_nor_spoil(server: Server, tmp_path: Path) -> None:
    with ExitStack() as stack:
        for number in range(100):
            stranger = stack.enter_context(socket.create_connection((HOST, server.port), timeout=20))
            stranger.sendall((b"", b"GET / HTTP/1.1\r\n\r\n", framed(b"\1\0\0\0" + bytes(144)), b"\0")[number % 4])
        pair_as_client(tmp_path / "client.key", HOST, server.port, typed(server.code), no_pause)
        assert server.wait() is None
    assert read_shared(tmp_path / "client.key") == read_shared(server.path)


@pytest.mark.parametrize(
    "sent", [b"\0\0", b"\xff\xff", framed(b"\1\0\0\0" + bytes(144)), framed(bytes(36)), b"\n" * 99]
)
def test_rubbish_gets_no_answer(server: Server, sent: bytes) -> None:
    with socket.create_connection((HOST, server.port), timeout=20) as stranger:
        stranger.sendall(sent)
        with suppress(ConnectionResetError):
            assert stranger.recv(64) == b""


def test_the_third_wrong_code_is_answered_too_before_the_server_ends(server: Server) -> None:
    assert [guess(server.port) for _ in range(3)] == [
        Message.refused(Reason.WRONG_CODE, left).pack() for left in (2, 1, 0)
    ]
    assert "void" in str(server.wait())


def test_of_several_clients_with_the_code_at_once_one_is_paired_and_the_others_have_no_file(
    server: Server, tmp_path: Path
) -> None:
    def pair(path: Path) -> BaseException | None:
        try:
            pair_as_client(path, HOST, server.port, typed(server.code), no_pause)
        except PairingFailed as error:
            return error
        return None

    paths = [tmp_path / f"{number}.key" for number in range(4)]
    with ThreadPoolExecutor(len(paths)) as threads:
        said = list(threads.map(pair, paths))
    assert server.wait() is None
    [paired] = [path for path, error in zip(paths, said, strict=True) if error is None]
    assert read_shared(paired) == read_shared(server.path)
    assert [path.exists() for path in paths].count(True) == 1


def test_a_client_that_comes_after_the_pairing_finds_nothing_of_it(server: Server, tmp_path: Path) -> None:
    pair_as_client(tmp_path / "one.key", HOST, server.port, typed(server.code), no_pause)
    assert server.wait() is None
    with pytest.raises(PairingFailed, match="cannot be reached"):
        pair_as_client(tmp_path / "two.key", HOST, server.port, typed(server.code), no_pause)


def test_a_key_file_that_is_there_is_refused_before_anything_is_shown(tmp_path: Path) -> None:
    create_shared(tmp_path / "key")
    with pytest.raises(KeyFileError, match="has a key already"):
        pair_as_server(tmp_path / "key", 1, lambda _: pytest.fail("shown"))


def test_a_port_that_is_in_use_is_refused_before_anything_is_shown(tmp_path: Path) -> None:
    port = free_port(socket.AF_INET, socket.SOCK_STREAM)
    with bind(socket.socket(), port, "TCP") as used:
        used.listen()
        with pytest.raises(PortInUse):
            pair_as_server(tmp_path / "key", port, lambda _: pytest.fail("shown"))


class Waiting:
    """A listener under a clock of the test's own."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.loop = HandLoop()
        stack.callback(self.loop.close)
        self.port = free_port(socket.AF_INET, socket.SOCK_STREAM)
        code = PairingCode("7KQ2M9XD", "server")
        self.listener = PairingListener(self.loop, PairingServer(code, self.loop.time()), path)
        stack.callback(self.listener.close)
        self.listener.listen(self.port)


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Waiting]:
    with ExitStack() as stack:
        yield Waiting(tmp_path / "key", stack)


def test_the_code_ends_after_ten_minutes_with_a_line_that_says_so(waiting: Waiting) -> None:
    waiting.loop.clock.now += SECONDS_OF_CODE
    with pytest.raises(PairingFailed, match="nobody gave the code within 10 minutes; start this command again"):
        waiting.listener.wait()


def test_a_client_that_is_ready_over_two_connections_at_once_is_paired_once(waiting: Waiting, tmp_path: Path) -> None:
    with ExitStack() as stack:
        one, two = (stack.enter_context(socket.create_connection((HOST, waiting.port), timeout=20)) for _ in range(2))

        def answered(message: bytes) -> bytes:
            one.sendall(framed(message))
            waiting.loop.until(lambda: select([one], [], [], 0)[0])
            return one.recv(64)[2:]

        client = PairingClient(PairingCode("7KQ2M9XD", "client"))
        prove = client.receive(answered(client.first))
        assert isinstance(prove, Prove)
        agreed = client.receive(answered(prove.message))
        assert isinstance(agreed, Agreed)
        waiting.loop.settle()
        for each in (one, two):
            each.sendall(framed(agreed.ready))
        waiting.loop.settle()
        waiting.listener.wait()
        said = [each.recv(64)[2:] for each in (one, two)]
    assert read_shared(tmp_path / "key") == agreed.secret
    assert sorted(map(len, said)) == [0, SIZE]


def test_a_connection_that_says_nothing_is_closed_after_ten_seconds(waiting: Waiting) -> None:
    with socket.create_connection((HOST, waiting.port), timeout=20) as stranger:
        waiting.loop.settle()
        waiting.loop.pass_time(10.1)
        waiting.loop.settle()
        assert stranger.recv(1) == b""


def test_a_stranger_from_one_address_holds_at_most_sixteen_connections(waiting: Waiting) -> None:
    with ExitStack() as stack:
        strangers = []
        for _ in range(40):
            strangers.append(stack.enter_context(socket.create_connection((HOST, waiting.port), timeout=20)))
            waiting.loop.poll()
        waiting.loop.settle()
        for each in strangers:
            each.setblocking(False)
        held = sum(_is_open(each) for each in strangers)
        assert held == 16


def _is_open(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
