"""Name look-ups: literals without a thread, few threads for many names, failures that are retried."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.machine import HandLoop, logged
from vpntun.runtime.loop import Loop
from vpntun.runtime.resolver import (
    MOST_ADDRESSES,
    MOST_THREADS,
    SECONDS_BETWEEN,
    SECONDS_WITHOUT_THREAD,
    TASKS,
    Found,
    Lookups,
    Resolver,
    lookup,
)


@pytest.fixture
def lookups(loop: HandLoop) -> Iterator[Lookups]:
    made = Lookups(loop)
    yield made
    made.close()


@pytest.fixture
def real_loop() -> Iterator[Loop]:
    """A loop under the real clock, for look-ups that serve it themselves."""
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def real(real_loop: Loop) -> Iterator[Lookups]:
    made = Lookups(real_loop)
    yield made
    made.close()


FOUND: Found = [(socket.AF_INET, ("192.0.2.7", 1))]


def scripted(answers: dict[str, list[Any]]) -> Callable[[str, int, int], Found]:
    """A look-up that gives each name's answers in order."""

    def look_up(host: str, port: int, flags: int) -> Found:
        answer = answers[host].pop(0)
        if isinstance(answer, Exception):
            raise answer
        found: Found = answer
        return found

    return look_up


def resolver_threads() -> int:
    return sum(thread.name == "resolver" for thread in threading.enumerate())


def resolved(loop: HandLoop, lookups: Lookups, host: str) -> Found:
    answers: list[Found] = []
    Resolver(lookups, host, 55555, answers.append).look_up()
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


def test_addresses_found_in_advance_answer_the_first_look_up_only(real: Lookups, real_loop: Loop) -> None:
    assert real.look_up_ahead([("localhost", 55555)], 5.0) == {}
    assert real.has_found("localhost", 55555)
    answers: list[Found] = []
    for expected in (1, 2):
        real.ask("localhost", 55555, lambda found, _: answers.append(found))
        assert real_loop.serve(lambda: len(answers) == expected, 5.0)  # noqa: B023
    assert {address[0] for found in answers for _, address in found} <= {"127.0.0.1", "::1"}
    assert all(answers)


def test_looking_up_in_advance_skips_literal_addresses_and_returns_the_names_that_do_not_exist(real: Lookups) -> None:
    unknown = ["two..dots", "null\x00byte", "x" * 5000]
    missing = real.look_up_ahead([(each, 55555) for each in ("2001:db8::7", "localhost", *unknown)], 5.0)
    assert sorted(missing) == sorted(unknown)
    assert all(isinstance(error, (OSError, ValueError)) for error in missing.values())
    assert not any(real.has_found(each, 55555) for each in unknown)
    assert real.has_found("2001:db8::7", 55555)


def test_looking_up_in_advance_repeats_what_may_succeed_later_until_the_time_is_over(real_loop: Loop) -> None:
    fails = socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
    lookups = Lookups(real_loop, find=scripted({"late.example": [fails, FOUND], "never.example": [fails] * 9}))
    [(host, error)] = lookups.look_up_ahead([("late.example", 1), ("never.example", 1)], SECONDS_BETWEEN + 0.5).items()
    assert (host, error) == ("never.example", fails)
    assert lookups.has_found("late.example", 1)
    lookups.close()


def test_the_first_time_that_a_name_is_found_is_reported(real_loop: Loop) -> None:
    reports: list[str] = []
    find = scripted({"a.example": [OSError("no"), FOUND, FOUND]})
    lookups = Lookups(real_loop, lambda: reports.append("found"), find)
    for expected in ([], ["found"], ["found"]):
        answers: list[Found] = []
        lookups.ask("a.example", 1, lambda found, _: answers.append(found))  # noqa: B023
        assert real_loop.serve(lambda: bool(answers), 5.0)  # noqa: B023
        real_loop.serve(lambda: False, 0.01)
        assert reports == expected
    lookups.close()


def test_after_its_threads_have_ended_it_starts_new_ones(real: Lookups) -> None:
    former = threading.enumerate()
    for _ in range(2):
        assert real.look_up_ahead([("two..dots", 1)], 5.0)
        new = [TASKS / str(each.native_id) for each in threading.enumerate() if each not in former]
        assert new
        real.end_threads()
        assert not any(task.exists() for task in new)


def test_a_second_request_during_a_look_up_starts_no_other(loop: HandLoop, lookups: Lookups) -> None:
    answers: list[Found] = []
    asked = Resolver(lookups, "192.0.2.7", 55555, answers.append)
    asked.look_up()
    asked.look_up()
    loop.settle()
    assert len(answers) == 1
    asked.look_up()
    loop.poll()
    assert len(answers) == 2


def test_a_name_that_failed_can_be_looked_up_again(loop: HandLoop, lookups: Lookups) -> None:
    answers: list[Found] = []
    asked = Resolver(lookups, "two..dots", 55555, answers.append)
    for expected in (1, 2, 3):
        asked.look_up()
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


def test_of_a_host_with_thousands_of_addresses_the_first_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        (family, socket.SOCK_DGRAM, 17, "", (f"{prefix}{number}", 80))
        for family, prefix in ((socket.AF_INET6, "2001:db8::"), (socket.AF_INET, "10.0.7."))
        for number in range(250)
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    found = lookup("many.example", 80, 0)
    assert len(found) == MOST_ADDRESSES
    assert found[:3] == [
        (socket.AF_INET6, ("2001:db8::0", 80)),
        (socket.AF_INET, ("10.0.7.0", 80)),
        (socket.AF_INET6, ("2001:db8::1", 80)),
    ]
