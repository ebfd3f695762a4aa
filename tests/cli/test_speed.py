"""`vpntun speed`: its requests, its lines and its table, against a socket in place of a tunnel."""

from __future__ import annotations

import builtins
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.cli.conftest import Run
from vpntun.cli.speed import _bar
from vpntun.errors import VpntunError
from vpntun.watch.signals import EndedBySignal

BOB = "h70buasHjgiCSjkTp8kp7F2wRLoCow71NOmYhCQrSzI="
TRIPS = {"round_trip": 0.0012, "round_trip_95": 0.0123}
RUNNING: dict[str, Any] = {
    "state": "running",
    "test": 1,
    "public_key": BOB,
    "name": "",
    "carrier": "udp",
    "seconds": 5,
    "phase": "idle",
    "progress": 0.5,
    "rate": None,
    "error": None,
    "idle": None,
    "up": None,
    "down": None,
}
UP = {**RUNNING, "phase": "up", "progress": 0.45, "rate": 12_500_000, "idle": TRIPS}
DONE = {
    **UP,
    "state": "done",
    "phase": "down",
    "progress": 1.0,
    "up": {"rate": 12_345_678, "bytes": 60_000_000, "loss": 0.0012, **TRIPS},
    "down": {"rate": 125_000_000, "bytes": 600_000_000, "loss": None, "round_trip": None, "round_trip_95": None},
}


class FakeTunnel:
    """A tunnel that gives these reports one after the other, and notes what it was asked."""

    asked: list[tuple[str, str]]
    reports: Iterator[dict[str, Any] | BaseException]

    def __init__(self, interface: str) -> None:
        assert interface == "tun11"

    def __enter__(self) -> FakeTunnel:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def ask(self, method: str, target: str) -> dict[str, Any]:
        self.asked.append((method, target))
        report = next(self.reports)
        if isinstance(report, BaseException):
            raise report
        return report


@pytest.fixture
def tunnel(monkeypatch: pytest.MonkeyPatch) -> type[FakeTunnel]:
    module = sys.modules["vpntun.cli.speed"]  # by its name vpntun.cli has the command
    monkeypatch.setattr(module, "ControlClient", FakeTunnel)
    monkeypatch.setattr(module, "SECONDS_BETWEEN", 0.0)
    FakeTunnel.asked = []
    answer(RUNNING, RUNNING, UP, UP, {**UP, "progress": 0.61}, DONE)
    return FakeTunnel


def answer(*reports: dict[str, Any] | BaseException) -> None:
    FakeTunnel.reports = iter(reports)


def test_lines_and_the_table_are_printed_where_there_is_no_terminal(run: Run, tunnel: type[FakeTunnel]) -> None:
    said = run("speed", "tun11")
    assert said.status == 0
    assert said.out == (
        "idle: measuring round trips\n"
        "up: 2 s of 5, 100.00 Mbit/s\n"
        "up: 3 s of 5, 100.00 Mbit/s\n"
        f"tun11 to {BOB} over UDP\n"
        "\n"
        "           throughput     loss    round trip     95% under\n"
        "idle                -        -       1.20 ms      12.30 ms\n"
        "up       98.77 Mbit/s    0.12%       1.20 ms      12.30 ms\n"
        "down      1.00 Gbit/s        -             -             -\n"
    )
    assert tunnel.asked[0] == ("POST", "/v1/speed/run?seconds=5")
    assert set(tunnel.asked[1:]) == {("GET", "/v1/speed")}


def test_json_is_printed_alone(run: Run, tunnel: type[FakeTunnel]) -> None:
    said = run("speed", "tun11", "a peer+x", "--json", "--seconds", "7")
    assert json.loads(said.out) == DONE
    assert tunnel.asked[0] == ("POST", "/v1/speed/run?seconds=7&peer=a%20peer%2Bx")


def test_a_name_cannot_write_to_the_terminal(run: Run, tunnel: type[FakeTunnel]) -> None:
    answer({**DONE, "name": "\x1b[2Jx"})
    assert "\x1b" not in run("speed", "tun11").out


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_failed_test_has_a_status_and_a_reason(run: Run, tunnel: type[FakeTunnel], options: Sequence[str]) -> None:
    answer(RUNNING, {**UP, "state": "failed", "error": "the peer has not answered"})
    said = run("speed", "tun11", *options)
    assert said.status == 1
    assert "the peer has not answered" in said.err
    assert bool(said.out.startswith("{")) == bool(options)


def test_a_test_that_another_command_stops_says_so(run: Run, tunnel: type[FakeTunnel]) -> None:
    answer(RUNNING, {**UP, "state": "stopped"})
    said = run("speed", "tun11")
    assert said.status == 1
    assert "stopped by another command" in said.err


def test_an_interrupt_stops_the_test(run: Run, tunnel: type[FakeTunnel]) -> None:
    answer(RUNNING, EndedBySignal(signal.SIGINT), {**UP, "state": "stopped"})
    said = run("speed", "tun11")
    assert said.status == 1
    assert "interrupted" in said.err
    assert tunnel.asked[-1] == ("POST", "/v1/speed/stop")


def test_an_interrupt_while_the_tunnel_is_asked_to_begin_stops_the_test(run: Run, tunnel: type[FakeTunnel]) -> None:
    answer(EndedBySignal(signal.SIGINT), {**UP, "state": "stopped"})
    assert run("speed", "tun11").status == 1
    assert tunnel.asked[-1] == ("POST", "/v1/speed/stop")


def test_a_closed_pipe_stops_the_test(run: Run, tunnel: type[FakeTunnel], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(sys.modules["vpntun.cli.speed"]._Lines, "show", refuse)
    answer(RUNNING, {**UP, "state": "stopped"})
    with pytest.raises(BrokenPipeError):
        run("speed", "tun11")
    assert tunnel.asked[-1] == ("POST", "/v1/speed/stop")


def test_the_result_of_another_test_is_not_shown(run: Run, tunnel: type[FakeTunnel]) -> None:
    answer(RUNNING, {**DONE, "test": 2})
    said = run("speed", "tun11")
    assert said.status == 1
    assert "98.77" not in said.out
    assert "another command has begun a test" in said.err


def test_a_refusal_is_the_error(run: Run, tunnel: type[FakeTunnel]) -> None:
    answer(VpntunError("tun11 refuses: the peer is not a vpntun"))
    said = run("speed", "tun11")
    assert said.status == 1
    assert said.out == ""
    assert "the peer is not a vpntun" in said.err


@pytest.mark.parametrize("seconds", ["0", "31", "x"])
def test_other_lengths_are_a_usage_error(run: Run, seconds: str) -> None:
    assert run("speed", "tun11", "--seconds", seconds).status == 2


def test_without_rich_a_terminal_gets_lines(
    run: Run, tunnel: type[FakeTunnel], monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def without_rich(name: str, *arguments: Any) -> Any:
        if name.partition(".")[0] == "rich":
            raise ModuleNotFoundError(name=name)
        return imported(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_rich)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    said = run("speed", "tun11")
    assert said.status == 0
    assert "up: 2 s of 5, 100.00 Mbit/s\n" in said.out


@pytest.mark.parametrize(
    ("phase", "report", "expected"),
    [
        ("idle", RUNNING, (0.5, "")),
        ("up", RUNNING, (0.0, None)),
        ("idle", UP, (1.0, "")),
        ("up", UP, (0.45, "100.00 Mbit/s")),
        ("up", DONE, (1.0, "98.77 Mbit/s")),
    ],
)
def test_a_bar_shows_the_present_rate_and_at_last_the_measured_one(
    phase: str, report: dict[str, Any], expected: tuple[float, str | None]
) -> None:
    bar = _bar(report, phase)
    assert (bar["completed"], bar.get("rate")) == expected
