"""JSON of forwards as gvproxy of gvisor-tap-vsock has it, so that its clients can ask a tunnel.

    {"local": ":6443", "remote": "192.168.127.2:6443", "protocol": "tcp"}
    {"local": "/run/db.sock", "remote": "tcp://10.9.0.7:5432", "protocol": "unix"}    a unix socket on this machine
    {"local": ":22", "remote": "127.0.0.1:22", "from": "peer"}                        vpntun's own member

`protocol` is tcp unless it is given. A unix socket may also be written unix:PATH, on either side, with the protocol
tcp. Members that are not known are ignored. The bytes are untrusted: parsers raise ConfigurationError and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vpntun.config.forwards import ORIGINS, Forward, ForwardProtocol, Key, parse_listening, parse_target
from vpntun.errors import ConfigurationError

PROTOCOLS = ("tcp", "udp", "unix")


def parse_expose(body: bytes) -> Forward:
    """Parse the forward of a request to expose it. Raises ConfigurationError."""
    members = _object(body)
    protocol, listen, origin = _key(members)
    remote = _text(members, "remote").removeprefix("tcp://")
    return Forward(protocol, listen, parse_target(_without_slashes(remote)), origin)


def parse_unexpose(body: bytes) -> Key:
    """Parse what names the forward in a request to end it. Raises ConfigurationError."""
    return _key(_object(body))


def members_of(reported: Mapping[str, Any]) -> dict[str, str]:
    """Return the members of a forward, as it is reported in the status. A request with them names the same forward."""
    listen, target, origin = (reported[name] for name in ("listen", "target", "from"))
    members = {"local": listen, "remote": target, "protocol": reported["protocol"]}
    if listen.startswith("unix:"):
        has_url = "@" not in target and not target.startswith("unix:")
        remote = f"tcp://{target}" if has_url else target
        members = {"local": listen.removeprefix("unix:"), "remote": remote, "protocol": "unix"}
    return members if origin == "here" else {**members, "from": origin}


def _key(members: Mapping[str, Any]) -> Key:
    protocol = _text(members, "protocol", "tcp")
    if protocol not in PROTOCOLS:
        raise ConfigurationError(f"unknown protocol {protocol[:20]!r}: give tcp, udp or unix")
    local = _without_slashes(_text(members, "local"))
    if protocol == "unix" and not local.startswith("unix:"):
        local = f"unix:{local}"
    origin = _text(members, "from", "here")
    if origin not in ORIGINS:
        raise ConfigurationError(f"'from' is {origin[:20]!r}: give peer or inside, or leave it out")
    kind: ForwardProtocol = "udp" if protocol == "udp" else "tcp"
    return kind, parse_listening(local), origin


def _without_slashes(end: str) -> str:
    """Return a URL unix:///PATH as unix:/PATH, and any other end as it is."""
    return f"unix:{end.removeprefix('unix://')}" if end.startswith("unix:///") else end


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        raise ConfigurationError('the body is not JSON: send {"local": ":6443", "remote": "10.9.0.7:6443"}') from None
    if not isinstance(members, dict):
        raise ConfigurationError('the body is not a JSON object: send {"local": ":6443", "remote": "10.9.0.7:6443"}')
    return members


def _text(members: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """Return a member of the object, or the default if it is missing or empty."""
    text = members.get(name) or default
    if text is None:
        raise ConfigurationError(f"the member {name!r} is missing")
    if not isinstance(text, str) or not text.isprintable():
        raise ConfigurationError(f"the member {name!r} has to be one line of text")
    return text
