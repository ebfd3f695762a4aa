"""Findings about the other end: it is asked for its half inside the tunnel, and its answer is untrusted.

All peers that can answer are asked at once. An answer takes about half a second, since the other end examines its
machine meanwhile, and 10 s at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, get_args
from urllib.parse import quote

from vpntun import __version__
from vpntun.doctor.examination import Check
from vpntun.doctor.finding import Finding, Verdict, failed, ok, skipped, warning
from vpntun.doctor.inside.half import LONGEST_TEXT
from vpntun.doctor.subject import Request
from vpntun.errors import VpntunError
from vpntun.runtime.clock import boottime
from vpntun.serving.http import target_of
from vpntun.wire.message import LARGEST

SECONDS = 12.0
SECONDS_BETWEEN = 0.1
SECONDS_BETWEEN_LOOKS = 1.0
SILENT_AFTER = 3
"""Seconds in which a peer is asked three times whether data arrives."""
MOST_ASKED = 8
MOST_FINDINGS = 40
LARGEST_DIFFERENCE = 5.0
"""Seconds between the clocks of both ends beyond which a finding says so."""
LATEST = 1e12
"""A later time in seconds is none that a clock has."""
LEAST_LOSS = 0.0005
"""What is printed as 0.1%; less is as good as nothing."""
LARGEST_LOSS = 0.02
ADVICE_ON_SILENCE = "if the peer is up, its answers are lost: 'vpntun show' tells of the loss on the path"


def checks_of_other_ends(interface: str, request: Request) -> list[Check]:
    """Ask the connected peers of a running tunnel, up to a number; return a check for each, which awaits its answer."""
    try:
        status = request("GET", "/v1/status")
    except VpntunError:  # its own check says so
        return []
    checks = []
    connected = [peer for peer in status["peers"] if peer["state"] == "connected"]
    for peer in connected[:MOST_ASKED]:
        name = peer["name"] or (peer["public_key"] if len(status["peers"]) > 1 else "")
        about = f"{interface}: the other end" + (f", {name}" if name else "")
        checks.append(Check("other end", _asked(peer, request), about, SECONDS))
    if len(connected) > MOST_ASKED:
        more = f"{len(connected) - MOST_ASKED} more connected peers, of which none was asked"
        checks.append(Check("other end", lambda: [skipped("other end", more)], interface))
    return checks


def _asked(peer: Mapping[str, Any], request: Request) -> Callable[[], Iterable[Finding]]:
    """Ask a peer; return what awaits its answer."""
    if "data_verified" not in peer:
        why = "the running tunnel is of an older version, which cannot ask it"
        return lambda: [skipped("other end", why, "restart the tunnel")]
    if not peer["vpntun"]:
        return lambda: [skipped("other end", "it is a plain WireGuard, which answers no questions")]
    try:
        id = request("POST", f"/v1/examine?peer={quote(peer['public_key'])}")["id"]
    except VpntunError as error:
        reason = str(error)
        return lambda: [skipped("other end", reason)]
    return lambda: _awaited(id, peer["public_key"], request)


def _awaited(id: int, key: str, request: Request) -> Iterator[Finding]:
    """Poll for the answer of the peer with this public key, and yield what it contains.

    A link that carries no data carries no answer, and another check has said so. Then there is nothing to wait for.
    """
    look_at = boottime() + SECONDS_BETWEEN_LOOKS
    while (found := request("GET", f"/v1/examined?id={id}"))["state"] == "asked":
        if boottime() >= look_at:
            if _carries_nothing(key, request):
                yield skipped("other end", "the link carries no data")
                return
            look_at = boottime() + SECONDS_BETWEEN_LOOKS
        time.sleep(SECONDS_BETWEEN)
    if found["state"] == "answered":
        yield from judge(found["answer"], found["asked"], found["answered"])
    else:
        yield failed("other end", "it has not answered within 10 s", ADVICE_ON_SILENCE)


def _carries_nothing(key: str, request: Request) -> bool:
    """Ask a peer whether data arrives, and return whether it has left such questions unanswered, or has no link."""
    with suppress(VpntunError):  # an older tunnel, or the peer has been removed
        request("POST", target_of("/v1/verify", {"peer": key}))
        for peer in request("GET", "/v1/status")["peers"]:
            if peer["public_key"] == key:
                return peer["state"] != "connected" or (peer.get("data_unanswered_for") or 0) >= SILENT_AFTER
    return False


def judge(answer: Mapping[str, Any], asked_at: float, answered_at: float) -> Iterator[Finding]:
    """Yield the findings of an answer, which is untrusted. `asked_at`, `answered_at`: by this end's wall clock."""
    if "refused" in answer:
        yield skipped("other end", f"it refuses: {_cut(answer['refused'])}")
        return
    version = _cut(answer.get("version", "of an unknown version"))
    if version == __version__:
        yield ok("other end", f"it runs vpntun {version}, as this end")
    else:
        yield warning(
            "other end", f"it runs vpntun {version}, and this end {__version__}", "install the newer version at both"
        )
    yield from _clocks(answer.get("time"), asked_at, answered_at)
    link = answer.get("link")
    yield from _link(link if isinstance(link, dict) else {})
    findings = answer.get("findings")
    for each in findings[:MOST_FINDINGS] if isinstance(findings, list) else ():
        finding = finding_in(each)
        if finding is not None:
            yield finding


def finding_in(content: Any) -> Finding | None:
    """Return a finding of the other end; None if it is none."""
    if not isinstance(content, dict):
        return None
    texts = [content.get(name) for name in ("check", "verdict", "text", "remedy")]
    check, verdict, text, remedy = (_cut(each) if isinstance(each, str) else "" for each in texts)
    if verdict not in get_args(Verdict) or not (check and text):
        return None
    return Finding(check, verdict, text, remedy)  # type: ignore[arg-type]


def _clocks(there: Any, asked_at: float, answered_at: float) -> Iterator[Finding]:
    """Compare the clocks. The other end read its own between asking and answering."""
    if isinstance(there, bool) or not isinstance(there, int | float) or abs(there) > LATEST:
        return
    ahead = there - answered_at if there > answered_at else min(0.0, there - asked_at)
    if abs(ahead) <= LARGEST_DIFFERENCE:
        yield ok("clock", "its clock and this one agree")
        return
    yield warning(
        "clock",
        f"its clock is {_span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this one: once a clock is set back, "
        "handshakes may be refused for a while",
        "have both clocks kept right: 'timedatectl set-ntp true'",
    )


def _link(link: Mapping[str, Any]) -> Iterator[Finding]:
    """Say how the link looks from there."""
    carrier, endpoint, loss, mtu = (link.get(name) for name in ("carrier", "endpoint", "loss", "path_mtu"))
    parts = [f"it reaches this end at {_cut(endpoint)} by {_cut(carrier).upper()}"]
    if isinstance(mtu, int) and 0 < mtu <= LARGEST:
        parts.append(f"in datagrams of up to {mtu} bytes")
    lost = float(loss) if isinstance(loss, float | int) and LEAST_LOSS <= loss <= 1 else None
    if lost is not None:
        parts.append(f"and {lost:.1%} of them are lost")
    if endpoint is None:
        return
    if lost is not None and lost > LARGEST_LOSS:
        yield warning("way back", ", ".join(parts), "look for a bad cable, weak radio, or a full link on the way")
    else:
        yield ok("way back", ", ".join(parts))


def _cut(words: Any) -> str:
    return str(words)[:LONGEST_TEXT]


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
