"""Name server of one tunnel, as a reload or a request changes it: open or closed, and with which zones.

The zones are made again when the tunnel has other peers or settings, by a reload or by wg(8), at the first question
after that. Zones that were added on request are kept as long as the server runs, and are gone once a reload has
DnsServer = no. The DNS library is loaded when the server is opened for the first time.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from vpntun.config.names import NameForward
from vpntun.config.tunnel import Tunnel
from vpntun.config.values import DNS_PORT
from vpntun.core.endpoint import Flow
from vpntun.errors import ConfigurationError, VpntunError
from vpntun.names.added_zones import AddedZone, AddedZones
from vpntun.names.resolv_conf import ResolvConf
from vpntun.names.zones import Directory, directory_of, labels_of_peers
from vpntun.netconf.localnets import addresses_of
from vpntun.runtime.log import notice
from vpntun.runtime.loop import Loop
from vpntun.types import Interface, IpAddress

if TYPE_CHECKING:
    from vpntun.names.server import NameServer

COUNTS = ("asked", "answered", "forwarded", "limited", "failed")
UDP = 17


class NameService:
    """The name server of the tunnel on a device. `tunnel` and `mark` return what they are now.

    `addresses`: those that the device was given. `leads_inside`: whether a flow goes through the tunnel. `peer_of`: the
    peer that an address belongs to, None if that is not known.
    """

    def __init__(
        self,
        loop: Loop,
        device: str,
        tunnel: Callable[[], Tunnel],
        addresses: Sequence[Interface],
        leads_inside: Callable[[Flow], bool],
        peer_of: Callable[[bytes], Hashable | None],
        mark: Callable[[], int],
    ) -> None:
        self.added = AddedZones()
        self._loop = loop
        self._device = device
        self._tunnel = tunnel
        self._addresses = addresses
        self._leads_inside = leads_inside
        self._peer_of = peer_of
        self._mark = mark
        self._counts: Counter[str] = Counter()
        self._resolv_conf = ResolvConf()
        self._server: NameServer | None = None
        self._directory: Directory | None = None
        self._made_of: tuple[object, ...] = ()
        self._left_out: list[str] = []

    @property
    def is_open(self) -> bool:
        """Whether the server runs."""
        return self._server is not None

    def open(self, tunnel: Tunnel) -> None:
        """Open the server if these settings have one and it is not open. Raises VpntunError; then nothing changed."""
        if tunnel.names is None:
            return
        if self._server is None:
            self._server = self._opened()
        self._note_left_out(tunnel)

    def close_unless(self, tunnel: Tunnel) -> None:
        """Close the server, and forget what was added, unless these settings have one."""
        if tunnel.names is None:
            self.close()

    def close(self) -> None:
        """Close the server, if it is open, and forget what was added."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self.added = AddedZones()

    def add(self, zone: AddedZone) -> None:
        """Add a zone. Raises ConfigurationError if there are too many."""
        self.added.add(zone)
        self._directory = None

    def directory(self) -> Directory:
        """Return the zones as they are now."""
        tunnel = self._tunnel()
        made_of = (tunnel.names, tunnel.peers)
        if self._directory is None or any(one is not other for one, other in zip(made_of, self._made_of, strict=True)):
            self._directory = directory_of(tunnel, self._addresses, socket.gethostname(), self.added.as_zones())
            self._made_of = made_of
        return self._directory

    def status(self) -> dict[str, Any] | None:
        """Return what the server does, for the status; None if there is none."""
        settings = self._tunnel().names
        if self._server is None or settings is None:
            return None
        counts = {name: self._counts[name] for name in COUNTS}
        return {"domain": settings.domain, "names": len(self.directory()), **counts}

    def _opened(self) -> NameServer:
        try:
            from vpntun.names.forwarding import Servers  # only here: they need a package that may be missing
            from vpntun.names.responder import Responder
            from vpntun.names.server import NameServer
        except ImportError:
            raise VpntunError(
                "the Python package dnspython reads and writes the messages of DnsServer, and is not installed: "
                "install it (pip install dnspython), or leave out DnsServer"
            ) from None
        self._addresses = self._addresses or addresses_of(self._device)
        if not self._addresses:
            raise ConfigurationError("DnsServer needs an address of the tunnel to listen on: add Address")
        servers = Servers(
            forwards=self._forwards,
            of_machine=self._resolv_conf.servers,
            own=self._own,
            leads_inside=self._leads_there,
            mark=self._mark,
        )
        responder = Responder(self._loop, self.directory, servers, self._peer_of, self._counts)
        return NameServer(self._loop, responder, self._device, self._own())

    def _own(self) -> list[IpAddress]:
        return [each.ip for each in self._addresses]

    def _forwards(self) -> Sequence[NameForward]:
        settings = self._tunnel().names
        return settings.forwards if settings is not None else ()

    def _leads_there(self, host: str) -> bool:
        """Whether questions to a server go through the tunnel."""
        address, _, zone = host.partition("%")
        scope = 0
        with suppress(OSError, ValueError):
            scope = (int(zone) if zone.isdigit() else socket.if_nametoindex(zone)) if zone else 0
        return self._leads_inside(Flow(UDP, b"", 0, ip_address(address).packed, DNS_PORT, scope))

    def _note_left_out(self, tunnel: Tunnel) -> None:
        """Note the peers that have no name in the DNS, once."""
        left_out = labels_of_peers(tunnel.peers)[1]
        if left_out and left_out != self._left_out:
            notice(
                "no name in the DNS for %s: it has no letter or digit, or an earlier peer has the same there",
                ", ".join(map(repr, left_out)),
            )
        self._left_out = left_out
