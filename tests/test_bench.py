"""The pure parts of scripts/benchmark: ratios, readings, results, tables and the plan. They need no root."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark import plan, profiling, table
from benchmark.errors import BenchError
from benchmark.figures import FIGURES, MEASUREMENTS
from benchmark.floods import SERVERS
from benchmark.gridtargets import AIMS
from benchmark.handshakes import JUNK, messages
from benchmark.hub import HUBS
from benchmark.others import OTHERS
from benchmark.paths import PATHS, said_of_loss
from benchmark.ratios import median, percentile, ratio, ratios
from benchmark.readings import read_flood, read_iperf, read_observed, read_ping
from benchmark.results import Results
from benchmark.runner import measured_on
from benchmark.subjects import OWN, Subject
from benchmark.targets import COMPARED, TARGETS, Target
from vpntun.crypto.cookies import CookieChecker
from vpntun.crypto.keys import KeyPair, format_key
from vpntun.errors import BadPacket
from vpntun.wire.message import Initiation

EVERYONE = (*OWN, *OTHERS, *HUBS, *SERVERS)
SUBJECTS = {subject.name for subject in EVERYONE}
PING = """\
PING 10.0.0.2 (10.0.0.2) 56(84) bytes of data.
64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=0.100 ms
64 bytes from 10.0.0.2: icmp_seq=3 ttl=64 time=0.300 ms
64 bytes from 10.0.0.2: icmp_seq=4 ttl=64 time=12.5 ms

--- 10.0.0.2 ping statistics ---
4 packets transmitted, 3 received, 25% packet loss, time 30ms
"""


def report(**end: object) -> str:
    return json.dumps({"start": {}, "intervals": [], "end": end})


def iperf(nbytes: int, seconds: float, retransmits: int = 0) -> str:
    received = {"bytes": nbytes, "seconds": seconds, "bits_per_second": 0}
    return report(sum_sent={**received, "retransmits": retransmits}, sum_received=received)


# Ratios.


def test_a_median_ignores_missing_readings() -> None:
    assert median([3, None, 1]) == 2
    assert median([5, 1, 3]) == 3
    assert median([None]) is None
    assert median([]) is None


def test_a_percentile_is_one_of_the_readings() -> None:
    assert percentile(range(1, 101), 99) == 99
    assert percentile(range(1, 101), 50) == 50
    assert percentile([7], 99) == 7
    assert percentile([1, 2], 1) == 1


def test_ratios_are_taken_within_the_round() -> None:
    assert ratios([10, 100, None, 8], [5, 10, 2]) == [2, 10, None]
    assert ratios([1, 2], [0, None]) == [None, None]
    # The machine was twenty times as fast in the second round; the ratio of the medians would be 0.15.
    assert ratio([2, 40, 3], [1, 20, 40]) == 2


# Readings.


def test_a_transfer_is_read_from_the_receivers_sums() -> None:
    transfer = read_iperf(iperf(125_000_000, 2.0, retransmits=7))
    assert (transfer.mbits, transfer.repeated) == (500, 7)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "iperf3: error - unable to connect",
        "[]",
        report(),
        iperf(1, 0),
        '{"error": "unable to connect to server: Connection refused"}',
    ],
)
def test_a_report_without_a_transfer_is_an_error(text: str) -> None:
    with pytest.raises(BenchError):
        read_iperf(text)


def test_an_error_that_iperf_reports_is_passed_on() -> None:
    with pytest.raises(BenchError, match="the server is busy"):
        read_iperf('{"start": {}, "end": {}, "error": "error - the server is busy"}')


def test_round_trips_are_in_microseconds() -> None:
    trips = read_ping(PING)
    assert (trips.median, trips.p99, trips.lost) == (300, 12_500, 0.25)


def test_no_answer_to_any_ping_is_an_error() -> None:
    with pytest.raises(BenchError):
        read_ping("4 packets transmitted, 0 received, 100% packet loss, time 30ms")


def test_small_datagrams_are_counted_by_the_second() -> None:
    assert read_flood("ready\n3000 1.5\n") == 2000
    with pytest.raises(BenchError):
        read_flood("ready\nTraceback (most recent call last):\nTimeoutError: timed out\n")


@given(st.text() | st.from_regex(r'\{"end": .*\}') | st.from_regex(r"time=.* ms\n\d+ packets transmitted"))
def test_unreadable_output_raises_only_bench_error(text: str) -> None:
    for read in (read_iperf, read_ping, read_flood, lambda text: read_observed(text, text)):
        try:
            read(text)
        except BenchError:
            continue


# Results, targets and tables.


def test_a_missed_round_is_recorded_as_none() -> None:
    results = Results()
    for number in range(3):
        results.record("veth", "bare", number, {"up": 10.0 ** (number + 1)})
        if number != 1:
            results.record("veth", "vpntun-udp", number, {"up": 10.0**number})
    assert results.rounds("veth", "vpntun-udp", "up") == [1, None, 100]
    assert results.ratio("veth", "vpntun-udp", "up", "bare") == pytest.approx(0.1)
    assert results.ratio("veth", "vpntun-udp", "up", "tinc") is None


def test_json_has_every_round_and_every_ratio() -> None:
    results = Results()
    results.record("veth", "bare", 0, {"up": 8.0})
    results.record("veth", "tinc", 0, {"up": 2.0, "cpu": 3.0})
    shown = json.loads(json.dumps(results.as_json()))
    assert shown["veth"]["tinc"]["up"]["ratios"]["bare"] == {"rounds": [0.25], "median": 0.25}
    assert shown["veth"]["tinc"]["cpu"] == {"rounds": [3.0], "median": 3.0, "ratios": {}}


def test_a_target_is_met_missed_or_not_measured() -> None:
    least, most = Target("veth", "up", "a", "b", 6), Target("veth", "rss", "a", None, 64, at_most=True)
    assert [least.verdict(value) for value in (6, 5.9, None)] == ["met", "MISSED", "not measured"]
    assert [most.verdict(value) for value in (64, 64.1)] == ["met", "MISSED"]
    results = Results()
    results.record("veth", "a", 0, {"up": 12.0, "rss": 40.0})
    results.record("veth", "b", 0, {"up": 2.0})
    assert (least.value(results), most.value(results)) == (6, 40)


def test_headings_break_and_numbers_are_aligned_to_the_right() -> None:
    assert table.columns(["", "1 flow", "CPU"], [["bare", "1,000", "-"], ["vpntun-udp", "2", "0.30"]]) == (
        "                1\n"
        "             flow   CPU\n"
        "----------  -----  ----\n"
        "bare        1,000     -\n"
        "vpntun-udp      2  0.30"
    )


def test_the_tables_show_what_was_measured() -> None:
    results = Results()
    results.record("veth", "bare", 0, {"up": 10_000.0})
    results.record("veth", "vpntun-udp", 0, {"up": 4_000.0})
    assert table.medians(results, "veth").splitlines()[-2:] == ["bare        10,000", "vpntun-udp   4,000"]
    assert table.ratios(results, "veth").splitlines()[-1] == "vpntun-udp / bare  0.40"
    assert any(line.startswith("veth: up") and line.endswith("met") for line in table.targets(results).splitlines())


# The plan.


def test_plans_and_targets_name_only_existing_paths_figures_and_subjects() -> None:
    measurements = {each.name: set(each.gives) for each in MEASUREMENTS}
    figures, paths = {figure.name for figure in FIGURES}, {path.name: path for path in PATHS}
    assert set().union(*measurements.values()) == figures
    for part in (*plan.WHOLE.parts.values(), *plan.QUICK.parts.values()):
        assert set(part.measurements) <= set(measurements)
    assert set(plan.QUICK.parts) <= set(plan.WHOLE.parts) == set(paths)
    assert {name for subject in EVERYONE for name in subject.only_on} <= set(paths)
    for target in (*TARGETS, *(target for aims in AIMS.values() for aim in aims for target in aim.targets)):
        measured = {subject.name for subject in EVERYONE if measured_on(subject, paths[target.path])}
        assert {target.subject, target.to} - {None} <= measured
        given_there = set().union(*(measurements[name] for name in plan.WHOLE.parts[target.path].measurements))
        assert target.figure in given_there
    assert {name for pair in COMPARED for name in pair} <= SUBJECTS


def test_a_subject_names_the_program_that_is_not_installed() -> None:
    def nothing(_site: object) -> None: ...

    assert Subject("it", nothing, needs=("sh", "no-such-program")).missing() == "no-such-program"
    assert Subject("it", nothing, needs=("sh",)).missing() is None


def test_a_plan_is_limited_to_the_options() -> None:
    chosen = plan.QUICK.limited(["veth", "loss-0.1"], []).timed(7, None)
    assert chosen.parts["loss-0.1"] == plan.Part(plan.LOSING, 7)
    assert chosen.seconds == plan.QUICK.seconds
    assert plan.WHOLE.limited([], ["up"]).parts["50-10-100"].measurements == ["up"]
    assert "bbr" not in plan.WHOLE.without("bbr").parts["50-10-100"].measurements


# Floods.


def test_the_messages_of_a_flood_pass_or_fail_at_mac1_as_they_should() -> None:
    server = KeyPair.generate()
    checker = CookieChecker(server.public)
    valid, junk = messages(format_key(server.public), 3), messages(JUNK, 3)
    assert len({Initiation.parse(message).ephemeral for message in valid}) == 3
    for message in valid:
        checker.check_mac1(message)
    for message in junk:
        with pytest.raises(BadPacket, match="bad mac1"):
            checker.check_mac1(message)


# Loss, and profiles.


def test_loss_must_be_of_single_datagrams_and_have_the_share_that_is_asked_for() -> None:
    assert said_of_loss("a", [100_000, 0, 1_020], 0.01) == ["a lost 1020 of 100000 packets, 1.02%, each a single one"]
    with pytest.raises(BenchError, match="more than one"):
        said_of_loss("a", [100_000, 3, 1_000], 0.01)
    for lost in (500, 2_000):
        with pytest.raises(BenchError, match="should have been"):
            said_of_loss("a", [100_000, 0, lost], 0.01)


def test_a_profile_shows_lines_with_their_source(tmp_path: Path) -> None:
    file = tmp_path / "package" / "module.py"
    file.parent.mkdir()
    file.write_text("def f():\n    return g()\n")
    samples = [(6, str(file), 2, "f"), (3, "<string>", 1, "<lambda>"), (1, str(file), 99, "f")]
    assert list(profiling.shown(profiling.lines_of(samples, 2, tmp_path))) == [
        "   60.0%  package/module.py:2 f  return g()",
        "   30.0%  <string>:1 <lambda>",
    ]


def test_symbols_are_read_from_perfs_report() -> None:
    said = """\
# Overhead  Shared Object         Symbol
# ........  ....................  ...............
#
    18.81%  libpython3.11.so.1.0  [.] _PyEval_EvalFrameDefault                  -      -
     4.80%  [kernel.kallsyms]     [k] _copy_from_iter
     0.10%  libc.so.6             [.] read
"""
    assert list(profiling.shown(profiling.symbols_of(said, 2))) == [
        "   18.8%  libpython3.11.so.1.0  _PyEval_EvalFrameDefault",
        "    4.8%  kernel                _copy_from_iter",
    ]
