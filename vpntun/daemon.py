"""The wiring of one tunnel: opens what the operator asked for, ties it together, runs the loop, puts everything back.

Order: the configuration has been read; the pid file; the control socket, by which it is known that nobody else runs the
interface; what a killed predecessor left is taken away; PreUp; device; sockets, with their mark; addresses; the peers'
names, where they could not be found later; name servers, routes; --up; the links; privileges are given up; the loop,
and PostUp in it, unless that needs the privileges.
What fails half-way takes away what was set up before it, in the opposite order, and so does the end: PreDown, ...,
PostDown.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from vpntun.carriers.listening import TcpListener
from vpntun.carriers.opening import open_listeners, open_udp
from vpntun.carriers.tcp import TcpConnection
from vpntun.config.tunnel import SMALLEST_MTU_FOR_IPV6, Tunnel
from vpntun.control.reset import forget_timestamp
from vpntun.control.server import ControlServer
from vpntun.control.status import status_of
from vpntun.crypto.aead import BACKEND
from vpntun.datapath.delivery import Delivery
from vpntun.datapath.inbound import Inbound
from vpntun.datapath.link import Link
from vpntun.datapath.links import Links
from vpntun.datapath.outbound import Outbound
from vpntun.datapath.relay import Relay
from vpntun.errors import ConfigurationError, InterfaceInUse, VpntunError
from vpntun.netconf.addresses import OwnAddresses
from vpntun.netconf.cleanup import clean_up
from vpntun.netconf.dns import HostDns
from vpntun.netconf.journal import Journal
from vpntun.netconf.localnets import AddressWatch
from vpntun.netconf.nextdevice import NextDevice
from vpntun.netconf.routing import HostRoutes
from vpntun.netconf.settings import DeviceSettings
from vpntun.process.service import RunOptions, Service
from vpntun.process.shell import ShellLines
from vpntun.runtime.internal_errors import InternalErrors
from vpntun.runtime.log import log, log_is_a_file, notice, reopen_log
from vpntun.runtime.loop import Loop, allow_many_descriptors
from vpntun.tun.device import TunDevice, ipv6_is_on
from vpntun.types import Interface, Network

SECONDS_TO_RECOVER = 1.0
"""After an internal error, until packets that an interrupted callback left waiting are sent."""


def run(tunnel: Tunnel, run_options: RunOptions, reread: Callable[[], Tunnel] | None = None) -> None:
    """Keep the tunnel up until a signal or `vpntun down` ends it. Raises VpntunError.

    `reread`: how the configuration is read again at SIGHUP, where it came from a file.
    """
    allow_many_descriptors()
    with ExitStack() as stack:
        _Daemon(tunnel, run_options, reread, stack).run()


class _Daemon:
    def __init__(
        self, tunnel: Tunnel, run_options: RunOptions, reread: Callable[[], Tunnel] | None, stack: ExitStack
    ) -> None:
        self._tunnel = tunnel
        self._reread = reread
        self._stack = stack
        self._drops: Counter[str] = Counter()
        self._loop = Loop(internal_errors=InternalErrors(self._drops))
        if reread is not None or log_is_a_file() or run_options.background is not None:
            self._loop.on_hangup = self._hung_up
        stack.callback(self._loop.close)
        stack.enter_context(self._loop.ending_on_signals())
        self._started = time.time()
        self._service = Service(run_options, tunnel.user, self._loop, stack)
        self._check_user()
        self._failed: Exception | None = None
        self._open_control()
        clean_up(tunnel.interface)
        self._journal = Journal(tunnel.interface)
        stack.callback(ShellLines("PostDown", tunnel.hooks.post_down).run)
        ShellLines("PreUp", tunnel.hooks.pre_up).run()
        self._device = TunDevice(tunnel.interface)
        stack.callback(self._device.close)
        self._routes = self._make_routes()
        self._mark = self._routes.choose_mark(self._allowed(tunnel))
        self._udp = open_udp(tunnel, self._mark, self._loop, stack)
        self._listeners = open_listeners(tunnel, self._mark, stack)
        self._addresses = self._configure_device()
        next_device = NextDevice(tunnel.interface, self._mark)
        stack.callback(next_device.close)
        self._links = Links(tunnel, self._loop, self._device, self._udp, next_device.is_for)
        stack.callback(self._links.close)
        self._configure_host()
        self._service.device_is_up(tunnel.interface, self._device.mtu, tuple(map(str, self._addresses)))
        self._connect_data_path()
        if self._service.gives_up_privileges:
            self._give_up_privileges()

    def run(self) -> None:
        """Announce, and serve until told to stop."""
        self._announce()
        links = self._links
        links.change(self._tunnel.peers)
        post_up = ShellLines("PostUp", () if self._service.gives_up_privileges else self._tunnel.hooks.post_up)
        self._loop.call_later(0.0, partial(self._start, post_up))  # unless told to stop before that
        schedule = links.schedule
        try:
            self._loop.run(schedule.deadline, schedule.handle)
        finally:
            self._service.ends()
            post_up.stop()
            ShellLines("PreDown", self._tunnel.hooks.pre_down).run()
        if self._failed is not None:
            raise self._failed
        for link in links.by_peer.values():
            log.info("at the end: %s", f"{link.name}: {link.records}" if link.name else link.records)
        drops = self._drops + links.drops()
        if drops:
            log.info("dropped: %s", ", ".join(f"{count} {reason}" for reason, count in drops.most_common()))

    def reload(self) -> None:
        """Read the configuration again and follow it. Raises VpntunError, and then nothing has changed."""
        if self._reread is None:
            raise ConfigurationError("this tunnel was not started from a file: there is nothing to read again")
        fresh = self._reread()
        if replace(fresh, peers=()) != replace(self._tunnel, peers=()):
            notice("what has changed in the [Interface] section takes a restart; the peers are changed now")
        if not self._udp and any(peer.host for peer in fresh.peers):
            raise ConfigurationError(
                "all was set up for peers that call: to call one, stop the tunnel and start it again"
            )
        self._routes.apply(self._allowed(replace(self._tunnel, peers=fresh.peers)))
        added, removed, changed = self._links.change(fresh.peers)
        self._tunnel = replace(self._tunnel, peers=fresh.peers)
        notice("read the configuration again; peers: %d added, %d removed, %d changed", added, removed, changed)

    def _hung_up(self) -> None:
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
            self._service.reloaded(self._links.monitor.summary)

    def _check_user(self) -> None:
        """What cannot be taken back without root's privileges is not done."""
        if not self._service.gives_up_privileges:
            return
        if self._tunnel.dns:
            raise ConfigurationError("name servers are set and taken back as root: leave out either the user or DNS")
        if self._tunnel.hooks.pre_down or self._tunnel.hooks.post_down:
            notice("PreDown and PostDown will run without root's privileges")

    def _give_up_privileges(self) -> None:
        """PostUp has to come before this, and so before the links.

        CAP_NET_ADMIN is kept where something set up here has to be taken back, where routes follow the configuration,
        and where each new connection has to be marked.
        """
        ShellLines("PostUp", self._tunnel.hooks.post_up).run()
        self._links.hold_state()
        follows = self._tunnel.routing.table != "off"
        keeps = follows or bool(self._mark) or not self._journal.is_empty
        if keeps:
            self._journal.hold()
        self._service.give_up_privileges(keep_net_admin=keeps)

    def _link_changed(self, link: Link, stands: bool) -> None:
        settings = self._links.settings_of(link)
        endpoint = link.path.where if link.path is not None else ""
        summary = self._links.monitor.summary
        self._service.link_changed(settings.public, settings.name, endpoint, summary, link.lines, stands=stands)

    def _start(self, post_up: ShellLines) -> None:
        """Run PostUp. A bug in the start ends the program: a caller waits to be told that the tunnel is set up."""
        try:
            post_up.start(self._loop, self._is_up)
        except Exception as error:
            self._fail(error)

    def _is_up(self, failed: VpntunError | None) -> None:
        if failed is not None:
            self._fail(failed)
            return
        try:
            self._service.is_set_up(self._links.monitor.summary, can_be_called=self._tunnel.listen_on is not None)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failed = error
        self._loop.stop()

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

    def _status(self) -> dict[str, Any]:
        return status_of(
            self._tunnel,
            self._link_of,
            mtu=self._device.mtu,
            addresses=self._addresses,
            drops=self._drops,
            started=self._started,
        )

    def _link_of(self, public: bytes) -> Link:
        try:
            return self._links.of(public)
        except KeyError:  # asked while the set-up waits for the peers' names
            raise VpntunError(f"{self._tunnel.interface} is still being set up") from None

    def _make_routes(self) -> HostRoutes:
        """What the peers' allowed IPs become on this host; every change of them is taken away again at the end."""
        tunnel, device = self._tunnel, self._device
        routing = tunnel.routing
        routes = HostRoutes(device.name, routing.table, routing.fwmark, self._journal, ephemeral=device.created)
        self._stack.callback(routes.undo)
        return routes

    @staticmethod
    def _allowed(tunnel: Tunnel) -> set[Network]:
        return (
            {network for peer in tunnel.peers for network in peer.allowed} if tunnel.routing.table != "off" else set()
        )

    def _configure_host(self) -> None:
        """Name servers and routes. Where these may lead into the tunnel whatever finds names, its peers' come first."""
        tunnel = self._tunnel
        if tunnel.dns or self._mark:
            self._links.find_all(tunnel.peers)
        dns = HostDns(tunnel.interface, tunnel.dns, self._journal)
        self._stack.callback(dns.undo)
        dns.apply()
        if tunnel.routing.table != "off":
            self._routes.apply(self._allowed(tunnel))
            self._loop.watch(self._routes.fileno(), self._routes.follow)

    def _configure_device(self) -> list[Interface]:
        tunnel, device = self._tunnel, self._device
        addresses, mtu = list(tunnel.addresses), tunnel.mtu
        if device.created:
            mtu = mtu or tunnel.default_mtu
            if not addresses:
                ipv6 = mtu >= SMALLEST_MTU_FOR_IPV6 and ipv6_is_on(device.name)
                addresses = [each for each in tunnel.derived_addresses if each.version == 4 or ipv6]
        if addresses or tunnel.routes or mtu is not None:
            settings = DeviceSettings(device.name, self._journal, ephemeral=device.created)
            self._stack.callback(settings.undo)
            settings.apply(addresses, list(tunnel.routes), mtu)
        elif not device.is_up:
            notice("the device is down and is left as it was found: 'ip link set %s up' brings it up", device.name)
        return addresses

    def _connect_data_path(self) -> None:
        links, loop = self._links, self._loop
        delivery = Delivery(self._device, links.routes, self._drops, self._make_relay())
        drain_later = partial(loop.call_later, SECONDS_TO_RECOVER, links.bundler.drain_all)
        loop.internal_errors.recover_by(links.bundler.discard, delivery.discard, drain_later)
        self._inbound = Inbound(links.node, links.by_peer, delivery, loop, self._drops)
        outbound = Outbound(self._device, links.routes, links.bundler, links.guard, loop, self._drops)
        links.on_connection = self._watch
        links.on_change = self._link_changed
        loop.watch(self._device.fileno(), outbound.read_device)
        for udp in self._udp.values():
            udp.on_ready = links.bundler.drain_all
            loop.watch(udp.fileno(), partial(self._inbound.read_udp, udp), udp.flush)
        for listener in self._listeners:
            loop.watch(listener.fileno(), partial(self._accept, listener))

    def _make_relay(self) -> Relay | None:
        if not self._tunnel.relay:
            return None
        watch = AddressWatch()
        self._stack.callback(watch.close)
        own = OwnAddresses(self._device.name, watch.drain)
        return Relay(self._device.mtu, self._links.routes, self._links.bundler, own)

    def _announce(self) -> None:
        tunnel, addresses = self._tunnel, self._addresses
        if addresses and tuple(addresses) == tunnel.derived_addresses[: len(addresses)]:
            own = " and ".join(str(each.ip) for each in addresses)
            other = " and ".join(str(each) for each in tunnel.derived_peer_addresses[: len(addresses)])
            notice("this end %s, the other end %s", own, other)
        elif addresses:
            notice("this end %s", " and ".join(map(str, addresses)))
        if tunnel.listen_on is not None and tunnel.port is not None:
            carriers = {"auto": "UDP and TCP", "udp": "UDP", "tcp": "TCP"}[tunnel.listen_on]
            peers = "the peer" if len(tunnel.peers) == 1 else f"{len(tunnel.peers)} peers"
            notice("waiting for %s on %s port %d", peers, carriers, tunnel.port)
        log.debug("ChaCha20-Poly1305 by %s", BACKEND)

    def _accept(self, listener: TcpListener) -> None:
        for connection in listener.accept(self._loop, self._links.accepted):
            try:
                self._watch(connection)
            except OSError:
                connection.close()
                raise

    def _watch(self, connection: TcpConnection) -> None:
        read = partial(self._inbound.read_tcp, connection)
        self._loop.watch(connection.fileno(), read, connection.flush, on_failure=connection.close)
