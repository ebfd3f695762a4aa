"""Three states of a link, told apart: what each follows from, and since when it has been as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.ends import ALICE, BOB, End, TwoEnds, ipv4
from tests.link.test_link import HERE, THERE, Two
from tests.machine import HandLoop
from vpntun.link.link import Link
from vpntun.link.link_states import INTERVAL, SLACK, LinkStates, proven_at, reason_of_carrier
from vpntun.types import NEVER


@pytest.fixture
def vpntuns(loop: HandLoop) -> Iterator[Two]:
    made = Two(loop)
    yield made
    made.close()


@pytest.fixture
def met(vpntuns: Two) -> Two:
    """Alice and Bob, both vpntuns, after a handshake and their HELLOs."""
    begin(vpntuns)
    return vpntuns


@pytest.fixture
def plain(loop: HandLoop) -> Iterator[Two]:
    """Alice and Bob after a handshake, where Bob is a plain WireGuard."""
    made = Two(loop, bob_is_plain=True)
    made.wire.shake_hands()
    yield made
    made.close()


def begin(two: Two) -> None:
    """Start Alice's link, and let it find Bob."""
    two.alice.link.start()
    two.wire.run()


def states_of(link: Link) -> tuple[str | None, bool, bool]:
    """Return the states as they are now."""
    states = LinkStates(link.now)
    states.look(link)
    return states.carrier, states.handshake_fresh, states.data_verified


def verified(two: Two) -> None:
    """Have Alice ask, and Bob answer."""
    assert two.alice.link.verify()
    two.wire.run()
    assert not two.alice.link.verify()


def test_before_the_first_session_only_the_carrier_may_be_up(vpntuns: Two) -> None:
    assert states_of(vpntuns.alice.link) == ("udp", False, False)
    assert states_of(vpntuns.bob.link) == (None, False, False)


def test_the_answer_of_a_vpntun_verifies_data_for_an_interval(met: Two) -> None:
    verified(met)
    assert states_of(met.alice.link) == ("udp", True, True)
    met.loop.pass_time(INTERVAL - 0.1)
    assert states_of(met.alice.link) == ("udp", True, True)
    met.loop.pass_time(0.1)
    assert states_of(met.alice.link) == ("udp", True, False)
    met.loop.pass_time(150)
    assert states_of(met.alice.link) == ("udp", False, False)


def test_a_persistent_keepalive_that_is_rarer_makes_the_interval_longer(met: Two) -> None:
    met.alice.link.keep_alive(60.0)
    verified(met)
    met.loop.pass_time(60.0 + SLACK - 0.1)
    assert states_of(met.alice.link)[2]
    met.loop.pass_time(0.1)
    assert not states_of(met.alice.link)[2]


def test_a_report_of_more_than_before_is_a_proof(met: Two) -> None:
    met.loop.pass_time(INTERVAL)
    met.alice.send(ipv4(HERE, THERE, b"x" * 1000))
    met.wire.run()
    assert not states_of(met.alice.link)[2], "a vpntun that is heard proves nothing"
    for _ in range(3):
        met.loop.pass_time(0.06)
        met.bob.link.handle_deadline()
    met.wire.run()
    assert states_of(met.alice.link) == ("udp", True, True)


def test_a_vpntun_that_is_only_heard_verifies_nothing(met: Two) -> None:
    met.loop.pass_time(INTERVAL)
    met.bob.send(ipv4(THERE, HERE, b"x"))
    met.wire.run()
    met.wire.to_right.take()
    assert states_of(met.alice.link) == ("udp", True, False)


def test_any_message_of_a_plain_wireguard_is_a_proof_and_it_is_asked_nothing(plain: Two) -> None:
    assert states_of(plain.alice.link) == ("udp", True, True)
    plain.loop.pass_time(INTERVAL)
    assert states_of(plain.alice.link) == ("udp", True, False)
    plain.wire.to_right.take()
    assert not plain.alice.link.verify()
    assert not plain.wire.to_right.sent
    plain.bob.send(ipv4(THERE, HERE, b"x"))
    plain.wire.run()
    assert states_of(plain.alice.link) == ("udp", True, True)


def test_a_known_vpntun_proves_nothing_by_being_heard_before_its_hello(loop: HandLoop) -> None:
    two = TwoEnds(End(ALICE, loop, knows_vpntun=True), End(BOB, loop, plain=True))
    two.wire.shake_hands()
    assert two.alice.link.peer.timers.heard_at == loop.now
    assert states_of(two.alice.link) == ("udp", True, False)
    two.alice.link.peer.forget()
    assert proven_at(two.alice.link) == -NEVER
    two.close()


def test_no_answer_is_awaited_once_the_session_is_too_old_for_one(met: Two) -> None:
    met.loop.pass_time(1.0)
    assert met.alice.link.verify()
    met.wire.to_right.take()
    met.loop.pass_time(180.0)
    assert not met.alice.link.verify()


def test_three_unanswered_probes_outweigh_a_young_proof(met: Two) -> None:
    verified(met)
    met.loop.pass_time(1.0)
    for _ in range(3):
        assert met.alice.link.verify()
        met.wire.to_right.take()
        assert states_of(met.alice.link) == ("udp", True, True)
        met.loop.pass_time(1.0)
    assert states_of(met.alice.link) == ("udp", True, False)


def test_an_answer_that_takes_far_longer_than_the_last_is_a_proof_too(met: Two) -> None:
    link = met.alice.link
    verified(met)
    met.loop.pass_time(INTERVAL)
    link.handle_deadline()
    met.wire.to_right.take()
    assert link.verify()
    messages = met.wire.to_right.take()
    for _ in range(4):
        met.loop.pass_time(1.0)
        link.handle_deadline()
        assert link.deadline > met.loop.now
    for message in messages:
        met.bob.take(message, met.wire.to_left)
    met.wire.run()
    assert states_of(link) == ("udp", True, True)


def test_however_many_ask_a_peer_gets_one_probe_a_second(met: Two) -> None:
    met.loop.pass_time(1.0)
    met.wire.to_right.take()
    for _ in range(50):
        met.alice.link.verify()
    assert len(met.wire.to_right.take()) == 1


def test_a_host_that_refuses_to_send_has_no_carrier_until_it_sends_again(met: Two) -> None:
    link = met.alice.link
    verified(met)
    met.loop.pass_time(1.0)
    met.wire.to_right.can_deliver = False
    met.alice.send(ipv4(HERE, THERE, b"x"))
    assert states_of(link) == (None, True, False)
    assert reason_of_carrier(link) == ("this host cannot send there", link.now)
    since = link.refused_since
    met.loop.pass_time(1.0)
    link.verify()
    assert link.refused_since == since
    met.wire.to_right.can_deliver = True
    met.loop.pass_time(1.0)
    link.verify()
    met.wire.run()
    assert link.refused_since == NEVER
    assert states_of(link) == ("udp", True, True)


def test_packets_that_leave_again_bring_the_carrier_back(met: Two) -> None:
    met.wire.to_right.can_deliver = False
    met.alice.send(ipv4(HERE, THERE, b"x"))
    assert states_of(met.alice.link)[0] is None
    met.wire.to_right.can_deliver = True
    met.loop.pass_time(1.0)
    met.alice.send(ipv4(HERE, THERE, b"x"))
    assert states_of(met.alice.link)[0] == "udp"


def test_each_state_knows_since_when_it_has_been_as_it_is(met: Two) -> None:
    link, start = met.alice.link, met.loop.now
    states = LinkStates(start)
    met.loop.pass_time(5.0)
    verified(met)
    assert states.differ(link)
    states.look(link)
    assert (states.carrier_since, states.handshake_since, states.data_since) == (start + 5.0,) * 3
    met.loop.pass_time(5.0)
    assert not states.differ(link)
    met.loop.pass_time(INTERVAL)
    assert states.differ(link)
    states.look(link)
    assert (states.carrier_since, states.handshake_since) == (start + 5.0,) * 2
    assert states.data_since == link.now
