"""HTTP of the control socket: answers in order, limits on all that a client may send, and no exceptions."""

from __future__ import annotations

import json
from http import HTTPStatus

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.serving.http import LARGEST_BODY, LARGEST_HEAD, MOST_HEADERS, Answer, HttpExchange, refusal

HEAD = b"Host: vpntun\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HEAD + b"\r\n"


def echo(method: str, target: str, body: bytes) -> Answer:
    if method == "CONNECT":
        return refusal(HTTPStatus.METHOD_NOT_ALLOWED, "no")
    return Answer(HTTPStatus.OK, {"method": method, "target": target})


def talk(data: bytes, exchange: HttpExchange | None = None, step: int = 4096) -> list[bytes]:
    """Return the answers to bytes that arrive `step` at a time."""
    exchange = exchange or HttpExchange(echo)
    answers = []
    for at in range(0, len(data), step):
        exchange.take(data[at : at + step])
        while (answer := exchange.next_answer()) is not None:
            answers.append(answer[0])
        if exchange.ended:
            break
    return answers


def parsed(answer: bytes, method: str = "GET") -> tuple[int, dict[str, object], dict[str, str]]:
    """Return status, content and headers as another parser reads them, and check that nothing follows."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    response, body = client.next_event(), b""
    assert isinstance(response, h11.Response)
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data == (b"", False)
    headers = {name.decode(): value.decode() for name, value in response.headers}
    return response.status_code, json.loads(body or b"{}"), headers


def test_a_text_has_a_content_type_of_its_own() -> None:
    exchange = HttpExchange(lambda *_: Answer(HTTPStatus.OK, b"one 1\n", content_type="text/plain"))
    [answer] = talk(GET, exchange)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\n")
    assert answer.endswith(b"one 1\n")


def test_a_request_without_an_answer_yet_is_asked_again_and_keeps_its_place() -> None:
    ready: list[str] = []
    exchange = HttpExchange(lambda method, target, body: echo(method, target, body) if target in ready else None)
    assert talk(GET + GET.replace(b"/a", b"/b"), exchange) == []
    assert not exchange.idle
    assert exchange.awaits_answer
    ready.append("/b")
    assert exchange.next_answer() is None
    ready.append("/a")
    for target in ("/a", "/b"):
        answer = exchange.next_answer()
        assert answer is not None
        assert parsed(answer[0])[1]["target"] == target
    assert exchange.next_answer() is None
    assert exchange.idle
    assert not exchange.awaits_answer


def test_a_request_is_answered_by_one_json_object() -> None:
    [answer] = talk(GET)
    status, content, headers = parsed(answer)
    assert status == 200
    assert content == {"method": "GET", "target": "/a"}
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_each_request_has_its_own_body(step: int) -> None:
    bodies = []

    def answer(method: str, target: str, body: bytes) -> Answer:
        bodies.append(body)
        return echo(method, target, body)

    post = b"POST /a HTTP/1.1\r\n" + HEAD + b"Content-Length: 3\r\n\r\n"
    talk(post + b"one" + GET + post + b"two", HttpExchange(answer), step)
    assert bodies == [b"one", b"", b"two"]


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_requests_that_arrive_together_are_answered_in_order_on_one_connection(step: int) -> None:
    targets = [f"/{number}" for number in range(20)]
    requests = b"".join(
        b"POST %s HTTP/1.1\r\n%sContent-Length: 3\r\n\r\nabc" % (each.encode(), HEAD) for each in targets
    )
    exchange = HttpExchange(echo)
    assert [parsed(answer)[1]["target"] for answer in talk(requests, exchange, step)] == targets
    assert not exchange.ended
    assert exchange.idle


def test_the_next_request_is_read_when_the_answer_before_it_was_taken() -> None:
    seen: list[str] = []

    def answer(method: str, target: str, body: bytes) -> Answer:
        seen.append(target)
        return echo(method, target, body)

    exchange = HttpExchange(answer)
    exchange.take(GET + GET.replace(b"/a", b"/b"))
    assert exchange.next_answer() is not None
    assert seen == ["/a"]
    assert not exchange.idle
    assert exchange.next_answer() is not None
    assert seen == ["/a", "/b"]
    assert exchange.idle


def test_the_answer_says_what_to_do_once_it_has_left() -> None:
    done: list[str] = []
    exchange = HttpExchange(lambda method, target, body: Answer(HTTPStatus.OK, {}, then=lambda: done.append(target)))
    exchange.take(GET)
    answer = exchange.next_answer()
    assert answer is not None
    _, then = answer
    assert then is not None
    assert done == []
    then()
    assert done == ["/a"]


def test_an_exchange_is_idle_only_between_requests() -> None:
    exchange = HttpExchange(echo)
    assert exchange.idle
    talk(GET[:9], exchange)
    assert not exchange.idle
    talk(GET[9:], exchange)
    assert exchange.idle


def test_head_gets_no_body() -> None:
    [answer] = talk(b"HEAD /a HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert parsed(answer, "HEAD")[0] == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /a HTTP/1.1\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\n" + HEAD + b"Content-Length: x\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\n" + HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /a HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /a HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /a HTTP/1.1\r\n" + HEAD + b"Content-Length: 4097\r\n\r\n" + bytes(LARGEST_BODY + 1), 413),
        (
            b"POST /a HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffff\r\n" + bytes(LARGEST_BODY + 1),
            413,
        ),
        (b"GET /" + b"a" * 3 * LARGEST_HEAD, 431),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 3 * LARGEST_HEAD, 431),
        (b"GET / HTTP/1.1\r\n" + HEAD + b"A: b\r\n" * MOST_HEADERS + b"\r\n", 431),
    ],
)
def test_a_bad_or_too_large_request_is_refused_and_is_the_last(request_: bytes, status: int) -> None:
    exchange = HttpExchange(echo)
    [answer] = talk(request_, exchange)
    said, content, headers = parsed(answer)
    assert said == status
    assert set(content) == {"error"}
    assert headers["connection"] == "close"
    assert exchange.ended


@pytest.mark.parametrize(
    "asks", [b"CONNECT a:1 HTTP/1.1\r\n", b"GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"]
)
def test_proposals_of_another_protocol_are_ignored(asks: bytes) -> None:
    exchange = HttpExchange(echo)
    [answer] = talk(asks + HEAD + b"\r\nother", exchange)
    assert parsed(answer)[0] in (200, 405)
    assert exchange.ended


def test_a_client_that_sends_no_more_still_gets_its_answer() -> None:
    exchange = HttpExchange(echo)
    exchange.take(GET)
    exchange.take(b"")
    assert exchange.next_answer() is not None
    assert exchange.next_answer() is None
    assert exchange.ended


REQUEST_PARTS = st.sampled_from(
    [
        GET,
        b"HEAD / HTTP/1.1\r\n",
        b"POST /v1/stop HTTP/1.0\r\n",
        b"CONNECT x HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n",
        HEAD,
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"Upgrade: x\r\nConnection: upgrade\r\n",
        b"\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"\n\n",
    ]
)


@given(st.lists(st.one_of(REQUEST_PARTS, st.binary(max_size=40)), max_size=12), st.integers(1, 200), st.booleans())
def test_arbitrary_bytes_raise_nothing_and_every_answer_is_http(parts: list[bytes], step: int, ends: bool) -> None:
    exchange = HttpExchange(echo)
    answers = talk(b"".join(parts), exchange, step)
    if ends and not exchange.ended:
        exchange.take(b"")
        while (last := exchange.next_answer()) is not None:
            answers.append(last[0])
        assert exchange.ended
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 ")
        if not answer.endswith(b"\r\n\r\n"):
            assert isinstance(parsed(answer)[1], dict)
