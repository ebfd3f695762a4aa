"""Permissions of peers: who is asked, what of the answer counts, and how often."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.services.town import LAPTOP, Town
from tests.wire.inside.test_request import contents
from tests.wire.inside.test_services import known
from vpntun.config.forwards import ServiceName
from vpntun.services.granted import SECONDS_KEPT, SECONDS_REFUSED
from vpntun.wire.inside.request import SERVICES
from vpntun.wire.inside.services import Grant

SSH = ServiceName("ssh", "desk")
GRANT = Grant(((LAPTOP, 7), ("127.0.0.3", 7), ("192.0.2.1", 7)), b"t" * 16, False)


class Asking:
    """The laptop asks for permission, and the hub answers as the test says."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.granted: list[Grant] = []
        self.refused: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.answer: dict[str, Any] = GRANT.content()
        town.hub.end.engine.answers.add(SERVICES, self._answer)

    def _answer(self, link: object, asked: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(asked)
        return self.answer

    def ask(self, name: ServiceName = SSH, stale: Grant | None = None) -> None:
        granted = self.town.laptop.services.visits.granted
        granted.ask(name, self.granted.append, self.refused.append, stale=stale)


@pytest.fixture
def asking(town: Town) -> Asking:
    return Asking(town)


def test_all_who_ask_meanwhile_wait_for_the_same_answer_which_is_kept(asking: Asking) -> None:
    for _ in range(50):
        asking.ask()
    asking.town.run()
    asking.ask()
    asking.town.run()
    assert len(asking.granted) == 51
    assert asking.asked == [{"ask": "visit", "service": "ssh", "peer": "desk"}]
    asking.town.loop.pass_time(SECONDS_KEPT)
    for wire in asking.town.wires:
        wire.shake_hands()
    asking.ask()
    asking.town.run()
    assert len(asking.asked) == 2


def test_only_addresses_of_the_peer_that_was_asked_count(asking: Asking) -> None:
    asking.ask()
    asking.town.run()
    assert asking.granted[0].places == GRANT.places[:2]
    asking.answer = Grant(GRANT.places[2:], b"t" * 16, False).content()
    asking.ask(stale=asking.granted[0])
    asking.town.run()
    assert asking.refused == ["the service is at 192.0.2.1, which is not in this end's AllowedIPs of that peer"]


def test_a_refusal_is_kept_for_a_moment(asking: Asking) -> None:
    asking.answer = {"refused": "not now"}
    for _ in range(20):
        asking.ask()
        asking.town.run()
    assert asking.refused == ["not now"] * 20
    assert len(asking.asked) == 1
    asking.town.loop.pass_time(SECONDS_REFUSED)
    asking.answer = GRANT.content()
    asking.ask()
    asking.town.run()
    assert len(asking.granted) == 1


def test_another_permission_is_given_at_once_to_who_has_a_stale_one(asking: Asking) -> None:
    asking.ask()
    asking.town.run()
    first = asking.granted[0]
    for _ in range(20):
        asking.ask(stale=first)
        asking.town.run()
    assert len(asking.asked) == 2


def test_silence_and_a_missing_link_are_refusals(asking: Asking) -> None:
    asking.town.disconnect(asking.town.laptop)
    asking.ask()
    asking.town.run(11.0)
    assert asking.refused == ["the peer has not answered within 10 s"]
    asking.town.laptop.end.engine.remove(asking.town.laptop.end.link)
    asking.town.loop.pass_time(SECONDS_REFUSED)
    asking.ask()
    asking.town.run()
    assert len(asking.refused) == 2


def test_a_question_waits_while_a_peer_is_asked_as_much_as_it_may_be(asking: Asking) -> None:
    for number in range(7):
        asking.ask(ServiceName(f"s{number}", "desk"))
    asking.town.run(1.0)
    assert (len(asking.granted), asking.refused) == (7, [])


def test_a_hub_is_named_behind_the_peer(asking: Asking) -> None:
    object.__setattr__(asking.town.laptop.tunnel.peers[0], "name", "office")
    asking.ask(ServiceName("ssh", "desk@office"))
    asking.town.run()
    assert asking.asked == [{"ask": "visit", "service": "ssh", "peer": "desk"}]
    asking.ask(ServiceName("ssh", "desk@home"))
    asking.town.run()
    assert "no peer has this name or key" in asking.refused[0]


def test_a_vpntun_that_does_not_know_services_says_so(town: Town) -> None:
    town.hub.end.engine.answers.add(SERVICES, lambda link, asked: {"refused": "this vpntun does not know the request"})
    town.laptop.visit("ssh", "desk")
    town.run()
    assert town.laptop.failures == ["this vpntun does not know the request"]


def test_a_hub_does_not_ask_its_peers_for_a_peer_that_nobody_knows(town: Town) -> None:
    town.hub.visit("ssh", "printer")
    town.run()
    assert "no peer has this name or key; the peers are: laptop" in town.hub.failures[0]
    town.hub.visit("ssh", "")
    town.run()
    assert "several peers match" in town.hub.failures[1]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents | known)
def test_any_answer_grants_or_refuses(town: Town, content: dict[str, Any]) -> None:
    asking = Asking(town)
    asking.answer = content
    town.laptop.services.visits.follow_settings()
    town.loop.pass_time(5.0)
    for wire in town.wires:
        wire.shake_hands()
    asking.ask()
    town.run()
    assert len(asking.granted) + len(asking.refused) == 1
