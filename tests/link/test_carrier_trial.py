"""Trials of the carrier that a link does not use, on a link, connections and a clock that the test holds."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from tests.machine import HandLoop
from vpntun.carriers.base import ConnectionOwner, Stream
from vpntun.carriers.fake import FakeEndpoint
from vpntun.core.endpoint import Endpoint, Outcome
from vpntun.link.carrier_trial import MOST_ADDRESSES, SECONDS, SECONDS_BETWEEN_TRIALS, CarrierTrial
from vpntun.types import NEVER, CarrierName


class FakeLink:
    """A link that notes what its trial wants. `dials`: those under way, by the address."""

    def __init__(self) -> None:
        self.endpoint: Endpoint | None = FakeEndpoint("in use")
        self.probes: list[tuple[str, int]] = []
        self.dials: dict[str, Callable[[Stream | None], None]] = {}
        self.opened: list[Stream] = []
        self.told: list[str] = []
        self.trial: CarrierTrial | None = None
        self.unreachable: set[str] = set()

    def dial_for(
        self,
        trial: ConnectionOwner,
        carrier: CarrierName,
        candidate: Endpoint,
        on_done: Callable[[Stream | None], None],
    ) -> None:
        assert carrier == "tcp"
        self.dials[candidate.where] = on_done

    def give_up_dials_for(self, trial: ConnectionOwner) -> None:
        self.dials.clear()

    def opened_for_trial(self, connection: Stream) -> None:
        self.opened.append(connection)

    def probe(self, endpoint: Endpoint, token: int) -> None:
        self.probes.append((endpoint.where, token))
        if endpoint.where in self.unreachable and self.trial is not None:
            self.trial.note_sent(Outcome.UNDELIVERABLE, endpoint)

    def ready(self, connection: Stream) -> None:
        self.told.append("ready")

    def closed(self, connection: Stream) -> None:
        self.told.append("closed")


class Trial:
    """A trial that has begun, of addresses with these names."""

    def __init__(self, loop: HandLoop, carrier: CarrierName, *names: str, unreachable: str = "") -> None:
        self.loop, self.link = loop, FakeLink()
        self.addresses = [FakeEndpoint(name) for name in names]
        self.made = CarrierTrial(self.link, loop, carrier, "udp" if carrier == "tcp" else "tcp", self.addresses)
        self.link.trial = self.made
        self.link.unreachable.update(unreachable.split())
        self.made.begin()

    def open(self, name: str) -> FakeEndpoint:
        connection = FakeEndpoint(name, "tcp")
        self.link.dials.pop(connection.where)(connection)
        return connection

    def fail(self, name: str, number: int) -> None:
        self.made.dial_failed(OSError(number, ""))
        self.link.dials.pop(f"{name}:55555")(None)

    def wait(self, seconds: float) -> None:
        self.loop.pass_time(seconds)
        if self.loop.now >= self.made.deadline:
            self.made.handle_timer(self.loop.now)

    @property
    def found(self) -> tuple[str | None, str]:
        return self.made.outcome, self.made.where


def test_a_connection_is_probed_and_closed_once_the_echo_has_come(loop: HandLoop) -> None:
    trial = Trial(loop, "tcp", "four")
    connection = trial.open("four")
    ((where, token),) = trial.link.probes
    assert (where, trial.link.opened) == ("four:55555", [connection])
    trial.wait(0.03)
    assert trial.made.echoed(token, connection, loop.now)
    assert trial.found == ("answered", "four:55555")
    assert trial.made.round_trip == pytest.approx(0.03)
    assert connection.is_open, "the message may still be read from it"
    loop.pass_time(0)
    assert not connection.is_open
    assert trial.made.deadline == NEVER


def test_an_echo_from_elsewhere_or_of_another_probe_proves_nothing(loop: HandLoop) -> None:
    trial = Trial(loop, "tcp", "four")
    connection = trial.open("four")
    ((_, token),) = trial.link.probes
    assert not trial.made.echoed(token, FakeEndpoint("elsewhere"), loop.now)
    assert not trial.made.echoed(token ^ 1, connection, loop.now)
    trial.wait(SECONDS)
    assert trial.found == ("open", "four:55555")
    assert not trial.made.echoed(token, connection, loop.now), "it is too late"


def test_an_answer_ends_the_other_dials_and_connections(loop: HandLoop) -> None:
    trial = Trial(loop, "tcp", "six", "four", "other")
    six, four = trial.open("six"), trial.open("four")
    assert trial.made.echoed(trial.link.probes[1][1], four, loop.now)
    loop.pass_time(0)
    assert (six.is_open, four.is_open, trial.link.dials) == (False, False, {})


def test_a_connection_that_has_become_the_endpoint_stays_open(loop: HandLoop) -> None:
    trial = Trial(loop, "tcp", "four")
    connection = trial.open("four")
    trial.link.endpoint = connection
    trial.wait(SECONDS)
    loop.pass_time(0)
    assert connection.is_open
    trial.made.ready(connection)
    trial.made.closed(connection)
    assert trial.link.told == ["ready", "closed"], "the link must hear of it"


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (errno.ECONNREFUSED, "refused"),
        (errno.EPERM, "forbidden"),
        (errno.EACCES, "forbidden"),
        (errno.ETIMEDOUT, "silent"),
        (errno.ENETUNREACH, "unreachable"),
        (errno.EHOSTUNREACH, "unreachable"),
    ],
)
def test_a_failed_dial_ends_the_trial_with_its_reason(loop: HandLoop, number: int, outcome: str) -> None:
    trial = Trial(loop, "tcp", "four")
    trial.fail("four", number)
    assert trial.found == (outcome, "four:55555")


def test_the_address_that_came_nearest_to_an_answer_is_reported(loop: HandLoop) -> None:
    trial = Trial(loop, "tcp", "six", "four")
    trial.fail("six", errno.ENETUNREACH)
    assert trial.found[0] is None, "the other may answer"
    trial.fail("four", errno.ECONNREFUSED)
    assert trial.found == ("refused", "four:55555")


def test_a_dial_that_takes_too_long_is_given_up(loop: HandLoop) -> None:
    trial = Trial(loop, "tcp", "six", "four")
    trial.fail("six", errno.ENETUNREACH)
    trial.wait(SECONDS - 0.1)
    assert trial.found[0] is None
    trial.wait(0.1)
    assert (trial.found, trial.link.dials) == (("silent", "four:55555"), {})


def test_a_connection_that_the_other_end_closes_is_no_answer(loop: HandLoop) -> None:
    trial = Trial(loop, "tcp", "four")
    trial.made.closed(trial.open("four"))
    assert (trial.found, trial.link.told) == (("open", "four:55555"), ["closed"])


def test_datagrams_are_probed_each_second_for_a_lost_one_proves_nothing(loop: HandLoop) -> None:
    trial = Trial(loop, "udp", "six", "four")
    trial.wait(1.0)
    trial.wait(1.0)
    assert [where for where, _ in trial.link.probes] == ["six:55555", "four:55555"] * 3
    trial.wait(0.25)
    assert trial.made.echoed(trial.link.probes[-1][1], trial.addresses[1], loop.now)
    assert trial.found == ("answered", "four:55555")
    assert trial.made.round_trip == pytest.approx(0.25)


def test_silence_over_udp_is_reported_after_five_seconds(loop: HandLoop) -> None:
    trial = Trial(loop, "udp", "six", "four", unreachable="six:55555")
    for _ in range(5):
        assert trial.found[0] is None
        trial.wait(1.0)
    assert trial.found == ("silent", "four:55555")
    assert len(trial.link.probes) == 2 * 5


def test_a_host_that_can_send_nowhere_is_told_so_at_once(loop: HandLoop) -> None:
    trial = Trial(loop, "udp", "six", "four", unreachable="six:55555 four:55555")
    assert trial.found == ("unreachable", "six:55555")


def test_few_of_many_addresses_are_tried(loop: HandLoop) -> None:
    names = [str(number) for number in range(MOST_ADDRESSES + 3)]
    assert len(Trial(loop, "tcp", *names).link.dials) == MOST_ADDRESSES
    assert len(Trial(loop, "udp", *names).link.probes) == MOST_ADDRESSES


def test_a_trial_is_recent_for_ten_seconds_from_its_beginning(loop: HandLoop) -> None:
    trial = Trial(loop, "tcp", "four")
    trial.fail("four", errno.ECONNREFUSED)
    loop.pass_time(SECONDS_BETWEEN_TRIALS - 0.1)
    assert trial.made.is_recent
    loop.pass_time(0.1)
    assert not trial.made.is_recent


def test_a_trial_ends_with_its_link(loop: HandLoop) -> None:
    trial = Trial(loop, "tcp", "four")
    trial.made.stop()
    assert (trial.link.dials, trial.made.deadline) == ({}, NEVER)
