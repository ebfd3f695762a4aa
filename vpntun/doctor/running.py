"""What a running tunnel has met so far: messages and packets that it dropped for reasons that somebody can mend.

The numbers are those of the status (docs/control.rst). They count from the start of the tunnel, so a fault that was
mended meanwhile is still named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from shlex import quote
from typing import NamedTuple

from vpntun.doctor.finding import Finding, Verdict, failed, ok, warning
from vpntun.doctor.subject import Subject


class Reason(NamedTuple):
    """What a reason of drops means. {peer} and {interface} are filled in; a remedy has PEER if nobody knows which.

    `nobody`: what stands in the text for {peer} if the drops belong to no peer.
    """

    verdict: Verdict
    text: str
    remedy: str
    nobody: str = "a peer"


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
    "frame came back": Reason(
        "warning",
        "frames came in from {peer} although their MAC addresses are on the other side: a second path joins the "
        "networks, or a machine has moved",
        "cut that path, or turn on STP at the bridges of both ends: 'ip link set BRIDGE type bridge stp_state 1'; the "
        "log names the addresses",
        "this side",
    ),
    "MAC address of another peer": Reason(
        "warning",
        "{peer} sent frames from MAC addresses that are in use at another peer: a second path joins their networks, or "
        "somebody takes another's address",
        "cut that path or turn on STP at their bridges; AllowedMACs limits a peer; the log names the addresses",
    ),
    "MAC address not allowed": Reason(
        "warning",
        "{peer} sent frames from MAC addresses that it is not allowed to use",
        "add them to its AllowedMACs here, or look which machine there has them: the log names them",
    ),
    "too many frames for all": Reason(
        "warning",
        "more frames for all stations came in from {peer} than are passed on",
        "look for a loop, or for a machine that floods: 'vpntun capture {interface} --print' shows the frames",
        "this side",
    ),
    "no vpntun": Reason(
        "failed",
        "{peer} is a plain WireGuard, which carries no Ethernet frames",
        "run vpntun with a TAP device there, or use a TUN device here",
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
        text = known.text.format(peer=name or known.nobody)
        remedy = known.remedy.format(peer=quote(name) if name else "PEER", interface=subject.interface)
        yield Finding("drops", known.verdict, f"{text} ({count:,} times)" if count > 1 else text, remedy)
    if not found:
        yield ok("drops", "nothing was dropped that somebody could mend")


def examine_kinds(subject: Subject) -> Iterator[Finding]:
    """Examine whether the devices of both ends carry the same. Nothing is found while that is so."""
    for peer in subject.peers:
        if peer.device is not None and peer.device != subject.device:
            there, here = peer.device.upper(), subject.device.upper()
            yield failed(
                "device",
                f"{peer.name} has a {there} device, and this end a {here} device: nothing passes",
                "start both ends with -a, or 'Device = tap' in their files, or both without",
            )


def examine_device(subject: Subject) -> Iterator[Finding]:
    """Examine whether a running tunnel's device takes superpackets."""
    if subject.takes_tcp and subject.takes_udp:
        yield ok("offloads", "the device takes superpackets of TCP and UDP")
    elif subject.takes_tcp:
        yield warning("offloads", "the device takes superpackets of TCP alone", "use Linux 6.2 or newer")
    elif subject.takes_tcp is not None:
        yield warning("offloads", "the device takes no superpackets, which is slower", "use a newer kernel")
