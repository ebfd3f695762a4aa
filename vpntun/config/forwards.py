"""Forwards as the operator writes them: in a file, in options, and in requests of the control socket.

tcp :6443 192.168.127.2:6443               accepted on this machine, passed on through the tunnel
:6443 192.168.127.2:6443                   the same
udp 127.0.0.1:5353 10.9.0.1:53
tcp unix:/run/db.sock 10.9.0.7:5432        either side may be a unix socket
tcp 127.0.0.1:2222 ssh@desk                the service "ssh" that the peer "desk" offers; "ssh@": the only peer
tcp :22 127.0.0.1:22 from peer             accepted on the tunnel's addresses, passed on to this machine
tcp 127.0.0.1:8080 127.0.0.1:80 from inside    accepted inside the namespace of `vpntun run`
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, cast

from vpntun.config import values
from vpntun.errors import ConfigurationError
from vpntun.types import LONGEST_SOCKET_PATH, Place, written
from vpntun.wire.inside.services import SERVICE_NAME

ForwardProtocol = Literal["tcp", "udp"]
Origin = Literal["here", "peer", "inside"]
"""Where connections are accepted: on this machine, on the tunnel's addresses, or inside the namespace of a run."""
ORIGINS: tuple[Origin, ...] = ("here", "peer", "inside")


@dataclass(frozen=True)
class ServiceName:
    """A service that a peer offers: the service's name, and the peer's, here or at the hub; "" is the only peer."""

    service: str
    peer: str

    def __str__(self) -> str:
        return f"{self.service}@{self.peer}"


Listening = Path | Place
"""Path of a unix socket, or an address and a port; the address "" stands for all addresses."""
Key = tuple[ForwardProtocol, Listening, Origin]
"""What no two forwards of a tunnel have in common."""
Target = Path | Place | ServiceName
"""Path of a unix socket, a host with a port, or a service that a peer offers."""


@dataclass(frozen=True)
class Forward:
    """One forward. `listen`: where connections or datagrams are accepted. `target`: to where they are passed on."""

    protocol: ForwardProtocol
    listen: Listening
    target: Target
    origin: Origin = "here"

    def __post_init__(self) -> None:
        if self.protocol == "udp" and any(isinstance(each, Path) for each in (self.listen, self.target)):
            raise ConfigurationError("a unix socket carries connections: use it with tcp")
        if isinstance(self.target, ServiceName) and (self.protocol == "udp" or self.origin != "here"):
            raise ConfigurationError(f"{self.target} is a service of a peer: use it with tcp, and without 'from'")

    @property
    def key(self) -> Key:
        """What no two forwards of a tunnel have in common."""
        return self.protocol, self.listen, self.origin

    def __str__(self) -> str:
        came_from = "" if self.origin == "here" else f" from {self.origin}"
        return f"{self.protocol} {spelled(self.listen)} {spelled(self.target)}{came_from}"


def parse_forward(text: str) -> Forward:
    """Parse a forward as in a file: [PROTOCOL] LISTEN TARGET [from peer|inside]. Raises ConfigurationError."""
    words = text.split()
    if len(words) in (2, 4) and words[0].lower() not in ("tcp", "udp"):
        words.insert(0, "tcp")
    match words:
        case [protocol, listen, target]:
            origin = "here"
        case [protocol, listen, target, "from", origin] if origin in ORIGINS:
            pass
        case _:
            raise ConfigurationError(
                "a forward is tcp or udp, where to listen, and the target, such as tcp 127.0.0.1:6443 "
                "192.168.127.2:6443; 'from peer' or 'from inside' may follow, and tcp may be left out"
            )
    kind = cast(ForwardProtocol, values.one_of("tcp", "udp")(protocol))
    return Forward(kind, parse_listening(listen), parse_target(target), cast(Origin, origin))


def parse_listening(text: str) -> Listening:
    """Parse where to listen: unix:PATH, :PORT, ADDRESS:PORT or [ADDRESS]:PORT. Raises ConfigurationError."""
    if text.startswith("unix:"):
        return _path(text)
    host, colon, port = text.rpartition(":")
    try:
        in_brackets = host.startswith("[") and host.endswith("]")
        address = ""
        if host:
            parsed = ip_address(host[1:-1] if in_brackets else host)
            if in_brackets != (parsed.version == 6):
                raise ValueError
            address = str(parsed)
        if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
            raise ValueError
    except ValueError:
        raise ConfigurationError(
            f"nothing can listen on {values.shown(text)}: give :PORT, an address and a port, such as 127.0.0.1:6443 or "
            "[::1]:6443, or unix:/PATH"
        ) from None
    return address, int(port)


def parse_target(text: str) -> Target:
    """Parse a target: unix:PATH, HOST:PORT or SERVICE@PEER. Raises ConfigurationError."""
    if text.startswith("unix:"):
        return _path(text)
    service, at, peer = text.partition("@")
    if at:
        if not SERVICE_NAME.fullmatch(service):
            raise ConfigurationError(f"{values.shown(text)} is not SERVICE@PEER, such as ssh@desk")
        return ServiceName(service, values.name(peer))
    try:
        host, port = values.endpoint(text)
        if ":" in host and not text.startswith("["):  # an address whose port was forgotten would lose its end
            raise ConfigurationError
    except ConfigurationError:
        raise ConfigurationError(
            f"nothing can be reached at {values.shown(text)}: give HOST:PORT, such as db.example:5432 or "
            "[fd00::7]:5432, unix:/PATH, or in a forward SERVICE@PEER"
        ) from None
    return host, port


def spelled(end: Target) -> str:
    """Write one end of a forward as it is parsed."""
    if isinstance(end, Path):
        return f"unix:{end}"
    return str(end) if isinstance(end, ServiceName) else written(end)


def _path(text: str) -> Path:
    path = Path(text.removeprefix("unix:"))
    if not path.is_absolute() or "\0" in text or len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise ConfigurationError(
            f"{values.shown(text)} is not a unix socket: give unix: and an absolute path of up to "
            f"{LONGEST_SOCKET_PATH} bytes"
        )
    return path
