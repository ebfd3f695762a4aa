"""Questions on a connection: in pieces, several at once, with late answers, and with lengths that cannot be."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.names.answering import LARGEST_QUESTION
from vpntun.names.exchange import NameExchange


def framed(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


class Connection:
    """An exchange whose questions are echoed: at once, or later if they begin with "later", or never with "never"."""

    def __init__(self) -> None:
        self.late: list[tuple[bytes, Callable[[bytes], None]]] = []
        self.ready = 0
        self.exchange = NameExchange(self._take, self._note)

    def answers(self) -> list[bytes]:
        found = []
        while (reply := self.exchange.next_answer()) is not None:
            found.append(reply[0])
        return found

    def _take(self, data: bytes, deliver: Callable[[bytes], None]) -> bool:
        if data.startswith(b"later"):
            self.late.append((data, deliver))
        elif not data.startswith(b"never"):
            deliver(data)
        return not data.startswith(b"never")

    def _note(self) -> None:
        self.ready += 1


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), st.integers(1, 40))
def test_questions_are_answered_in_order_however_they_are_cut(questions: list[bytes], size: int) -> None:
    connection = Connection()
    stream = b"".join(framed(b"q" + each) for each in questions)
    found = []
    for at in range(0, len(stream), size):
        connection.exchange.take(stream[at : at + size])
        found += connection.answers()
    assert found == [framed(b"q" + each) for each in questions]
    assert connection.exchange.idle
    connection.exchange.take(b"")
    assert connection.answers() == []
    assert connection.exchange.ended


def test_a_late_answer_holds_up_the_questions_behind_it() -> None:
    connection = Connection()
    connection.exchange.take(framed(b"later") + framed(b"b"))
    assert connection.answers() == []
    assert connection.exchange.awaits_answer
    assert not connection.exchange.idle
    [(question, deliver)] = connection.late
    deliver(question)
    assert connection.ready == 1
    assert connection.answers() == [framed(b"later"), framed(b"b")]
    assert not connection.exchange.awaits_answer


@pytest.mark.parametrize("stream", [framed(b"never"), struct.pack("!H", LARGEST_QUESTION + 1) + b"x", b"\0\5ab"])
def test_what_gets_no_answer_ends_the_connection(stream: bytes) -> None:
    connection = Connection()
    connection.exchange.take(stream)
    assert connection.answers() == []
    if not connection.exchange.ended:
        connection.exchange.take(b"")
        assert connection.answers() == []
    assert connection.exchange.ended


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=8))
def test_any_bytes_are_taken(pieces: list[bytes]) -> None:
    connection = Connection()
    for piece in pieces:
        if not connection.exchange.ended and not connection.exchange.awaits_answer:
            connection.exchange.take(piece)
            connection.answers()
