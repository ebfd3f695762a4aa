"""One peer as the operator configured it: WireGuard's four facts, and what is ours: its carrier and its name."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from functools import cached_property

from vpntun.crypto.keys import KEY_SIZE
from vpntun.types import Network, Transport

NO_PSK = bytes(KEY_SIZE)


@dataclass(frozen=True)
class PeerSettings:
    """`host` None: the peer calls this end. `keepalive`: seconds, 0 for none. `is_vpntun`: known to be one for sure."""

    public: bytes
    allowed: tuple[Network, ...]
    psk: bytes = field(default=NO_PSK, repr=False)
    host: str | None = None
    port: int = 0
    keepalive: float = 0.0
    transport: Transport = "udp"
    name: str = ""
    is_vpntun: bool = False

    @cached_property
    def allowed_as_text(self) -> list[str]:
        """`allowed` as the status has it: kept, since to write out many takes long, and who asks once asks again."""
        return [_written(network) for network in self.allowed]


def _written(network: Network) -> str:
    """As wg(8) has it; `str` takes several times as long for IPv6."""
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, network.network_address.packed)}/{network.prefixlen}"
