"""Services that this end offers to peers by name, and keys of services that it uses, as a file spells them.

    Service = ssh 127.0.0.1:22            offer what listens there as "ssh"; unix:PATH instead of an address and a port
    AllowFrom = ssh laptop, phone         let these peers use it; "*" lets all
    AllowFrom = ssh laptop@office         let the peer "laptop" of the hub "office" use it
    ServiceKey = ssh KEY                  let those use it who have the key
    ServiceKey = ssh@desk KEY             use the service "ssh" of the peer "desk" with this key

A service needs AllowFrom or ServiceKey. With both, a visitor must be allowed and have the key. A key is 32 bytes in
base64, as `vpntun genpsk` makes it, or the absolute path of a file that contains it.

The name of a peer is the one in this end's own file, or its public key if it has none there. A hub calls its peers by
the names in the hub's file. Most ends call a hub as their only peer, and then its name for a peer counts alone. Where
there are other peers, or the only one calls this end, any could pass requests on under any name: @ and the hub's name
are needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vpntun.config import values
from vpntun.config.forwards import ServiceName, parse_target, spelled
from vpntun.config.keyfile import read_bare
from vpntun.config.lines import Section
from vpntun.errors import ConfigurationError
from vpntun.types import Place
from vpntun.wire.inside.services import SERVICE_NAME

EVERYBODY = "*"
MOST_SERVICES = 100
_KEY_LIKE = re.compile(r"[A-Za-z0-9+/]{42,}=?")


@dataclass(frozen=True)
class Service:
    """A service that this end offers. `allowed`: names of peers, or EVERYBODY; empty: all that have the key."""

    name: str
    target: Path | Place
    key: bytes | None = field(default=None, repr=False)
    allowed: tuple[str, ...] = ()

    def __str__(self) -> str:
        who = "every peer" if self.permits() else ", ".join(self.allowed)
        return f"{self.name} at {spelled(self.target)}, for {who}{' with its key' if self.key is not None else ''}"

    def permits(self, *names: str) -> bool:
        """Return whether a peer with one of these names may use the service, if it has the key where one is needed."""
        return not self.allowed or EVERYBODY in self.allowed or any(name in self.allowed for name in names)


@dataclass(frozen=True)
class ServiceSettings:
    """What a tunnel offers, and the keys with which it uses services of peers."""

    offered: tuple[Service, ...] = ()
    keys: Mapping[ServiceName, bytes] = field(default_factory=dict, repr=False)


def read_services(own: Section) -> ServiceSettings:
    """Read the keys Service, ServiceKey and AllowFrom. Raises ConfigurationError, KeyFileError or PrivilegeError."""
    offered = own.every("Service", _offered)
    named = {name for name, _ in offered}
    if len(named) < len(offered):
        raise own.error("two services have the same name: give each its own", "Service")
    if len(named) > MOST_SERVICES:
        raise own.error(f"a tunnel offers at most {MOST_SERVICES} services", "Service")
    own_keys: dict[str, bytes] = {}
    their_keys: dict[ServiceName, bytes] = {}
    for of, key in own.every("ServiceKey", _key):
        if isinstance(of, ServiceName):
            their_keys[of] = key
        else:
            own_keys[of] = key
    allowed: dict[str, tuple[str, ...]] = {}
    for name, peers in own.every("AllowFrom", _allowed):
        allowed[name] = allowed.get(name, ()) + peers
    for key_name, names in (("ServiceKey", own_keys), ("AllowFrom", allowed)):
        for unknown in names.keys() - named:
            raise own.error(f"there is no Service = {_shown(unknown)} that this {key_name} could be for", key_name)
    for name, _ in offered:
        if name not in own_keys and name not in allowed:
            raise own.error(
                f"the service {_shown(name)} does not say who may use it: add 'AllowFrom = {_shown(name)} PEER, PEER', "
                f"with * for every peer, or 'ServiceKey = {_shown(name)} KEY', whose KEY 'vpntun genpsk' makes",
                "Service",
            )
    services = (Service(name, target, own_keys.get(name), allowed.get(name, ())) for name, target in offered)
    return ServiceSettings(tuple(services), their_keys)


def parse_service_key(text: str) -> bytes:
    """Parse the key of a service, or read it from the file with this path.

    Raises ConfigurationError, KeyFileError or PrivilegeError.
    """
    if text.startswith("/") and not _KEY_LIKE.fullmatch(text):
        return read_bare(Path(text))
    return values.key(text)


def _shown(name: str) -> str:
    """Return the name of a service as an error may show it: it might be a key that was put in the wrong place."""
    return name if values.shown(name) == repr(name) else "..."


def _offered(text: str) -> tuple[str, Path | Place]:
    name, _, target = text.partition(" ")
    if not SERVICE_NAME.fullmatch(name) or not target.strip():
        raise ConfigurationError(
            "a service is a name of up to 64 letters, digits and _.- and where it listens, such as ssh 127.0.0.1:22"
        )
    parsed = parse_target(target.strip())
    if isinstance(parsed, ServiceName):
        raise ConfigurationError(f"{parsed} is a service of a peer: give the address and port of a program here")
    return name, parsed


def _key(text: str) -> tuple[str | ServiceName, bytes]:
    name, _, key = text.partition(" ")
    if not key.strip() or not ("@" in name or SERVICE_NAME.fullmatch(name)):
        raise ConfigurationError(
            "a key follows the name of its service, as in 'ssh KEY' or, to use the service of a peer, 'ssh@desk KEY'"
        )
    if "@" not in name:
        return name, parse_service_key(key.strip())
    target = parse_target(name)
    assert isinstance(target, ServiceName)
    return target, parse_service_key(key.strip())


def _allowed(text: str) -> tuple[str, tuple[str, ...]]:
    name, _, peers = text.partition(" ")
    names = tuple(values.name(each.strip()) for each in peers.split(",") if each.strip())
    if not SERVICE_NAME.fullmatch(name) or not names:
        raise ConfigurationError(
            "the name of a service is followed by the peers that may use it, as in 'ssh laptop, phone', or by * for all"
        )
    return name, names
