"""What two ends of a speed test say to each other, and nonsense instead of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.speed.agreement import LONGEST, Demand, State, explain_refusal

u64 = st.integers(0, 2**64 - 1)
anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers())


def by_wire(content: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(content)))


@given(st.sampled_from(["receive", "send"]), u64, st.integers(1, LONGEST))
def test_a_demand_to_begin_is_parsed_as_it_was_packed(do: Any, test: int, seconds: int) -> None:
    demand = Demand(do, test, seconds)
    assert Demand.parse(by_wire(demand.pack())) == demand


@given(st.sampled_from(["state", "stop"]), u64)
def test_another_demand_is_parsed_as_it_was_packed(do: Any, test: int) -> None:
    demand = Demand(do, test)
    assert Demand.parse(by_wire(demand.pack())) == demand


@given(st.booleans(), u64, st.floats(0, 1e12), st.none() | u64, st.none() | u64)
def test_a_state_is_parsed_as_it_was_packed(running: bool, size: int, rate: float, sent: Any, lost: Any) -> None:
    state = State(running, size, rate, sent, lost)
    assert State.parse(by_wire(state.pack())) == state


@given(st.dictionaries(st.sampled_from(["do", "test", "seconds"]), anything))
def test_nonsense_is_no_demand(content: dict[str, Any]) -> None:
    demand = Demand.parse(content)
    assert demand is None or demand.do in ("receive", "send", "state", "stop")


@given(st.dictionaries(st.sampled_from(["running", "bytes", "rate", "sent", "lost"]), anything))
def test_nonsense_is_no_state(content: dict[str, Any]) -> None:
    state = State.parse(content)
    if state is not None:
        assert state.bytes >= 0
        assert 0 <= state.rate < float("inf")


@pytest.mark.parametrize("content", [{"do": "state", "test": 1 << 64}, {"do": ["send"], "test": 1, "seconds": 1}, {}])
def test_these_are_no_demands(content: dict[str, Any]) -> None:
    assert Demand.parse(content) is None


@pytest.mark.parametrize("field", ["bytes", "rate", "sent", "lost"])
@pytest.mark.parametrize("value", [10**400, 1e300, -1, True, float("inf"), float("nan")])
def test_a_number_that_cannot_be_is_no_state(field: str, value: object) -> None:
    assert State.parse({**State(True, 1, 1.0, 1, 1).pack(), field: value}) is None


def test_a_rate_without_a_fraction_is_a_rate() -> None:
    assert State.parse({"running": True, "bytes": 1, "rate": 0}) == State(True, 1, 0.0)


@given(anything)
def test_the_peers_own_words_are_never_shown(reason: Any) -> None:
    assert explain_refusal({"refused": reason}) == "the peer does not take part in speed tests"


def test_a_known_reason_is_explained() -> None:
    assert "try again in a minute" in explain_refusal({"refused": "busy"})
