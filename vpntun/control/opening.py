"""Opening of a tunnel's sockets, each of which `stack` closes.

control     also the tunnel's lock; a tunnel works without it, as a notice says
forwards    of the settings, and the SOCKS5 proxy; services by name listen later, once a peer asks for one
wg(8)       left out by --no-uapi; a tunnel that has its settings by it ends when somebody removes it
metrics     where the operator asks for them
names       the name server, where the settings have one
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from logging import INFO
from pathlib import Path

from vpntun.control.capture import Captures
from vpntun.control.other_carrier import OtherCarriers
from vpntun.control.other_end import OtherEnds
from vpntun.control.own_facts import routes_of_facts
from vpntun.control.server import ControlServer
from vpntun.control.speed import speed_routes
from vpntun.control.state import TunnelState
from vpntun.control.verify import verify_routes
from vpntun.core.endpoint import Flow
from vpntun.datapath.engine import Engine
from vpntun.errors import InterfaceInUse, VpntunError
from vpntun.forwards.connections import Connections
from vpntun.forwards.forwards import Forwards
from vpntun.forwards.requests import forward_routes
from vpntun.forwards.side import Side
from vpntun.forwards.ways import ways_of_machine, ways_of_run
from vpntun.names.requests import name_routes
from vpntun.names.service import NameService
from vpntun.runtime.log import NOTICE, log, notice
from vpntun.runtime.loop import Loop
from vpntun.runtime.resolver import Lookups
from vpntun.services.neighbours import Neighbours
from vpntun.services.requests import ServiceRequests
from vpntun.services.services import Services
from vpntun.serving.http import HttpExchange
from vpntun.serving.public_server import PublicServer
from vpntun.serving.removal import RemovalWatch
from vpntun.socks.proxy import Socks5Proxy
from vpntun.types import Place
from vpntun.uapi.request import SetRequest
from vpntun.uapi.server import UapiServer
from vpntun.wire.inside.request import SERVICES


def open_control(
    state: TunnelState, loop: Loop, reload: Callable[[], None], other_ends: OtherEnds, stack: ExitStack
) -> None:
    """Bind the control socket; `stack` closes it. Raises InterfaceInUse where another vpntun runs the interface."""
    try:
        control = ControlServer(
            state.tunnel.interface,
            loop,
            status=state.write_status,
            stop=loop.stop,
            reload=reload,
            reset=state.forget_timestamp,
            more={
                **routes_of_facts(state),
                **Captures(state, loop).routes(),
                **speed_routes(state),
                **verify_routes(state.verify),
                **other_ends.routes(),
                **OtherCarriers(state).routes(),
                **name_routes(lambda: state.names),
                **forward_routes(state.tunnel.interface, lambda: state.forwards),
                **ServiceRequests(lambda: state.services).routes(),
            },
        )
    except InterfaceInUse:
        raise
    except VpntunError as error:
        notice("'vpntun show' and 'vpntun down' will not find this tunnel: %s", error)
    else:
        stack.callback(control.close)


def open_uapi(state: TunnelState, loop: Loop, set: Callable[[SetRequest], None], stack: ExitStack) -> None:
    """Bind the socket for wg(8); `stack` closes it. `set` changes the tunnel, as UapiServer describes it.

    Raises VpntunError if a tunnel that needs the socket cannot have it.
    """
    try:
        uapi = UapiServer(state.tunnel.interface, loop, get=state.lines_for_wg, set=set)
    except VpntunError as error:
        if state.tunnel.is_set_by_wg:
            raise
        level = NOTICE if os.geteuid() == 0 else INFO  # the folder is root's, and nobody expects more of a user
        log.log(level, "wg(8) will not find this tunnel: %s; --no-uapi leaves the socket out", error)
        return
    stack.callback(uapi.close)
    if state.tunnel.is_set_by_wg:
        _end_without(uapi.path, loop, stack)


def open_forwards(
    state: TunnelState, engine: Engine, inside: Side | None, socks5: Path | Place | None, loop: Loop, stack: ExitStack
) -> None:
    """Listen for the forwards and the SOCKS5 proxy, while this process has its privileges; make the services by name.

    `inside`: makes sockets where the device is; None: on this machine. Raises VpntunError.
    """
    assert state.device is not None
    device = state.device.name
    lookups = Lookups(loop)  # apart from those of peers, which must not wait for slow targets of forwards
    stack.callback(lookups.close)
    if inside is None:
        ways = ways_of_machine(device, lookups)
    else:
        ways = ways_of_run(device, lookups, inside, lambda: [str(each.ip) for each in state.addresses])
    connections = Connections(loop)
    neighbours = Neighbours(loop, lambda: state.tunnel, state.link_of, engine.routes.find)
    services = state.services = Services(loop, neighbours, ways, connections)
    stack.callback(services.close)
    engine.answers.add(SERVICES, services.answer)
    forwards = state.forwards = Forwards(loop, ways, visit=services.visits.visit, connections=connections)
    stack.callback(forwards.close)
    forwards.reconcile(state.tunnel.forwards)
    if socks5 is not None:
        proxy = state.socks5 = Socks5Proxy(loop, socks5, ways["here"].connecting, connections)
        stack.callback(proxy.close)


def open_metrics(place: Path | Place, state: TunnelState, loop: Loop, stack: ExitStack) -> None:
    """Serve metrics at a place, by a server that `stack` closes. Raises PortInUse, PrivilegeError or VpntunError."""
    try:
        from vpntun.control.exposition import Exposition  # only here: it needs a package that may be missing
    except ImportError:
        raise VpntunError(
            "the Python package prometheus_client writes the metrics, and is not installed: install it "
            "(pip install prometheus_client), or leave out --metrics and the key Metrics"
        ) from None
    server = PublicServer(
        "the socket for metrics", place, loop, lambda: HttpExchange(exposition.answer), option="--metrics"
    )
    exposition = Exposition(
        loop,
        count=lambda: len(state.tunnel.peers),
        status=state.status_of_some,
        verify=state.verify_some,
        on_ready=server.go_on,
    )
    stack.callback(server.close)


def open_names(
    state: TunnelState, engine: Engine, leads_inside: Callable[[Flow], bool], loop: Loop, stack: ExitStack
) -> None:
    """Make the name server, and open it if the settings have one; `stack` closes it. Raises VpntunError.

    `leads_inside`: whether a flow of this machine goes through the tunnel.
    """
    assert state.device is not None
    names = state.names = NameService(
        loop,
        state.device.name,
        lambda: state.tunnel,
        state.addresses,
        leads_inside,
        engine.routes.find,
        lambda: state.mark,
    )
    stack.callback(names.close)
    names.open(state.tunnel)


def _end_without(path: Path, loop: Loop, stack: ExitStack) -> None:
    """End the tunnel when its socket is removed. Raises VpntunError."""

    def end() -> None:
        notice("%s was removed: ending", path)
        loop.stop()

    try:
        stack.callback(RemovalWatch(path, loop, end).close)
    except OSError as error:
        raise VpntunError(f"{path} cannot be watched: {error.strerror}") from error
