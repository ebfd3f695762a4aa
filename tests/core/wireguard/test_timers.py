"""WireGuard's timers at explicit times: which event arms, postpones or cancels which deadline."""

from __future__ import annotations

from random import Random

import pytest

from vpntun.core.wireguard.timers import (
    KEEPALIVE_TIMEOUT,
    LARGEST_JITTER,
    REKEY_TIMEOUT,
    ZERO_KEYS_AFTER,
    Timers,
)
from vpntun.types import NEVER

NOW = 1000.0
SILENCE = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT


@pytest.fixture
def timers() -> Timers:
    return Timers(Random(1))


def test_fresh_timers_have_no_deadline(timers: Timers) -> None:
    assert timers.earliest() == NEVER
    assert timers.heard_at == -NEVER
    assert not timers.another_keepalive
    assert not timers.keepalive_is_due(NOW)
    assert not timers.handshake_is_due(NOW)
    assert not timers.keys_are_due_for_wiping(NOW)
    assert not timers.persistent_is_due(NOW)
    assert not timers.is_silent(NOW)


# The passive keepalive


def test_received_data_is_answered_by_a_keepalive_after_ten_seconds_unless_something_is_sent(timers: Timers) -> None:
    timers.data_received(NOW)
    assert timers.earliest() == NOW + 10
    assert not timers.keepalive_is_due(NOW + 9.99)
    assert timers.keepalive_is_due(NOW + 10)


@pytest.mark.parametrize("with_data", [True, False])
def test_anything_sent_cancels_the_keepalive_and_the_one_after_it(timers: Timers, with_data: bool) -> None:
    timers.data_received(NOW)
    timers.data_received(NOW + 1)
    (timers.data_sent if with_data else timers.authenticated_sent)(NOW + 2)
    assert not timers.keepalive_is_due(NOW + 10)
    timers.data_received(NOW + 20)
    assert timers.keepalive == NOW + 30
    assert not timers.another_keepalive


def test_data_while_the_keepalive_is_pending_does_not_postpone_it_but_asks_for_one_more(timers: Timers) -> None:
    timers.data_received(NOW)
    timers.data_received(NOW + 4)
    assert timers.keepalive == NOW + 10
    assert timers.another_keepalive
    timers.keepalive_fired(NOW + 10, another=True)
    assert timers.keepalive == NOW + 20
    timers.keepalive_fired(NOW + 20, another=timers.another_keepalive)
    assert timers.keepalive == NEVER


def test_an_empty_message_received_asks_for_no_keepalive(timers: Timers) -> None:
    timers.authenticated_received(NOW)
    assert timers.keepalive == NEVER


# The new handshake


def test_data_that_nobody_answers_for_fifteen_seconds_asks_for_one_handshake(timers: Timers) -> None:
    timers.data_sent(NOW)
    due = timers.new_handshake
    assert NOW + SILENCE <= due <= NOW + SILENCE + LARGEST_JITTER
    timers.data_sent(NOW + 7)
    assert timers.new_handshake == due, "more data does not postpone it"
    assert not timers.handshake_is_due(due - 0.01)
    assert timers.handshake_is_due(due)
    assert not timers.handshake_is_due(due + 100)


def test_two_ends_do_not_ask_at_the_same_moment() -> None:
    ends = [Timers(Random(seed)) for seed in range(20)]
    for end in ends:
        end.data_sent(NOW)
    assert len({end.new_handshake for end in ends}) == len(ends)


@pytest.mark.parametrize("with_data", [True, False])
def test_anything_authentic_that_is_received_calls_the_handshake_off(timers: Timers, with_data: bool) -> None:
    timers.data_sent(NOW)
    (timers.data_received if with_data else timers.authenticated_received)(NOW + 1)
    assert not timers.handshake_is_due(NOW + 100)
    assert timers.heard_at == NOW + 1


def test_an_empty_message_sent_expects_no_answer(timers: Timers) -> None:
    timers.authenticated_sent(NOW)
    assert timers.new_handshake == NEVER
    assert not timers.is_silent(NOW + 100)


def test_a_peer_is_silent_fifteen_seconds_after_the_first_unanswered_data_however_often_it_is_repeated(
    timers: Timers,
) -> None:
    timers.data_sent(NOW)
    assert not timers.is_silent(NOW + SILENCE - 0.01)
    assert timers.is_silent(NOW + SILENCE)
    assert timers.handshake_is_due(NOW + SILENCE + LARGEST_JITTER)
    timers.data_sent(NOW + 20)
    assert timers.is_silent(NOW + 20), "a retry does not make it a talker"
    timers.authenticated_received(NOW + 21)
    assert not timers.is_silent(NOW + 21)
    timers.data_sent(NOW + 22)
    assert not timers.is_silent(NOW + 22 + SILENCE - 0.01)


# Keys


def test_keys_are_wiped_once_three_lifetimes_after_the_last_session(timers: Timers) -> None:
    timers.session_derived(NOW)
    timers.session_derived(NOW + 120)
    assert timers.earliest() == NOW + 120 + ZERO_KEYS_AFTER
    assert not timers.keys_are_due_for_wiping(NOW + ZERO_KEYS_AFTER)
    assert timers.keys_are_due_for_wiping(NOW + 120 + ZERO_KEYS_AFTER)
    assert not timers.keys_are_due_for_wiping(NOW + 10 * ZERO_KEYS_AFTER)


# The persistent keepalive


@pytest.mark.parametrize("event", ["data_sent", "authenticated_sent", "data_received", "authenticated_received"])
def test_any_traffic_postpones_the_persistent_keepalive(event: str) -> None:
    timers = Timers(Random(1), persistent=25)
    getattr(timers, event)(NOW)
    assert timers.persistent == NOW + 25
    getattr(timers, event)(NOW + 20)
    assert not timers.persistent_is_due(NOW + 44.9)
    assert timers.persistent_is_due(NOW + 45)


def test_a_persistent_keepalive_that_is_due_is_due_again_an_interval_later_whether_it_could_be_sent_or_not() -> None:
    timers = Timers(Random(1), persistent=25)
    timers.authenticated_sent(NOW)
    assert [at for at in range(0, 101, 5) if timers.persistent_is_due(NOW + at)] == [25, 50, 75, 100]


def test_without_an_interval_no_traffic_arms_the_persistent_keepalive(timers: Timers) -> None:
    for event in (timers.data_sent, timers.authenticated_sent, timers.data_received, timers.authenticated_received):
        event(NOW)
        assert timers.persistent == NEVER


def test_a_new_interval_counts_from_the_change_and_zero_ends_it(timers: Timers) -> None:
    timers.keep_alive(25, NOW)
    assert timers.earliest() == NOW + 25
    timers.keep_alive(5, NOW + 1)
    assert timers.earliest() == NOW + 6
    timers.keep_alive(0, NOW + 2)
    assert timers.earliest() == NEVER


def test_the_earliest_of_all_deadlines_is_the_next() -> None:
    timers = Timers(Random(1), persistent=25)
    timers.session_derived(NOW)
    assert timers.earliest() == NOW + ZERO_KEYS_AFTER
    timers.authenticated_sent(NOW)
    assert timers.earliest() == NOW + 25
    timers.data_sent(NOW)
    assert timers.earliest() == timers.new_handshake
    timers.data_received(NOW + 1)
    assert timers.earliest() == NOW + 11
