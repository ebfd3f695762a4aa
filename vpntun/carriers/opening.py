"""The sockets of one tunnel, one for each IP version that this host has.

    UDP              on the port that is waited on, or on any: all peers share it; none where peers come over TCP alone
    TCP, listening   on that port, where peers are waited for over TCP
    TCP, dialled     are made as they are needed (links.py)

All carry the tunnel's mark from the start, where it has one. What is opened goes onto the stack, to be closed.
"""

from __future__ import annotations

from contextlib import ExitStack

from vpntun.carriers.listening import TcpListener
from vpntun.carriers.sockets import families
from vpntun.carriers.udp import UdpSocket
from vpntun.config.tunnel import Tunnel
from vpntun.runtime.loop import Loop


def open_udp(tunnel: Tunnel, mark: int, loop: Loop, stack: ExitStack) -> dict[int, UdpSocket]:
    """The UDP sockets, by address family. Raises PortInUse or PrivilegeError."""
    if tunnel.listen_on == "tcp" and not any(peer.host for peer in tunnel.peers):
        return {}
    sockets = {}
    for family in families():
        sockets[family] = UdpSocket(
            family, tunnel.port or 0, loop, answers_from_where_asked=tunnel.listen_on is not None, mark=mark
        )
        stack.callback(sockets[family].close)
    return sockets


def open_listeners(tunnel: Tunnel, mark: int, stack: ExitStack) -> list[TcpListener]:
    """The listening TCP sockets. Raises PortInUse or PrivilegeError."""
    if tunnel.listen_on not in ("auto", "tcp") or tunnel.port is None:
        return []
    listeners = []
    for family in families():
        listeners.append(TcpListener(family, tunnel.port, mark))
        stack.callback(listeners[-1].close)
    return listeners
