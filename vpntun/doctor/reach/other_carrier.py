"""Reach by the carrier that a link does not use: a running tunnel tries it, and only an authenticated answer counts.

A link on UDP may need TCP one day, and nobody would know before that it is blocked. All trials are begun at once, and
take 5 s at most. A link on TCP whose trial of UDP fails gets no finding here: that about the link says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from vpntun.doctor.finding import Finding, ok, skipped, warning
from vpntun.doctor.subject import Request
from vpntun.errors import VpntunError
from vpntun.runtime.clock import boottime
from vpntun.serving.http import target_of
from vpntun.types import DIALLED

MOST_TRIED = 8
SECONDS = 6.0
SECONDS_BETWEEN = 0.1


class Trials:
    """Trials of one running tunnel, which begin when this is made: one for each connected peer that this end calls."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._names: dict[str, str] = {}
        self._ended: dict[str, Mapping[str, Any]] = {}
        self._refusals: list[Finding] = []
        self.may_move_a_link = False
        """Whether a link used a connection when its trial began: it moves if UDP answers."""
        self._until = boottime() + SECONDS
        with suppress(VpntunError):  # another check says that the tunnel does not answer, or that it is older
            self._begin()

    def wait(self) -> None:
        """Wait until all trials have ended."""
        while (waiting := self._names.keys() - self._ended.keys()) and boottime() < self._until:
            for key in waiting:
                report = self._request("GET", target_of("/v1/tried", {"peer": key}))
                if report["state"] != "trying":
                    self._ended[key] = report
            if self._names.keys() - self._ended.keys():
                time.sleep(SECONDS_BETWEEN)

    def findings(self) -> Iterator[Finding]:
        """Wait for the trials, and yield what they have found."""
        self.wait()
        yield from self._refusals
        for key, report in self._ended.items():
            finding = judge_trial(self._names[key], report)
            if finding is not None:
                yield finding

    def _begin(self) -> None:
        facts = self._request("GET", "/v1/doctor")
        configured = {peer["public_key"]: peer["endpoint"] for peer in facts.get("peers", ())}
        peers = self._request("GET", "/v1/status")["peers"]
        called = [peer for peer in peers if peer["state"] == "connected" and configured.get(peer["public_key"])]
        for peer in called[:MOST_TRIED]:
            key, is_on_connection = peer["public_key"], peer["carrier"] in DIALLED
            name = peer["name"] or (key if len(peers) > 1 else "the peer")
            try:
                self._request("POST", target_of("/v1/try", {"peer": key}))
            except VpntunError as error:
                reason = str(error).partition(" refuses: ")[2] or str(error)
                check = "UDP reach" if is_on_connection else "TCP reach"
                self._refusals.append(skipped(check, f"{name}: {reason}" if len(peers) > 1 else reason))
            else:
                self._names[key] = name
                self.may_move_a_link |= is_on_connection


def judge_trial(name: str, report: Mapping[str, Any]) -> Finding | None:
    """Return the finding about a trial that has ended; None if that about the link says it, or if there is no trial."""
    carrier, outcome = report.get("carrier"), report["state"]
    if carrier is None:
        return None
    check, used = f"{carrier.upper()} reach", report["used"].upper()
    if carrier in DIALLED:
        if outcome == "answered":
            return ok(check, f"{name} answers over TCP in {_milliseconds(report)}, too, beside {used}, which is used")
        text, remedy = _explain(outcome, report["endpoint"])
        return warning(check, f"{text}: if UDP is blocked one day, the link to {name} will be down", remedy)
    if outcome == "answered":
        return ok(check, f"{name} answers over UDP in {_milliseconds(report)}: the link has left {used} for it")
    return None


def _explain(outcome: str, where: str) -> tuple[str, str]:
    """Return why there is no answer over TCP, and what to do."""
    port = where.rpartition(":")[2]
    if outcome == "refused":
        return (
            f"{where} refuses TCP",
            f"let the vpntun there take both carriers (--transport auto), and its firewall accept tcp port {port}",
        )
    if outcome == "forbidden":
        return (
            f"this machine's packet filter or routing rules let no TCP out to {where}",
            f"have them let tcp port {port} out: 'nft list ruleset' and 'ip rule' show them",
        )
    if outcome == "unreachable":
        return (
            f"{where} cannot be reached over TCP, as this machine or a router says",
            f"have the firewalls on the way let tcp port {port} pass",
        )
    if outcome == "open":
        return (
            f"{where} takes TCP connections, but no vpntun with the peer's keys answers there",
            f"see what listens on tcp port {port} at the other end, or answers in its place on the way",
        )
    return f"no answer over TCP from {where}", f"open tcp port {port} in the other end's firewall, and on the way"


def _milliseconds(report: Mapping[str, Any]) -> str:
    seconds = float(report["round_trip"] or 0)
    return f"{1000 * seconds:.{0 if seconds >= 0.01 else 1}f} ms"
