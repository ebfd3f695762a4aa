"""Server without authentication: where it listens, who gets the place, and the limits on its clients."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine import NOBODY, HandLoop, logged, needs_root
from tests.serving.socket_client import sleeps
from tests.serving.test_unix_server import REQUEST, LineExchange
from vpntun.errors import PortInUse, VpntunError
from vpntun.serving.clients import MOST_CLIENTS, SECONDS_OF_SILENCE
from vpntun.serving.exchange import Reply
from vpntun.serving.public_server import PublicServer
from vpntun.types import Place


class Service:
    """A server whose protocol is a line for a line."""

    def __init__(self, loop: HandLoop, place: Path | Place) -> None:
        self.loop = loop
        self.content = b"answer"
        self.asked = self.finished = self.taken = 0
        self.is_ready = True
        self.server = PublicServer("the test socket", place, loop, lambda: LaterExchange(self), option="--test")

    def finish(self) -> None:
        self.finished += 1

    def ask(self, client: socket.socket) -> bytes:
        client.send(REQUEST)
        return self.answer(client)

    def answer(self, client: socket.socket) -> bytes:
        """Wait for some bytes of an answer; b"" is the end of the connection."""
        client.setblocking(False)
        got: list[bytes] = []

        def arrived() -> bool:
            try:
                got.append(client.recv(1 << 16))
            except BlockingIOError:
                return False
            except ConnectionResetError:
                got.append(b"")
            return True

        self.loop.until(arrived, "for an answer")
        return got[0]


class LaterExchange(LineExchange):
    """One connection's lines; there is no answer before the service is ready."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)  # type: ignore[arg-type]
        self._later = service

    @property
    def awaits_answer(self) -> bool:
        return not self._later.is_ready and b"\n" in self._unread

    def take(self, data: bytes) -> None:
        self._later.taken += len(data)
        super().take(data)

    def next_answer(self) -> Reply | None:
        return super().next_answer() if self._later.is_ready else None


def free_port(version: int = socket.AF_INET, host: str = "127.0.0.1") -> int:
    with socket.socket(version) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=["127.0.0.1", "::1", "path"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | Place:
    if request.param == "path":
        return tmp_path / "test.sock"
    return request.param, free_port(socket.AF_INET6 if ":" in request.param else socket.AF_INET, request.param)


@pytest.fixture
def service(loop: HandLoop, place: Path | Place) -> Iterator[Service]:
    made = Service(loop, place)
    yield made
    made.server.close()


def connected(loop: HandLoop, place: Path | Place) -> socket.socket:
    if isinstance(place, Path):
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(place))
        except OSError:
            client.close()
            raise
    else:
        client = socket.create_connection(place)
    loop.settle(0.01)
    return client


def test_a_client_is_answered_at_each_kind_of_place(loop: HandLoop, service: Service, place: Path | Place) -> None:
    with connected(loop, place) as client:
        assert service.ask(client) == b"answer\n"
        assert service.ask(client) == b"answer\n"


def test_an_answer_that_was_not_ready_leaves_once_it_is(loop: HandLoop, service: Service, place: Path | Place) -> None:
    service.is_ready = False
    with connected(loop, place) as client:
        client.send(REQUEST)
        loop.settle(0.01)
        assert service.asked == 0
        service.is_ready = True
        service.server.go_on()
        assert service.answer(client) == b"answer\n"


def test_a_place_in_use_is_refused_with_the_option_that_changes_it(
    loop: HandLoop, service: Service, place: Path | Place
) -> None:
    with pytest.raises(PortInUse, match=r"is in use.*--test"):
        Service(loop, place)


def test_a_place_is_free_again_once_the_server_is_closed(loop: HandLoop, place: Path | Place) -> None:
    service = Service(loop, place)
    with connected(loop, place) as client:
        service.ask(client)
        service.server.close()
        assert service.answer(client) == b""
    Service(loop, place).server.close()
    assert not isinstance(place, Path) or not place.exists()


def test_one_client_too_many_replaces_the_one_idle_for_the_longest(
    loop: HandLoop, service: Service, place: Path | Place
) -> None:
    clients = []
    for _ in range(MOST_CLIENTS + 1):
        clients.append(connected(loop, place))
        loop.pass_time(0.1)
    assert service.answer(clients[0]) == b""
    assert [service.ask(client) for client in clients[1:]] == MOST_CLIENTS * [b"answer\n"]
    for client in clients:
        client.close()


def test_a_client_that_pauses_in_a_request_is_closed_and_named(
    loop: HandLoop, service: Service, place: Path | Place
) -> None:
    with connected(loop, place) as client, logged() as lines:
        client.send(REQUEST[:4])
        loop.settle(0.01)
        loop.pass_time(SECONDS_OF_SILENCE)
        assert service.answer(client) == b""
    [line] = lines
    assert line.endswith("was too slow to send its request to the test socket, or to read the answer")
    assert line.startswith("a client" if isinstance(place, Path) else ("127.0.0.1:", "[::1]:"))


def test_the_wildcard_of_ipv6_takes_both_versions(loop: HandLoop) -> None:
    port = free_port()
    service = Service(loop, ("::", port))
    for host in ("127.0.0.1", "::1"):
        with connected(loop, (host, port)) as client:
            assert service.ask(client) == b"answer\n"
    service.server.close()


def test_an_address_of_another_machine_is_refused(loop: HandLoop) -> None:
    with pytest.raises(VpntunError, match=r"192\.0\.2\.1 is not an address of this machine.*--test"):
        Service(loop, ("192.0.2.1", 9586))


def test_a_dead_socket_is_replaced(loop: HandLoop, tmp_path: Path) -> None:
    path = tmp_path / "test.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    service = Service(loop, path)
    with connected(loop, path) as client:
        assert service.ask(client) == b"answer\n"
    service.server.close()


def test_a_path_that_no_socket_can_have_is_refused_for_its_length(loop: HandLoop, tmp_path: Path) -> None:
    length = 107 - len(str(tmp_path)) - 1
    service = Service(loop, tmp_path / ("s" * length))
    service.server.close()
    with pytest.raises(
        VpntunError, match="its path has 108 bytes, and a socket's has at most 107: give a shorter path"
    ):
        Service(loop, tmp_path / ("s" * (length + 1)))


def test_a_file_that_is_no_socket_is_left_alone(loop: HandLoop, tmp_path: Path) -> None:
    path = tmp_path / "accounts.ods"
    path.write_text("years of work")
    with pytest.raises(VpntunError, match=r"accounts\.ods cannot be made: this file is no socket"):
        Service(loop, path)
    assert path.read_text() == "years of work"


def test_another_user_who_locks_the_folder_holds_nothing_up_for_long(loop: HandLoop, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    service = Service(loop, tmp_path / "test.sock")
    with connected(loop, tmp_path / "test.sock") as client:
        assert service.ask(client) == b"answer\n"
    service.server.close()
    assert not (tmp_path / "test.sock").exists()
    os.close(descriptor)


def test_a_client_that_says_no_more_does_not_keep_the_loop_awake_while_its_answer_is_awaited(
    loop: HandLoop, service: Service, place: Path | Place
) -> None:
    service.is_ready = False
    with connected(loop, place) as client:
        client.send(REQUEST)
        client.shutdown(socket.SHUT_WR)
        loop.settle(0.01)
        assert sleeps(loop)
        service.is_ready = True
        service.server.go_on()
        assert service.answer(client) == b"answer\n"
        assert service.answer(client) == b""


def test_a_client_that_is_gone_does_not_keep_the_loop_awake_while_its_answer_is_awaited(
    loop: HandLoop, service: Service, place: Path | Place
) -> None:
    service.is_ready = False
    with connected(loop, place) as client:
        client.send(REQUEST)
        loop.settle(0.01)
    loop.settle(0.01)
    assert sleeps(loop)
    service.is_ready = True
    service.server.go_on()
    assert sleeps(loop)
    with connected(loop, place) as client:
        assert service.ask(client) == b"answer\n"


def test_nothing_more_is_read_from_a_client_while_its_answer_is_awaited(
    loop: HandLoop, service: Service, place: Path | Place
) -> None:
    service.is_ready = False
    with connected(loop, place) as client:
        client.send(REQUEST)
        loop.settle(0.01)
        assert service.taken == len(REQUEST)
        client.send(100 * REQUEST)
        loop.settle(0.01)
        assert service.taken == len(REQUEST)
        assert sleeps(loop)
        service.is_ready = True
        service.server.go_on()
        got = b""
        while len(got) < 101 * len(b"answer\n"):
            got += service.answer(client)
        assert got == 101 * b"answer\n"


@pytest.mark.parametrize("umask", [0, 0o077])
def test_owner_and_group_may_open_the_socket_whatever_the_umask_and_the_folder_is_not_made(
    loop: HandLoop, tmp_path: Path, umask: int
) -> None:
    former = os.umask(umask)
    try:
        service = Service(loop, tmp_path / "test.sock")
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "test.sock").stat().st_mode) == 0o660
    service.server.close()
    with pytest.raises(VpntunError, match="must be a folder that exists"):
        Service(loop, tmp_path / "folder" / "test.sock")


@needs_root
def test_the_group_of_a_folder_with_the_set_group_id_bit_may_connect_and_others_may_not(loop: HandLoop) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, group = Path(name), 4711
        os.chown(folder, 0, group)
        folder.chmod(0o2755)
        service = Service(loop, folder / "test.sock")
        assert (folder / "test.sock").stat().st_gid == group
        os.seteuid(NOBODY)
        try:
            with pytest.raises(PermissionError):
                connected(loop, folder / "test.sock")
        finally:
            os.seteuid(0)
        service.server.close()
