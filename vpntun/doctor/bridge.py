"""The bridge that a TAP device joins: whether it is there and up, its other ports, and the packet filter in its way."""

from __future__ import annotations

from collections.abc import Iterator

from vpntun.doctor.finding import Finding, failed, ok, parts_of, skipped, warning
from vpntun.doctor.host import Host
from vpntun.doctor.ruleset import Packet
from vpntun.doctor.subject import Subject
from vpntun.errors import VpntunError
from vpntun.netconf.netlink import Link

PASSES_FILTER = {4: "net/bridge/bridge-nf-call-iptables", 6: "net/bridge/bridge-nf-call-ip6tables"}
"""Whether the packets that pass a bridge go through the packet filter, as those that this machine forwards do."""


def examine_bridge(subject: Subject, host: Host) -> Iterator[Finding]:
    """Examine the bridge of a TAP device: the one that is configured, or that somebody has put the device into."""
    if subject.device != "tap":
        return
    links = {link.number: link for link in host.links()}
    own = next((link for link in links.values() if link.name == subject.interface), None)
    joined = links.get(own.master) if own is not None else None
    named = next((link for link in links.values() if link.name == subject.bridge), None)
    wrong = list(_wrong(subject, named, joined))
    yield from wrong
    bridge = named if subject.bridge is not None else joined
    if wrong or bridge is None:
        return
    ports = [link for link in links.values() if link.master == bridge.number and link.name != subject.interface]
    problems = [*_mtus(subject, bridge, ports), *_filter(bridge, host)]
    yield from problems
    if not problems:
        among = f", with {', '.join(port.name for port in ports)}" if ports else ", which has no other port"
        yield ok("bridge", f"{subject.interface} {'is in' if joined == bridge else 'joins'} {bridge.name}{among}")


def _wrong(subject: Subject, named: Link | None, joined: Link | None) -> Iterator[Finding]:
    """Yield why the configured bridge cannot pass frames.

    `named`: the device of its name. `joined`: the bridge that the tunnel's device is in.
    """
    name = subject.bridge
    if name is None:
        return
    if named is None:
        yield failed(
            "bridge",
            f"the bridge {name} is not there",
            f"'ip link add {name} type bridge', then 'ip link set {name} up'",
        )
        return
    if named.kind != "bridge":
        yield failed("bridge", f"{name} is not a bridge", "name another device by Bridge (--bridge)")
        return
    if not named.is_up:
        yield failed("bridge", f"the bridge {name} is down, so nothing passes it", f"'ip link set {name} up'")
    if subject.is_running and joined != named:
        where = f", but in {joined.name}" if joined is not None else ""
        yield failed(
            "bridge",
            f"{subject.interface} is not in the bridge {name}{where}",
            f"'ip link set {subject.interface} master {name}', or restart the tunnel",
        )
    elif joined not in (None, named):
        yield failed(
            "bridge",
            f"{subject.interface} is in {joined.name}, and cannot join {name}",
            f"'ip link set {subject.interface} nomaster', or name {joined.name} by Bridge",
        )


def _mtus(subject: Subject, bridge: Link, ports: list[Link]) -> Iterator[Finding]:
    """Compare MTUs. A bridge drops a frame that is too long for the port by which it leaves, and tells nobody."""
    mtu = subject.mtu
    if mtu is None:
        return
    for port in [bridge, *ports]:
        if port.mtu != mtu and (port is not bridge or port.mtu > mtu):
            smaller, greater = sorted(((mtu, subject.interface), (port.mtu, port.name)))
            yield warning(
                "bridge",
                f"{smaller[1]} takes packets of {smaller[0]} bytes and {greater[1]} of {greater[0]}: longer ones that "
                f"come in by {greater[1]} do not leave by {smaller[1]}, and their senders are not told",
                f"give all ports of {bridge.name} one MTU, such as 'ip link set {greater[1]} mtu {smaller[0]}', and "
                "their hosts the same",
            )


def _filter(bridge: Link, host: Host) -> Iterator[Finding]:
    """Examine whether rules about forwarded packets drop those that pass the bridge."""
    versions = [version for version, name in PASSES_FILTER.items() if host.setting(name)]
    if not versions:
        return
    try:
        rules = host.ruleset()
    except VpntunError as error:
        yield skipped("bridge", *parts_of(error))
        return
    for version in versions:
        chains = rules.droppers("forward", Packet(version, enters=bridge.name, leaves=bridge.name))
        if chains:
            setting = PASSES_FILTER[version].replace("/", ".")
            yield failed(
                "bridge",
                f"IPv{version} packets from port to port of {bridge.name} are dropped by the chain {', '.join(chains)}",
                f"'sysctl -w {setting}=0', or have the firewall forward from and to {bridge.name}",
            )
