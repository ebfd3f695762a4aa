"""The running tunnel: its present settings, its identity and its links, and what a reload or wg(8) changes of them.

    at once           peers, PrivateKey, ListenPort, FwMark, Forward, Service, ServiceKey, AllowFrom, DnsServer,
                      DnsDomain, DnsRecord, DnsForward
    by a restart      everything else in [Interface], whether peers connect over TCP, a FwMark that rules need, and all
                      keys and peers of another SharedKey

Routes, rules and name servers follow the file alone, at a reload: wg(8) never changes routes in WireGuard either.

A change takes these steps. If one of them fails, everything is as it was before:

    1. decide on the settings: those of the file that need no restart, or those that wg asks for (uapi/set.py)
    2. check that peers can be called and reached; at a reload, set routes, name servers and forwards
    3. give the sockets another mark and another port
    4. use another private key, or none
    5. add, remove and change links (datapath/links.py)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from vpntun.carriers.sockets import address_at
from vpntun.config.tunnel import Tunnel
from vpntun.control.state import TunnelState
from vpntun.crypto.keys import format_key
from vpntun.datapath.engine import Engine
from vpntun.datapath.links import Links
from vpntun.errors import CannotChange, ConfigurationError, VpntunError
from vpntun.process.awaited_names import AwaitedNames
from vpntun.process.surroundings import TunnelNetwork
from vpntun.runtime.log import NOTICE, LineLimit, notice
from vpntun.runtime.resolver import Lookups
from vpntun.types import Place
from vpntun.uapi.request import SetRequest
from vpntun.uapi.set import Nowhere, applied

MOST_LINES_BY_WG = 5


class RunningTunnel:
    """The settings, identity and links of a tunnel whose parts have been made; `state` shows them to the sockets.

    There are links as long as there is a private key; they outlast its absence without peers. They have no peers before
    `begin` either: until then, a change of peers is a change of settings only.

    `folder`: the folder of the links' state files.
    """

    def __init__(
        self,
        state: TunnelState,
        engine: Engine,
        host: TunnelNetwork,
        names: AwaitedNames,
        lookups: Lookups,
        *,
        folder: Path | None = None,
    ) -> None:
        self._state = state
        self._engine = engine
        self._host = host
        self._names = names
        self._lookups = lookups
        self._folder = folder
        self._routed = state.tunnel.peers
        self._by_wg = LineLimit(MOST_LINES_BY_WG)
        self._links = self._new_links(state.tunnel) if state.tunnel.identity is not None else None

    @property
    def links(self) -> Links:
        """The links. Raises ConfigurationError while there is no private key to make them with."""
        _ = self._state.tunnel.keys
        assert self._links is not None
        return self._links

    def begin(self) -> None:
        """Make a link for each peer. From now on a change of peers changes links."""
        self._state.is_running = True
        if self._links is not None:
            self._links.change(self._state.tunnel.peers)
            self._state.links = self._links

    def reload(self, wanted: Tunnel) -> None:
        """Apply the configuration as it was read again. Raises VpntunError, and then nothing has changed."""
        present = self._state.tunnel
        if wanted.identity is None and present.identity is not None:
            wanted = wanted.identified(present.identity)
        fresh = changed_at_once(present, wanted)
        self._check_calls(any(peer.host for peer in fresh.peers))
        self._names.apply(fresh.peers, self._lookups.has_found)
        if self._host.needs_its_mark:  # the peers of this file decide that
            fresh = replace(fresh, routing=present.routing)
        if fresh.device != wanted.device:
            notice("another Device needs a restart: until then this end's peers stay as they are")
        elif fresh.derived_addresses != wanted.derived_addresses:
            notice("another SharedKey needs a restart: until then this end's keys and its peers stay as they are")
        elif fresh != wanted:
            notice("some changes in the [Interface] section need a restart; all others are applied now")
        try:
            if self._state.names is not None:
                self._state.names.open(fresh)
            self._set_forwards(fresh)
            added, removed, changed = self._change(fresh)
        except VpntunError:
            with suppress(VpntunError):  # a port may be taken meanwhile: the first error says more
                self._set_forwards(present)
            self._names.apply(self._routed, self._lookups.has_found)
            self._close_names_unless(present)
            raise
        self._close_names_unless(fresh)
        self._routed = fresh.peers
        notice("read the configuration again; peers: %d added, %d removed, %d changed", added, removed, changed)
        self._names.proceed()

    def set(self, request: SetRequest) -> None:
        """Carry out a request of wg(8). Raises VpntunError, and then nothing has changed."""
        fresh, moved = applied(self._state.tunnel, request, self._state.links or Nowhere())
        self._check_calls(bool(moved))
        for host, port in moved.values():
            address = address_at(host, port)
            if address is None or self._engine.candidate(address) is None:
                raise ConfigurationError(
                    f"this host cannot send to {host}, or only through the tunnel itself: give another endpoint, or a "
                    "route to this one by another device"
                )
        added, removed, changed = self._change(fresh, moved)
        if added or removed or changed:
            self._by_wg.log(NOTICE, "wg has changed peers: %d added, %d removed, %d changed", added, removed, changed)

    def drops(self) -> Counter[str]:
        """Return the number of drops of all links together, by reason."""
        return self._links.drops() if self._links is not None else Counter()

    def close(self) -> None:
        """Write the peers' endpoints to the state file."""
        if self._links is not None:
            self._links.close()

    def _change(self, fresh: Tunnel, moved: Mapping[bytes, Place] = MappingProxyType({})) -> tuple[int, int, int]:
        """Make the running tunnel match: its port, mark, keys and peers. `moved` and the answer: as in Links.change.

        Raises VpntunError, and then nothing has changed.
        """
        state = self._state
        change_sockets(state.tunnel, fresh, self._engine, self._host)
        if fresh.identity != state.tunnel.identity:
            self._identify(fresh)
        state.tunnel = fresh
        if state.services is not None:
            state.services.follow_settings()
        if self._links is None or fresh.identity is None or not state.is_running:
            return 0, 0, 0
        state.links = self._links
        return self._links.change(fresh.peers, moved)

    def _set_forwards(self, fresh: Tunnel) -> None:
        """Make the forwards of the file match. Raises VpntunError, and then nothing has changed."""
        if self._state.forwards is not None:
            self._state.forwards.reconcile(fresh.forwards)

    def _identify(self, fresh: Tunnel) -> None:
        """Use the keys of this tunnel from now on, or none."""
        if fresh.identity is None and self._links is not None:
            self._links.dissolve()
            self._state.links = None
        self._engine.node.identity = fresh.identity
        if fresh.identity is None:
            notice("this end has no private key any more")
            return
        if self._links is None:
            self._links = self._new_links(fresh)
        else:
            self._links.identify(fresh.identity)
        notice("the public key of this end is %s now", format_key(fresh.identity.public))

    def _close_names_unless(self, tunnel: Tunnel) -> None:
        if self._state.names is not None:
            self._state.names.close_unless(tunnel)

    def _new_links(self, tunnel: Tunnel) -> Links:
        return Links(tunnel, self._engine, self._lookups, self._folder)

    def _check_calls(self, are_wanted: bool) -> None:
        if are_wanted and not self._engine.can_call:
            raise CannotChange("no UDP socket is open for outgoing calls; restart the tunnel to add an Endpoint")


def changed_at_once(present: Tunnel, wanted: Tunnel) -> Tunnel:
    """Return the running tunnel with those of the wanted settings that need no restart.

    Addresses derived from a shared key need one, so the keys and peers that belong to them do, too. Another kind of
    device needs one as well, and so do the peers, which are configured for that kind.
    """
    has_other_addresses = wanted.derived_addresses != present.derived_addresses
    keeps_peers = has_other_addresses or wanted.device != present.device
    changed = replace(
        present,
        identity=present.identity if has_other_addresses else wanted.identity,
        peers=present.peers if keeps_peers else wanted.peers,
        forwards=wanted.forwards,
        services=wanted.services,
        routing=replace(present.routing, fwmark=wanted.routing.fwmark),
        names=wanted.names,
    )
    if {present.listen_on, wanted.listen_on} <= {None, "udp"}:
        return replace(changed, port=wanted.port, listen_on=wanted.listen_on)
    return replace(changed, port=wanted.port) if present.listen_on == wanted.listen_on else changed


def change_sockets(former: Tunnel, wanted: Tunnel, engine: Engine, host: TunnelNetwork) -> None:
    """Give the sockets another mark and another port, where these differ, and let peers call there, or not.

    Raises CannotChange, PortInUse or PrivilegeError, and then nothing has changed.
    """
    mark, port = wanted.routing.fwmark, wanted.port or 0
    is_marked = mark != former.routing.fwmark
    if is_marked:
        host.change_mark(mark)
    if (wanted.port, wanted.listen_on) == (former.port, former.listen_on):
        return
    try:
        engine.change_port(port, can_be_called=wanted.listen_on is not None)
    except VpntunError:
        if is_marked:
            host.change_mark(former.routing.fwmark)
        raise
    host.peers_connect_at(wanted.tcp_port)
    notice("the port is %s now", port or "any")
