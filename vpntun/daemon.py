"""Daemon of one tunnel: sets everything up, runs the tunnel, and undoes everything.

The steps, in order, once the configuration has been read:

    1. create the pid file
    2. bind the control socket, which also locks the interface
    3. remove what a killed predecessor left behind
    4. run PreUp
    5. create or open the device
    6. open the carriers' sockets, with the mark of a full tunnel
    7. set the device's addresses and MTU
    8. look up the peers' names now, if the tunnel may prevent that later
    9. set name servers and routes
    10. run --up
    11. start the engine: packets flow from here on
    12. run PostUp and give up privileges, if they are to be given up
    13. make the links
    14. run the loop, and in it PostUp if privileges are kept

If a step fails, the steps before it are undone in the opposite order. The same happens at the end of a run: PreDown
runs first, PostDown last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from vpntun.carriers.opening import open_carriers
from vpntun.config.tunnel import Tunnel
from vpntun.control.reset import forget_timestamp
from vpntun.control.server import ControlServer
from vpntun.control.status import status_of
from vpntun.crypto.aead import BACKEND
from vpntun.datapath.engine import Engine
from vpntun.datapath.link import Link
from vpntun.datapath.links import Links
from vpntun.errors import ConfigurationError, DeviceError, InterfaceInUse, VpntunError
from vpntun.netconf.addresses import OwnAddresses
from vpntun.netconf.cleanup import clean_up
from vpntun.netconf.dns import HostDns
from vpntun.netconf.journal import Journal
from vpntun.netconf.outer_routes import OuterRoutes
from vpntun.netconf.routing import HostRoutes
from vpntun.netconf.settings import DeviceSettings
from vpntun.netconf.upkeep import Part, Upkeep
from vpntun.netconf.watch import EVERYTHING, Changed, NetworkWatch
from vpntun.process.service import RunOptions, Service
from vpntun.process.shell import ShellLines
from vpntun.runtime.internal_errors import InternalErrors
from vpntun.runtime.log import log, log_is_a_file, notice, reopen_log
from vpntun.runtime.loop import Loop, allow_many_descriptors
from vpntun.runtime.resolver import Lookups
from vpntun.tun.device import TunDevice
from vpntun.tun.ipv6 import carried_addresses, carried_networks, carries_ipv6
from vpntun.types import Interface, Network, carriers_of


def run(tunnel: Tunnel, run_options: RunOptions, reread: Callable[[], Tunnel] | None = None) -> None:
    """Keep the tunnel up until a signal or `vpntun down` ends it. Raises VpntunError.

    `reread` reads the configuration again, for SIGHUP and reloads; None if the configuration did not come from a file.
    """
    allow_many_descriptors()
    with ExitStack() as stack:
        daemon = _Daemon(tunnel, run_options, reread, stack)
        daemon.set_up()
        daemon.run()


class _Daemon:
    """One run of one tunnel, and the observer of its engine's links. `stack` undoes the set-up."""

    def __init__(
        self, tunnel: Tunnel, run_options: RunOptions, reread: Callable[[], Tunnel] | None, stack: ExitStack
    ) -> None:
        self._tunnel = tunnel
        self._reread = reread
        self._stack = stack
        self._failed: Exception | None = None
        self._drops: Counter[str] = Counter()
        self._kept: list[Part] = []
        self._loop = Loop(internal_errors=InternalErrors(self._drops))
        self._started = self._loop.now
        stack.callback(self._loop.close)
        handles_sighup = reread is not None or log_is_a_file() or run_options.background is not None
        stack.enter_context(self._loop.ending_on_signals(self._handle_sighup if handles_sighup else None))
        self._service = Service(run_options, tunnel.user, self._loop, stack)
        self._check_user()

    # Setting up

    def set_up(self) -> None:
        """Set up everything except the links. Raises VpntunError."""
        tunnel, stack = self._tunnel, self._stack
        self._open_control()
        clean_up(tunnel.interface)
        self._journal = Journal(tunnel.interface)
        self._watch = NetworkWatch(self._loop)
        stack.callback(self._watch.close)
        stack.callback(ShellLines("PostDown", tunnel.hooks.post_down).run)
        ShellLines("PreUp", tunnel.hooks.pre_up).run()
        self._device = TunDevice(tunnel.interface)
        stack.callback(self._device.close)
        self._routes = self._make_routes()
        self._mark = self._routes.choose_mark(_routed(tunnel))
        self._carriers = open_carriers(tunnel, self._mark, self._loop, stack)
        self._addresses = self._configure_device()
        self._lookups = Lookups(self._loop)
        stack.callback(self._lookups.close)
        self._engine = self._make_engine()
        self._links = Links(tunnel, self._engine, self._lookups)
        stack.callback(self._links.close)
        self._configure_host()
        self._service.device_is_up(tunnel.interface, self._device.mtu, tuple(map(str, self._addresses)))
        self._engine.start()
        self._watch.subscribe(EVERYTHING, self._engine.network_changed)
        if self._service.gives_up_privileges:
            self._give_up_privileges()

    def _check_user(self) -> None:
        """Refuse settings that cannot be undone without root's privileges; warn of hooks that will lack them."""
        if not self._service.gives_up_privileges:
            return
        if self._tunnel.dns:
            raise ConfigurationError("name servers are set and removed as root: leave out either the user or DNS")
        if self._tunnel.hooks.pre_down or self._tunnel.hooks.post_down:
            notice("PreDown and PostDown will run without root's privileges")

    def _open_control(self) -> None:
        try:
            control = ControlServer(
                self._tunnel.interface,
                self._loop,
                status=self._status,
                stop=self._loop.stop,
                reload=self.reload,
                reset=lambda called: forget_timestamp(self._tunnel.peers, self._link_of, called),
            )
        except InterfaceInUse:
            raise
        except VpntunError as error:
            notice("'vpntun show' and 'vpntun down' will not find this tunnel: %s", error)
        else:
            self._stack.callback(control.close)

    def _make_routes(self) -> HostRoutes:
        """Return the object that keeps this host's routes in step with the allowed IPs; they are removed at the end."""
        routing, device = self._tunnel.routing, self._device
        routes = HostRoutes(
            device.name,
            routing.table,
            routing.fwmark,
            self._journal,
            ephemeral=device.created,
            tcp_port=self._tunnel.tcp_port,
        )
        self._stack.callback(routes.undo)
        return routes

    def _configure_device(self) -> list[Interface]:
        """Set addresses, routes and MTU of the device, and bring it up; return its addresses."""
        tunnel, device = self._tunnel, self._device
        mtu = tunnel.mtu or (tunnel.default_mtu if device.created else None)
        addresses = carried_addresses(device.name, mtu or device.mtu, tunnel.addresses)
        routes = carried_networks(device.name, mtu or device.mtu, tunnel.routes)
        if device.created and not tunnel.addresses:
            ipv6 = carries_ipv6(device.name, mtu or device.mtu)
            addresses = [each for each in tunnel.derived_addresses if each.version == 4 or ipv6]
        if addresses or routes or mtu is not None:
            settings = DeviceSettings(device.name, self._journal, ephemeral=device.created)
            self._stack.callback(settings.undo)
            settings.apply(addresses, routes, mtu)
            self._kept.append(settings)
        elif not device.is_up:
            notice("the device is down and is left as it was found: 'ip link set %s up' brings it up", device.name)
        return addresses

    def _make_engine(self) -> Engine:
        network = OuterRoutes(self._tunnel.interface, self._mark)
        self._stack.callback(network.close)
        own_addresses = None
        if self._tunnel.relay:
            own_addresses = OwnAddresses(self._device.name, self._watch.since_last_asked(Changed.ADDRESSES))
        return Engine(
            self._tunnel.identity,
            self._device,
            self._carriers,
            self._loop,
            network=network,
            own_addresses=own_addresses,
            drops=self._drops,
            observer=self,
        )

    def _configure_host(self) -> None:
        """Set name servers and routes. If these may lead name lookups into the tunnel, look the peers up first.

        From then on routes, rules and the device's settings are kept as they are.
        """
        tunnel = self._tunnel
        if tunnel.dns or self._mark:
            self._lookups.look_all_up_ahead([(peer.host, peer.port) for peer in tunnel.peers if peer.host is not None])
        dns = HostDns(tunnel.interface, tunnel.dns, self._journal)
        self._stack.callback(dns.undo)
        dns.apply()
        if tunnel.routing.table != "off":
            self._routes.apply(_routed(tunnel))
            self._kept.append(self._routes)
        self._upkeep = Upkeep(self._device.name, self._loop, self._kept)
        self._stack.callback(self._upkeep.close)
        if self._kept:
            self._watch.subscribe(EVERYTHING, self._upkeep.look)

    def _give_up_privileges(self) -> None:
        """Run PostUp, which needs the privileges, and become the user.

        CAP_NET_ADMIN is kept if changes have to be undone at the end, if routes follow the configuration, or if new
        connections have to be marked.
        """
        ShellLines("PostUp", self._tunnel.hooks.post_up).run()
        self._links.hold_state()
        follows = self._tunnel.routing.table != "off"
        keeps = follows or bool(self._mark) or not self._journal.is_empty
        if keeps:
            self._journal.hold()
        self._service.give_up_privileges(keep_net_admin=keeps)

    # Running

    def run(self) -> None:
        """Announce the tunnel, make the links, and serve until stopped. Raises the error of a failed start."""
        self._announce()
        self._links.change(self._tunnel.peers)
        post_up = ShellLines("PostUp", () if self._service.gives_up_privileges else self._tunnel.hooks.post_up)
        self._loop.call_later(0.0, partial(self._start, post_up))  # not called if the loop is stopped before
        schedule = self._engine.schedule
        try:
            self._loop.run(schedule.deadline, schedule.handle)
        finally:
            self._service.ends()
            post_up.stop()
            ShellLines("PreDown", self._tunnel.hooks.pre_down).run()
        if self._failed is not None:
            raise self._failed
        self._sum_up()

    def reload(self) -> None:
        """Read the configuration again and apply it. Raises VpntunError, and then nothing has changed."""
        if self._reread is None:
            raise ConfigurationError("this tunnel was not started from a file: there is nothing to read again")
        fresh = self._reread()
        if replace(fresh, peers=()) != replace(self._tunnel, peers=()):
            notice("changes in the [Interface] section need a restart; changes of peers are applied now")
        if not self._engine.can_call and any(peer.host for peer in fresh.peers):
            raise ConfigurationError("no UDP socket is open for outgoing calls; restart the tunnel to add an Endpoint")
        self._routes.apply(_routed(replace(self._tunnel, peers=fresh.peers)))
        self._upkeep.look_again()
        added, removed, changed = self._links.change(fresh.peers)
        self._tunnel = replace(self._tunnel, peers=fresh.peers)
        notice("read the configuration again; peers: %d added, %d removed, %d changed", added, removed, changed)

    def link_moved(self, link: Link) -> None:
        """Remember where a peer is reached."""
        self._links.remember(link)

    def link_changed(self, link: Link, *, up: bool) -> None:
        """Tell the service, which runs hooks, and informs systemd and commands that wait for a link."""
        settings = self._links.settings_of(link)
        endpoint = link.endpoint.where if link.endpoint is not None else ""
        summary = self._engine.monitor.summary
        self._service.link_changed(settings.public, settings.name, endpoint, summary, link.lines, up=up)

    def _announce(self) -> None:
        tunnel, addresses = self._tunnel, self._addresses
        if addresses and tuple(addresses) == tunnel.derived_addresses[: len(addresses)]:
            own = " and ".join(str(each.ip) for each in addresses)
            other = " and ".join(str(each) for each in tunnel.derived_peer_addresses[: len(addresses)])
            notice("this end %s, the other end %s", own, other)
        elif addresses:
            notice("this end %s", " and ".join(map(str, addresses)))
        if tunnel.listen_on is not None and tunnel.port is not None:
            carriers = " and ".join(name.upper() for name in carriers_of(tunnel.listen_on))
            peers = "the peer" if len(tunnel.peers) == 1 else f"{len(tunnel.peers)} peers"
            notice("waiting for %s on %s port %d", peers, carriers, tunnel.port)
        log.debug("ChaCha20-Poly1305 by %s", BACKEND)

    def _start(self, post_up: ShellLines) -> None:
        """Run PostUp. A bug in the start ends the program, because a caller waits until the tunnel is set up."""
        try:
            post_up.start(self._loop, self._post_up_ended)
        except Exception as error:
            self._fail(error)

    def _post_up_ended(self, failed: VpntunError | None) -> None:
        if failed is not None:
            self._fail(failed)
            return
        try:
            can_be_called = self._tunnel.listen_on is not None
            self._service.is_set_up(self._engine.monitor.summary, can_be_called=can_be_called)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failed = error
        self._loop.stop()

    def _handle_sighup(self) -> None:
        reopen_log()
        if self._reread is None:
            if not log_is_a_file():
                notice("SIGHUP is ignored: this daemon has no configuration file to read and no log file to open")
            return
        self._service.reloading()
        try:
            self.reload()
        except VpntunError as error:
            log.error("%s; nothing has changed", error)
        finally:
            self._service.reloaded(self._engine.monitor.summary)

    def _status(self) -> dict[str, Any]:
        mtu = None
        with suppress(DeviceError):  # the device may be in another network namespace, or have another name
            mtu = self._device.mtu
        return status_of(
            self._tunnel,
            self._link_of,
            mtu=mtu,
            addresses=self._addresses,
            drops=self._drops,
            uptime=self._loop.now - self._started,
        )

    def _link_of(self, public: bytes) -> Link:
        try:
            return self._links.of(public)
        except KeyError:  # a request that arrived while the set-up waits for the peers' names
            raise VpntunError(f"{self._tunnel.interface} is still being set up") from None

    def _sum_up(self) -> None:
        """Log the measured state of each link's path, and the numbers of drops."""
        for link in self._engine.links.values():
            log.info("path at the end: %s", f"{link.name}: {link.records}" if link.name else link.records)
        drops = self._drops + self._links.drops()
        if drops:
            log.info("dropped: %s", ", ".join(f"{count} {reason}" for reason, count in drops.most_common()))


def _routed(tunnel: Tunnel) -> set[Network]:
    """Return the networks that this host is to route into the tunnel."""
    if tunnel.routing.table == "off":
        return set()
    return {network for peer in tunnel.peers for network in peer.allowed}
