"""Reasons: why a carrier is in use, or why there is none, in the course of searches."""

from __future__ import annotations

import pytest

from vpntun.core.selection.reason import Reason, ReasonsOfClient, reason_of_server
from vpntun.types import CarrierName


@pytest.fixture
def reasons() -> ReasonsOfClient:
    return ReasonsOfClient(("udp", "tcp"))


def test_the_first_search_says_what_it_waits_for(reasons: ReasonsOfClient) -> None:
    reasons.asked(10.0)
    assert reasons.reason(None, has_address=False) == Reason("no address of the peer is known")
    assert reasons.reason(None, has_address=True) == Reason("no answer over UDP or TCP", 10.0)
    reasons.settled("udp")
    assert reasons.reason("udp", has_address=True) == Reason("it answered first")


def test_over_tcp_the_time_counts_from_the_first_question_that_udp_left_unanswered(reasons: ReasonsOfClient) -> None:
    reasons.asked(10.0)
    reasons.settled("udp")
    reasons.asked(500.0)
    reasons.settled("tcp")
    reasons.asked(900.0)  # the connection has closed
    reasons.settled("tcp")
    assert reasons.reason("tcp", has_address=True) == Reason("no UDP answer", 500.0)


def test_the_time_without_any_answer_counts_from_the_search_after_the_last_one(reasons: ReasonsOfClient) -> None:
    reasons.asked(10.0)
    reasons.settled("tcp")
    reasons.asked(7200.0)  # the connection has closed
    reasons.asked(7260.0)
    assert reasons.reason(None, has_address=True) == Reason("no answer over UDP or TCP", 7200.0)
    reasons.settled("tcp")
    assert reasons.reason("tcp", has_address=True) == Reason("no UDP answer", 10.0)


def test_data_that_udp_left_unanswered_before_the_search_counts(reasons: ReasonsOfClient) -> None:
    reasons.asked(10.0)
    reasons.settled("udp")
    reasons.asked(515.0, 500.0, "udp")
    assert reasons.reason(None, has_address=True) == Reason("no answer over UDP or TCP", 500.0)
    reasons.settled("tcp")
    assert reasons.reason("tcp", has_address=True) == Reason("no UDP answer", 500.0)


def test_data_that_tcp_left_unanswered_is_no_question_to_udp(reasons: ReasonsOfClient) -> None:
    reasons.asked(515.0, 500.0, "tcp")
    assert reasons.reason(None, has_address=True) == Reason("no answer over UDP or TCP", 500.0)
    assert reasons.reason("tcp", has_address=True) == Reason("no UDP answer", 515.0)


def test_udp_that_answers_again_keeps_that_reason_until_the_link_leaves_it(reasons: ReasonsOfClient) -> None:
    reasons.asked(10.0)
    reasons.settled("tcp")
    for _ in range(2):  # the second is the renewal of the session
        reasons.settled("udp")
        assert reasons.reason("udp", has_address=True) == Reason("it answers again")
    reasons.asked(100.0)
    reasons.settled("tcp")
    assert reasons.reason("tcp", has_address=True) == Reason("no UDP answer", 100.0)


@pytest.mark.parametrize("carrier", ["udp", "tcp"])
def test_a_carrier_without_an_alternative_is_the_operators_choice(carrier: CarrierName) -> None:
    reasons = ReasonsOfClient((carrier,))
    reasons.asked(10.0)
    assert reasons.reason(None, has_address=True) == Reason(f"no answer over {carrier.upper()}", 10.0)
    reasons.settled(carrier)
    assert reasons.reason(carrier, has_address=True) == Reason(f"--transport {carrier}")


def test_a_server_leaves_the_choice_to_the_peer() -> None:
    assert reason_of_server("udp", is_heard=False, has_closed=False).text == "the peer was there before"
    assert reason_of_server("tcp", is_heard=True, has_closed=True).text == "the peer called by it"


def test_a_server_without_a_carrier_tells_a_call_under_way_from_one_that_has_ended() -> None:
    assert reason_of_server(None, is_heard=False, has_closed=False).text == "the peer has not called"
    assert reason_of_server(None, is_heard=True, has_closed=False).text == "the peer's handshake is incomplete"
    assert reason_of_server(None, is_heard=True, has_closed=True).text == "the peer's connection has closed"
