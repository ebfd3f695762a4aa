"""Links of a running tunnel: its peers are asked whether data arrives, and its status says by which carrier and why.

A peer that calls and has not done so is no fault of this end, so such peers are only counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from vpntun.doctor.finding import Finding, failed, ok, warning
from vpntun.doctor.reach.other_carrier import Trials
from vpntun.doctor.subject import Request
from vpntun.errors import RequestRefused
from vpntun.runtime.clock import boottime

SECONDS_TO_VERIFY = 4.0
"""Seconds to wait for the answers. Each second another PROBE is sent: one of a lossy path may be lost."""
SECONDS_BETWEEN = 0.1
SECONDS_OF_LINKS = 15.0
"""Time limit of this check, which includes the trials of other carriers."""
NO_UDP = "no UDP answer"


def examine_links(request: Request, trials: Trials) -> Iterator[Finding]:
    """Ask all peers whether data arrives, wait a moment for the answers, and yield what the status says then.

    After that come the findings of the trials. If one may move a link from TCP to UDP, its end is awaited first.
    """
    if trials.may_move_a_link:
        trials.wait()
    silent: set[str] = set()
    with suppress(RequestRefused):  # an older version, or a tunnel without peers
        silent = _silent_peers(request)
    yield from judge_links(request("GET", "/v1/status")["peers"], silent)
    yield from trials.findings()


def _silent_peers(request: Request) -> set[str]:
    """Ask all peers whether data arrives; return the keys of those that do not answer. An earlier proof is no answer.

    A peer that has answered is asked again with the others, a second later, and is not waited for again.
    """
    end = boottime() + SECONDS_TO_VERIFY
    silent = set(request("POST", "/v1/verify")["awaited"])
    while silent and boottime() < end:
        time.sleep(SECONDS_BETWEEN)
        silent &= set(request("POST", "/v1/verify")["awaited"])
    return silent


def judge_links(peers: Sequence[Mapping[str, Any]], silent: set[str]) -> Iterator[Finding]:
    """Yield the findings about the links. `silent`: the keys of the peers that have not answered."""
    if len(peers) == 1 and not peers[0]["name"]:
        peers = [{**peers[0], "name": "the peer"}]
    waiting = [peer for peer in peers if peer["state"] == "waiting"]
    fine = []
    for peer in peers:
        finding = _fault(peer, peer["public_key"] in silent)
        if finding is not None:
            yield finding
        elif peer["state"] != "waiting":
            fine.append(peer)
    if len(fine) == 1:
        yield ok("link", f"{_name(fine[0])} is connected by {_carrier(fine[0])}{_round_trip(fine[0])}")
    elif fine:
        yield ok("link", f"{len(fine)} peers are connected")
    if waiting:
        count = f"{len(waiting)} peers have" if len(waiting) > 1 else f"{_name(waiting[0])} has"
        yield ok("link", f"{count} not called lately")


def _fault(peer: Mapping[str, Any], is_silent: bool) -> Finding | None:
    """Return what is wrong with a link, None if nothing is."""
    name, state, reason = _name(peer), peer["state"], peer.get("carrier_reason")
    if state == "one-way":
        return failed(
            "link",
            f"nothing that this end sends arrives at {name}",
            "look for a firewall on the way, or at the other end, that drops it",
        )
    if state == "connecting":
        why = f": {reason}" if reason else ""
        return failed(
            "link",
            f"{name} has answered no handshake{why}",
            "see that vpntun runs there, that firewalls let its port pass, and that the keys fit: after 'vpntun down', "
            "'vpntun doctor HOST' tells these apart",
        )
    if state == "connected" and is_silent:
        return failed(
            "link",
            f"{name} has a session but answers no probe: the path is dead, or its vpntun has ended or is suspended",
            "look at the other end, and for a change of the path",
        )
    if state == "connected" and reason == NO_UDP:
        return warning(
            "link",
            f"{name} is connected by TCP, which is slower: UDP was tried and not answered",
            "have the firewalls on the way let UDP pass, to the peer's port",
        )
    return None


def _name(peer: Mapping[str, Any]) -> str:
    return str(peer["name"] or peer["public_key"])


def _carrier(peer: Mapping[str, Any]) -> str:
    return str(peer["carrier"]).upper()


def _round_trip(peer: Mapping[str, Any]) -> str:
    seconds = peer["round_trip"]
    return f", with a round trip of {1000 * seconds:.1f} ms" if seconds else ""
