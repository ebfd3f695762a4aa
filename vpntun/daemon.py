"""Daemon of one tunnel: sets everything up, runs the tunnel, and undoes everything.

The steps, in order, once the configuration has been read:

    1. create the pid file
    2. bind the control socket, which also locks the interface
    3. remove what a killed predecessor left behind
    4. run PreUp
    5. create or open the device
    6. open the carriers' sockets, with the mark of a full tunnel
    7. set the device's addresses and MTU, and open the socket of metrics, which may be on these addresses
    8. make the engine, listen for forwards and the SOCKS5 proxy, and make the services by name (control/opening.py)
    9. bind the socket for wg(8), unless --no-uapi leaves it out
    10. give the peers' names a few seconds to be found, if the tunnel may prevent that later
    11. set name servers and routes, except those that wait for a name (netconf/host.py)
    12. run --up
    13. open the name server, and start the engine: packets flow from here on
    14. run PostUp and give up privileges, if they are to be given up
    15. make the links, and accept connections to forwards
    16. run the loop, and in it PostUp if privileges are kept, once no route or name server waits for a name any more

Steps 3, 5, 7 and 11 are those of the tunnel's surroundings (process/surroundings.py): this machine's network or, with
`vpntun run`, a namespace, in which a command begins once there is a link. A run has no hooks and no socket for wg(8).

If the file leaves the private key to PostUp, the links are made when PostUp gives it, by the socket for wg(8). A tunnel
for wg-quick has no file: its keys and peers come by that socket, wg-quick sets the device's addresses and routes, and
the tunnel ends when its device or the socket is removed.

While lines run and names are looked up, the loop is served, so that the control socket answers (process/start.py). If a
step fails, the steps before it are undone in the opposite order. The same happens at the end of a run: PreDown runs
first, PostDown last. In between, control/running_tunnel.py makes the changes that a reload or wg asks for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

from vpntun.carriers.opening import open_carriers
from vpntun.config.tunnel import Tunnel
from vpntun.control.opening import open_control, open_forwards, open_metrics, open_names, open_uapi
from vpntun.control.other_end import OtherEnds
from vpntun.control.running_tunnel import RunningTunnel
from vpntun.control.state import TunnelState
from vpntun.datapath.engine import Engine
from vpntun.errors import ConfigurationError, DeviceError, VpntunError
from vpntun.forwards.side import Side
from vpntun.link.link import Link
from vpntun.netconf.following.outer_routes import OuterRoutes
from vpntun.netconf.following.watch import EVERYTHING, Changed, NetworkWatch
from vpntun.process.announcement import announce
from vpntun.process.awaited_names import AwaitedNames
from vpntun.process.machine import Machine
from vpntun.process.service import RunOptions, Service
from vpntun.process.shell import ShellLines
from vpntun.process.start import Start
from vpntun.process.surroundings import Surroundings
from vpntun.runtime.internal_errors import InternalErrors
from vpntun.runtime.log import log, log_is_a_file, notice, reopen_log
from vpntun.runtime.loop import Loop, allow_many_descriptors
from vpntun.runtime.resolver import Lookups
from vpntun.speed.speed_tests import SpeedTests
from vpntun.tun.queries import interface_exists
from vpntun.wire.inside.request import DOCTOR, SPEED


def run(
    tunnel: Tunnel,
    run_options: RunOptions,
    reread: Callable[[], Tunnel] | None = None,
    surroundings: Surroundings | None = None,
    inside: Side | None = None,
) -> None:
    """Keep the tunnel up until a signal or `vpntun down` ends it. Raises VpntunError.

    `reread` reads the configuration again, for SIGHUP and reloads; None if the configuration did not come from a file.
    `surroundings`: where the device is; None: this machine's network. `inside`: makes sockets there; None: as here.
    """
    allow_many_descriptors()
    with ExitStack() as stack:
        daemon = _Daemon(tunnel, run_options, reread, surroundings or Machine(), inside, stack)
        if daemon.set_up():
            daemon.run()


class _Daemon:
    """One run of one tunnel, and the observer of its engine's links. `stack` undoes the set-up."""

    def __init__(
        self,
        tunnel: Tunnel,
        run_options: RunOptions,
        reread: Callable[[], Tunnel] | None,
        surroundings: Surroundings,
        inside: Side | None,
        stack: ExitStack,
    ) -> None:
        self._has_uapi = run_options.uapi
        self._metrics = run_options.metrics
        self._socks5 = run_options.socks5
        self._reread = reread
        self._surroundings = surroundings
        self._inside = inside
        self._stack = stack
        self._failed: Exception | None = None
        self._drops: Counter[str] = Counter()
        self._loop = Loop(internal_errors=InternalErrors(self._drops))
        stack.callback(self._loop.close)
        handles_sighup = reread is not None or log_is_a_file() or run_options.background is not None
        stack.enter_context(surroundings.signals(self._loop, self._handle_sighup if handles_sighup else None))
        self._service = Service(run_options, tunnel.user, self._loop, stack)
        self._service.check(tunnel)
        self._start = Start(tunnel.hooks, self._service, self._loop, self._start_ended)
        self._state = TunnelState(tunnel, self._start, self._loop, self._drops)

    # Setting up

    def set_up(self) -> bool:
        """Set up everything except the links. Return False if told to stop before the device. Raises VpntunError."""
        stack, state = self._stack, self._state
        tunnel = state.tunnel
        self._other_ends = OtherEnds(state)
        open_control(state, self._loop, self._reload, self._other_ends, stack)
        self._surroundings.clean_up(tunnel.interface)
        self._watch = NetworkWatch(self._loop)
        stack.callback(self._watch.close)
        stack.callback(ShellLines("PostDown", tunnel.hooks.post_down).run)
        if not self._start.run_pre_up():
            return False
        self._network = self._surroundings.open(tunnel, self._loop, stack, self._set_mark)
        self._device = state.device = self._network.device
        state.mark = self._network.mark
        self._carriers = state.carriers = open_carriers(tunnel, self._network.mark, self._loop, stack)
        state.addresses = self._network.set_up_device()
        if (place := self._metrics or tunnel.metrics) is not None:
            open_metrics(place, state, self._loop, stack)
        self._names = AwaitedNames(self._network, self._start, self._loop, self._proceed, self._fail)
        lookups = state.lookups = Lookups(self._loop, self._names.found)
        stack.callback(lookups.close)
        self._engine = self._make_engine()
        open_forwards(state, self._engine, self._inside, self._socks5, self._loop, stack)
        state.mirror = self._engine.mirror
        state.switch = self._engine.switch
        state.speed_tests = SpeedTests(self._loop, self._engine.seal_buffer)
        self._engine.answers.add(DOCTOR, self._other_ends.answer)
        self._engine.answers.add(SPEED, state.speed_tests.answer)
        self._running = RunningTunnel(state, self._engine, self._network, self._names, lookups)
        stack.callback(self._running.close)
        if self._has_uapi:
            open_uapi(state, self._loop, self._running.set, stack)
        if self._network.may_lead_look_ups_inside:
            self._start.find_names(lookups, tunnel.peers)
        self._names.apply(tunnel.peers, lookups.has_found)
        self._network.wait()
        self._network.keep_up(self._watch)
        self._service.device_is_up(tunnel.interface, self._device.mtu, tuple(map(str, state.addresses)))
        if self._inside is None:  # the device is on this machine
            open_names(state, self._engine, self._outer_routes.leads_inside, self._loop, stack)
        self._engine.start()
        self._watch.subscribe(EVERYTHING, self._engine.network_changed)
        self._watch.subscribe(Changed.LINKS, self._engine.device_changed)
        if self._service.gives_up_privileges:
            self._give_up_privileges()
        self._surroundings.begin(self._loop, stack)
        return True

    def _set_mark(self, mark: int) -> None:
        """Give the tunnel's own packets another mark from now on. Raises PrivilegeError."""
        for carrier in self._carriers.values():
            carrier.set_mark(mark)
        self._outer_routes.set_mark(mark)
        self._state.mark = mark
        self._engine.network_changed()

    def _make_engine(self) -> Engine:
        tunnel = self._state.tunnel
        self._outer_routes = OuterRoutes(self._network.device_here, self._network.mark)
        self._stack.callback(self._outer_routes.close)
        own_addresses = None
        if tunnel.relay:
            own_addresses = self._network.own_addresses(self._watch)
        return Engine(
            tunnel.identity,
            self._device,
            self._carriers,
            self._loop,
            network=self._outer_routes,
            own_addresses=own_addresses,
            copies_dscp=tunnel.copies_dscp,
            drops=self._drops,
            observer=self,
        )

    def _give_up_privileges(self) -> None:
        """Run PostUp, which needs the privileges, and become the user. CAP_NET_ADMIN is kept if it is needed later."""
        self._start.run_post_up()
        if self._state.tunnel.identity is not None or self._loop.running:
            self._running.links.hold_state()
        self._service.give_up_privileges(keep_net_admin=self._network.hold())

    # Running

    def run(self) -> None:
        """Announce the tunnel, make the links, and serve until stopped. Raises the error of a failed start."""
        announce(self._state.tunnel, self._state.addresses)
        self._running.begin()
        if self._state.forwards is not None:
            self._state.forwards.begin()
        self._loop.call_later(0.0, self._names.begin)  # not called if the loop is stopped before
        schedule = self._engine.schedule
        try:
            self._loop.run(schedule.deadline, schedule.handle)
        except DeviceError:
            if not self._state.tunnel.is_set_by_wg or interface_exists(self._device.name):
                raise
            notice("the device was deleted: ending")
        finally:
            self._service.ends()
            self._start.stop()
            ShellLines("PreDown", self._state.tunnel.hooks.pre_down).run(self._loop)
        if self._failed is not None:
            raise self._failed
        self._sum_up()

    def _reload(self) -> None:
        """Read the configuration again and apply it. Raises VpntunError, and then nothing has changed."""
        if self._reread is None:
            raise ConfigurationError("this tunnel was not started from a file: there is nothing to read again")
        if not self._state.is_running:
            raise ConfigurationError(f"{self._state.tunnel.interface} is still being set up: reload it later")
        self._running.reload(self._reread())

    def link_moved(self, link: Link) -> None:
        """Remember where a peer is reached."""
        self._running.links.remember(link)

    def link_changed(self, link: Link, *, up: bool) -> None:
        """Tell the service, which runs hooks, and informs systemd and commands that wait for a link."""
        settings = self._running.links.settings_of(link)
        endpoint = link.endpoint.where if link.endpoint is not None else ""
        self._service.link_changed(settings.public, settings.name, endpoint, self._summary, link.lines, up=up)

    def states_changed(self, link: Link) -> None:
        """Tell the service, which informs systemd."""
        self._service.states_changed(lambda: self._summary)

    def _proceed(self) -> None:
        """Run PostUp if nothing waits for a name; at once if PostUp has to give the key, since links look names up."""
        self._network.look_again()
        self._start.proceed(self._names.peers if self._state.tunnel.identity is not None else ())

    def _start_ended(self, failed: Exception | None) -> None:
        if failed is not None:
            self._fail(failed)
            return
        tunnel = self._state.tunnel
        if not tunnel.is_set_by_wg:
            _ = tunnel.keys  # PostUp should have given them by now
        self._service.is_set_up(self._summary, can_be_called=tunnel.listen_on is not None)

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
            self._reload()
        except VpntunError as error:
            log.error("%s; nothing has changed", error)
        finally:
            self._service.reloaded(self._summary)

    @property
    def _summary(self) -> str:
        """What the start waits for, or the state of all links, in one line."""
        if self._start.waits_for is not None and (self._state.links is None or self._names.peers):
            return f"waiting for {self._start.waits_for}"
        return self._engine.monitor.summary

    def _sum_up(self) -> None:
        """Log the measured state of each link's path, and the numbers of drops."""
        for link in self._engine.links.values():
            log.info("path at the end: %s", f"{link.name}: {link.records}" if link.name else link.records)
        drops = self._drops + self._running.drops()
        if drops:
            log.info("dropped: %s", ", ".join(f"{count} {reason}" for reason, count in drops.most_common()))
