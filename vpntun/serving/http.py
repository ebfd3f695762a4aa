"""HTTP/1.1 of the sockets that serve it: bytes in, answers out, without a socket, and for untrusted clients.

h11 parses. These are the rules:

    a request       has at most some 8 KiB of head, 32 headers, and 4 KiB of body, which most requests ignore
    its answer      is one JSON object or list, or a stream, after which the connection is closed
    the next one    is read once the answer to this one was taken, so answers come in the order of the requests
    a bad one       (too large, or not HTTP) is answered with 400, 413 or 431, and nothing after it is read
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import h11

from vpntun.serving.exchange import Stream

LARGEST_HEAD = 8 * 1024
MOST_HEADERS = 32
LARGEST_BODY = 4 * 1024


@dataclass(frozen=True)
class Answer:
    """An answer: status, content, headers, and what to do once it has left. `body`: the content as text.

    The content is a JSON object or list, or the text itself with a `content_type` of its own. Raises TypeError or
    ValueError if it cannot be written as JSON.
    """

    status: HTTPStatus
    content: Mapping[str, Any] | Sequence[Any] | bytes
    headers: tuple[tuple[str, str], ...] = ()
    then: Callable[[], None] | None = None
    content_type: str = "application/json"
    body: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Write the object at once, so that content which cannot be written fails where the answer is made."""
        content = self.content
        object.__setattr__(self, "body", content if isinstance(content, bytes) else json.dumps(content).encode())


@dataclass(frozen=True)
class StreamAnswer:
    """An answer that is sent in chunks as something happens, until the stream ends."""

    content_type: str
    stream: Stream


@dataclass(frozen=True)
class LaterAnswer:
    """An answer that takes longer to make than the loop may wait.

    `work` makes a part of it, and returns None while it is not complete. It is called again when the server goes on.
    """

    work: Callable[[], Answer | None]


AnyAnswer = Answer | StreamAnswer | LaterAnswer


def refusal(status: HTTPStatus, reason: str, *headers: tuple[str, str]) -> Answer:
    """Make an answer that says why a request was not done."""
    return Answer(status, {"error": reason}, headers)


def line(status: HTTPStatus, text: str) -> Answer:
    """Make an answer that is one line of text; without content if the text is empty."""
    body = f"{text}\n".encode(errors="replace") if text else b""
    return Answer(status, body, content_type="text/plain; charset=utf-8")


@dataclass(frozen=True)
class Route:
    """One path: its method, and the function `act` that answers. The query's fields become the arguments of `act`.

    `lists`: fields that may be given several times; their arguments are lists of all values. `takes_body`: `act` gets
    the request's body as its first argument.
    """

    method: str
    act: Callable[..., AnyAnswer]
    fields: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    takes_body: bool = False


def follow(routes: Mapping[str, Route], method: str, target: str, body: bytes = b"") -> AnyAnswer:
    """Answer a request by the route of its path; refuse it if there is no route, or if the query does not fit."""
    path, _, query = target.partition("?")
    route = routes.get(path)
    fields = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)  # keys contain "+"
    if route is None or not _fits(route, [name for name, _ in fields]):
        return refusal(HTTPStatus.NOT_FOUND, f"there is no {target}; there are {', '.join(routes)}")
    if method != route.method:
        return refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {route.method}", ("Allow", route.method))
    given = {name for name, _ in fields} & route.lists
    lists = {name: [text for each, text in fields if each == name] for name in given}
    return route.act(*([body] if route.takes_body else []), **{**dict(fields), **lists})


def target_of(path: str, fields: Mapping[str, object]) -> str:
    """Return a request's target, which `follow` takes apart again. A field whose value is a sequence is repeated."""
    query = urlencode(fields, doseq=True, errors="surrogateescape", quote_via=quote)
    return f"{path}?{query}" if query else path


def _fits(route: Route, names: Sequence[str]) -> bool:
    once = [name for name in names if name not in route.lists]
    return len(set(once)) == len(once) and route.fields.issuperset(once)


class HttpExchange:
    """The requests and answers of one connection, as the `Exchange` of exchange.py.

    `answer` gets a method, a target and a body; it must refuse CONNECT. It returns None while it has no answer yet, and
    is then asked again at the next call of `next_answer`. `awaits_answer`: it has returned None. `ended`: there will be
    no more answers, so the connection may close once those taken have left.
    """

    def __init__(self, answer: Callable[[str, str, bytes], AnyAnswer | None]) -> None:
        self.ended = self.awaits_answer = False
        self.stream: Stream | None = None
        self._answer = answer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD)
        self._request: h11.Request | None = None
        self._later: LaterAnswer | None = None
        self._body = bytearray()

    @property
    def idle(self) -> bool:
        """Whether no part of a request has arrived."""
        return self._http.their_state is h11.IDLE and not self._http.trailing_data[0]

    def take(self, data: bytes) -> None:
        """Take bytes that arrived; b"" is the end of them. Do not call this after that, or once `ended`.

        While a stream is sent, nothing is read but the end, which ends the stream.
        """
        if self.stream is None:
            self._http.receive_data(data)
        elif not data:
            self.stream.end()

    def next_answer(self) -> tuple[bytes, Callable[[], None] | None] | None:
        """Return the next answer, and what to do once it has left; None if more bytes are needed, or once `ended`.

        An answer may be the next piece of a stream.
        """
        if self.stream is not None:
            return self._next_piece(self.stream)
        while not self.ended:
            if self.awaits_answer:
                return self._answer_now()
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as bad:
                return self._pack(refusal(HTTPStatus(bad.error_status_hint), str(bad)))
            if isinstance(event, h11.Request):
                self._request = event
                if len(event.headers) > MOST_HEADERS:
                    return self._pack(refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many headers"))
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > LARGEST_BODY:
                    reason = f"the body is longer than {LARGEST_BODY} bytes"
                    return self._pack(refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason))
            elif isinstance(event, h11.EndOfMessage) and self._request is not None:
                self.awaits_answer = True
            elif isinstance(event, h11.ConnectionClosed):
                self.ended = True
            else:
                break
        return None

    def _answer_now(self) -> tuple[bytes, Callable[[], None] | None] | None:
        """Answer the complete request, if there is an answer already."""
        assert self._request is not None
        answer: AnyAnswer | None = self._later
        if answer is None:
            method, target = self._request.method.decode("ascii"), self._request.target.decode("ascii")
            answer = self._answer(method, target, bytes(self._body))
        if isinstance(answer, LaterAnswer):
            self._later = answer
            answer = answer.work()
        self.awaits_answer = answer is None
        if answer is None:
            return None
        self._later = None
        return self._pack(answer) if isinstance(answer, Answer) else self._begin_stream(answer)

    def _begin_stream(self, answer: StreamAnswer) -> tuple[bytes, None]:
        self.stream = answer.stream
        headers = [("Content-Type", answer.content_type), ("Connection", "close")]
        return self._http.send(h11.Response(status_code=200, reason=b"OK", headers=headers)) or b"", None

    def _next_piece(self, stream: Stream) -> tuple[bytes, None] | None:
        if piece := stream.take():
            return self._http.send(h11.Data(data=piece)) or b"", None
        if self.ended or not stream.ended:
            return None
        self.ended = True
        return self._http.send(h11.EndOfMessage()) or b"", None

    def _pack(self, answer: Answer) -> tuple[bytes, Callable[[], None] | None]:
        http, request, status = self._http, self._request, answer.status
        body = answer.body
        headers = [("Content-Type", answer.content_type), ("Content-Length", str(len(body))), *answer.headers]
        if http.their_state is not h11.DONE:  # the request is incomplete, or not HTTP
            headers.append(("Connection", "close"))
        parts = [http.send(h11.Response(status_code=status, reason=status.phrase.encode(), headers=headers))]
        if request is None or request.method != b"HEAD":
            parts.append(http.send(h11.Data(data=body)))
        parts.append(http.send(h11.EndOfMessage()))
        self._request, self._body = None, bytearray()
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            http.start_next_cycle()
        else:
            self.ended = True
        return b"".join(part for part in parts if part), answer.then
