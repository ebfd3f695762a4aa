"""Network of a run's namespace, in place of this machine's: the surroundings of the tunnel's daemon (process/).

The machine's network stays as it is: no mark, no rules, no hooks. The tunnel's own packets leave by the machine's
routes, and names of peers are looked up there. In the namespace the device has the only way out:

    addresses    those of the tunnel
    routes       --route, else the allowed IPs of all peers; only of IP versions of which the tunnel has an address
    DNS          in the files that programs read there (files.py)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_interface

from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import HookLines, Routing, Tunnel
from vpntun.errors import ConfigurationError, DeviceError
from vpntun.namespace.device import NamespaceDevice
from vpntun.namespace.holder import SECONDS_TO_START, Holder
from vpntun.netconf.following.watch import NetworkWatch
from vpntun.netconf.localnets import OwnAddresses
from vpntun.runtime.log import log
from vpntun.types import Interface, Network

ROUTES_AT_ONCE = 200
"""Routes in one request, which takes the holder some 100 ms."""
SECONDS_FOR_ROUTES = 5.0
"""How long the loop waits for that, at a reload."""


class NamespaceNetwork:
    """What the daemon needs to know of the namespace (Surroundings and TunnelNetwork in process/surroundings.py)."""

    mark = 0
    needs_its_mark = False
    may_lead_look_ups_inside = False
    device_here = None

    def __init__(self, tunnel: Tunnel, holder: Holder, stack: ExitStack) -> None:
        """Make the device, with its addresses, and the files. Raises VpntunError."""
        self._tunnel = tunnel
        self._holder = holder
        mtu = tunnel.mtu or tunnel.default_mtu
        try:
            made, descriptors = holder.ask(
                "set_up",
                SECONDS_TO_START,
                interface=tunnel.interface,
                mtu=mtu,
                addresses=[str(each) for each in tunnel.own_addresses],
                dns=list(tunnel.dns),
            )
        except OSError as error:
            raise DeviceError(f"the namespace cannot be set up: {error.strerror}") from error
        self._addresses = [ip_interface(each) for each in made["addresses"]]
        self._routes: dict[Network, None] = {}
        self.device = NamespaceDevice(tunnel.interface, descriptors[0], mtu, made["offloads"])
        stack.callback(self.device.close)

    def set_up_device(self) -> list[Interface]:
        """Return the addresses that the device has."""
        return self._addresses

    def apply(self, peers: Collection[PeerSettings], is_found: Callable[[str, int], bool]) -> list[PeerSettings]:
        """Route the networks of these peers into the tunnel, and no other. Raises VpntunError."""
        wanted = dict.fromkeys(self._tunnel.routes or [network for peer in peers for network in peer.allowed])
        versions = {each.version for each in self._addresses}
        wanted = {each: None for each in wanted if each.version in versions}
        try:
            self._change_routes(
                [each for each in wanted if each not in self._routes],
                [each for each in self._routes if each not in wanted],
            )
        except OSError as error:
            raise DeviceError(f"the routes of the namespace cannot be set: {error.strerror}") from error
        return []

    def _change_routes(self, add: list[Network], remove: list[Network]) -> None:
        """Add routes and remove others, piece by piece. Raises VpntunError or OSError; then some may have changed."""
        for some in _pieces(add):
            self._holder.ask("change_routes", SECONDS_FOR_ROUTES, add=list(map(str, some)), remove=[])
            self._routes.update(dict.fromkeys(some))
        for some in _pieces(remove):
            self._holder.ask("change_routes", SECONDS_FOR_ROUTES, add=[], remove=list(map(str, some)))
            for each in some:
                del self._routes[each]

    def when_set(self, callback: Callable[[], None]) -> None:
        """Call back at once: nothing waits here."""
        callback()

    def wait(self) -> None:
        """Wait for nothing."""

    def change_mark(self, mark: int) -> None:
        """Leave the sockets without a mark, which is for the machine's rules."""

    def peers_connect_at(self, tcp_port: int | None) -> None:
        """Note nothing: no rule of the machine depends on it."""

    def own_addresses(self, watch: NetworkWatch) -> OwnAddresses:
        """Return the addresses of the namespace, for the relay."""
        own = [(each.ip.packed, self.device.name) for each in self._addresses]
        return OwnAddresses(self.device.name, lambda: False, lambda: own)

    def keep_up(self, watch: NetworkWatch) -> None:
        """Keep nothing up: nobody in the namespace has the right to change its settings."""

    def look_again(self) -> None:
        """Look at nothing."""

    def hold(self) -> bool:
        """Hold nothing for the end, and need no privilege then."""
        return False


def for_namespace(tunnel: Tunnel) -> Tunnel:
    """Return a tunnel without what concerns the machine alone; a line of the log names what is left out.

    Raises ConfigurationError for a tunnel that cannot be run in a namespace.
    """
    if tunnel.device != "tun":
        raise ConfigurationError(
            f"{tunnel.interface} has Device = tap, and 'vpntun run' carries IP packets alone: use a tunnel with a TUN "
            "device"
        )
    _ = tunnel.keys
    if left_out := list(_of_the_machine(tunnel)):
        log.warning("not carried out in a namespace: %s", ", ".join(left_out))
    return replace(tunnel, hooks=HookLines(), user=None, routing=Routing(), names=None)


def _of_the_machine(tunnel: Tunnel) -> Iterator[str]:
    """Name the settings that concern this machine alone, and the name server, which a run does not have."""
    hooks = tunnel.hooks
    for key, lines in (
        ("PreUp", hooks.pre_up),
        ("PostUp", hooks.post_up),
        ("PreDown", hooks.pre_down),
        ("PostDown", hooks.post_down),
    ):
        if lines:
            yield key
    if isinstance(tunnel.routing.table, int):
        yield "Table"
    if tunnel.routing.fwmark:
        yield "FwMark"
    if tunnel.user is not None:
        yield "User"
    if tunnel.names is not None:
        yield "DnsServer"


def _pieces(networks: list[Network]) -> Iterator[list[Network]]:
    for begin in range(0, len(networks), ROUTES_AT_ONCE):
        yield networks[begin : begin + ROUTES_AT_ONCE]
