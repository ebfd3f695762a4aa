"""Changes of a running tunnel that a reload of its file, or wg(8), asks for: which can be made, and those of sockets.

    at once           peers, PrivateKey, ListenPort, FwMark
    by a restart      everything else in [Interface], and whether peers connect over TCP

Routes, rules and name servers follow the file alone, at a reload: wg(8) never changes routes in WireGuard either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vpntun.carriers.base import Carrier
from vpntun.config.tunnel import Tunnel
from vpntun.datapath.engine import Engine
from vpntun.errors import VpntunError
from vpntun.netconf.host import HostNetwork
from vpntun.runtime.log import notice
from vpntun.types import CarrierName


def changed_at_once(present: Tunnel, wanted: Tunnel) -> Tunnel:
    """Return the running tunnel with those of the wanted settings that need no restart."""
    routing = replace(present.routing, fwmark=wanted.routing.fwmark)
    changed = replace(present, identity=wanted.identity, peers=wanted.peers, routing=routing)
    if {present.listen_on, wanted.listen_on} <= {None, "udp"}:
        return replace(changed, port=wanted.port, listen_on=wanted.listen_on)
    return replace(changed, port=wanted.port) if present.listen_on == wanted.listen_on else changed


def change_sockets(
    former: Tunnel, wanted: Tunnel, engine: Engine, host: HostNetwork, carriers: Mapping[CarrierName, Carrier]
) -> None:
    """Give the sockets another mark and another port, where these differ.

    Raises CannotChange, PortInUse or PrivilegeError, and then nothing has changed.
    """
    mark, port = wanted.routing.fwmark, wanted.port or 0
    is_marked = mark != former.routing.fwmark
    if is_marked:
        host.change_mark(mark)
    if wanted.port == former.port or port == carriers["udp"].port:  # the kernel may have chosen it already
        return
    try:
        engine.change_port(port, can_be_called=wanted.listen_on is not None)
    except VpntunError:
        if is_marked:
            host.change_mark(former.routing.fwmark)
        raise
    host.peers_connect_at(wanted.tcp_port)
    notice("the port is %s now", port or "any")
