"""Unix socket server: limits on its clients, who may connect, and who owns the name. The sockets are the kernel's."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.machine import NOBODY, HandLoop, logged, needs_root
from tests.netconf.kernel import in_own_network
from tests.serving.socket_client import SocketClient, sleeps
from vpntun.errors import PrivilegeError, VpntunError
from vpntun.runtime.loop import Loop
from vpntun.serving.clients import MOST_CLIENTS, SECONDS_OF_SILENCE, SECONDS_TO_FINISH
from vpntun.serving.exchange import Reply
from vpntun.serving.listening import SocketInUse, other_end
from vpntun.serving.unix_server import UnixServer

REQUEST = b"question\n"


class Service:
    """A server whose protocol is a line for a line; each answer is `content`."""

    def __init__(self, loop: Loop, path: Path) -> None:
        self.content = b"answer"
        self.asked = 0
        self.finished = 0
        self.server = UnixServer("the test socket", path, loop, self.new_exchange)

    def new_exchange(self) -> LineExchange:
        return LineExchange(self)

    def finish(self) -> None:
        self.finished += 1


class LineExchange:
    """One connection's lines, as the server wants them."""

    def __init__(self, service: Service) -> None:
        self.ended = False
        self.stream = None
        self._service = service
        self._unread = b""
        self._no_more = False

    @property
    def idle(self) -> bool:
        return not self._unread

    @property
    def awaits_answer(self) -> bool:
        return False

    def take(self, data: bytes) -> None:
        self._unread += data
        self._no_more = not data

    def next_answer(self) -> Reply | None:
        line, newline, rest = self._unread.partition(b"\n")
        if not newline:
            self.ended = self._no_more
            return None
        assert line == REQUEST.strip()
        self._unread = rest
        self._service.asked += 1
        return self._service.content + b"\n", self._service.finish


class Client(SocketClient[bytes]):
    """A connection to the service. An answer is a line."""

    def __init__(self, loop: HandLoop, path: Path) -> None:
        super().__init__(loop, path, take_line)

    def ask(self, data: str | bytes = REQUEST) -> bytes:
        return super().ask(data)


Connect = Callable[[], Client]


def take_line(got: bytearray) -> bytes | None:
    line, behind, _ = got.partition(b"\n")
    if not behind:
        return None
    del got[: len(line) + 1]
    return bytes(line)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "test.sock"


@pytest.fixture
def service(loop: HandLoop, path: Path) -> Iterator[Service]:
    made = Service(loop, path)
    yield made
    made.server.close()


@pytest.fixture
def connect(loop: HandLoop, path: Path) -> Iterator[Connect]:
    """Connects one more client."""
    made: list[Client] = []

    def connect_one() -> Client:
        made.append(Client(loop, path))
        return made[-1]

    yield connect_one
    for client in made:
        client.socket.close()


@pytest.fixture
def client(service: Service, connect: Connect) -> Client:
    return connect()


# Requests and answers


def test_requests_that_arrive_together_are_answered_in_order(service: Service, client: Client) -> None:
    client.send(3 * REQUEST)
    assert client.answers(3) == [b"answer"] * 3
    assert service.asked == service.finished == 3


def test_what_follows_an_answer_is_done_once_it_has_left(service: Service, client: Client) -> None:
    service.content = b"x" * (1 << 21)
    client.send(REQUEST)
    assert (service.asked, service.finished) == (1, 0)
    assert client.answers(1) == [service.content]
    client.loop.until(lambda: service.finished == 1)


def test_what_follows_an_answer_is_done_though_the_client_has_gone(service: Service, client: Client) -> None:
    client.socket.send(REQUEST)
    client.socket.close()
    client.loop.settle()
    assert (service.asked, service.finished) == (1, 1)


# Limits


def test_a_client_has_a_minute_for_a_request_however_it_trickles_in(service: Service, client: Client) -> None:
    with logged() as lines:
        for _ in range(11):
            client.send(b"q")
            client.loop.pass_time(5.0)
        assert not client.is_closed()
        client.send(b"q")
        client.loop.pass_time(5.0)
        assert client.is_closed()
    assert lines == [
        f"process {os.getpid()} was too slow to send its request to the test socket, or to read the answer"
    ]


def test_a_client_that_pauses_in_a_request_for_ten_seconds_is_closed(client: Client) -> None:
    client.send(b"q")
    client.loop.pass_time(0.9 * SECONDS_OF_SILENCE)
    client.send(b"q")
    client.loop.pass_time(0.9 * SECONDS_OF_SILENCE)
    assert not client.is_closed()
    client.loop.pass_time(0.1 * SECONDS_OF_SILENCE)
    assert client.is_closed()


def test_each_request_has_a_minute_of_its_own_and_an_idle_client_has_no_limit(client: Client) -> None:
    for _ in range(8):
        client.send(REQUEST[:4])
        client.loop.pass_time(0.9 * SECONDS_OF_SILENCE)
        assert client.ask(REQUEST[4:]) == b"answer"
    for _ in range(5):
        client.loop.pass_time(SECONDS_TO_FINISH)
    assert client.ask() == b"answer"


def test_a_client_that_does_not_read_is_not_read_from_and_costs_one_answer(service: Service, client: Client) -> None:
    service.content = b"x" * (1 << 20)
    client.send(20 * REQUEST)
    assert sleeps(client.loop)
    assert service.asked == 1
    assert client.answers(20) == [service.content] * 20


def test_a_client_that_reads_slowly_gets_the_whole_answer(service: Service, client: Client) -> None:
    service.content = b"x" * (1 << 21)
    assert client.ask() == service.content


def test_a_client_that_never_reads_is_closed_after_ten_seconds(service: Service, client: Client) -> None:
    service.content = b"x" * (1 << 22)
    client.send(REQUEST)
    client.loop.pass_time(SECONDS_OF_SILENCE)
    assert client.is_closed()


def test_a_client_that_sends_no_more_still_gets_its_answer_and_the_loop_does_not_spin(
    service: Service, client: Client
) -> None:
    service.content = b"x" * (1 << 21)
    client.socket.send(REQUEST)
    client.socket.shutdown(socket.SHUT_WR)
    client.loop.settle(0.01)
    assert sleeps(client.loop)
    assert client.answers(1) == [service.content]
    assert client.is_closed()


def test_one_client_too_many_replaces_the_one_idle_for_the_longest(
    loop: HandLoop, service: Service, connect: Connect
) -> None:
    clients = []
    for _ in range(MOST_CLIENTS):
        clients.append(connect())
        loop.pass_time(0.1)
    clients[0].send(REQUEST[:4])
    assert clients[1].ask() == b"answer"
    clients.append(connect())
    assert [client.is_closed() for client in clients] == [False, False, True] + [False] * 6
    assert clients[0].ask(REQUEST[4:]) == b"answer"


def test_one_client_too_many_replaces_the_oldest_if_all_are_busy(
    loop: HandLoop, service: Service, connect: Connect
) -> None:
    clients = []
    for _ in range(MOST_CLIENTS):
        clients.append(connect())
        clients[-1].send(REQUEST[:4])
        loop.pass_time(0.1)
    assert connect().ask() == b"answer"
    assert [client.is_closed() for client in clients] == [True] + [False] * 7


# Who may connect


def test_only_the_owner_may_open_socket_and_folder_whatever_the_umask(loop: HandLoop, path: Path) -> None:
    former = os.umask(0)
    try:
        service = Service(loop, path)
    finally:
        os.umask(former)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    service.server.close()


@needs_root
def test_another_user_who_gets_past_the_modes_is_closed_without_an_answer(loop: HandLoop) -> None:
    with tempfile.TemporaryDirectory() as name, logged() as lines, socket.socket(socket.AF_UNIX) as stranger:
        path = Path(name) / "test.sock"
        service = Service(loop, path)
        for each in (path.parent, path):
            each.chmod(0o777)
        os.seteuid(NOBODY)
        try:
            stranger.connect(str(path))
        finally:
            os.seteuid(0)
        stranger.send(REQUEST)
        loop.settle(0.01)
        with pytest.raises(ConnectionResetError):
            stranger.recv(4096)
        connect_many_strangers(loop, path)
        service.server.close()
    assert service.asked == 0
    assert [f"user {NOBODY} may not use the test socket" in line for line in lines] == [True]


def connect_many_strangers(loop: HandLoop, path: Path) -> None:
    os.seteuid(NOBODY)
    try:
        for _ in range(30):
            with socket.socket(socket.AF_UNIX) as another:
                another.connect(str(path))
                os.seteuid(0)
                loop.poll()
                os.seteuid(NOBODY)
    finally:
        os.seteuid(0)


def test_the_other_end_of_a_connection_is_known(service: Service, client: Client) -> None:
    assert other_end(client.socket) == (os.getpid(), os.geteuid())


# Who owns the name


def test_closing_removes_the_socket_and_closes_its_clients(loop: HandLoop, path: Path, connect: Connect) -> None:
    service = Service(loop, path)
    client = connect()
    service.server.close()
    assert client.is_closed()
    assert list(path.parent.iterdir()) == []


def test_a_socket_that_a_process_answers_is_not_taken(
    loop: HandLoop, service: Service, path: Path, connect: Connect
) -> None:
    with pytest.raises(SocketInUse) as caught:
        Service(loop, path)
    assert caught.value.process == os.getpid()
    loop.settle(0.01)
    assert connect().ask() == b"answer"


def test_a_socket_whose_owner_is_too_busy_to_accept_is_not_taken(loop: HandLoop, path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    waiting = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        for _ in range(2):
            waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            waiting[-1].connect_ex(str(path))
        with pytest.raises(SocketInUse) as caught:
            Service(loop, path)
    assert caught.value.process is None
    for each in waiting:
        each.close()


# The second name


@pytest.fixture
def beside(path: Path) -> Path:
    return path.with_name("test:7.sock")


@in_own_network
def test_where_another_namespace_has_the_name_the_second_is_taken_and_locks_as_well(
    service: Service, path: Path, beside: Path
) -> None:
    loop = HandLoop()
    server = UnixServer("the test socket", path, loop, service.new_exchange, path_beside=beside)
    assert server.path == beside
    with pytest.raises(SocketInUse) as caught:
        UnixServer("the test socket", path, loop, service.new_exchange, path_beside=beside)
    assert (caught.value.process, caught.value.is_here) == (os.getpid(), True)
    server.close()
    assert sorted(path.parent.iterdir()) == [path]


@in_own_network
def test_without_a_second_name_the_error_says_that_another_namespace_has_it(service: Service, path: Path) -> None:
    with pytest.raises(SocketInUse) as caught:
        UnixServer("the test socket", path, HandLoop(), service.new_exchange)
    assert (caught.value.process, caught.value.is_here) == (os.getppid(), False)


def test_a_process_of_the_same_namespace_leaves_no_second_name(
    loop: HandLoop, service: Service, path: Path, beside: Path
) -> None:
    with pytest.raises(SocketInUse) as caught:
        UnixServer("the test socket", path, loop, service.new_exchange, path_beside=beside)
    assert caught.value.is_here


def test_a_dead_socket_under_the_second_name_is_removed_and_the_first_is_taken(
    loop: HandLoop, path: Path, beside: Path
) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(beside))
    server = UnixServer("the test socket", path, loop, lambda: pytest.fail("nobody connects"), path_beside=beside)
    assert server.path == path
    assert not beside.exists()
    server.close()


def test_dead_sockets_of_other_namespaces_are_removed_and_living_ones_stay(
    loop: HandLoop, path: Path, beside: Path, connect: Connect
) -> None:
    path.parent.mkdir(mode=0o700)
    kept = [path.with_name(name) for name in ("test:8.sock", "test1:9.sock", "test:9.journal")]
    living = Service(loop, kept[0])
    for name in ("test:9.sock", "test1:9.sock"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path.with_name(name)))
    kept[2].touch()
    server = UnixServer("the test socket", path, loop, lambda: pytest.fail("nobody connects"), path_beside=beside)
    assert sorted(path.parent.iterdir()) == sorted([path, *kept])
    living.server.close()
    server.close()


def test_the_first_name_is_not_taken_while_a_process_has_the_second(loop: HandLoop, path: Path, beside: Path) -> None:
    other = Service(loop, beside).server
    with pytest.raises(SocketInUse):
        UnixServer("the test socket", path, loop, lambda: pytest.fail("nobody connects"), path_beside=beside)
    assert not path.exists()
    other.close()


def test_the_socket_of_a_killed_process_is_replaced(loop: HandLoop, path: Path, connect: Connect) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    service = Service(loop, path)
    assert connect().ask() == b"answer"
    service.server.close()
    assert list(path.parent.iterdir()) == []


def test_closing_leaves_the_socket_of_another_alone(loop: HandLoop, path: Path, connect: Connect) -> None:
    first = Service(loop, path)
    path.unlink()
    second = Service(loop, path)
    first.server.close()
    assert connect().ask() == b"answer"
    second.server.close()


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_socket(loop: HandLoop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VpntunError, match=r"the test socket .*test.sock cannot be made"):
        Service(loop, tmp_path / "file" / "folder" / "test.sock")
    with pytest.raises(VpntunError, match="cannot be made"):
        Service(loop, tmp_path / ("x" * 100) / "test.sock")


@needs_root
def test_a_folder_of_another_user_is_a_privilege_error(loop: HandLoop, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "root").mkdir(mode=0o700)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(PrivilegeError):
            Service(loop, tmp_path / "root" / "folder" / "test.sock")
    finally:
        os.seteuid(0)


def test_exactly_one_of_many_processes_that_start_at_once_gets_a_dead_socket(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    processes = [
        subprocess.Popen([sys.executable, "-c", CONTENDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    said = [process.stdout.readline() for process in processes if process.stdout is not None]
    for process in processes:
        process.communicate(timeout=20)
    assert sorted(said) == [b"had\n", b"in use\n", b"in use\n", b"in use\n"]
    assert list(path.parent.iterdir()) == []


CONTENDER = """
import sys
from pathlib import Path
from vpntun.serving.listening import SocketInUse
from vpntun.serving.unix_server import UnixServer
from vpntun.runtime.loop import Loop
try:
    server = UnixServer("the test socket", Path(sys.argv[1]), Loop(), object)
except SocketInUse:
    print("in use", flush=True)
    sys.stdin.read()
else:
    print("had", flush=True)
    sys.stdin.read()
    server.close()
"""
