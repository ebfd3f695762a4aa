"""Rates, drops and series that follow from successive statuses."""

from __future__ import annotations

import pytest

from tests.watch.samples import PATIENCE, history, peer, seen, status
from vpntun.watch.history import LONGEST, RECENT, Drop


def test_a_rate_is_the_growth_of_a_counter_by_the_tunnels_own_clock() -> None:
    one = seen(
        status(peer(received_bytes=1000, sent_bytes=50), clock=10.0),
        status(peer(received_bytes=6000, sent_bytes=50), clock=12.5),
    )
    assert (one.down, one.up) == (2000.0, 0.0)


def test_the_first_status_tells_no_rate() -> None:
    one = seen(status())
    assert (one.down, one.up, one.downs, one.ups) == (None, None, (None,), (None,))
    assert one.traffic == 0.0


def test_a_tunnel_without_the_finer_clock_is_measured_by_whole_seconds() -> None:
    old = [status(peer(received_bytes=count), clock=clock) for count, clock in ((0, 5.0), (500, 5.9), (3000, 7.2))]
    for each in old:
        del each["clock"]
    assert seen(*old[:2]).downs == (None,), "its clock has not advanced"
    assert seen(*old).downs == (None, 1500.0)


def test_a_restart_leaves_a_gap_and_no_rate_across_it() -> None:
    one = seen(
        status(peer(received_bytes=1000), clock=10.0),
        status(peer(received_bytes=2000), clock=11.0),
        status(peer(received_bytes=9000), clock=12.0, pid=1),
        status(peer(received_bytes=9500), clock=13.0, pid=1),
    )
    assert one.downs == (None, 1000.0, None, 500.0)


def test_a_counter_that_has_decreased_gives_no_rate() -> None:
    one = seen(
        status(peer(received_bytes=1000), clock=10.0),
        status(peer(received_bytes=0), clock=11.0),
        status(peer(received_bytes=7), clock=12.0),
    )
    assert one.downs == (None, None, 7.0)


def test_a_peer_that_was_removed_and_added_again_begins_a_new_series() -> None:
    both = history(status(peer(0), peer(1)), status(peer(0), clock=101.0), status(peer(0), peer(1), clock=102.0))
    assert [len(each.downs) for each in both.view(2.0).peers] == [3, 1]


def test_a_series_is_bounded() -> None:
    one = seen(*(status(clock=100.0 + second) for second in range(LONGEST + 5)))
    assert len(one.downs) == len(one.ups) == len(one.round_trips) == LONGEST


def test_drops_are_new_for_a_while_and_those_that_changed_come_first() -> None:
    counts = [{"queue full": 5, "no session": 9}, {"queue full": 8, "no session": 9, "own key": 0}]
    drops = [peer(drops=each) for each in counts]
    assert seen(status(drops[0]), status(drops[1], clock=101.0)).drops == (
        Drop("queue full", 8, 3),
        Drop("no session", 9, 0),
    )
    later = (status(drops[1], clock=101.0 + second) for second in range(RECENT + 1))
    assert [each.new for each in seen(status(drops[0]), *later).drops] == [0, 0]


def test_drops_after_a_restart_are_not_compared_with_those_before() -> None:
    one = seen(status(peer(drops={"queue full": 900})), status(peer(drops={"queue full": 2}), clock=1.0, pid=1))
    assert one.drops == (Drop("queue full", 2, 0),)


def test_traffic_is_that_of_the_last_moments() -> None:
    busy = [status(peer(received_bytes=1000 * second), clock=float(second)) for second in range(5)]
    quiet = [status(peer(received_bytes=4000), clock=5.0 + second) for second in range(RECENT)]
    assert seen(*busy).traffic == 4000.0
    assert seen(*busy, *quiet).traffic == 0.0


def test_a_peer_without_a_name_is_called_by_the_start_of_its_key() -> None:
    assert seen(status(peer(7, name=""))).label == "0000000000"


@pytest.mark.parametrize(("silent", "trouble"), [(PATIENCE, None), (4.0, "no answer for 4 s: is it suspended?")])
def test_a_tunnel_that_does_not_answer_is_in_trouble_after_a_while(silent: float, trouble: str | None) -> None:
    assert history(status()).view(silent).trouble == trouble


def test_the_next_status_ends_the_trouble() -> None:
    one = history(status())
    one.note_trouble("has ended")
    assert one.view(0.0).trouble == "has ended"
    assert len(one.view(0.0).peers) == 1
    one.take(status(clock=1.0, pid=1), 60.0)
    assert one.view(60.0).trouble is None


def test_while_a_tunnel_does_not_answer_no_peer_counts_as_connected() -> None:
    one = history(status(), status(clock=101.0))
    for now, state, down in ((1.0, "connected", 0.0), (60.0, "unknown", None)):
        (only,) = one.view(now).peers
        assert (only.state, only.down, only.verified) == (state, down, True if state == "connected" else None)
        assert only.downs == (None, 0.0)
    one.note_trouble("has ended")
    assert one.view(1.0).peers[0].state == "unknown"


def test_before_the_first_answer_nothing_is_known() -> None:
    view = history().view(0.0)
    assert (view.peers, view.uptime, view.trouble, view.drops) == ((), None, None, ())


def test_a_tunnel_of_an_older_version_does_not_tell_the_three_states() -> None:
    fields = peer()
    old = {name: value for name, value in fields.items() if not name.startswith(("carrier_", "data_", "handshake_"))}
    one = seen(status(old))
    assert (one.verified, one.carrier_up, one.carrier_for, one.reason) == (None, None, None, None)
    assert seen(status(peer(data_verified=False))).verified is False
