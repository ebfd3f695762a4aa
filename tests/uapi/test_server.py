"""WireGuard's configuration protocol on its socket: requests and answers of any size, and errors.

test_request.py has what a request may say, test_set.py what it does, and ../serving/test_unix_server.py the limits on
clients; tests/netns/test_wg_tool.py and test_wg_set.py ask by wg(8) itself.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import ExpectedErrors
from tests.datapath.ends import ALICE, BOB
from tests.machine import HandLoop, logged
from tests.serving.socket_client import SocketClient, sleeps
from vpntun.errors import CannotChange, ConfigurationError, PortInUse, PrivilegeError, VpntunError
from vpntun.uapi.request import LONGEST_LINE, SetRequest
from vpntun.uapi.server import LARGEST_REQUEST, UapiExchange, UapiServer

GET = "get=1\n\n"
SET = f"set=1\nprivate_key={ALICE.private.hex()}\n\n"
PEER = f"public_key={BOB.public.hex()}\n"


class Asked:
    """A socket, and the requests that it was sent. `error`: what is raised instead of an answer."""

    def __init__(self, loop: HandLoop, folder: Path) -> None:
        self.loop, self.folder = loop, folder
        self.lines = ["listen_port=55555"]
        self.requests: list[SetRequest] = []
        self.error: Exception | None = None
        self.clients: list[SocketClient[str]] = []
        self.server = UapiServer("tun3", loop, get=self.get, set=self.set, folder=folder)

    def get(self) -> Iterator[str]:
        if self.error is not None:
            raise self.error
        return iter(self.lines)

    def set(self, request: SetRequest) -> None:
        if self.error is not None:
            raise self.error
        self.requests.append(request)

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


def test_a_set_request_is_carried_out_and_its_values_are_never_logged(asked: Asked) -> None:
    with logged() as lines:
        assert asked.connect().ask(SET) == failed(0)
    assert asked.requests == [SetRequest(private=ALICE.private)]
    assert lines == []


@pytest.mark.parametrize(
    ("request_", "number"),
    [
        ("set=1\nprivate_key=xyz\n\n", errno.EINVAL),
        (f"set=1\nprivate_key={ALICE.private.hex()}00\n\n", errno.EINVAL),
        ("set=1\nbrew=coffee\n\n", errno.EINVAL),
        (f"set=1\n{PEER}brew=coffee\n\n", errno.EINVAL),
        ("set=2\n\n", errno.EINVAL),
        ("get=1\nset=1\n\n", errno.EINVAL),
        ("get=2\n\n", errno.EINVAL),
        ("GET / HTTP/1.1\n\n", errno.EINVAL),
        ("\n", errno.EINVAL),
        ("set=1\nprivate_key\n\n", errno.EPROTO),
        ("set=1\nb\xe9=1\n\n", errno.EPROTO),
    ],
)
def test_a_bad_request_is_refused_as_a_whole_and_the_next_one_is_answered(
    asked: Asked, request_: str, number: int
) -> None:
    client = asked.connect()
    with logged() as lines:
        assert client.ask(request_.replace("\n\n", f"\n{PEER}\n")) == failed(number)
        assert asked.requests == []
        assert client.ask(SET) == failed(0)
    assert len(lines) == 1
    assert "coffee" not in "".join(lines)
    assert ALICE.private.hex() not in "".join(lines)


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (CannotChange("it cannot"), errno.EOPNOTSUPP),
        (ConfigurationError("it cannot"), errno.EINVAL),
        (PortInUse("it cannot"), errno.EADDRINUSE),
        (PrivilegeError("it cannot"), errno.EPERM),
        (VpntunError("it cannot"), errno.EIO),
        (OSError(errno.ENOBUFS, "it cannot"), errno.ENOBUFS),
    ],
)
def test_each_error_has_its_number_and_a_line_in_the_log(asked: Asked, error: Exception, number: int) -> None:
    asked.error = error
    with logged() as lines:
        assert asked.connect().ask(SET) == failed(number)
    said = "could not be carried out" if isinstance(error, OSError) else "was refused, and nothing was changed"
    assert lines == [f"a request of wg {said}: {error}"]
    with logged() as lines:
        assert asked.connect().ask(GET) == failed(number)
    assert lines == [f"a request of wg could not be carried out: {error}"]


def test_a_bug_while_answering_ends_nothing(asked: Asked, expected_errors: ExpectedErrors) -> None:
    asked.error = KeyError("a bug")
    client = asked.connect()
    assert client.ask(GET) == failed(errno.EIO)
    asked.error = None
    assert client.ask(GET).endswith("errno=0")
    assert expected_errors.take() == ["KeyError('a bug')"]


# Size


def test_a_large_request_and_a_large_answer_are_dealt_with_a_piece_at_a_time(asked: Asked) -> None:
    many = 20_000
    client, other = asked.connect(), asked.connect()
    prefixes = [f"allowed_ip=fd00:{number:x}::/64\n" for number in range(many)]
    sent = memoryview(f"set=1\n{PEER}{''.join(prefixes)}\n".encode())
    size, turns = len(sent), asked.loop.turns
    while sent:
        sent = sent[client.socket.send(sent[:4096]) :]
        asked.loop.poll()
    assert client.answers(1) == [failed(0)]
    assert asked.loop.turns - turns > size / 4096
    assert len(asked.requests[0].peers[0].allowed) == many
    asked.lines = [f"allowed_ip=fd00:{number:x}::/64" for number in range(many)]
    client.send(GET)
    assert other.ask("get=1\n\n").endswith("errno=0"), "the first has not read its answer yet"
    assert client.answers(1)[0].count("\n") == many


def test_an_answer_that_nobody_reads_takes_no_memory_and_is_given_up(asked: Asked) -> None:
    made = 0

    def endless() -> Iterator[str]:
        nonlocal made
        for line in repeat("allowed_ip=10.0.0.0/8"):
            made += 1
            yield line

    asked.get = endless  # type: ignore[method-assign]
    asked.server._get = endless
    client, other = asked.connect(), asked.connect()
    client.send(GET)
    asked.loop.settle()
    before = made
    asked.loop.settle()
    assert made == before < 100_000
    asked.loop.pass_time(11.0)
    asked.server._get = lambda: iter(asked.lines)
    assert other.ask(GET).endswith("errno=0")
    assert len(asked.server._server._clients) == 1


@pytest.mark.parametrize("line", ["a=b\n" * 1024, "a" * 4096], ids=["lines", "one line"])
def test_a_request_that_does_not_end_is_cut_off_and_disturbs_nobody(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setattr("vpntun.uapi.server.LARGEST_REQUEST", 1 << 16)
    hog, other = asked.connect(), asked.connect()
    hog.socket.setblocking(True)
    try:
        for _ in range((1 << 16) // 4096 + 1):
            hog.send(line)
    except OSError:
        assert len(line) > LONGEST_LINE
    hog.socket.setblocking(False)
    assert hog.is_closed()
    assert bytes(hog.got) in (b"errno=-22\n\n", b"")
    assert other.ask(GET).endswith("errno=0")


def test_the_largest_request_has_room_for_wireguards_own_test_of_scale() -> None:
    longest = len("allowed_ip=-ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255/128\n")
    assert 255 * 256 * 2 * longest < LARGEST_REQUEST


def test_a_client_that_sends_half_a_request_and_leaves_is_forgotten(asked: Asked) -> None:
    client = asked.connect()
    client.send("get=1\n")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.is_closed()
    assert sleeps(asked.loop)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"get=1", b"set=1", b"\n", b"\n\n", b"private_key="])))
def test_arbitrary_bytes_raise_nothing_and_hold_no_memory(pieces: list[bytes]) -> None:
    exchange = UapiExchange(lambda asked: iter(("errno=0", "")))
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
