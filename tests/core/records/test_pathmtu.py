"""The search for the path's length, against paths that refuse, swallow, lose and change."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.records.pathmtu import AGAIN_AFTER, BASE, COMMON_V4, COMMON_V6, GRAIN, LARGEST, PathMtu


class APath:
    """Refuses what is longer than `link`, swallows what is longer than `far`, loses some of the rest."""

    def __init__(self, link: int, far: int, loss: float = 0.0, round_trip: float = 0.02) -> None:
        self.link, self.far, self.loss, self.round_trip = link, far, loss, round_trip
        self.probes = 0
        self._rng = random.Random(1)

    def run(self, mtu: PathMtu, now: float, until: float) -> float:
        """Let the search take its course."""
        echoes: list[tuple[float, int]] = []
        while True:
            event = min(mtu.deadline, echoes[0][0] if echoes else until)
            if event >= until:
                return until
            now = max(now, event)
            if echoes and echoes[0][0] <= now:
                mtu.echoed(echoes.pop(0)[1], now)
            size = mtu.probe(now)
            if size is None:
                continue
            self.probes += 1
            if size > self.link:
                mtu.refused(size, now)
            elif size <= self.far and self._rng.random() >= self.loss:
                echoes.append((now + self.round_trip, size))


def test_the_common_link_is_found_in_one_round_trip() -> None:
    for ipv6, common in ((False, 1472), (True, 1452)):
        mtu = PathMtu(0.0, ipv6=ipv6)
        assert mtu.payload == BASE
        APath(common, common).run(mtu, 0.0, 0.1)
        assert mtu.payload == common


def test_every_common_length_is_found_exactly() -> None:
    for ipv6, lengths in ((False, COMMON_V4), (True, COMMON_V6)):
        for length in lengths:
            mtu = PathMtu(0.0, ipv6=ipv6)
            APath(LARGEST, length).run(mtu, 0.0, 200.0)
            assert mtu.payload == length


@given(st.integers(BASE, LARGEST), st.booleans(), st.booleans())
def test_any_length_is_found_to_a_few_bytes_and_then_there_is_silence(length: int, refuses: bool, ipv6: bool) -> None:
    mtu = PathMtu(0.0, ipv6=ipv6)
    path = APath(length if refuses else LARGEST, length)
    path.run(mtu, 0.0, 200.0)
    assert length - GRAIN < mtu.payload <= length
    assert mtu.deadline > 300.0
    assert path.probes < 70


def test_a_host_that_refuses_is_asked_without_waiting() -> None:
    mtu = PathMtu(0.0)
    APath(1350, 1350).run(mtu, 0.0, 1.0)
    assert 1350 - GRAIN < mtu.payload <= 1350


def test_probes_that_are_lost_are_sent_again() -> None:
    mtu = PathMtu(0.0)
    APath(1472, 1472, loss=0.2).run(mtu, 0.0, 60.0)
    assert mtu.payload == 1472


def test_an_echo_that_comes_late_counts() -> None:
    mtu = PathMtu(0.0)
    APath(1472, 1472, round_trip=4.5).run(mtu, 0.0, 60.0)
    assert mtu.payload == 1472


def test_an_echo_of_a_length_never_asked_counts_for_nothing() -> None:
    mtu = PathMtu(0.0)
    mtu.echoed(9000, 0.0)
    assert mtu.payload == BASE
    mtu.probe(0.0)
    mtu.echoed(65507, 0.0)
    mtu.echoed(100, 0.0)
    assert mtu.payload == BASE


def test_a_refusal_of_what_is_in_use_leads_down_at_once_and_below_it_up_again() -> None:
    mtu = PathMtu(0.0)
    now = APath(1472, 1472).run(mtu, 0.0, 10.0)
    mtu.refused(1472, now)
    assert mtu.payload == BASE
    APath(1400, 1400).run(mtu, now, now + 1.0)
    assert 1400 - GRAIN < mtu.payload <= 1400


def test_a_black_hole_leads_down_at_once_and_below_it_up_again() -> None:
    mtu = PathMtu(0.0)
    now = APath(1472, 1472).run(mtu, 0.0, 10.0)
    mtu.vanished(now)
    assert mtu.payload == BASE
    assert not mtu.needs_fragmentation
    APath(1472, 1432).run(mtu, now, now + 60.0)
    assert 1432 - GRAIN < mtu.payload <= 1432


def test_a_path_below_the_base_takes_whole_messages_and_is_asked_again_after_a_while() -> None:
    for vanishes in (False, True):
        mtu = PathMtu(0.0)
        if vanishes:
            mtu.vanished(1.0)
        else:
            mtu.refused(BASE, 1.0)
        assert mtu.needs_fragmentation
        assert mtu.probe(1.0) is None
        path = APath(1100, 1100)
        now = path.run(mtu, 1.0, 2 * AGAIN_AFTER)
        assert mtu.needs_fragmentation
        assert 0 < path.probes <= 5
        APath(1472, 1472).run(mtu, now, now + AGAIN_AFTER + 10)
        assert not mtu.needs_fragmentation
        assert mtu.payload == 1472


def test_the_base_is_probed_after_the_first_length_that_does_not_pass() -> None:
    mtu = PathMtu(0.0)
    assert [mtu.probe(each) for each in (0.0, 1.0, 2.0, 3.0)] == [1472, 1472, 1472, BASE]
    assert not mtu.is_proven
    mtu.echoed(BASE, 3.1)
    assert mtu.is_proven
    assert mtu.probe(3.1) == 1464, "and no more of the base"


def test_a_path_where_only_small_probes_pass_needs_fragmentation() -> None:
    mtu = PathMtu(0.0)
    for second in range(6):
        assert mtu.probe(second) == (1472 if second < 3 else BASE)
        assert mtu.probes_base == (second >= 3)
        if mtu.probes_base:
            mtu.echoed(41, second + 0.1)
    assert mtu.probe(6.0) is None
    assert mtu.needs_fragmentation
    assert not mtu.probes_base


def test_a_path_where_nothing_passes_is_not_taken_for_a_short_one() -> None:
    mtu = PathMtu(0.0)
    mtu.probe(0.0)
    mtu.echoed(41, 0.1)  # before the base is probed
    now = APath(LARGEST, 0).run(mtu, 0.1, 12.0)
    assert not mtu.needs_fragmentation
    assert not mtu.is_proven
    APath(1400, 1400).run(mtu, now, now + 60)
    assert 1400 - GRAIN < mtu.payload <= 1400
    assert mtu.is_proven


def test_after_a_fall_the_base_is_proven_first() -> None:
    mtu = PathMtu(0.0)
    now = APath(1472, 1472).run(mtu, 0.0, 10.0)
    assert mtu.is_proven
    mtu.vanished(now)
    assert not mtu.is_proven
    assert mtu.probe(now) == BASE


def test_a_path_that_becomes_wider_is_found_out_in_ten_minutes() -> None:
    mtu = PathMtu(0.0)
    now = APath(1392, 1392).run(mtu, 0.0, 100.0)
    APath(1472, 1472).run(mtu, now, now + AGAIN_AFTER)
    assert mtu.payload == 1472


def test_another_path_begins_anew() -> None:
    mtu = PathMtu(0.0)
    now = APath(1472, 1472).run(mtu, 0.0, 10.0)
    mtu.moved(now, ipv6=True)
    assert mtu.payload == BASE
    assert mtu.probe(now) == 1452


@given(st.lists(st.tuples(st.sampled_from(["probe", "echoed", "refused", "vanished"]), st.integers(0, 70000))))
def test_whatever_happens_the_length_stays_legal(steps: list[tuple[str, int]]) -> None:
    mtu = PathMtu(0.0)
    now = 0.0
    for what, number in steps:
        now += number / 100
        if what == "probe":
            asked = mtu.probe(now)
            assert asked is None or BASE <= asked <= LARGEST
        elif what == "echoed":
            mtu.echoed(number, now)
        elif what == "refused":
            mtu.refused(number, now)
        else:
            mtu.vanished(now)
        assert BASE <= mtu.payload <= LARGEST
