"""Every row of the keyring's table, with one `next` for each carrier."""

from __future__ import annotations

from vpntun.core.wireguard.keyring import Keyring
from vpntun.crypto.noise import SessionKeys
from vpntun.crypto.session import Session


def session(created: float = 0.0, *, initiator: bool = True) -> Session:
    return Session(SessionKeys(b"s" * 32, b"r" * 32), 1, 2, initiator, created)


def wiped(*sessions: Session) -> bool:
    return all(not each.may_send(0) and not each.may_receive(0) for each in sessions)


def full() -> tuple[Keyring, Session, Session, Session, Session]:
    """A keyring with a previous, a current, and a next on UDP and a younger one on TCP."""
    keys = Keyring()
    previous, current, over_udp, over_tcp = session(1), session(2), session(3), session(4)
    keys.initiated(previous)
    keys.initiated(current)
    keys.next = {"udp": over_udp, "tcp": over_tcp}
    return keys, previous, current, over_udp, over_tcp


def test_a_new_keyring_is_empty() -> None:
    assert Keyring().all() == []


def test_the_initiators_new_session_is_current_at_once_and_the_old_one_previous() -> None:
    keys, first, second, third = Keyring(), session(), session(), session()
    assert keys.initiated(first) == []
    assert (keys.current, keys.previous) == (first, None)
    assert keys.initiated(second) == []
    assert (keys.current, keys.previous) == (second, first)
    assert keys.initiated(third) == [first]
    assert wiped(first)
    assert not wiped(second)


def test_the_initiators_new_session_makes_the_newest_next_previous_and_drops_the_old_current() -> None:
    keys, previous, current, over_udp, over_tcp = full()
    new = session(5)
    dropped = keys.initiated(new)
    assert (keys.current, keys.previous, keys.next) == (new, over_tcp, {})
    assert {id(each) for each in dropped} == {id(previous), id(current), id(over_udp)}
    assert wiped(previous, current, over_udp)
    assert not wiped(over_tcp)


def test_the_responders_new_session_waits_beside_the_current_one() -> None:
    keys, previous, current, over_udp, over_tcp = full()
    new = session(5)
    dropped = keys.responded(new, "udp")
    assert (keys.current, keys.previous) == (current, None)
    assert keys.next == {"udp": new, "tcp": over_tcp}
    assert {id(each) for each in dropped} == {id(previous), id(over_udp)}
    assert wiped(previous, over_udp)
    assert not wiped(current, over_tcp)


def test_the_first_data_on_a_next_makes_it_current_and_leaves_the_other_carriers() -> None:
    keys, previous, current, over_udp, over_tcp = full()
    assert keys.confirm(over_udp) == [previous]
    assert (keys.current, keys.previous, keys.next) == (over_udp, current, {"tcp": over_tcp})
    assert keys.confirm(over_tcp) == [current]
    assert (keys.current, keys.previous, keys.next) == (over_tcp, over_udp, {})


def test_a_session_requested_before_the_current_one_becomes_previous() -> None:
    keys, previous, current, over_udp, over_tcp = full()
    late = session(5)
    assert keys.initiated(late, late=True) == [previous]
    assert (keys.current, keys.previous) == (current, late)
    assert keys.next == {"udp": over_udp, "tcp": over_tcp}


def test_a_next_older_than_the_current_one_becomes_previous_when_confirmed() -> None:
    keys = Keyring()
    older, newer = session(1, initiator=False), session(2, initiator=False)
    keys.responded(older, "udp")
    keys.responded(newer, "tcp")
    assert keys.confirm(newer) == []
    assert keys.confirm(older) == []
    assert (keys.current, keys.previous, keys.next) == (newer, older, {})
    assert not wiped(older, newer)


def test_data_on_any_other_session_confirms_nothing() -> None:
    keys, previous, current, over_udp, over_tcp = full()
    for other in (previous, current, session()):
        assert keys.confirm(other) is None
    assert keys.all() == [previous, current, over_udp, over_tcp]


def test_wiping_leaves_nothing() -> None:
    keys, *sessions = full()
    assert keys.wipe() == sessions
    assert keys.all() == []
    assert wiped(*sessions)
