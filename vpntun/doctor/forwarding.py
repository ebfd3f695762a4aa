"""Forwarding through a tunnel: the kernel's settings, its reverse path filter, and the packet filter's rules.

A machine forwards if peers reach each other through it, or networks beyond the tunnel's own, through its kernel. It
need not if this end only calls, nor from peer to peer with ``Relay = yes``. Frames of a TAP device are switched, by
vpntun and by the bridge that the device is in (bridge.py), so of all this only the port where peers call matters there.
The same holds for a run, whose device is in a namespace that forwards nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from vpntun.doctor.finding import Finding, failed, ok, parts_of, skipped, warning
from vpntun.doctor.host import Host
from vpntun.doctor.routes import ANYWHERE
from vpntun.doctor.ruleset import Packet, Ruleset
from vpntun.doctor.subject import Subject
from vpntun.errors import VpntunError
from vpntun.types import IpAddress, Network

FORWARDS = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
STRICT = 1


def examine_forwarding(subject: Subject, host: Host) -> Iterator[Finding]:
    """Examine whether the kernel forwards what peers send through this machine."""
    if subject.device == "tap" or subject.in_run:
        return
    needed = reasons_to_forward(subject)
    for version, reason in needed.items():
        name = FORWARDS[version]
        if host.setting(name):
            yield ok("forwarding", f"the kernel forwards IPv{version}")
        else:
            relay = "; or, from peer to peer alone, set 'Relay = yes'" if "peers" in reason else ""
            yield warning(
                "forwarding",
                f"the kernel does not forward IPv{version}, so {reason}",
                f"if they should, 'sysctl -w {name.replace('/', '.')}=1'{relay}",
            )
    if not needed:
        yield ok(
            "forwarding", "this tunnel needs none" + (": vpntun relays from peer to peer" if subject.relay else "")
        )


def reasons_to_forward(subject: Subject) -> dict[int, str]:
    """Return what needs the kernel's forwarding, by IP version."""
    reasons: dict[int, str] = {}
    own = [address.network for address in subject.addresses]
    for network, peer in subject.allowed.items():
        beyond = not any(network.version == each.version and network.overlaps(each) for each in own)
        if beyond and peer.calls:
            reasons.setdefault(network.version, f"{network} of {peer.name} is reached by this machine alone")
    if len(subject.peers) > 1 and not subject.relay:
        versions = {network.version for network in subject.allowed}
        reasons |= dict.fromkeys(versions, "peers cannot reach each other through this machine")
    return dict(sorted(reasons.items()))


def examine_filter(subject: Subject, host: Host) -> Iterator[Finding]:
    """Examine whether a strict reverse path filter drops what peers send over IPv4."""
    if not subject.is_running or subject.device == "tap" or subject.in_run:
        return
    if subject.full and 4 in subject.full:
        yield from _outer_filter(subject, host)
    if not _is_strict(subject.interface, host):
        yield ok("rp_filter", f"the reverse path filter of {subject.interface} is not strict")
        return
    all_lead_back = True
    for network, peer in subject.allowed.items():
        devices = [host.device_to(each) for each in _samples(network, subject)] if network.version == 4 else []
        if devices and subject.interface not in devices:
            device, all_lead_back = devices[0], False
            yield failed(
                "rp_filter",
                f"packets from {network} of {peer.name} are dropped: the reverse path filter of {subject.interface} is "
                f"strict, and the route back leads {f'through {device}' if device else 'nowhere'}",
                f"route it back ('ip route add {network} dev {subject.interface}'), or 'sysctl -w "
                f"net.ipv4.conf.{subject.interface}.rp_filter=2'",
            )
    if all_lead_back:
        yield ok("rp_filter", "the reverse path filter is strict, and the routes back lead into the tunnel")


def _outer_filter(subject: Subject, host: Host) -> Iterator[Finding]:
    """Examine the devices outside a full tunnel, where answers without the mark would leave by the tunnel."""
    device = next(
        filter(None, (host.device_to(peer.address, subject.mark) for peer in subject.peers if peer.address)), None
    )
    if device is not None and _is_strict(device, host) and not host.setting("net/ipv4/conf/all/src_valid_mark"):
        yield failed(
            "rp_filter",
            f"the peers' packets are dropped: the reverse path filter of {device} is strict, and does not mind marks",
            "'sysctl -w net.ipv4.conf.all.src_valid_mark=1', or restart the tunnel, which sets it",
        )


def _is_strict(device: str, host: Host) -> bool:
    """Whether the filter is strict: the kernel takes the greater of two settings, and 2 is loose."""
    settings = (host.setting(f"net/ipv4/conf/{name}/rp_filter") or 0 for name in ("all", device))
    return max(settings) == STRICT


def _samples(network: Network, subject: Subject) -> list[IpAddress]:
    """Return some addresses of a network that peers may have: parts of it may be this machine's, or lead elsewhere."""
    last = network.num_addresses - 1
    some = [network[index] for index in sorted({min(1, last), last // 2, max(0, last - 1)})]
    return [each for each in some if all(each != own.ip for own in subject.addresses)]


def examine_firewall(subject: Subject, host: Host) -> Iterator[Finding]:
    """Examine whether the packet filter lets peers call, and lets through what is forwarded."""
    may_forward = subject.device == "tun" and not subject.in_run
    may_forward &= len(subject.peers) > 1 or any(peer.calls for peer in subject.peers)
    wants_forwarding = [version for version in FORWARDS if may_forward and host.setting(FORWARDS[version])]
    if subject.port is None and not wants_forwarding:
        yield ok("firewall", "this end calls, and forwards nothing: no rule has to let anything in")
        return
    try:
        rules = host.ruleset()
    except VpntunError as error:
        yield skipped("firewall", *parts_of(error))
        return
    if host.has_legacy_rules():
        yield skipped("firewall", "rules of iptables-legacy are not examined", "see 'iptables-legacy -S'")
    found = [
        *_port(subject, host, rules),
        *(each for v in wants_forwarding for each in _forwarded(subject, host, rules, v)),
    ]
    yield from found
    if not found:
        yield ok("firewall", "no rule drops what peers send to this machine, or through it")


def _port(subject: Subject, host: Host, rules: Ruleset) -> Iterator[Finding]:
    """Examine the port where peers call, over the IP versions in which this host has an address for them.

    It is a fault if no call can come in and a peer has to call; otherwise the operator may have meant it so.
    """
    if subject.port is None:
        return
    outside = [each for each in host.addresses() if each.device not in ("lo", subject.interface)]
    used = sorted({each.network.version for each in outside if not each.network.is_link_local}) or [4, 6]
    dropped = {
        (carrier, version): rules.droppers("input", Packet(version, carrier, subject.port))
        for carrier in subject.carriers
        for version in used
    }
    is_fault = all(dropped.values()) and any(peer.calls for peer in subject.peers)
    for carrier in subject.carriers:
        closed = [version for version in used if dropped[carrier, version]]
        if closed:
            chains = ", ".join(dict.fromkeys(chain for version in closed for chain in dropped[carrier, version]))
            which = "" if closed == used else f" over IPv{closed[0]}"
            text = f"calls to {carrier.upper()} port {subject.port}{which} are dropped by the chain {chains}"
            remedy = f"have the firewall accept {carrier} port {subject.port}"
            yield (
                failed("firewall", text, remedy)
                if is_fault
                else warning("firewall", text, f"if peers should call there, {remedy}")
            )


def _forwarded(subject: Subject, host: Host, rules: Ruleset, version: int) -> Iterator[Finding]:
    """Examine forwarding between the tunnel and the other devices; between peers too, if there are several."""
    inside, chains = subject.interface, dict[str, None]()
    outside = host.device_to(ANYWHERE[version], subject.mark) or ""
    ways = [(inside, outside), (outside, inside)] if outside and outside != inside else []
    if len(subject.peers) > 1 and not subject.relay:
        ways.append((inside, inside))
    elif not ways:
        ways = [(inside, "")]
    for enters, leaves in ways:
        chains |= dict.fromkeys(rules.droppers("forward", Packet(version, enters=enters, leaves=leaves)))
    if chains:
        yield warning(
            "firewall",
            f"IPv{version} packets that this machine forwards from or to {inside} are dropped by the chain "
            f"{', '.join(chains)}",
            f"if peers should reach more than this machine, have the firewall forward from and to {inside}",
        )
