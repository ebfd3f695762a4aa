"""State of a tunnel as the control socket sees it, from the first step of the set-up to the end.

The control socket answers before anything else is set up, since it is also the lock of the interface. So every part of
the tunnel may still be missing here: the daemon fills them in as it makes them, and whatever is missing is reported as
unknown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from vpntun.carriers.base import Carrier
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.control.reset import forget_timestamp
from vpntun.control.status import status_of, status_of_peers
from vpntun.control.verify import verify
from vpntun.datapath.links import Links
from vpntun.datapath.mirror import Mirror
from vpntun.datapath.switching.learnt import MacsOfPorts, macs_of_ports
from vpntun.datapath.switching.switch import Switch
from vpntun.errors import DeviceError, VpntunError
from vpntun.forwards.forwards import Forwards
from vpntun.link.link import Link
from vpntun.names.service import NameService
from vpntun.netconf.ethernet_kinds import bridge_with
from vpntun.netconf.netlink import Netlink
from vpntun.process.start import Start
from vpntun.runtime.loop import Loop
from vpntun.runtime.resolver import Lookups
from vpntun.services.services import Services
from vpntun.socks.proxy import Socks5Proxy
from vpntun.speed.speed_tests import SpeedTests
from vpntun.tun.base import Device
from vpntun.types import CarrierName, Interface
from vpntun.uapi.get import describe

PEERS_PER_TURN = 50
"""Peers in a part of the status, which takes a millisecond or two."""


class TunnelState:
    """A tunnel, and the parts of it that have been made so far.

    tunnel       the present settings, which running_tunnel.py changes
    start        the start, which may still be waiting for something
    device       the device; None before it is opened
    addresses    the addresses that the device was given
    carriers     the carriers of the tunnel; empty before they are opened
    mark         the mark of what the tunnel sends, 0 for none
    lookups      the look-ups of the peers' names; None before they begin
    links        the links, once there is one for each peer
    mirror       where packets are captured; None before there is an engine
    switch       the switch of a TAP device; None on a TUN device, and before there is an engine
    speed_tests  the speed tests of the links; None before the engine is made
    names        the name server; None before the device has its addresses
    forwards     the forwards; None before the device has its addresses
    services     services by name; None before then, too
    socks5       the SOCKS5 proxy; None where there is none
    is_running   whether the tunnel has been set up and its loop runs
    """

    def __init__(self, tunnel: Tunnel, start: Start, loop: Loop, drops: Counter[str]) -> None:
        self.tunnel = tunnel
        self.start = start
        self.device: Device | None = None
        self.addresses: Sequence[Interface] = ()
        self.carriers: Mapping[CarrierName, Carrier] = {}
        self.mark = 0
        self.lookups: Lookups | None = None
        self.links: Links | None = None
        self.mirror: Mirror | None = None
        self.switch: Switch | None = None
        self.speed_tests: SpeedTests | None = None
        self.names: NameService | None = None
        self.forwards: Forwards | None = None
        self.services: Services | None = None
        self.socks5: Socks5Proxy | None = None
        self.is_running = False
        self._loop = loop
        self._drops = drops
        self._began = loop.now

    def status(self) -> dict[str, Any]:
        """Return the complete status."""
        return self._status(self.tunnel)

    def write_status(self) -> Iterator[str | None]:
        """Yield the complete status as JSON, and None where the loop may go on.

        With many peers it takes longer than packets may wait. Each part is as of its own turn of the loop.
        """
        tunnel = self.tunnel
        yield json.dumps(self._status(replace(tunnel, peers=()))).removesuffix("]}")
        for begin in range(0, len(tunnel.peers), PEERS_PER_TURN):
            if begin:
                yield None
                yield ", "
            some = replace(tunnel, peers=tunnel.peers[begin : begin + PEERS_PER_TURN])
            peers = status_of_peers(some, self._link_of, is_resolved=self._is_resolved, macs=self._macs())
            yield json.dumps(peers)[1:-1]
        yield "]}"

    def status_of_some(self, begin: int, end: int) -> dict[str, Any]:
        """Return the status with the peers from number `begin` to before `end` only."""
        return self._status(replace(self.tunnel, peers=self.tunnel.peers[begin:end]))

    def status_of_peer(self, public: bytes) -> dict[str, Any]:
        """Return the status with one peer only; without any if there is no such peer."""
        peers = tuple(peer for peer in self.tunnel.peers if peer.public == public)
        return self._status(replace(self.tunnel, peers=peers))

    def _status(self, tunnel: Tunnel) -> dict[str, Any]:
        return status_of(
            tunnel,
            self._link_of,
            starting=self.start.waits_for,
            is_resolved=self._is_resolved,
            mtu=self._mtu(),
            addresses=self.addresses,
            drops=self._drops,
            uptime=self._loop.now - self._began,
            mac=self._mac(),
            in_bridge=self._in_bridge(),
            macs=self._macs(),
            names=self.names.status() if self.names is not None else None,
            forwards=self.forwards.status() if self.forwards is not None else (),
            socks5=self.socks5.status() if self.socks5 is not None else None,
        )

    def lines_for_wg(self) -> Iterator[str]:
        """Yield the lines of the answer to wg(8), as in uapi/get.py."""
        port = next(filter(None, (carrier.port for carrier in self.carriers.values())), 0)
        return describe(self.tunnel, self._link_of, port=port, mark=self.mark)

    def forget_timestamp(self, called: str | None) -> str:
        """Forget the last timestamp of a peer, as control/reset.py. Raises VpntunError while there are no links."""
        return forget_timestamp(self.tunnel.peers, self.link_of, called)

    def verify(self, called: str | None) -> dict[str, Any]:
        """Ask peers whether data arrives, as control/verify.py."""
        return verify(self.tunnel.peers, self._link_of, called)

    def verify_some(self, begin: int, end: int) -> bool:
        """Ask the peers from number `begin` to before `end` only; return whether an answer is awaited."""
        return bool(verify(self.tunnel.peers[begin:end], self._link_of, None)["awaited"])

    def link_of(self, public: bytes) -> Link:
        """Return the link of a peer. Raises VpntunError while there are no links."""
        link = self._link_of(public)
        if self.is_running and self.tunnel.identity is None:
            raise VpntunError(
                f"{self.tunnel.interface} has no private key: give it one with "
                f"'wg set {self.tunnel.interface} private-key FILE'"
            )
        if link is None:
            raise VpntunError(f"{self.tunnel.interface} is still being set up")
        return link

    def _link_of(self, public: bytes) -> Link | None:
        if self.links is None:
            return None
        with suppress(KeyError):  # a peer that a reload is about to add or remove
            return self.links.of(public)
        return None

    def _is_resolved(self, peer: PeerSettings) -> bool:
        return peer.host is None or (self.lookups is not None and self.lookups.has_found(peer.host, peer.port))

    def _mtu(self) -> int | None:
        with suppress(DeviceError):  # the device may be in another network namespace, or have another name
            return self.device.mtu if self.device is not None else None
        return None

    def _mac(self) -> bytes:
        with suppress(DeviceError):
            return self.device.mac if self.device is not None else b""
        return b""

    def _in_bridge(self) -> str | None:
        if self.device is None or self.device.kind == "tun":
            return None
        with suppress(DeviceError, OSError), Netlink() as netlink:
            return bridge_with(netlink, self.device.name)
        return None

    def _macs(self) -> MacsOfPorts | None:
        return macs_of_ports(self.switch.table, self._loop.now) if self.switch is not None else None
