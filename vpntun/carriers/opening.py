"""Table of all carriers by name, and opening them for a tunnel.

A new carrier is a file beside udp.py and tcp.py, one line in CARRIERS, and its name in vpntun/types.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from vpntun.carriers.base import Carrier
from vpntun.carriers.tcp import TcpCarrier
from vpntun.carriers.udp import UdpCarrier
from vpntun.config.tunnel import Tunnel
from vpntun.runtime.loop import Loop
from vpntun.types import CarrierName

CARRIERS: dict[CarrierName, Callable[[Tunnel, int, Loop], Carrier]] = {
    "udp": UdpCarrier.open,
    "tcp": TcpCarrier.open,
}


def open_carriers(tunnel: Tunnel, mark: int, loop: Loop, stack: ExitStack) -> dict[CarrierName, Carrier]:
    """Open the sockets of a tunnel; `stack` closes them. Raises PortInUse, PrivilegeError or VpntunError.

    `mark`: the mark of every packet that leaves by them, 0 for none.
    """
    carriers: dict[CarrierName, Carrier] = {}
    for name, opened in CARRIERS.items():
        carriers[name] = opened(tunnel, mark, loop)
        stack.callback(carriers[name].close)
    return carriers
