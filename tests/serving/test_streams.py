"""Streams: answers that go on, for as long as both ends want, to clients that read at their own speed."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from time import monotonic

import h11
import pytest

from tests.machine import HandLoop, logged
from tests.serving.socket_client import SocketClient, sleeps
from vpntun.serving.clients import (
    MOST_CLIENTS,
    SECONDS_FOR_LAST_PIECES,
    SECONDS_OF_SILENCE,
    SECONDS_TO_FINISH,
)
from vpntun.serving.http import Answer, HttpExchange, Route, StreamAnswer, follow
from vpntun.serving.unix_server import UnixServer

GET = b"GET /stream?word=a&word=b HTTP/1.1\r\nHost: vpntun\r\n\r\n"
OTHER = b"GET /other HTTP/1.1\r\nHost: vpntun\r\n\r\n"
LARGE = 1 << 22


class Words:
    """A stream of what the test says."""

    def __init__(self) -> None:
        self.ended = False
        self.ends = 0
        self.waiting: list[bytes] = []
        self._on_more: Callable[[], None] = lambda: None

    def take(self) -> bytes:
        return self.waiting.pop(0) if self.waiting else b""

    def call_on_more(self, callback: Callable[[], None]) -> None:
        self._on_more = callback

    def say(self, *pieces: bytes) -> None:
        self.waiting += pieces
        self._on_more()

    def end(self) -> None:
        self.ends += 1
        if not self.ended:
            self.ended = True
            self.say(b"end")


class Service:
    """A server with a stream for each client, and another answer."""

    def __init__(self, loop: HandLoop, path: Path) -> None:
        self.streams: list[Words] = []
        self.asked: list[list[str]] = []
        self.path = path
        routes = {
            "/stream": Route("GET", self.stream, lists=frozenset({"word"})),
            "/other": Route("GET", lambda: Answer(HTTPStatus.OK, {})),
        }
        self.server = UnixServer(
            "the test socket", path, loop, lambda: HttpExchange(lambda *request: follow(routes, *request))
        )

    def stream(self, word: list[str]) -> StreamAnswer:
        self.asked.append(word)
        self.streams.append(Words())
        return StreamAnswer("text/plain", self.streams[-1])


class Client(SocketClient[bytes]):
    """A connection, which an independent parser of HTTP reads."""

    def __init__(self, loop: HandLoop, path: Path) -> None:
        super().__init__(loop, path, lambda got: None)
        self.events: list[h11.Event] = []
        self._http = h11.Connection(h11.CLIENT)
        self.send(self._http.send(h11.Request(method="GET", target="/stream?word=a&word=b", headers=[("Host", "a")])))
        self._http.send(h11.EndOfMessage())

    def said(self) -> bytes:
        """Return what the stream has said so far."""
        self.loop.settle(0.01)
        self.read()
        if self.got:
            self._http.receive_data(bytes(self.got))
            self.got.clear()
        while not self.is_complete and isinstance(event := self._http.next_event(), h11.Event):
            self.events.append(event)
        return b"".join(event.data for event in self.events if isinstance(event, h11.Data))

    @property
    def is_complete(self) -> bool:
        """Whether the answer has come to its proper end."""
        return bool(self.events) and isinstance(self.events[-1], h11.EndOfMessage)


@pytest.fixture
def service(loop: HandLoop, tmp_path: Path) -> Iterator[Service]:
    made = Service(loop, tmp_path / "folder" / "test.sock")
    yield made
    made.server.close()


@pytest.fixture
def client(loop: HandLoop, service: Service) -> Iterator[Client]:
    made = Client(loop, service.path)
    yield made
    made.socket.close()


@pytest.fixture
def words(service: Service, client: Client) -> Words:
    [stream] = service.streams
    return stream


def test_pieces_arrive_as_they_are_said_and_the_end_is_marked(service: Service, client: Client, words: Words) -> None:
    assert service.asked == [["a", "b"]]
    assert client.said() == b""
    response = client.events[0]
    assert isinstance(response, h11.Response)
    assert dict(response.headers)[b"content-type"] == b"text/plain"
    words.say(b"one", b"two")
    assert client.said() == b"onetwo"
    assert not client.is_complete
    words.end()
    assert client.said() == b"onetwoend"
    assert client.is_complete
    assert client.is_closed()


def test_a_stream_may_pause_for_longer_than_a_request_may_take(loop: HandLoop, client: Client, words: Words) -> None:
    for number in range(4):
        loop.pass_time(SECONDS_TO_FINISH + SECONDS_OF_SILENCE)
        words.say(b"%d" % number)
        assert client.said()[-1:] == b"%d" % number
    words.end()
    assert client.said() == b"0123end"
    assert client.is_complete


def test_the_loop_sleeps_while_a_stream_has_nothing_to_say(loop: HandLoop, client: Client, words: Words) -> None:
    words.say(b"word")
    assert client.said() == b"word"
    assert sleeps(loop)


def test_a_client_that_reads_slowly_is_waited_for_and_only_one_piece_is_taken_for_it(
    loop: HandLoop, client: Client, words: Words
) -> None:
    words.say(bytes(LARGE), b"next", b"last")
    loop.settle(0.01)
    loop.pass_time(SECONDS_TO_FINISH + SECONDS_OF_SILENCE)
    assert sleeps(loop)
    assert words.waiting == [b"next", b"last"]
    assert not words.ended
    loop.until(lambda: len(client.said()) == LARGE + 8)
    assert client.said()[-8:] == b"nextlast"


def test_a_client_that_closes_ends_its_stream(client: Client, words: Words) -> None:
    client.socket.close()
    client.loop.settle(0.01)
    assert words.ended


def test_a_client_that_closes_without_having_read_ends_its_stream(client: Client, words: Words) -> None:
    words.say(bytes(LARGE))
    client.loop.settle(0.01)
    assert not words.ended
    client.socket.close()
    client.loop.settle(0.01)
    assert words.ended


def test_a_client_that_sends_no_more_gets_the_end_of_the_stream(client: Client, words: Words) -> None:
    words.say(bytes(LARGE), b"rest")
    client.socket.shutdown(socket.SHUT_WR)
    client.loop.until(lambda: len(client.said()) == LARGE + 7)
    assert client.said()[-7:] == b"restend"
    assert client.is_complete
    assert words.ends <= 2


def test_a_client_that_wants_the_end_and_does_not_read_it_is_closed(client: Client, words: Words) -> None:
    words.say(bytes(LARGE))
    client.socket.shutdown(socket.SHUT_WR)
    client.loop.settle(0.01)
    assert words.ended
    assert sleeps(client.loop)
    with logged() as lines:
        client.loop.pass_time(SECONDS_OF_SILENCE)
        assert client.is_closed()
    assert len(lines) == 1


def test_what_a_client_sends_during_a_stream_is_ignored(service: Service, client: Client, words: Words) -> None:
    client.send(1000 * OTHER)
    words.say(b"word")
    assert client.said() == b"word"
    assert not words.ended


def test_the_end_of_the_server_ends_its_streams_properly(service: Service, client: Client, words: Words) -> None:
    words.say(b"word")
    service.server.close()
    assert client.said() == b"wordend"
    assert client.is_complete


def test_the_end_of_the_server_does_not_wait_for_long_for_a_client_that_does_not_read(
    service: Service, client: Client, words: Words
) -> None:
    words.say(bytes(LARGE))
    began = monotonic()
    service.server.close()
    assert words.ended
    assert monotonic() - began < SECONDS_FOR_LAST_PIECES + 5


def test_a_client_with_a_stream_is_replaced_last(loop: HandLoop, service: Service, client: Client) -> None:
    others = []
    for _ in range(MOST_CLIENTS):
        others.append(SocketClient[bytes](loop, service.path, lambda got: None))
        others[-1].send(OTHER[:9])
        loop.pass_time(0.1)
    assert others[0].is_closed()
    service.streams[0].say(b"word")
    assert client.said() == b"word"
    for other in others:
        other.socket.close()
