"""The control socket: its requests and answers; test_unix_server.py has the limits and the ownership of the name."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import ExpectedErrors
from tests.machine import HandLoop, logged
from tests.serving.socket_client import SocketClient, sleeps
from vpntun.control.server import ControlServer, socket_path
from vpntun.errors import AmbiguousPeer, DeviceError, InterfaceInUse, NoSuchPeer, VpntunError
from vpntun.runtime.loop import Loop
from vpntun.serving.clients import MOST_CLIENTS

GET = "GET /v1/status HTTP/1.1\r\nHost: vpntun\r\n\r\n"
STOP = "POST /v1/stop HTTP/1.1\r\nHost: vpntun\r\n\r\n"
RELOAD = "POST /v1/reload HTTP/1.1\r\nHost: vpntun\r\n\r\n"
PARTS = [part.encode() for part in (GET, RELOAD, STOP[:9], "HEAD / HTTP/1.0\r\n", "\r\n\r\n")]


class Tunnel:
    """A control server, and the tunnel behind it: a record of what was asked."""

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
    """A control server whose tunnel does next to nothing, except what `acts` says."""
    usual = {"status": dict, "stop": loop.stop, "reload": loop.stop, "reset": str}
    return ControlServer("tun3", loop, **{**usual, **acts}, folder=folder)


class Client(SocketClient[tuple[int, Any]]):
    """A connection to the control socket. An answer is its status and its content."""

    def __init__(self, loop: HandLoop, folder: Path) -> None:
        super().__init__(loop, socket_path("tun3", folder), take_http)


Connect = Callable[[], Client]


def take_http(got: bytearray) -> tuple[int, Any] | None:
    head, behind, rest = got.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    size = int(headers.get("content-length", 0))
    if not behind or len(rest) < size:
        return None
    del got[: len(head) + len(behind) + size]
    return int(lines[0].split()[1]), json.loads(rest[:size])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "vpntun"


@pytest.fixture
def tunnel(loop: HandLoop, folder: Path) -> Iterator[Tunnel]:
    made = Tunnel(loop, folder)
    yield made
    made.socket.close()


@pytest.fixture
def connect(loop: HandLoop, folder: Path) -> Iterator[Connect]:
    """Connects one more client."""
    made: list[Client] = []

    def connect_one() -> Client:
        made.append(Client(loop, folder))
        return made[-1]

    yield connect_one
    for client in made:
        client.socket.close()


@pytest.fixture
def client(tunnel: Tunnel, connect: Connect) -> Client:
    return connect()


# Answers


def test_one_connection_may_ask_for_the_status_many_times(tunnel: Tunnel, client: Client) -> None:
    for number in range(3):
        tunnel.content = {"number": number}
        assert client.ask(GET) == (200, {"number": number})


def test_requests_that_arrive_together_are_answered_in_order(tunnel: Tunnel, client: Client) -> None:
    client.send(GET + RELOAD + GET)
    assert [status for status, _ in client.answers(3)] == [200, 200, 200]
    assert tunnel.reloads == 1


def test_a_reload_is_done_before_it_is_answered(tunnel: Tunnel, client: Client) -> None:
    assert client.ask(RELOAD) == (200, {"reloaded": True})
    assert tunnel.reloads == 1


def test_a_reload_that_fails_is_a_conflict_with_the_reason(tunnel: Tunnel, client: Client) -> None:
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
def test_a_reset_gets_the_peer_from_the_query_and_answers_with_its_key(
    tunnel: Tunnel, client: Client, query: str, peer: str | None
) -> None:
    assert client.ask(f"POST /v1/reset{query} HTTP/1.1\r\nHost: vpntun\r\n\r\n") == (200, {"public_key": "its key"})
    assert tunnel.resets == [peer]


@pytest.mark.parametrize(("kind", "status"), [(NoSuchPeer, 404), (AmbiguousPeer, 409), (VpntunError, 500)])
def test_a_reset_that_fails_says_why(tunnel: Tunnel, client: Client, kind: type[VpntunError], status: int) -> None:
    tunnel.problem = kind("the reason")
    assert client.ask("POST /v1/reset?peer=x HTTP/1.1\r\nHost: vpntun\r\n\r\n") == (status, {"error": "the reason"})


@pytest.mark.parametrize("kind", [VpntunError, DeviceError, OSError])
def test_a_status_that_fails_is_a_server_error(
    loop: HandLoop, folder: Path, connect: Connect, kind: type[Exception]
) -> None:
    def fail() -> dict[str, Any]:
        raise kind("the device tun3 has gone")

    control = control_socket(loop, folder, status=fail)
    with logged() as lines:
        assert connect().ask(GET) == (500, {"error": "the device tun3 has gone"})
    assert lines == ["the request GET /v1/status could not be answered: the device tun3 has gone"]
    control.close()


def test_an_answer_that_cannot_be_written_is_a_bug_that_ends_nothing(
    loop: HandLoop, folder: Path, connect: Connect, expected_errors: ExpectedErrors
) -> None:
    control = control_socket(loop, folder, status=lambda: {"interface": b"bytes"})
    client = connect()
    assert client.ask(GET)[0] == 500
    assert client.ask(RELOAD) == (200, {"reloaded": True})
    assert len(expected_errors.take()) == 1
    control.close()


def test_a_bug_gets_an_error_answer_is_counted_and_the_next_request_is_served(
    loop: HandLoop, folder: Path, connect: Connect, expected_errors: ExpectedErrors
) -> None:
    nothing: dict[str, dict[str, Any]] = {}

    def fail() -> dict[str, Any]:
        return nothing["a bug"]

    control = ControlServer(
        "tun3", loop, status=fail, stop=loop.stop, reload=loop.stop, reset=lambda _: "", folder=folder
    )
    client = connect()
    for _ in range(2):
        assert client.ask(GET) == (500, {"error": "internal error: the tunnel's log has it"})
    assert loop.internal_errors.count == 2
    assert client.ask(RELOAD) == (200, {"reloaded": True})
    assert expected_errors.take() == ["KeyError('a bug')"] * 2
    control.close()


def test_a_long_status_is_written_in_parts_for_all_who_ask_and_the_loop_goes_on_between_them(
    loop: HandLoop, folder: Path, connect: Connect
) -> None:
    def parts() -> Iterator[str | None]:
        yield '{"peers": ['
        for number in range(3):
            turn = loop.turns
            yield f"{number}, "
            loop.clock.now += 0.001  # it takes time
            yield None
            assert loop.turns > turn
        yield "3]}"

    control = control_socket(loop, folder, status=parts)
    clients = [connect(), connect()]
    for client in clients:
        client.send(2 * GET)
    for client in clients:
        assert client.answers(2) == 2 * [(200, {"peers": [0, 1, 2, 3]})]
        assert client.ask(RELOAD) == (200, {"reloaded": True})
    control.close()


def test_a_bug_in_a_later_part_gets_an_error_answer(
    loop: HandLoop, folder: Path, connect: Connect, expected_errors: ExpectedErrors
) -> None:
    nothing: dict[str, str] = {}

    def parts() -> Iterator[str | None]:
        yield "{"
        yield None
        yield nothing["a bug"]

    control = control_socket(loop, folder, status=parts)
    client = connect()
    assert client.ask(GET) == (500, {"error": "internal error: the tunnel's log has it"})
    assert client.ask(RELOAD) == (200, {"reloaded": True})
    assert expected_errors.take() == ["KeyError('a bug')"]
    control.close()


def test_the_answer_to_a_stop_leaves_before_the_loop_is_stopped(loop: HandLoop, folder: Path, connect: Connect) -> None:
    heard: list[bytes] = []

    def stop() -> None:
        heard.append(asking.socket.recv(4096))

    control = control_socket(loop, folder, stop=stop)
    asking = connect()
    asking.send(STOP)
    assert heard
    assert heard[0].startswith(b"HTTP/1.1 202 Accepted\r\n")
    assert heard[0].endswith(b'{"stopping": true}')
    control.close()


def test_a_stop_is_done_though_its_client_has_gone(tunnel: Tunnel, client: Client) -> None:
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
def test_an_unknown_request_is_refused_and_does_nothing(
    tunnel: Tunnel, client: Client, request_: str, status: int
) -> None:
    client.send(f"{request_} HTTP/1.1\r\nHost: vpntun\r\n\r\n" if " " in request_ else request_ + "\r\n\r\n")
    if request_.startswith("HEAD"):
        client.read()
        assert client.got.startswith(b"HTTP/1.1 405 ")
        assert b"Allow: POST\r\n" in client.got
        assert client.got.endswith(b"\r\n\r\n")
    else:
        said, content = client.answers(1)[0]
        assert (said, set(content)) == (status, {"error"})
    assert (tunnel.stopped, tunnel.reloads, tunnel.resets) == (0, 0, [])


# Limits


def test_a_body_too_long_is_refused_and_its_client_closed(client: Client) -> None:
    assert client.ask("POST /v1/stop HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + "x" * 5000)[0] == 413
    assert client.is_closed()


def test_a_client_has_a_minute_for_a_request_however_it_trickles_in(client: Client) -> None:
    for letter in GET[:11]:
        client.send(letter)
        client.loop.pass_time(5.0)
    assert not client.is_closed()
    client.send(GET[11])
    client.loop.pass_time(5.0)
    assert client.is_closed()


def test_a_client_that_sends_no_more_still_gets_its_answer_and_the_loop_does_not_spin(
    tunnel: Tunnel, client: Client
) -> None:
    tunnel.content = {"much": "x" * (1 << 21)}
    client.socket.send(GET.encode())
    client.socket.shutdown(socket.SHUT_WR)
    client.loop.settle(0.01)
    assert sleeps(client.loop)
    assert client.answers(1) == [(200, tunnel.content)]
    assert client.is_closed()


def test_a_stop_gets_through_though_all_clients_are_busy(loop: HandLoop, tunnel: Tunnel, connect: Connect) -> None:
    clients = []
    for _ in range(MOST_CLIENTS):
        clients.append(connect())
        clients[-1].send(GET[:5])
        loop.pass_time(0.1)
    assert connect().ask(STOP)[0] == 202
    assert tunnel.stopped == 1
    assert [client.is_closed() for client in clients] == [True] + [False] * 7


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
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


# The lock of the interface


def test_an_interface_that_another_vpntun_runs_is_refused(
    loop: HandLoop, tunnel: Tunnel, folder: Path, connect: Connect
) -> None:
    with pytest.raises(InterfaceInUse, match=f"tun3 already, process {os.getpid()}") as caught:
        Tunnel(loop, folder)
    assert caught.value.exit_status == 8
    loop.settle(0.01)
    assert connect().ask(GET)[0] == 200


def test_an_interface_whose_vpntun_is_too_busy_to_accept_is_refused(loop: HandLoop, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(folder / "tun3.sock"))
        listener.listen(0)
        waiting.connect(str(folder / "tun3.sock"))
        with pytest.raises(InterfaceInUse, match="tun3 already: 'vpntun show tun3'"):
            Tunnel(loop, folder)
