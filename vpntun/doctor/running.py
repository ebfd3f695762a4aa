"""What a running tunnel has met so far: messages and packets that it dropped for reasons that somebody can mend.

The numbers are those of the status (docs/control.rst). They count from the start of the tunnel, so a fault that was
mended meanwhile is still named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from shlex import quote
from typing import NamedTuple

from vpntun.doctor.finding import Finding, Verdict, ok, warning
from vpntun.doctor.subject import Subject


class Reason(NamedTuple):
    """What a reason of drops means. {peer} and {interface} are filled in; a remedy has PEER if nobody knows which."""

    verdict: Verdict
    text: str
    remedy: str


REASONS = {
    "old timestamp": Reason(
        "warning",
        "a handshake of {peer} had an older timestamp than the one before: its clock was set back, a second machine "
        "uses its key, or somebody replays",
        "look at that machine's clock and key, then 'vpntun reset {interface} {peer}'",
    ),
    "own key": Reason(
        "failed",
        "a message came with this end's own key",
        "two servers, or two clients, share one key: start one end as the server (-s) and the other as the client (-c)",
    ),
    "unknown peer": Reason(
        "warning",
        "a handshake came with a key that is not configured here",
        "if a peer cannot connect, compare its 'vpntun pubkey' with its PublicKey in this end's file",
    ),
    "routing loop": Reason(
        "warning",
        "the route to {peer} has led into the tunnel itself",
        "if the check 'route to peer' finds that still, do what it says; the log names the address",
    ),
    "source not allowed": Reason(
        "warning",
        "{peer} sent packets from addresses that it is not allowed to use",
        "add them to its AllowedIPs here (--allowed), or have the peer send from its own address",
    ),
    "no route": Reason(
        "warning",
        "packets were sent into the tunnel for addresses that no peer has",
        "add them to a peer's AllowedIPs, or route them elsewhere",
    ),
    "no session": Reason(
        "warning",
        "packets waited 90 s for {peer}, which answered no handshake",
        "look whether it runs, and whether its port is open",
    ),
    "undeliverable": Reason(
        "warning",
        "this host could not send messages to {peer}",
        "look for a missing route, or a firewall that drops what leaves",
    ),
    "internal error": Reason(
        "failed", "vpntun has met a bug, and dropped what triggered it", "please report the traceback in the log"
    ),
}


def examine_drops(subject: Subject) -> Iterator[Finding]:
    """Examine what a running tunnel has dropped."""
    found: Counter[tuple[str, str]] = Counter()
    for name, drops in [("", subject.drops), *((peer.name, peer.drops) for peer in subject.peers)]:
        found.update({(reason, name): count for reason, count in drops.items() if reason in REASONS and count})
    for (reason, name), count in found.items():
        known = REASONS[reason]
        text = known.text.format(peer=name or "a peer")
        remedy = known.remedy.format(peer=quote(name) if name else "PEER", interface=subject.interface)
        yield Finding("drops", known.verdict, f"{text} ({count:,} times)" if count > 1 else text, remedy)
    if not found:
        yield ok("drops", "nothing was dropped that somebody could mend")


def examine_device(subject: Subject) -> Iterator[Finding]:
    """Examine whether a running tunnel's device takes superpackets."""
    if subject.takes_tcp and subject.takes_udp:
        yield ok("offloads", "the device takes superpackets of TCP and UDP")
    elif subject.takes_tcp:
        yield warning("offloads", "the device takes superpackets of TCP alone", "use Linux 6.2 or newer")
    elif subject.takes_tcp is not None:
        yield warning("offloads", "the device takes no superpackets, which is slower", "use a newer kernel")
