"""Poller on a real control socket: reports once an interval, the end of a tunnel, and its return."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
from collections.abc import Iterator

import pytest

from tests.watch.fake_tunnel import FakeTunnel
from vpntun.watch import poller as poller_module
from vpntun.watch.poller import ENDED, Poller, Report

SOON, INTERVAL = 20.0, 0.05


@pytest.fixture
def tunnel() -> Iterator[FakeTunnel]:
    with FakeTunnel() as tunnel:
        yield tunnel


@pytest.fixture
def reports(tunnel: FakeTunnel) -> Iterator[queue.SimpleQueue[Report]]:
    """Yield what a poller of the tunnel reports."""
    reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
    poller = Poller(tunnel.interface, INTERVAL, reports.put)
    poller.start()
    yield reports
    poller.end()
    poller.join(SOON)
    assert not poller.is_alive()


def test_the_status_is_reported_once_an_interval(reports: queue.SimpleQueue[Report]) -> None:
    statuses = [reports.get(timeout=SOON).status or {} for _ in range(4)]
    clocks = [status["clock"] for status in statuses]
    assert clocks == sorted(set(clocks))
    assert clocks[3] - clocks[0] >= 2 * INTERVAL


def test_the_tunnel_is_asked_to_verify_its_links(tunnel: FakeTunnel, reports: queue.SimpleQueue[Report]) -> None:
    reports.get(timeout=SOON)
    status = reports.get(timeout=SOON).status
    assert status is not None
    assert status["relay"] == 1, "once, for some seconds"


def test_the_end_of_a_tunnel_is_reported_and_so_is_its_return(
    tunnel: FakeTunnel, reports: queue.SimpleQueue[Report]
) -> None:
    reports.get(timeout=SOON)
    tunnel.stop()
    while (report := reports.get(timeout=SOON)).trouble != ENDED:
        assert report.status is not None or "ended before it answered" in str(report.trouble)
    tunnel.start()
    while (report := reports.get(timeout=SOON)).status is None:
        pass
    assert report.status["pid"] == tunnel.process


def test_a_suspended_tunnel_holds_up_the_poller_alone(tunnel: FakeTunnel, reports: queue.SimpleQueue[Report]) -> None:
    reports.get(timeout=SOON)
    os.kill(tunnel.process, signal.SIGSTOP)
    answered_before = 0
    with contextlib.suppress(queue.Empty):
        while answered_before < 5:
            reports.get(timeout=0.5)
            answered_before += 1
    assert answered_before < 5
    os.kill(tunnel.process, signal.SIGCONT)
    assert reports.get(timeout=SOON).status is not None


def test_a_suspended_tunnel_is_never_said_to_have_ended(tunnel: FakeTunnel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "PATIENCE", 0.2)
    os.kill(tunnel.process, signal.SIGSTOP)
    reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
    poller = Poller(tunnel.interface, INTERVAL, reports.put)
    poller.start()
    troubles = [reports.get(timeout=SOON).trouble or "" for _ in range(2)]
    poller.end()
    poller.join(SOON)
    assert all("is it suspended?" in trouble for trouble in troubles), troubles
