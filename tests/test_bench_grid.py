"""The pure parts of the benchmark's grid, and the compilation of wan.c, whose work tests/netns/test_wan.py tests."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmark import gridtables, wan
from benchmark.errors import BenchError
from benchmark.grid import POINTS, Point
from benchmark.gridtargets import AIMS
from benchmark.hub import HUBS
from benchmark.paths import PATHS
from benchmark.plan import POINT_NAMES, QUICK, WHOLE
from benchmark.readings import Interval, Observed, read_observed
from benchmark.results import Results
from benchmark.runner import measured_on
from benchmark.subjects import OWN, own
from benchmark.targets import TCP, UDP, WIREGUARD, Target

CHECKOUT = Path(__file__).parents[1]


def flow(*rates: float, repeated: int = 0) -> Observed:
    """Make a flow with these rates in Mbit/s, each for 0.1 s."""
    return Observed(
        [Interval(n / 10, (n + 1) / 10, int(rate * 1e6 / 8 / 10)) for n, rate in enumerate(rates)], repeated
    )


def receiver(*intervals: tuple[float, float, int]) -> str:
    """Make iperf3's report of the receiving end."""
    sums = [{"sum": {"start": start, "end": end, "bytes": nbytes}} for start, end, nbytes in intervals]
    return json.dumps({"start": {}, "intervals": sums, "end": {}})


SENDER = json.dumps({"end": {"sum_sent": {"retransmits": 7}}})


def measured(**figures: tuple[float, float]) -> Results:
    """Make the results of one point. Each figure is given for wireguard-go and for vpntun over UDP."""
    results = Results()
    for name, values in figures.items():
        for subject, value in zip((WIREGUARD, UDP), values, strict=True):
            results.record("300-10-400", subject, 0, {name.replace("_", "-"): value})
    return results


# Points and paths.


def test_a_point_is_named_by_its_numbers() -> None:
    assert Point(50, 10, 100).name == "50-10-100"
    assert Point(100, 25, 400, 0.1).name == "100-25-400-0.1"
    assert Point(300, 10, 400, 1).title == "300 Mbit/s, round trip 20 ms, a queue of 400 packets, 1% lost"


def test_each_point_is_a_path_and_has_its_part_in_the_plan() -> None:
    assert [path.point for path in PATHS if path.point] == list(POINTS)
    assert len(set(POINT_NAMES)) == len(POINTS)
    assert all(WHOLE.parts[name].rounds == 5 for name in POINT_NAMES)
    assert [QUICK.parts[name].rounds for name in POINT_NAMES if name in QUICK.parts] == [1, 1]


def test_flows_on_the_grid_have_their_own_duration_unless_one_is_given() -> None:
    assert (WHOLE.seconds_on("veth"), WHOLE.seconds_on("50-10-100")) == (3, 6)
    given = WHOLE.timed(None, 4)
    assert (given.seconds_on("veth"), given.seconds_on("50-10-100")) == (4, 4)
    assert WHOLE.has_grid
    assert not WHOLE.limited(["veth"], []).has_grid


def test_three_subjects_but_no_hub_are_measured_on_the_grid() -> None:
    path = next(path for path in PATHS if path.point)
    assert {each.name for each in (*OWN, *HUBS) if measured_on(each, path)} == {UDP, TCP, WIREGUARD}
    assert all(measured_on(each, PATHS[0]) for each in OWN)


def test_another_wireguard_go_can_be_chosen() -> None:
    chosen = next(each for each in own("/nowhere/wireguard-go") if each.name == WIREGUARD)
    assert chosen.missing() == "/nowhere/wireguard-go"


# Flows as their receiver reports them.


def test_the_first_second_of_a_flow_is_left_out() -> None:
    assert flow(*[900.0] * 10, *[100.0] * 20).mbits(1.0) == pytest.approx(100)
    with pytest.raises(BenchError, match="was over within 1 s"):
        flow(*[900.0] * 10).mbits(1.0)


def test_a_flow_has_started_once_it_reaches_90_percent_of_its_later_rate() -> None:
    assert flow(1, 20, 85, 91, 40, *[100.0] * 10).start() == pytest.approx(0.4)
    assert flow(*[100.0] * 10).start() == pytest.approx(0.1)


def test_a_flow_is_read_from_both_reports() -> None:
    observed = read_observed(receiver((0, 0.1001, 1000), (0.1001, 0.2, 2000), (0.2, 0.2004, 50)), SENDER)
    assert observed == Observed([Interval(0, 0.1001, 1000), Interval(0.1001, 0.2, 2000)], 7)


@pytest.mark.parametrize(
    ("receives", "sends"),
    [
        (receiver(), SENDER),
        (receiver((0, 0.1, 10)), "{}"),
        ("[]", SENDER),
        ('{"intervals": [{"sum": 3}]}', SENDER),
        ('{"error": "the client has gone"}', SENDER),
    ],
)
def test_reports_without_an_observed_flow_are_an_error(receives: str, sends: str) -> None:
    with pytest.raises(BenchError):
        read_observed(receives, sends)


# Targets and tables.


def test_a_difference_is_taken_within_the_round() -> None:
    results = Results()
    for number, (mine, theirs) in enumerate([(12.0, 10.0), (55.0, 54.5), (7.0, 3.0)]):
        results.record("50-10-100", UDP, number, {"cubic-trip": mine})
        results.record("50-10-100", WIREGUARD, number, {"cubic-trip": theirs})
    target = Target("50-10-100", "cubic-trip", UDP, WIREGUARD, 1, at_most=True, minus=True)
    assert target.value(results) == 2
    assert target.verdict(2) == "MISSED"


def test_vpntun_must_be_three_times_as_fast_under_random_loss_with_cubic() -> None:
    bounds = {target.path: target.bound for aim in AIMS[UDP] for target in aim.targets if "with CUBIC" in aim.title}
    assert bounds == {"100-25-400-0.1": 3, "300-10-400-1": 3}


def test_an_aim_lists_the_points_that_miss_it() -> None:
    said = gridtables.targets(measured(cubic=(100, 98), bbr=(100, 90), cubic_wire=(1.06, 1.05)))
    assert "throughput >= 0.97 of wireguard-go's: met at 1 of 2\n    300-10-400 bbr: 0.900\n" in said
    assert "<= wireguard-go's + 0.01: met at 1 of 1" in said
    assert TCP not in said


def test_the_grid_is_one_table_with_a_row_for_each_congestion_control() -> None:
    flows, others = gridtables.tables(
        measured(cubic=(100, 98), cubic_again=(5, 1234), cubic_wire=(1.05, 1.06), two=(9, 3))
    )
    assert _last_row(flows) == "300-10-400 cubic 100.0 (5; 1.050) 98.0 (1,234; 1.060) 0.98 - -"
    assert _last_row(others) == "300-10-400 two flows 9.0 3.0 0.33 - -"
    assert gridtables.targets(Results()) == "".join(gridtables.tables(Results())) == ""


def _last_row(shown: str) -> str:
    return " ".join(shown.splitlines()[-1].split())


# The program that carries the path.


def test_a_point_is_passed_to_the_program_as_options() -> None:
    assert wan.options(Point(100, 25, 400, 0.1), 1500) == (
        ["--rate", "100", "--delay", "25", "--queue", "400", "--loss", "0.1", "--mtu", "1500"]
    )


def test_a_missing_compiler_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wan, "COMPILER", "no-such-compiler")
    with pytest.raises(BenchError, match=r"no-such-compiler is not installed.*apt install gcc"):
        wan.check_compiler()


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_program_compiles_and_prints_its_usage(tmp_path: Path) -> None:
    for command in ([wan.compiled(tmp_path / "wan")], [CHECKOUT / "scripts" / "wan"]):
        done = subprocess.run([*command, "--queue", "many", "a", "b"], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: wan")
