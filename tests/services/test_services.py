"""Services by name from end to end: a visitor, a hub, and the end that offers the service."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from tests.services.town import KEY, LAPTOP, Town, program
from vpntun.config.services import Service
from vpntun.wire.inside.services import Asked

SECONDS_OF_A_SESSION = 200.0


def talk(town: Town, listener: socket.socket) -> None:
    """Pass bytes both ways between the laptop's last connection and the program on the desk."""
    at_desk, _ = listener.accept()
    at_laptop = town.laptop.connected[-1]
    with at_desk:
        at_laptop.send(b"from the laptop")
        at_desk.send(b"from the desk")
        town.run()
        assert at_desk.recv(100) == b"from the laptop"
        assert at_laptop.recv(100) == b"from the desk"


def test_a_service_is_used_through_a_hub_by_those_who_may(town: Town) -> None:
    with program() as (listener, place):
        town.desk.set(Service("ssh", place, allowed=("laptop",)))
        town.laptop.visit("ssh", "desk")
        town.run()
        assert town.laptop.failures == [], "nobody waits for a repeat of the request"
        talk(town, listener)
        town.laptop.visit("ssh", "desk")
        town.run()
        assert len(town.laptop.connected) == 2, "the permission is kept, so nobody is asked again"


def test_links_whose_sessions_have_ended_in_silence_get_new_ones(town: Town) -> None:
    with program() as (listener, place):
        town.desk.set(Service("ssh", place, allowed=("laptop",)))
        town.loop.pass_time(SECONDS_OF_A_SESSION)
        town.laptop.visit("ssh", "desk")
        town.run(2.0)
        assert town.laptop.failures == []
        talk(town, listener)


def test_a_service_with_a_key_needs_that_key(town: Town) -> None:
    with program() as (listener, place):
        town.desk.set(Service("ssh", place, KEY))
        for keys, words in (
            ({}, "it is for those who have its key"),
            ({"ssh_desk": b"w" * 32}, "is not the other end's"),
        ):
            town.laptop.set(**keys)
            town.laptop.visit("ssh", "desk")
            town.run(1.0)
            assert words in town.laptop.failures.pop()
        town.laptop.set(ssh_desk=KEY)
        town.laptop.visit("ssh", "desk")
        town.run(1.0)
        assert town.laptop.failures == []
        talk(town, listener)


def test_a_refusal_says_why_and_the_next_visit_works_once_it_may(town: Town) -> None:
    def refusal() -> str:
        town.loop.pass_time(3.0)
        town.laptop.visit("ssh", "desk")
        town.run(1.0)
        return town.laptop.failures.pop()

    assert refusal() == "desk offers no service ssh to laptop"
    with program() as (listener, place):
        town.desk.set(Service("ssh", place, allowed=("phone",)))
        assert refusal() == "desk offers no service ssh to laptop"
        town.desk.set(Service("ssh", place, allowed=("*",)))
        town.relay(False)
        assert "Relay = yes" in refusal()
        town.relay(True)
        town.loop.pass_time(3.0)
        town.laptop.visit("ssh", "desk")
        town.run(1.0)
        talk(town, listener)
    assert "the program behind the service does not take the connection" in refusal(), "the program has ended"


def test_a_service_that_was_restarted_is_found_again(town: Town) -> None:
    with program() as (listener, place):
        for _ in range(2):
            town.desk.set(Service("ssh", place, allowed=("laptop",)))
            town.laptop.visit("ssh", "desk")
            town.run(1.0)
            assert town.laptop.failures == []
            talk(town, listener)
            town.desk.set()  # listens no more, and then at another port


def test_a_direct_peer_is_asked_without_a_hub(town: Town) -> None:
    with program() as (_, place):
        town.desk.set(Service("ssh", place, allowed=("*",)))
        town.hub.visit("ssh", "desk")
        town.run()
        assert town.hub.failures == []
        assert len(town.hub.connected) == 1
        town.hub.set(Service("web", place, allowed=("laptop",)))
        town.laptop.visit("web", "")
        town.run()
        assert town.laptop.failures == []
        assert len(town.laptop.connected) == 1


def test_a_list_has_what_the_asker_may_use_and_from_whom(town: Town) -> None:
    town.desk.set(
        Service("ssh", ("127.0.0.1", 22), allowed=("laptop",)),
        Service("web", ("127.0.0.1", 80), KEY),
        Service("db", ("127.0.0.1", 5432), allowed=("phone",)),
    )
    town.hub.set(Service("ntp", ("127.0.0.1", 123), allowed=("*",)))
    number = town.laptop.services.lists.begin()
    town.run(1.0)
    report = town.laptop.services.lists.report(number)
    assert report is not None
    assert report["state"] == "answered"
    assert [(each["name"], each["key"], each["through"] is not None) for each in report["services"]] == [
        ("ntp@", False, False),
        ("ssh@desk", False, True),
        ("web@desk", True, True),
    ]


@pytest.mark.parametrize(
    "content", [{}, {"ask": "visit"}, {"ask": "visit", "service": "../x"}, {"ask": "list", "from": 7}]
)
def test_a_bad_request_is_refused(town: Town, content: dict[str, object]) -> None:
    assert town.desk.services.answer(town.desk.end.link, content) == {"refused": "bad request"}


def test_what_was_passed_on_is_not_passed_on_again(town: Town) -> None:
    link = next(iter(town.hub.end.links.values()))
    answer = town.hub.services.answer(link, Asked("ssh", "desk", "phone").content())
    assert answer == {"refused": "what was passed on is not passed on again"}


def test_a_peer_among_others_cannot_speak_for_one_of_them(town: Town) -> None:
    """Only with a hub's name in AllowFrom may a peer pass requests on, if it is not the only one."""
    town.hub.set(Service("ssh", ("127.0.0.1", 22), allowed=("phone", "tablet@laptop")))
    laptop = next(link for link in town.hub.end.links.values() if link.peer.public == town.laptop.end.identity.public)

    def answer(asker: str) -> object:
        return town.hub.services.answer(laptop, Asked("ssh", "", asker).content())

    assert answer("phone") == {"refused": "it offers no service ssh to phone@laptop"}
    assert "refused" not in (answer("tablet") or {})  # type: ignore[operator]
    assert answer("") == {"refused": "it offers no service ssh to laptop"}
    (left, _) = town.hub.tunnel.peers
    town.hub.tunnel = replace(town.hub.tunnel, peers=(left,))
    assert answer("phone") == {"refused": "it offers no service ssh to phone@laptop"}, "the last one that is left"
    town.hub.tunnel = replace(town.hub.tunnel, peers=(replace(left, host="192.0.2.2", port=1),))
    assert "refused" not in (answer("phone") or {}), "a hub that this end calls"  # type: ignore[operator]


def test_an_address_of_another_peer_is_not_accepted(town: Town) -> None:
    with program() as (_, place):
        town.desk.set(Service("ssh", place, allowed=("*",)))
        town.desk.side.address = LAPTOP
        town.laptop.visit("ssh", "desk")
        town.run(1.0)
        assert town.laptop.failures.pop().endswith(
            f"the AllowedIPs of desk at the hub do not contain its address {LAPTOP}"
        )
