"""The sender of a speed test's load: packets first, a share of the time, and no end without a reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.ends import ipv4
from tests.machine import HandLoop
from tests.speed.ends import STEP, Ends
from vpntun.carriers.fake import FakeEndpoint
from vpntun.core.speed.rate_control import RateControl
from vpntun.speed.load_sender import LONGEST_SLICE, SHORTEST_SLICE, LoadSender
from vpntun.speed.trial import Trial


class Sending:
    """Alice sends load to Bob, who has agreed."""

    def __init__(self, ends: Ends, seconds: float = 10.0) -> None:
        self.ends, link = ends, ends.alice.link
        self.receiver = Trial(ends.bob.link, ends.loop, 7, seconds, receives=True)
        self.trial = Trial(link, ends.loop, 7, seconds)
        self.trial.measure()
        self.trial.send(ends.alice.seal_buffer, 0.0)
        assert self.trial.sender is not None
        self.sender: LoadSender = self.trial.sender

    @property
    def arrived(self) -> int:
        return self.receiver.arrivals.total


@pytest.fixture
def sending(ends: Ends) -> Iterator[Sending]:
    made = Sending(ends)
    yield made
    made.sender.stop()


def test_load_fills_the_path_and_what_arrives_is_reported(sending: Sending) -> None:
    sending.ends.run(3)
    arrived = sending.arrived
    sending.ends.run(2)
    assert sending.arrived - arrived > 1.7e6
    assert sending.sender.delivered > 0.8 * sending.arrived


def test_no_load_is_sent_while_packets_wait(sending: Sending) -> None:
    ends, link = sending.ends, sending.ends.alice.link
    ends.run(2)
    link.queue.push(ipv4("10.0.0.1", "10.0.0.2", bytes(100)), 0, ends.loop.now)
    ends.run(0.1)
    arrived = sending.arrived
    ends.run(0.5)
    assert sending.arrived - arrived < 1.5e6 * STEP * 10
    link.queue.clear()
    ends.run(1)
    assert sending.arrived - arrived > 0.5e6


def test_no_load_is_sent_while_the_endpoint_is_not_ready(sending: Sending) -> None:
    ends = sending.ends
    ends.run(2)
    ends.wire.to_right.is_ready = False  # the endpoint fails the test if something is sent
    ends.run(0.5)
    ends.wire.to_right.is_ready = True
    arrived = sending.arrived
    ends.run(1)
    assert sending.arrived > arrived


def test_packets_are_sent_beside_the_load_and_count_as_sent(sending: Sending) -> None:
    ends = sending.ends
    ends.run(3)
    before, packets = sending.arrived, len(ends.bob.device.packets)
    for _ in range(100):
        ends.alice.send(*[ipv4("10.0.0.1", "10.0.0.2", bytes(1000))] * 5)
        ends.run(STEP)
    ends.run(0.3)
    assert len(ends.bob.device.packets) - packets == 500
    assert sending.arrived - before < 1e6


def test_nothing_is_sent_to_an_endpoint_from_which_no_probe_was_echoed(sending: Sending) -> None:
    """A hostile peer gives another's address as its own, sometimes its own again, and invents REPORTs."""
    ends, link = sending.ends, sending.ends.alice.link
    ends.run(2)
    own, victim = link.endpoint, FakeEndpoint("victim")
    assert own is not None
    for _ in range(20):
        link.peer.endpoint = victim
        sending.sender._heard_at = ends.loop.now  # as if a REPORT had come
        ends.run(0.09)
        link.peer.endpoint = own
        ends.run(0.01)
    assert max(map(len, victim.take())) < 200, "a PROBE or a REPORT, but no load"
    arrived = sending.arrived
    ends.run(1)
    assert sending.arrived - arrived > 0.3e6


def test_nothing_is_sent_while_probes_are_not_echoed(sending: Sending) -> None:
    sending.ends.run(1)
    sending.trial.echo_arrived = lambda token, now: None  # type: ignore[method-assign]
    sending.ends.run(2.2)
    arrived = sending.arrived
    sending.ends.run(1)
    assert sending.arrived == arrived


def test_it_ends_after_its_seconds(ends: Ends) -> None:
    sending = Sending(ends, 1.0)
    ends.run(1.1)
    assert sending.sender.has_ended
    assert not sending.sender.was_silent


def test_it_ends_after_its_seconds_though_a_peer_has_reported_next_to_nothing(ends: Ends) -> None:
    sending = Sending(ends, 3.0)
    ends.run(1)
    sending.sender.control = Slowest(ends.loop.now)
    ends.run(2.2)
    assert sending.sender.has_ended


class Slowest(RateControl):
    """A rate control that has come to a rate at which the next datagram is due in hours."""

    def seconds_until(self, size: int) -> float:
        return 10_000.0

    def allowance(self, sent: int, now: float) -> int:
        return 0


def test_it_ends_if_nothing_is_reported(sending: Sending) -> None:
    sending.ends.run(1)
    sending.ends.rate = 0
    sending.ends.run(2.5)
    assert sending.sender.has_ended
    assert sending.sender.was_silent


def test_a_slice_is_no_longer_than_the_other_work_before_it(sending: Sending, loop: HandLoop) -> None:
    sender = sending.sender
    ended, slept = sender._slice_ended_at, loop.slept
    sender._slept = slept
    assert sender._slice(ended + 0.0001) == LONGEST_SLICE
    assert sender._slice(ended + 0.0012) == pytest.approx(0.0012)
    assert sender._slice(ended + 1.0) == LONGEST_SLICE
    loop.slept = slept + 0.0011
    assert sender._slice(ended + 0.0012) == LONGEST_SLICE
    assert SHORTEST_SLICE < LONGEST_SLICE


def test_a_slice_ends_in_time_though_the_rate_would_allow_more(sending: Sending, loop: HandLoop) -> None:
    sending.ends.run(1)
    sending.sender.control.rate = 1e9
    loop.clock.ticks = LONGEST_SLICE / 4  # a record takes as long
    before = sending.ends.alice.link.records.span.sent_log.bytes
    loop.clock.now += 0.01
    sending.sender._send_slice(loop.now)
    loop.clock.ticks = 0.0
    assert sending.ends.alice.link.records.span.sent_log.bytes - before < 8 * 1400
