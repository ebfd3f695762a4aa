"""One end's part in a speed test, as its link sees it."""

from __future__ import annotations

import pytest

from tests.speed.ends import Ends
from vpntun.errors import BadPacket
from vpntun.speed.trial import Trial
from vpntun.wire.inside.load import new_load


def test_load_is_accepted_only_with_the_id_that_was_agreed(ends: Ends) -> None:
    trial = Trial(ends.bob.link, ends.loop, 7, 2.0, receives=True)
    assert trial.load_arrived(new_load(7)[:100], 1.0)
    assert not trial.load_arrived(new_load(8)[:100], 1.0)
    assert trial.arrivals.total == 100
    with pytest.raises(BadPacket):
        trial.load_arrived(memoryview(b"\x09abc"), 1.0)


def test_a_sender_accepts_no_load(ends: Ends) -> None:
    assert not Trial(ends.bob.link, ends.loop, 7, 2.0).load_arrived(new_load(7)[:100], 1.0)


def test_probes_are_sent_until_the_trial_is_closed(ends: Ends) -> None:
    trial = Trial(ends.alice.link, ends.loop, 7, 2.0)
    trial.measure()
    ends.run(1)
    assert 15 <= len(trial.trips.taken) <= 21
    trial.close()
    ends.run(0.2)
    count = len(trial.trips.taken)
    ends.run(1)
    assert len(trial.trips.taken) == count
    assert ends.alice.link.test is None


def test_a_closed_trial_leaves_the_next_one_alone(ends: Ends) -> None:
    first = Trial(ends.alice.link, ends.loop, 7, 2.0)
    second = Trial(ends.alice.link, ends.loop, 8, 2.0)
    first.close()
    assert ends.alice.link.test is second


def test_dropped_load_counts_as_arrived_but_is_not_reported(ends: Ends) -> None:
    """The counters stay exact, so the sender of refused load sees neither loss nor delivery."""
    ends.alice.link.send_record(new_load(7)[:500], 0, is_last=True)
    ends.run(0.5)
    assert ends.bob.drops == {"load without a test": 1}
    assert ends.alice.link.records.span.last_report.highest == -1
    assert not ends.bob.device.packets
