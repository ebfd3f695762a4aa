"""Messages between the processes of a run, and the descriptors that they carry."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.namespace.messages import Channel

Ends = tuple[Channel, Channel]
TEXTS = st.dictionaries(st.text(max_size=20), st.text(max_size=200), max_size=10)


@pytest.fixture
def ends() -> Iterator[Ends]:
    one, other = Channel.pair()
    yield one, other
    one.close()
    other.close()


@given(TEXTS, TEXTS)
def test_messages_arrive_whole_and_in_order(first: dict[str, str], second: dict[str, str]) -> None:
    one, other = Channel.pair()
    one.send(first)
    one.send(second)
    assert other.receive() == (first, [])
    assert other.receive() == (second, [])
    one.close()
    other.close()


def test_descriptors_arrive_as_copies_that_no_child_inherits(ends: Ends) -> None:
    reader, writer = os.pipe()
    ends[0].send({}, [writer])
    os.close(writer)
    received = ends[1].receive()
    assert received is not None
    ((_, (copy,))) = received
    assert not os.get_inheritable(copy)
    os.write(copy, b"through it")
    assert os.read(reader, 100) == b"through it"
    os.close(copy)
    os.close(reader)


def test_the_end_of_the_other_process_is_the_end_of_the_messages(ends: Ends) -> None:
    ends[0].send({"last": 1})
    ends[1].send({"never": "read"})
    ends[0].close()
    assert ends[1].receive() == ({"last": 1}, [])
    assert ends[1].receive() is None
    with pytest.raises(BrokenPipeError):
        ends[1].send({})


def test_an_end_that_never_waits_refuses_when_the_other_does_not_read(ends: Ends) -> None:
    ends[0].never_wait()
    with pytest.raises(BlockingIOError):
        ends[0].receive()
    while True:
        try:
            ends[0].send({"text": "x" * 1000})
        except BlockingIOError:
            break
