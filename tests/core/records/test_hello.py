"""HELLO: said, answered, repeated, inherited; over a path that loses what it likes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.records.hello import ANSWERS_AT_ONCE, MOST_UNANSWERED, SECONDS_BETWEEN_LATER, HelloExchange
from vpntun.types import NEVER
from vpntun.wire.record import TAKES_BURSTS, TAKES_TSO4, Hello

TAKES = TAKES_BURSTS | TAKES_TSO4
THEIRS = Hello(False, TAKES)
THEIRS_SEEN = Hello(True, TAKES)


def test_a_confirmed_session_says_hello_once() -> None:
    greeting = HelloExchange(TAKES)
    assert greeting.confirmed("a", 0.0)
    assert not greeting.confirmed("a", 0.0)
    assert greeting.hello("a") == Hello(False, TAKES, answers=True)


def test_nothing_is_taken_before_the_peers_hello() -> None:
    greeting = HelloExchange(TAKES)
    assert greeting.taken("a", 0.0) is None
    greeting.confirmed("a", 0.0)
    assert greeting.taken("a", 0.5) is None
    greeting.received("a", THEIRS, 0.5)
    assert greeting.taken("a", 100.0) == THEIRS


def test_a_hello_that_has_seen_ours_is_not_answered() -> None:
    greeting = HelloExchange(TAKES)
    greeting.confirmed("a", 0.0)
    assert not greeting.received("a", THEIRS_SEEN, 0.1)
    assert greeting.hello("a").seen_yours
    assert not greeting.on_traffic("a", 1000.0)


def test_a_hello_that_lacks_seen_yours_is_answered_three_times_then_with_traffic_once_a_second() -> None:
    greeting = HelloExchange(TAKES)
    greeting.confirmed("a", 0.0)
    assert [greeting.received("a", THEIRS, 0.1) for _ in range(5)] == [True] * ANSWERS_AT_ONCE + [False] * 2
    assert not greeting.on_traffic("a", 1.0)
    assert greeting.on_traffic("a", 1.1)
    assert not greeting.on_traffic("a", 5.0)
    assert not greeting.received("a", THEIRS, 5.0)
    assert greeting.on_traffic("a", 5.0)


def test_an_unheard_peer_is_greeted_again_with_traffic_ever_more_seldom() -> None:
    greeting = HelloExchange(TAKES)
    greeting.confirmed("a", 0.0)
    said = [tenth for tenth in range(1200) if greeting.on_traffic("a", tenth / 10)]
    assert said == [10, 30, 70, 150, 310, 470, 630, 790, 950, 1110]
    assert greeting.due("a") == 111.0 + 16.0


class Talk:
    """Traffic in both directions with a peer that answers no HELLO: one message of it arrives in each second."""

    def __init__(self, *, peer_is_vpntun: bool = False) -> None:
        self.greeting = HelloExchange(TAKES, peer_is_vpntun=peer_is_vpntun)
        self.now = self.highest = 0
        self.session = 0
        self.greeting.moved("there", 0.0)

    def rekey(self) -> int:
        """Begin a session; return the number of HELLOs sent for it at once."""
        self.session += 1
        self.highest = -1
        return int(self.greeting.confirmed(self.session, self.now))

    def go_on(self, seconds: int, *, arrives: bool = True) -> int:
        """Talk; return the number of HELLOs sent."""
        sent = 0
        for _ in range(seconds):
            self.now += 1
            self.highest += arrives
            sent += self.greeting.on_traffic(self.session, self.now, self.highest)
        return sent


def test_a_peer_that_has_answered_five_hellos_with_other_messages_alone_gets_another_only_after_hours() -> None:
    talk = Talk()
    sent = sum(talk.rekey() + talk.go_on(120) for _ in range(60))
    assert sent == MOST_UNANSWERED
    talk.now += int(SECONDS_BETWEEN_LATER) - 7200
    assert talk.go_on(600) == 1
    assert talk.rekey() + talk.go_on(120) == 0


def test_rekeys_alone_use_the_five_up() -> None:
    talk = Talk()
    sent = 0
    for _ in range(20):
        sent += talk.rekey()
        talk.now += 120
    assert sent == MOST_UNANSWERED


def test_the_message_that_confirms_a_session_is_no_answer_to_the_hello_that_follows() -> None:
    def hellos_after_an_outage(highest: int) -> int:
        talk = Talk()
        talk.highest = highest
        assert talk.greeting.confirmed(talk.session, talk.now, highest)
        assert talk.go_on(10, arrives=False) == 3
        return talk.go_on(300)

    assert hellos_after_an_outage(0) == hellos_after_an_outage(-1) == MOST_UNANSWERED - 1


def test_hellos_during_an_outage_do_not_count() -> None:
    talk = Talk()
    assert talk.rekey() + talk.go_on(120, arrives=False) > MOST_UNANSWERED
    assert talk.go_on(60) > 0


def test_a_peer_that_is_known_to_be_a_vpntun_is_asked_for_ever() -> None:
    talk = Talk(peer_is_vpntun=True)
    assert talk.rekey() + talk.go_on(3600) > 200


def test_a_seeming_wireguard_at_another_host_gets_one_more_hello() -> None:
    talk = Talk()
    talk.rekey()
    talk.go_on(120)
    talk.greeting.moved("there", talk.now)
    assert talk.go_on(120) == 0
    talk.greeting.moved("elsewhere", talk.now)
    assert talk.go_on(120) == 1
    talk.greeting.moved("there", talk.now)
    assert talk.rekey() + talk.go_on(120) == 1


def test_the_hello_of_a_vpntun_that_replaces_a_wireguard_is_answered_at_once_and_each_session_has_its_hello_again() -> (
    None
):
    talk = Talk()
    talk.rekey()
    talk.go_on(120)
    assert talk.rekey() == 0
    assert talk.greeting.received(talk.session, THEIRS, talk.now)
    assert talk.greeting.taken(talk.session, talk.now) == THEIRS
    assert talk.rekey() == 1


def test_any_other_record_shows_that_a_peer_is_a_vpntun_and_asks_it_again() -> None:
    talk = Talk()
    talk.rekey()
    talk.go_on(120)
    talk.greeting.recognised(talk.now)
    assert talk.go_on(1) == 1


def test_a_hello_that_came_in_another_session_since_this_one_began_counts_for_this_one() -> None:
    # Both ends have asked at the same time, and each seals with the session that it asked for.
    greeting = HelloExchange(TAKES)
    greeting.confirmed("ours", 0.0)
    assert greeting.received("theirs", THEIRS, 0.1)
    assert greeting.taken("ours", 100.0) == greeting.taken("theirs", 100.0) == THEIRS
    assert greeting.hello("ours").seen_yours
    assert greeting.due("ours") == NEVER


def test_a_hello_in_a_former_session_counts_for_no_later_one_but_for_a_second() -> None:
    greeting = HelloExchange(TAKES)
    greeting.confirmed("former", 0.0)
    greeting.received("former", THEIRS, 0.1)
    greeting.confirmed("later", 120.0)
    assert greeting.taken("later", 120.9) == THEIRS
    assert greeting.taken("later", 121.0) is None


def test_an_unknown_session_owes_nothing() -> None:
    greeting = HelloExchange(TAKES)
    assert not greeting.on_traffic("a", 5.0)
    assert greeting.due("a") == NEVER


def test_what_the_last_session_took_holds_for_a_second_of_the_next() -> None:
    greeting = HelloExchange(TAKES)
    greeting.confirmed("a", 0.0)
    greeting.received("a", THEIRS_SEEN, 0.1)
    greeting.confirmed("b", 120.0)
    assert greeting.taken("b", 120.9) == THEIRS_SEEN
    assert greeting.taken("b", 121.0) is None
    assert not greeting.hello("b").seen_yours


def test_a_session_that_heard_nothing_bequeaths_nothing() -> None:
    greeting = HelloExchange(TAKES)
    greeting.received("a", THEIRS_SEEN, 0.1)
    greeting.confirmed("b", 120.0)
    greeting.confirmed("c", 240.0)
    assert greeting.taken("c", 240.1) is None


def test_two_sessions_within_a_second_inherit_through() -> None:
    greeting = HelloExchange(TAKES)
    greeting.received("a", THEIRS_SEEN, 0.1)
    greeting.confirmed("b", 120.0)
    greeting.confirmed("c", 120.5)
    assert greeting.taken("c", 121.4) == THEIRS_SEEN


def test_a_hello_that_takes_no_ordinary_packet_takes_nothing() -> None:
    greeting = HelloExchange(TAKES)
    greeting.received("a", Hello(True, TAKES, 100), 0.0)
    assert greeting.taken("a", 0.0) is None


def test_sessions_are_bounded() -> None:
    greeting = HelloExchange(TAKES)
    for number in range(1000):
        greeting.received(number, THEIRS_SEEN, 0.0)
    assert sum(greeting.taken(number, 5.0) is not None for number in range(1000)) == 4


@given(st.lists(st.booleans(), max_size=60))
def test_two_ends_find_each_other_over_any_loss_and_then_fall_silent(losses: list[bool]) -> None:
    """A packet travels in each direction each second. It may be lost, as each HELLO may."""
    ends = HelloExchange(TAKES), HelloExchange(TAKES)
    fate = iter(losses)
    arrived = [-1, -1]
    sent = 0

    def deliver(sender: int, now: float) -> None:
        nonlocal sent
        sent += 1
        hello = ends[sender].hello("a")
        if not next(fate, False):
            arrived[1 - sender] += 1
            if ends[1 - sender].received("a", hello, now):
                deliver(1 - sender, now)

    for end in (0, 1):
        if ends[end].confirmed("a", 0.0):
            deliver(end, 0.0)
    # Packets may arrive while all HELLOs are lost, however unlikely; then the ends find each other hours later.
    for second in (*range(1, 300), *range(int(SECONDS_BETWEEN_LATER), int(SECONDS_BETWEEN_LATER) + 2000)):
        for end in (0, 1):
            arrived[1 - end] += not next(fate, False)
            if ends[end].on_traffic("a", second, arrived[end]):
                deliver(end, second)
    assert all(end.taken("a", 1e6) is not None for end in ends)
    assert all(end.due("a") == NEVER for end in ends)
    assert sent <= 6 + 2 * len(losses)
