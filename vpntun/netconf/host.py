"""This host's network as one tunnel changes it: the device, routes, rules and name servers. Some may wait for names.

A full tunnel, a network that may contain a name server, and name servers of the tunnel's own may lead look-ups into the
tunnel. As long as the peer behind them has a name that was never found, such a look-up can never be answered: the peer
would be needed to find the peer. So these wait, and meanwhile this host's network stays as it was:

    allowed IPs of a peer whose name is unknown    wait, if they may contain a name server, or one of DNS is among them
    DNS                                            waits for all peers for which allowed IPs wait
    everything else                                is set at once

If no peer can be reached yet, because the names of all are unknown, the allowed IPs of all of them wait. Where neither
DNS nor a mark is needed, nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack, suppress

from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.errors import DeviceError
from vpntun.netconf.dns import HostDns, server_of
from vpntun.netconf.journal import Journal
from vpntun.netconf.netlink import netlink_error
from vpntun.netconf.route_plan import versions_with_endpoints
from vpntun.netconf.routing import HostRoutes
from vpntun.netconf.settings import DeviceSettings
from vpntun.netconf.upkeep import Part
from vpntun.runtime.log import notice
from vpntun.runtime.loop import Loop
from vpntun.tun.base import Device
from vpntun.tun.ipv6 import addresses_of, carried_networks
from vpntun.tun.link_local import make_no_link_local
from vpntun.tun.queries import is_up
from vpntun.tun.superpackets import limit_superpackets
from vpntun.types import Interface, Network
from vpntun.wire.ethernet.frame import LARGEST_HEADER
from vpntun.wire.ethernet.mac import derived_mac


class HostNetwork:
    """The device's settings, routes, rules and name servers of one tunnel. They are taken back at the end, by `stack`.

    `mark`: the mark that the tunnel's sockets must carry at first, 0 for none. `set_mark` gives them another.
    """

    def __init__(
        self,
        tunnel: Tunnel,
        device: Device,
        journal: Journal,
        stack: ExitStack,
        set_mark: Callable[[int], None],
        loop: Loop,
    ) -> None:
        """Choose the mark. Raises ConfigurationError."""
        self._tunnel = tunnel
        self._device = device
        self._journal = journal
        self._stack = stack
        self._kept: list[Part] = []
        routing = tunnel.routing
        self._table = routing.table
        self._name_servers = [each for each in map(server_of, tunnel.dns) if each is not None]
        self._routes = HostRoutes(
            device.name,
            routing.table,
            routing.fwmark,
            journal,
            ephemeral=device.created,
            tcp_port=tunnel.tcp_port,
            set_mark=set_mark,
        )
        stack.callback(self._routes.undo)
        self._loop = loop
        self._has_dns = False
        self._dns = HostDns(tunnel.interface, tunnel.dns, journal, loop)
        stack.callback(self._dns.undo)
        self.mark = self._routes.choose_mark(_routed(tunnel.peers))
        self.may_lead_look_ups_inside = bool(tunnel.dns or self.mark)

    @property
    def parts(self) -> list[Part]:
        """What has to be kept as it was set."""
        return [*self._kept, self._routes]

    @property
    def needs_its_mark(self) -> bool:
        """Whether the tunnel's rules need the present mark, so that another one takes a restart."""
        return self._routes.needs_its_mark

    def set_up_device(self) -> list[Interface]:
        """Set addresses, routes and MTU of the device, and bring it up; return its addresses. Raises VpntunError."""
        tunnel, device = self._tunnel, self._device
        if tunnel.is_set_by_wg:
            self._prepare_device()
            return []
        mtu = tunnel.mtu or (tunnel.default_mtu if device.created else None)
        addresses = addresses_of(tunnel, mtu or device.mtu) if tunnel.addresses or device.created else []
        routes = carried_networks(device.name, mtu or device.mtu, tunnel.routes)
        mac = self._mac()
        if addresses or routes or any(each is not None for each in (mtu, mac, tunnel.bridge)):
            settings = DeviceSettings(device.name, self._journal, ephemeral=device.created)
            self._stack.callback(settings.undo)
            if device.created and tunnel.bridge is not None:
                make_no_link_local(device.name)
            settings.apply(addresses, routes, mtu, mac=mac, bridge=tunnel.bridge, gateways=tunnel.gateways)
            self._kept.append(settings)
            if tunnel.bridge is not None:
                _notice_if_down(tunnel.bridge)
            elif device.created:
                limit_superpackets(device.name, device.mtu, LARGEST_HEADER if device.kind == "tap" else 0)
        elif not device.is_up:
            notice("the device is down and is left as it was found: 'ip link set %s up' brings it up", device.name)
        return addresses

    def apply(self, peers: Collection[PeerSettings], is_found: Callable[[str, int], bool]) -> list[PeerSettings]:
        """Set what can be set for these peers, take back the routes to all others; return the peers that it waits for.

        The device must have its addresses and be up. `is_found`: whether a name was ever found. Raises VpntunError, and
        then no route has changed.
        """
        awaited = self.awaited(peers, is_found)
        if not self._has_dns and not awaited:
            self._dns.apply()
            self._has_dns = True
        waiting = {peer.public for peer in awaited}
        try:
            self._routes.apply(_routed(peer for peer in peers if peer.public not in waiting))
        except (OSError, netlink_error()) as error:
            raise DeviceError(f"the routes cannot be set, because the kernel cannot be asked: {error}") from error
        return awaited

    def when_set(self, callback: Callable[[], None]) -> None:
        """Call back once what `apply` has begun to set is set: resolvconf may still be running."""
        self._dns.when_set(callback)

    def wait(self) -> None:
        """Serve the loop, before it runs, until that is set. Returns earlier if the loop is stopped."""
        ends: list[bool] = []
        self.when_set(lambda: ends.append(True))
        self._loop.serve(lambda: bool(ends))

    def rules_changed(self) -> None:
        """Note that rules of this host have changed."""
        with suppress(DeviceError, OSError):  # the upkeep looks again
            self._routes.rules_changed()

    def change_mark(self, mark: int) -> None:
        """Give the tunnel's sockets another mark of the operator's, as HostRoutes.change_mark."""
        self._routes.change_mark(mark)
        self.rules_changed()

    def peers_connect_at(self, tcp_port: int | None) -> None:
        """Note another port where the peers connect by TCP, None if they do not."""
        self._routes.peers_connect_at(tcp_port)

    def awaited(self, peers: Collection[PeerSettings], is_found: Callable[[str, int], bool]) -> list[PeerSettings]:
        """List the peers whose names are unknown, and must be found before anything may lead to them."""
        if not self.may_lead_look_ups_inside:
            return []
        unknown = [peer for peer in peers if peer.host is not None and not is_found(peer.host, peer.port)]
        if len(unknown) == len(peers):
            return unknown
        return [peer for peer in unknown if self._may_contain_name_server(peer.allowed)]

    def _prepare_device(self) -> None:
        """Give the device the usual MTU and leave the rest to whoever sets the tunnel up, as WireGuard does."""
        device = self._device
        if device.created:
            DeviceSettings(device.name, ephemeral=True).apply([], [], self._tunnel.default_mtu, up=False)
            limit_superpackets(device.name, device.mtu)

    def _mac(self) -> bytes | None:
        """Return the MAC address that the device is to have; None where it keeps the one that it has.

        A new TAP device has one of the kernel's, which is random, if its key comes later, by PostUp.
        """
        tunnel, device = self._tunnel, self._device
        if tunnel.mac is None and device.kind == "tap" and device.created and tunnel.identity is not None:
            return derived_mac(tunnel.identity.public)
        return tunnel.mac

    def _may_contain_name_server(self, allowed: Collection[Network]) -> bool:
        if any(server in network for server in self._name_servers for network in allowed):
            return True
        return self._table == "auto" and bool(versions_with_endpoints(allowed))


def _notice_if_down(bridge: str) -> None:
    if not is_up(bridge):
        notice("the bridge is down, and nothing passes: 'ip link set %s up' brings it up", bridge)


def _routed(peers: Iterable[PeerSettings]) -> set[Network]:
    """Return the networks that are to be routed to these peers."""
    return {network for peer in peers for network in peer.allowed}
