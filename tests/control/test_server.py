"""The control socket: what it answers, how much it bears, and whose it is. The sockets are the kernel's."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import ExpectedErrors
from tests.machine import NOBODY, HandLoop, logged, needs_root
from vpntun.control.server import MOST_CLIENTS, SECONDS_TO_FINISH, ControlServer, other_end, socket_path
from vpntun.errors import AmbiguousPeer, DeviceError, InterfaceInUse, NoSuchPeer, PrivilegeError, VpntunError
from vpntun.runtime.loop import Loop

GET = "GET /v1/status HTTP/1.1\r\nHost: vpntun\r\n\r\n"
STOP = "POST /v1/stop HTTP/1.1\r\nHost: vpntun\r\n\r\n"
RELOAD = "POST /v1/reload HTTP/1.1\r\nHost: vpntun\r\n\r\n"
PARTS = [part.encode() for part in (GET, RELOAD, STOP[:9], "HEAD / HTTP/1.0\r\n", "\r\n\r\n")]


class Tunnel:
    """What stands behind the socket."""

    def __init__(self, loop: Loop, folder: Path) -> None:
        self.content: dict[str, Any] = {"interface": "tun3"}
        self.asked = 0
        self.stopped = 0
        self.reloads = 0
        self.resets: list[str | None] = []
        self.problem: VpntunError | None = None
        self.socket = control_socket(
            loop, folder, status=self.status, stop=self.stop, reload=self.reload, reset=self.reset
        )

    def status(self) -> dict[str, Any]:
        self.asked += 1
        return self.content

    def stop(self) -> None:
        self.stopped += 1

    def reload(self) -> None:
        if self.problem is not None:
            raise self.problem
        self.reloads += 1

    def reset(self, peer: str | None) -> str:
        if self.problem is not None:
            raise self.problem
        self.resets.append(peer)
        return "its key"


def control_socket(loop: Loop, folder: Path, **acts: Any) -> ControlServer:
    """The socket of a tunnel of which little is asked."""
    usual = {"status": dict, "stop": loop.stop, "reload": loop.stop, "reset": str}
    return ControlServer("tun3", loop, **{**usual, **acts}, folder=folder)


Meet = Callable[[], "Client"]


class Client:
    """Somebody who is connected."""

    def __init__(self, loop: HandLoop, folder: Path) -> None:
        self.loop = loop
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(socket_path("tun3", folder)))
        self.socket.setblocking(False)
        self.got = b""
        self.ended = False
        loop.poll()

    def say(self, text: str | bytes) -> None:
        self.socket.send(text.encode() if isinstance(text, str) else text)
        self.loop.settle(0.01)

    def read(self) -> None:
        """Take what has come."""
        while not self.ended:
            try:
                data = self.socket.recv(1 << 20)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            self.got += data
            self.ended = not data

    def answers(self, count: int) -> list[tuple[int, Any]]:
        """The next answers, with their status, as soon as so many have come."""
        found: list[tuple[int, Any]] = []

        def come() -> bool:
            self.read()
            while len(found) < count and (answer := self._take()) is not None:
                found.append(answer)
            return len(found) == count

        self.loop.until(come, f"for {count} answers; {self.got!r}")
        return found

    def ask(self, text: str | bytes) -> tuple[int, Any]:
        self.say(text)
        return self.answers(1)[0]

    def is_let_go(self) -> bool:
        self.loop.settle(0.01)
        self.read()
        return self.ended

    def _take(self) -> tuple[int, Any] | None:
        head, behind, rest = self.got.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        size = int(headers.get("content-length", 0))
        if not behind or len(rest) < size:
            return None
        self.got = rest[size:]
        return int(lines[0].split()[1]), json.loads(rest[:size])


def sleeps(loop: HandLoop, seconds: float = 0.05) -> bool:
    """Whether the loop has nothing to do for so long."""
    turns, end = 0, monotonic() + seconds
    while monotonic() < end:
        loop.poll(0.01)
        turns += 1
    return turns < 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "vpntun"


@pytest.fixture
def tunnel(loop: HandLoop, folder: Path) -> Iterator[Tunnel]:
    made = Tunnel(loop, folder)
    yield made
    made.socket.close()


@pytest.fixture
def meet(loop: HandLoop, folder: Path) -> Iterator[Meet]:
    """Connects one more client."""
    made: list[Client] = []

    def connect() -> Client:
        made.append(Client(loop, folder))
        return made[-1]

    yield connect
    for client in made:
        client.socket.close()


@pytest.fixture
def client(tunnel: Tunnel, meet: Meet) -> Client:
    """One who has connected to the tunnel."""
    return meet()


# What it answers


def test_the_status_is_answered_as_often_as_it_is_asked_on_one_connection(tunnel: Tunnel, client: Client) -> None:
    for number in range(3):
        tunnel.content = {"number": number}
        assert client.ask(GET) == (200, {"number": number})


def test_requests_that_come_together_are_answered_in_order(tunnel: Tunnel, client: Client) -> None:
    client.say(GET + RELOAD + GET)
    assert [status for status, _ in client.answers(3)] == [200, 200, 200]
    assert tunnel.reloads == 1


def test_a_reload_is_done_before_it_is_answered(tunnel: Tunnel, client: Client) -> None:
    assert client.ask(RELOAD) == (200, {"reloaded": True})
    assert tunnel.reloads == 1


def test_a_reload_that_cannot_be_is_a_conflict_and_says_why(tunnel: Tunnel, client: Client) -> None:
    tunnel.problem = VpntunError("office.conf, line 7: no such key")
    assert client.ask(RELOAD) == (409, {"error": "office.conf, line 7: no such key"})
    assert client.ask(GET)[0] == 200


@pytest.mark.parametrize(
    ("query", "peer"),
    [
        ("", None),
        ("?peer=office", "office"),
        ("?peer=ab+c/d=", "ab+c/d="),
        ("?peer=ab%2Bc%2Fd%3D", "ab+c/d="),
        ("?peer=the%20caf%C3%A9%26more", "the caf\u00e9&more"),
        ("?peer=", ""),
    ],
)
def test_a_reset_is_given_the_peer_that_the_query_names_and_answers_with_its_key(
    tunnel: Tunnel, client: Client, query: str, peer: str | None
) -> None:
    assert client.ask(f"POST /v1/reset{query} HTTP/1.1\r\nHost: vpntun\r\n\r\n") == (200, {"public_key": "its key"})
    assert tunnel.resets == [peer]


@pytest.mark.parametrize(("kind", "status"), [(NoSuchPeer, 404), (AmbiguousPeer, 409), (VpntunError, 500)])
def test_a_reset_that_cannot_be_says_why(tunnel: Tunnel, client: Client, kind: type[VpntunError], status: int) -> None:
    tunnel.problem = kind("the reason")
    assert client.ask("POST /v1/reset?peer=x HTTP/1.1\r\nHost: vpntun\r\n\r\n") == (status, {"error": "the reason"})


@pytest.mark.parametrize("kind", [VpntunError, DeviceError, OSError])
def test_a_status_that_cannot_be_had_is_an_error_of_this_side(
    loop: HandLoop, folder: Path, meet: Meet, kind: type[Exception]
) -> None:
    def fail() -> dict[str, Any]:
        raise kind("the device tun3 has gone")

    control = control_socket(loop, folder, status=fail)
    assert meet().ask(GET) == (500, {"error": "the device tun3 has gone"})
    control.close()


def test_a_bug_in_an_answer_is_answered_and_noted_and_the_next_request_is_served(
    loop: HandLoop, folder: Path, meet: Meet, expected_errors: ExpectedErrors
) -> None:
    nothing: dict[str, dict[str, Any]] = {}

    def fail() -> dict[str, Any]:
        return nothing["a bug"]

    control = ControlServer(
        "tun3", loop, status=fail, stop=loop.stop, reload=loop.stop, reset=lambda _: "", folder=folder
    )
    client = meet()
    for _ in range(2):
        assert client.ask(GET) == (500, {"error": "internal error: the tunnel's log has it"})
    assert loop.internal_errors.count == 2
    assert client.ask(RELOAD) == (200, {"reloaded": True})
    assert expected_errors.take() == ["KeyError('a bug')"] * 2
    control.close()


def test_the_answer_to_a_stop_has_left_when_the_loop_is_stopped(loop: HandLoop, folder: Path, meet: Meet) -> None:
    heard: list[bytes] = []

    def stop() -> None:
        heard.append(asking.socket.recv(4096))

    control = control_socket(loop, folder, stop=stop)
    asking = meet()
    asking.say(STOP)
    assert heard
    assert heard[0].startswith(b"HTTP/1.1 202 Accepted\r\n")
    assert heard[0].endswith(b'{"stopping": true}')
    control.close()


def test_a_stop_is_a_stop_though_nobody_waits_for_the_answer(tunnel: Tunnel, client: Client) -> None:
    client.socket.send(STOP.encode())
    client.socket.close()
    client.loop.settle()
    assert tunnel.stopped == 1


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("GET /", 404),
        ("GET /v1/nothing", 404),
        ("GET /v1/status?all", 404),
        ("POST /v1/status", 405),
        ("HEAD /v1/stop", 405),
        ("GET /v1/stop", 405),
        ("GET /v1/reload", 405),
        ("GET /v1/reset", 405),
        ("POST /v1/reset?peers=a", 404),
        ("POST /v1/reset?peer=a&peer=b", 404),
        ("POST /v1/reset?peer=a&all", 404),
        ("POST /v1/stop?peer=a", 404),
        ("DELETE /v1/status", 405),
        ("CONNECT /v1/status", 405),
        ("CONNECT tun3:1", 404),
        ("nonsense", 400),
    ],
)
def test_what_there_is_not_is_said_and_does_nothing(tunnel: Tunnel, client: Client, request_: str, status: int) -> None:
    client.say(f"{request_} HTTP/1.1\r\nHost: vpntun\r\n\r\n" if " " in request_ else request_ + "\r\n\r\n")
    if request_.startswith("HEAD"):
        client.read()
        assert client.got.startswith(b"HTTP/1.1 405 ")
        assert b"Allow: POST\r\n" in client.got
        assert client.got.endswith(b"\r\n\r\n")
    else:
        said, content = client.answers(1)[0]
        assert (said, set(content)) == (status, {"error"})
    assert (tunnel.stopped, tunnel.reloads, tunnel.resets) == (0, 0, [])


# What it bears


def test_what_is_too_much_is_refused_and_the_client_let_go(client: Client) -> None:
    assert client.ask("POST /v1/stop HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + "x" * 5000)[0] == 413
    assert client.is_let_go()


def test_a_client_has_ten_seconds_for_a_request_whatever_trickles_in(client: Client) -> None:
    for letter in GET[:9]:
        client.say(letter)
        client.loop.pass_time(1.0)
    assert not client.is_let_go()
    client.say(GET[9])
    client.loop.pass_time(1.0)
    assert client.is_let_go()


def test_each_request_has_its_own_ten_seconds_and_an_idle_client_as_long_as_it_likes(client: Client) -> None:
    for _ in range(5):
        client.say(GET[:9])
        client.loop.pass_time(0.9 * SECONDS_TO_FINISH)
        assert client.ask(GET[9:])[0] == 200
    for _ in range(5):
        client.loop.pass_time(SECONDS_TO_FINISH)
    assert client.ask(GET)[0] == 200


def test_a_client_that_does_not_read_is_not_read_from_and_costs_one_answer(tunnel: Tunnel, client: Client) -> None:
    tunnel.content = {"much": "x" * (1 << 20)}
    client.say(GET * 20)
    assert sleeps(client.loop)
    assert tunnel.asked == 1
    assert [status for status, _ in client.answers(20)] == [200] * 20


def test_a_client_that_reads_slowly_gets_all_of_it(tunnel: Tunnel, client: Client) -> None:
    tunnel.content = {"much": "x" * (1 << 21)}
    assert client.ask(GET) == (200, tunnel.content)


def test_a_client_that_never_reads_is_given_up(tunnel: Tunnel, client: Client) -> None:
    tunnel.content = {"much": "x" * (1 << 22)}
    client.say(GET)
    client.loop.pass_time(SECONDS_TO_FINISH)
    assert client.is_let_go()


def test_who_ends_its_own_side_gets_its_answer_and_the_loop_does_not_spin(tunnel: Tunnel, client: Client) -> None:
    tunnel.content = {"much": "x" * (1 << 21)}
    client.socket.send(GET.encode())
    client.socket.shutdown(socket.SHUT_WR)
    client.loop.settle(0.01)
    assert sleeps(client.loop)
    assert client.answers(1) == [(200, tunnel.content)]
    assert client.is_let_go()


def test_for_one_client_too_many_the_longest_idle_goes(loop: HandLoop, tunnel: Tunnel, meet: Meet) -> None:
    clients = []
    for _ in range(MOST_CLIENTS):
        clients.append(meet())
        loop.pass_time(0.1)
    clients[0].say(GET[:5])
    assert clients[1].ask(GET)[0] == 200
    clients.append(meet())
    gone = [client.is_let_go() for client in clients]
    assert gone == [False, False, True] + [False] * 6
    assert clients[0].ask(GET[5:])[0] == 200


def test_where_all_clients_are_busy_the_oldest_goes_so_that_a_stop_always_comes_through(
    loop: HandLoop, tunnel: Tunnel, meet: Meet
) -> None:
    clients = []
    for _ in range(MOST_CLIENTS):
        clients.append(meet())
        clients[-1].say(GET[:5])
        loop.pass_time(0.1)
    assert meet().ask(STOP)[0] == 202
    assert tunnel.stopped == 1
    assert [client.is_let_go() for client in clients] == [True] + [False] * 7


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.lists(st.one_of(st.sampled_from(PARTS), st.binary(max_size=99))))
def test_arbitrary_bytes_do_no_harm(tunnel: Tunnel, folder: Path, loop: HandLoop, parts: list[bytes]) -> None:
    client = Client(loop, folder)
    for part in parts:
        try:
            client.socket.send(part)
        except (BrokenPipeError, ConnectionResetError):
            break
        loop.poll()
    client.read()
    client.socket.close()
    loop.poll()
    other = Client(loop, folder)
    assert other.ask(GET) == (200, tunnel.content)
    other.socket.close()
    loop.settle(0.005)


# Whose it is


def test_it_is_for_its_owner_alone_whatever_the_umask(loop: HandLoop, folder: Path) -> None:
    former = os.umask(0)
    try:
        tunnel = Tunnel(loop, folder)
    finally:
        os.umask(former)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "tun3.sock").stat().st_mode) == 0o600
    tunnel.socket.close()


@needs_root
def test_whoever_else_gets_that_far_is_let_go_without_a_word(loop: HandLoop) -> None:
    with tempfile.TemporaryDirectory() as name, logged() as lines, socket.socket(socket.AF_UNIX) as stranger:
        folder = Path(name)
        tunnel = Tunnel(loop, folder)
        for each in (folder, folder / "tun3.sock"):
            each.chmod(0o777)
        os.seteuid(NOBODY)
        try:
            stranger.connect(str(folder / "tun3.sock"))
        finally:
            os.seteuid(0)
        stranger.send(STOP.encode())
        loop.settle(0.01)
        with pytest.raises(ConnectionResetError):
            stranger.recv(4096)
        refuse_many(loop, folder)
        tunnel.socket.close()
    assert tunnel.stopped == 0
    assert [f"user {NOBODY} may not use the control socket" in line for line in lines] == [True]


def refuse_many(loop: HandLoop, folder: Path) -> None:
    os.seteuid(NOBODY)
    try:
        for _ in range(30):
            with socket.socket(socket.AF_UNIX) as another:
                another.connect(str(folder / "tun3.sock"))
                os.seteuid(0)
                loop.poll()
                os.seteuid(NOBODY)
    finally:
        os.seteuid(0)


def test_it_is_gone_when_it_is_closed_and_so_are_its_clients(loop: HandLoop, folder: Path, meet: Meet) -> None:
    tunnel = Tunnel(loop, folder)
    client = meet()
    tunnel.socket.close()
    assert client.is_let_go()
    assert list(folder.iterdir()) == []


def test_a_socket_that_somebody_answers_is_not_taken(loop: HandLoop, tunnel: Tunnel, folder: Path, meet: Meet) -> None:
    with pytest.raises(InterfaceInUse, match=f"tun3 already, process {os.getpid()}") as caught:
        Tunnel(loop, folder)
    assert caught.value.exit_status == 8
    loop.settle(0.01)
    assert meet().ask(GET)[0] == 200


def test_a_socket_whose_owner_is_too_busy_to_answer_is_not_taken(loop: HandLoop, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    waiting = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "tun3.sock"))
        listener.listen(0)
        for _ in range(2):
            waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            waiting[-1].connect_ex(str(folder / "tun3.sock"))
        with pytest.raises(InterfaceInUse):
            Tunnel(loop, folder)
    for each in waiting:
        each.close()


def test_what_a_killed_process_left_is_replaced(loop: HandLoop, folder: Path, meet: Meet) -> None:
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "tun3.sock"))
    tunnel = Tunnel(loop, folder)
    assert meet().ask(GET)[0] == 200
    tunnel.socket.close()
    assert list(folder.iterdir()) == []


def test_who_closes_leaves_anothers_socket_alone(loop: HandLoop, folder: Path, meet: Meet) -> None:
    first = Tunnel(loop, folder)
    (folder / "tun3.sock").unlink()
    second = Tunnel(loop, folder)
    first.socket.close()
    assert meet().ask(GET)[0] == 200
    second.socket.close()


def test_a_folder_that_cannot_be_had_is_an_error_that_names_the_socket(loop: HandLoop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VpntunError, match=r"the control socket .*tun3.sock cannot be made"):
        Tunnel(loop, tmp_path / "file" / "vpntun")
    long = tmp_path / ("x" * 100)
    with pytest.raises(VpntunError, match="cannot be made"):
        Tunnel(loop, long)


@needs_root
def test_a_folder_of_somebody_else_is_a_matter_of_privileges(loop: HandLoop, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "root").mkdir(mode=0o700)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(PrivilegeError):
            Tunnel(loop, tmp_path / "root" / "vpntun")
    finally:
        os.seteuid(0)


def test_of_many_that_start_at_once_over_a_dead_socket_exactly_one_has_it(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "tun3.sock"))
    processes = [
        subprocess.Popen([sys.executable, "-c", CONTENDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    said = [process.stdout.readline() for process in processes if process.stdout is not None]
    for process in processes:
        process.communicate(timeout=20)
    assert sorted(said) == [b"had\n", b"in use\n", b"in use\n", b"in use\n"]
    assert list(folder.iterdir()) == []


CONTENDER = """
import sys
from pathlib import Path
from vpntun.errors import DeviceError, InterfaceInUse
from vpntun.control.server import ControlServer
from vpntun.runtime.loop import Loop
loop = Loop()
try:
    acts = {"status": dict, "stop": loop.stop, "reload": loop.stop, "reset": str}
    control = ControlServer("tun3", loop, **acts, folder=Path(sys.argv[1]))
except InterfaceInUse:
    print("in use", flush=True)
    sys.stdin.read()
else:
    print("had", flush=True)
    sys.stdin.read()
    control.close()
"""


def test_the_other_end_of_a_connection_is_known(tunnel: Tunnel, client: Client) -> None:
    assert other_end(client.socket) == (os.getpid(), os.geteuid())
