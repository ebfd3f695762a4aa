"""Questions to others: which servers are asked and in which order, who waits for them, and the limits."""

from __future__ import annotations

from ipaddress import ip_address

import dns.message
import dns.rcode
import pytest

from tests.machine import HandLoop, logged
from tests.names.outside import Outside, fails, records
from tests.names.test_upstream import question
from vpntun.config.names import NameForward
from vpntun.names.forwarding import MOST_ASKERS, MOST_OF_A_SOURCE, MOST_PENDING, SECONDS_IN_ALL, Forwarding, Servers
from vpntun.types import Place

SOURCE = b"\x0a\x09\x00\x02"


class Asking:
    """Forwarding to servers that a test gives, and the answers."""

    def __init__(self, loop: HandLoop, *places: Place, forwards: tuple[NameForward, ...] = ()) -> None:
        self.loop = loop
        self.answers: list[dns.message.Message] = []
        self.failures = 0
        servers = servers_of(*places, forwards=forwards)
        self.forwarding = Forwarding(loop, servers, self._note)

    def ask(self, name: str = "www.example.org", source: bytes = SOURCE) -> None:
        def deliver(data: bytes) -> None:
            self.answers.append(dns.message.from_wire(data))

        self.forwarding.ask(question(name), source, deliver)

    def wait(self, count: int = 1) -> list[dns.message.Message]:
        self.loop.until(lambda: len(self.answers) >= count, f"for {count} answers")
        return self.answers

    def _note(self) -> None:
        self.failures += 1


def servers_of(*places: Place, forwards: tuple[NameForward, ...] = (), inside: str = "", mark: int = 0) -> Servers:
    return Servers(
        forwards=lambda: forwards,
        of_machine=lambda _: places,
        own=lambda: [ip_address("10.9.0.1")],
        leads_inside=lambda host: host == inside,
        mark=lambda: mark,
    )


def test_the_servers_of_the_longest_domain_are_asked_and_without_the_mark() -> None:
    forwards = (
        NameForward("example", (("10.1.0.1", 53),)),
        NameForward("corp.example", (("10.1.0.2", 53), ("10.9.0.1", 53), ("10.9.0.9", 53))),
    )
    servers = servers_of(("192.0.2.1", 53), forwards=forwards, inside="10.9.0.9", mark=7)
    assert servers.choose(("a", "corp", "example"), 0.0) == ([("10.1.0.2", 53), ("10.9.0.9", 53)], 0)
    assert servers.choose(("corp", "example"), 0.0) == ([("10.1.0.2", 53), ("10.9.0.9", 53)], 0)
    assert servers.choose(("xcorp", "example"), 0.0) == ([("10.1.0.1", 53)], 0)
    assert servers.choose(("example", "org"), 0.0) == ([("192.0.2.1", 53)], 7)


def test_own_addresses_and_servers_inside_the_tunnel_are_left_out() -> None:
    servers = servers_of(("10.9.0.1", 53), ("10.9.0.9", 53), ("127.0.0.53", 53), inside="10.9.0.9")
    assert servers.choose(("www", "example", "org"), 0.0) == ([("127.0.0.53", 53)], 0)


def test_a_question_that_is_pending_is_not_asked_again(loop: HandLoop, outside: Outside) -> None:
    asking = Asking(loop, outside.place)
    for name in ("www.example.org", "WWW.example.org"):
        asking.ask(name)
    outside.next_question()
    asking.ask()
    loop.settle()
    assert len(outside.asked) == 1
    outside.answer("203.0.113.7")
    assert [records(each) for each in asking.wait(3)] == [["203.0.113.7"]] * 3
    assert asking.answers[1].question[0].name.to_text() == "WWW.example.org."
    assert len(asking.forwarding) == 0


def test_the_next_server_is_asked_if_one_fails_or_does_not_answer(
    loop: HandLoop, outside: Outside, second: Outside
) -> None:
    asking = Asking(loop, outside.place, second.place)
    asking.ask()
    outside.next_question()
    outside.answer(change=fails)
    second.next_question()
    second.answer("203.0.113.8")
    assert records(asking.wait()[0]) == ["203.0.113.8"]

    asking.ask("mail.example.org")
    outside.next_question()
    loop.pass_time(2)
    second.next_question()
    second.answer("203.0.113.9")
    assert records(asking.wait(2)[1]) == ["203.0.113.9"]
    assert asking.failures == 0


def test_what_all_servers_fail_at_is_passed_on_and_silence_is_servfail_in_limited_time(
    loop: HandLoop, outside: Outside
) -> None:
    asking = Asking(loop, outside.place)
    asking.ask()
    outside.next_question()
    outside.answer(change=fails)
    assert asking.wait()[0].rcode() == dns.rcode.SERVFAIL
    assert (asking.failures, outside.asked) == (0, [])

    asking.ask("mail.example.org")
    for _ in range(int(SECONDS_IN_ALL) + 2):
        loop.settle(0.01)
        loop.pass_time(1)
    assert asking.wait(2)[1].rcode() == dns.rcode.SERVFAIL
    assert asking.failures == 1
    assert len(outside.asked) == 2  # two rounds


def test_without_a_server_the_answer_is_servfail_and_a_notice(loop: HandLoop) -> None:
    asking = Asking(loop)
    with logged() as lines:
        asking.ask()
        assert asking.wait()[0].rcode() == dns.rcode.SERVFAIL
    assert any("no name server to ask" in line for line in lines)


@pytest.mark.parametrize(
    ("names", "sources", "most"),
    [
        (MOST_PENDING + 9, MOST_PENDING + 9, MOST_PENDING),
        (MOST_OF_A_SOURCE + 9, 1, MOST_OF_A_SOURCE),
        (1, MOST_ASKERS + 9, MOST_ASKERS),
    ],
)
def test_what_is_beyond_a_limit_fails_at_once(loop: HandLoop, names: int, sources: int, most: int) -> None:
    asking = Asking(loop, ("127.0.0.1", 9))
    for number in range(max(names, sources)):
        asking.ask(f"a{number % names}.example.org", (number % sources).to_bytes(4, "big"))
    assert [each.rcode() for each in asking.answers] == [dns.rcode.SERVFAIL] * 9
    assert (asking.failures, len(asking.forwarding)) == (9, min(most, names))
    asking.forwarding.close()
    assert len(asking.forwarding) == 0


def test_nothing_is_delivered_after_the_end(loop: HandLoop, outside: Outside) -> None:
    asking = Asking(loop, outside.place)
    asking.ask()
    outside.next_question()
    asking.ask("mail.example.org")
    asking.forwarding.close()
    outside.answer("203.0.113.7")
    loop.settle()
    loop.pass_time(60)
    assert asking.answers == []
