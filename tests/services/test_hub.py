"""A hub passes questions on once, within limits for each peer, and never waits for a peer that is silent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.datapath.ends import BOB, CAROL
from tests.services.town import Town
from tests.wire.inside.test_request import contents
from tests.wire.inside.test_services import known
from vpntun.config.services import Service
from vpntun.crypto.keys import format_key
from vpntun.services.hub import PASSED_ON_AT_ONCE, SECONDS_FOR_VISIT
from vpntun.types import Place
from vpntun.wire.inside.request import SERVICES
from vpntun.wire.inside.services import Asked

NOWHERE: Place = ("127.0.0.1", 1)


def ask(town: Town, asked: Asked, who: bytes = BOB.public) -> Any:
    """Ask the hub for a peer, and return what it answers at once."""
    return town.hub.services.answer(town.hub.link_of(who), asked.content())


def test_a_silent_peer_is_given_up_before_the_visitor_gives_the_hub_up(town: Town) -> None:
    town.desk.set(Service("ssh", NOWHERE, allowed=("*",)))
    town.disconnect(town.desk)
    town.laptop.visit("ssh", "desk")
    town.run(SECONDS_FOR_VISIT + 3.0)
    assert town.laptop.failures == ["the peer gets no answer from desk"]


def test_a_peer_without_a_link_is_named(town: Town) -> None:
    town.hub.end.engine.remove(town.hub.link_of(CAROL.public))
    assert ask(town, Asked("ssh", "desk")) is None
    town.run()
    assert "it cannot ask desk: " in ask(town, Asked("ssh", "desk"))["refused"]
    assert ask(town, Asked("ssh", "printer")) == {"refused": "it has no peer printer, or several"}


def test_an_end_that_does_not_relay_asks_nobody(town: Town) -> None:
    town.desk.set(Service("ssh", NOWHERE, allowed=("*",)))
    town.relay(False)
    assert "Relay = yes" in ask(town, Asked("ssh", "desk"))["refused"]
    assert ask(town, Asked()) == {"services": []}


def test_keys_of_others_cannot_be_found_by_trying(town: Town) -> None:
    key = format_key(CAROL.public)
    assert "refused" in ask(town, Asked("ssh", key[:10]))
    assert ask(town, Asked("ssh", key)) is None


def test_a_peer_that_asks_without_end_is_refused_and_others_are_not(town: Town) -> None:
    town.desk.set(Service("ssh", NOWHERE, allowed=("*",)))
    for number in range(PASSED_ON_AT_ONCE):
        asked = Asked(f"s{number}", "desk")
        assert ask(town, asked) is None
        town.run()
        if number < 8:  # then the desk drops what the hub asks
            assert ask(town, asked) == {"refused": f"desk offers no service s{number} to laptop"}
    assert "too often" in ask(town, Asked("more", "desk"))["refused"]
    assert "too often" in ask(town, Asked())["refused"]
    assert ask(town, Asked("ssh", "laptop"), CAROL.public) is None


def test_a_question_waits_while_a_peer_is_asked_as_much_as_it_may_be(town: Town) -> None:
    for number in range(4):
        assert ask(town, Asked(f"s{number}", "desk")) is None
    assert ask(town, Asked("ssh", "desk")) is None
    town.run(1.0)
    assert "refused" in ask(town, Asked("ssh", "desk"))


def test_a_list_does_not_wait_for_a_silent_peer(town: Town) -> None:
    town.hub.set(Service("ntp", NOWHERE, allowed=("*",)))
    town.disconnect(town.desk)
    number = town.laptop.services.lists.begin()
    town.run(6.0)
    report = town.laptop.services.lists.report(number)
    assert report is not None
    assert [each["name"] for each in report["services"]] == ["ntp@"]
    assert report["state"] == "answered"


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents | known)
def test_any_answer_of_a_peer_becomes_an_answer_of_the_hub(town: Town, content: dict[str, Any]) -> None:
    town.loop.pass_time(30.0)  # so that no limit is reached
    for wire in town.wires:
        wire.shake_hands()
    town.desk.end.engine.answers.add(SERVICES, lambda link, asked: content)
    for asked in (Asked("ssh", "desk"), Asked()):
        assert ask(town, asked) is None
        town.run()
        answer = ask(town, asked)
        assert {"places", "refused", "services"} & answer.keys()


@pytest.mark.parametrize("names", [("laptop", "laptop")])
def test_a_name_of_several_peers_is_refused(town: Town, names: tuple[str, str]) -> None:
    for peer, name in zip(town.hub.tunnel.peers, names, strict=True):
        object.__setattr__(peer, "name", name)
    assert ask(town, Asked("ssh", "laptop")) == {"refused": "it has no peer laptop, or several"}
