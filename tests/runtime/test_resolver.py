"""Name look-ups: literals without a thread, few threads for many names, failures that are retried."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.machine import HandLoop, logged
from vpntun.runtime.resolver import MOST_THREADS, SECONDS_WITHOUT_THREAD, Found, Lookups, Resolver, lookup


@pytest.fixture
def lookups(loop: HandLoop) -> Iterator[Lookups]:
    made = Lookups(loop)
    yield made
    made.close()


def resolver_threads() -> int:
    return sum(thread.name == "resolver" for thread in threading.enumerate())


def resolved(loop: HandLoop, lookups: Lookups, host: str) -> Found:
    answers: list[Found] = []
    resolver = Resolver(lookups, host, 55555, answers.append)
    resolver.look_up()
    loop.until(lambda: answers)
    return answers[0]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.7", [(socket.AF_INET, ("192.0.2.7", 55555))]),
        ("2001:db8::7", [(socket.AF_INET6, ("2001:db8::7", 55555, 0, 0))]),
        ("::1", [(socket.AF_INET6, ("::1", 55555, 0, 0))]),
    ],
)
def test_a_literal_address_is_answered_without_a_thread(
    loop: HandLoop, lookups: Lookups, host: str, expected: Found
) -> None:
    answers: list[Found] = []
    threads = threading.active_count()
    Resolver(lookups, host, 55555, answers.append).look_up()
    assert threading.active_count() == threads
    loop.poll()
    assert answers == [expected]


def test_the_answer_comes_from_the_loop_and_never_from_within_the_request(loop: HandLoop, lookups: Lookups) -> None:
    answers: list[Found] = []
    Resolver(lookups, "192.0.2.7", 55555, answers.append).look_up()
    assert answers == []


def test_a_name_is_looked_up_off_the_loop(loop: HandLoop, lookups: Lookups) -> None:
    found = resolved(loop, lookups, "localhost")
    assert {address[0] for _, address in found} <= {"127.0.0.1", "::1"}
    assert found


@pytest.mark.parametrize(
    "name",
    [
        "no-such-host.invalid",
        "two..dots",
        ".leading.dot",
        "label-of-more-than-sixty-three-characters-which-dns-does-not-allow-at-all.example",
        "snow\u2603man..invalid",
        "-",
        "name with spaces",
        "control\x1bcharacter.invalid",
        "null\x00byte",
        "broken\udc80.invalid",
        "x" * 5000,
    ],
)
def test_a_name_that_does_not_resolve_is_logged_and_not_fatal(loop: HandLoop, lookups: Lookups, name: str) -> None:
    with logged() as lines:
        assert resolved(loop, lookups, name) == []
    assert f"{name} does not resolve" in lines[0]


def test_addresses_found_in_advance_answer_the_first_look_up_only(loop: HandLoop, lookups: Lookups) -> None:
    lookups.look_up_ahead("localhost", 55555)
    threads = threading.active_count()
    found = resolved(loop, lookups, "localhost")
    assert threading.active_count() <= threads
    assert {address[0] for _, address in found} <= {"127.0.0.1", "::1"}
    assert resolved(loop, lookups, "localhost")


def test_looking_up_in_advance_skips_literal_addresses_and_raises_for_unknown_names(
    loop: HandLoop, lookups: Lookups
) -> None:
    lookups.look_up_ahead("2001:db8::7", 55555)
    for name in ("no-such-host.invalid", "null\x00byte", "x" * 5000):
        with pytest.raises((OSError, ValueError)):
            lookups.look_up_ahead(name, 55555)
        assert resolved(loop, lookups, name) == []


def test_a_second_request_during_a_look_up_starts_no_other(loop: HandLoop, lookups: Lookups) -> None:
    answers: list[Found] = []
    resolver = Resolver(lookups, "192.0.2.7", 55555, answers.append)
    resolver.look_up()
    resolver.look_up()
    loop.settle()
    assert len(answers) == 1
    resolver.look_up()
    loop.poll()
    assert len(answers) == 2


def test_a_name_that_failed_can_be_looked_up_again(loop: HandLoop, lookups: Lookups) -> None:
    answers: list[Found] = []
    resolver = Resolver(lookups, "two..dots", 55555, answers.append)
    for expected in (1, 2, 3):
        resolver.look_up()
        loop.until(lambda: len(answers) == expected)  # noqa: B023


def test_a_thousand_names_are_looked_up_by_a_few_threads(loop: HandLoop, lookups: Lookups) -> None:
    answers: list[Found] = []
    for number in range(1000):
        Resolver(lookups, f"two..dots{number}", 55555, answers.append).look_up()
        assert resolver_threads() <= MOST_THREADS
    loop.until(lambda: len(answers) == 1000)
    assert answers == [[]] * 1000


def test_a_closed_resolver_neither_looks_up_nor_answers(loop: HandLoop, lookups: Lookups) -> None:
    answers: list[Found] = []
    for host in ("192.0.2.7", "two..dots"):
        asked = Resolver(lookups, host, 55555, answers.append)
        asked.look_up()
        asked.close()
        asked.look_up()
    loop.settle()
    assert answers == []


def test_the_threads_end_with_the_lookups(loop: HandLoop) -> None:
    made = Lookups(loop)
    answers: list[Found] = []
    Resolver(made, "two..dots", 55555, answers.append).look_up()
    loop.until(lambda: answers)
    before = resolver_threads()
    made.close()
    loop.until(lambda: resolver_threads() < before)


def test_starting_a_thread_is_retried_if_none_can_be_started(
    loop: HandLoop, lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    answers: list[Found] = []
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        Resolver(lookups, "two..dots", 55555, answers.append).look_up()
        loop.pass_time(SECONDS_WITHOUT_THREAD)
    loop.pass_time(SECONDS_WITHOUT_THREAD)
    loop.until(lambda: answers)


def test_the_two_ip_versions_alternate() -> None:
    try:
        found = lookup("localhost", 1, 0)
    except socket.gaierror:
        pytest.skip("this machine does not know localhost")
    versions = [family for family, _ in found]
    if len(set(versions)) < 2:
        pytest.skip("localhost has one IP version here")
    assert versions[0] != versions[1]
