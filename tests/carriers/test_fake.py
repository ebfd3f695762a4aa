"""The fake endpoint and socket: they do what the protocols say, and what a test asks of them."""

from __future__ import annotations

import pytest

from vpntun.carriers.base import DatagramSource, Stream
from vpntun.carriers.fake import FakeEndpoint, FakeSource
from vpntun.core.endpoint import Outcome


def test_they_have_what_the_engine_needs() -> None:
    endpoint: Stream = FakeEndpoint("right", "tcp")
    source: DatagramSource = FakeSource()
    assert endpoint.is_stream
    assert list(source.receive()) == []


def test_a_send_is_kept_datagram_by_datagram_until_it_is_taken() -> None:
    endpoint = FakeEndpoint("right")
    assert endpoint.send([memoryview(b"aab"), memoryview(b"bc")], 2) is Outcome.SENT
    assert endpoint.calls == [[b"aa", b"bb", b"c"]]
    assert endpoint.take() == [b"aa", b"bb", b"c"]
    assert endpoint.take() == []


def test_the_tos_byte_of_each_datagram_is_kept_as_long_as_the_datagram() -> None:
    endpoint = FakeEndpoint("right")
    endpoint.send([memoryview(b"aab")], 2, tos=2)
    endpoint.send_first(b"c")
    assert endpoint.tos == [2, 2, 0]
    endpoint.take()
    assert endpoint.tos == []


def test_it_blocks_after_as_many_sends_as_asked_and_opens_again() -> None:
    endpoint = FakeEndpoint("right")
    endpoint.opens(blocks_after=2)
    assert endpoint.send([memoryview(b"1")]) is Outcome.SENT
    assert endpoint.send([memoryview(b"2")]) is Outcome.HELD
    assert not endpoint.ready()
    endpoint.opens()
    assert endpoint.ready()


def test_data_sent_again_and_again_to_a_blocked_endpoint_fails_the_test() -> None:
    endpoint = FakeEndpoint("right")
    endpoint.is_ready = False
    endpoint.send([memoryview(b"1")])
    endpoint.send([memoryview(b"2")])
    with pytest.raises(AssertionError, match="not ready"):
        endpoint.send([memoryview(b"3")])


def test_a_datagram_longer_than_the_largest_is_refused_unless_it_may_be_fragmented() -> None:
    endpoint = FakeEndpoint("right")
    endpoint.largest = 3
    assert endpoint.send([memoryview(b"1234")]) is Outcome.TOO_BIG
    assert endpoint.send([memoryview(b"1234")], dont_fragment=False) is Outcome.SENT
    endpoint.can_deliver = False
    assert endpoint.send([memoryview(b"1")]) is Outcome.UNDELIVERABLE


def test_a_stream_yields_what_was_put_in_once() -> None:
    endpoint = FakeEndpoint("right", "tcp")
    endpoint.incoming += [b"one", b"two"]
    assert [bytes(each) for each in endpoint.receive()] == [b"one", b"two"]
    assert list(endpoint.receive()) == []
