"""Configuration files: wg-quick's format and meaning, and a few keys of our own.

    wg(8)'s      [Interface] PrivateKey, ListenPort, FwMark
                 [Peer]      PublicKey, PresharedKey, AllowedIPs, Endpoint, PersistentKeepalive
    wg-quick's   [Interface] Address, DNS, MTU, Table, PreUp, PostUp, PreDown, PostDown, SaveConfig
    ours         [Interface] Transport, Relay, User, and SharedKey with Role in place of the key pairs
                 [Peer]      Transport, Name

1. The file is read, at most LARGEST bytes of it. Who can read it beside its owner is told.
2. lines.py makes sections of it, values.py values of its texts; what cannot be is an error with file and line.
3. Several [Interface] sections count as one. Of a key that comes again the last one counts; addresses, name servers,
   allowed IPs and hooks add up.
4. A second [Peer] with the same public key changes the first, as in wg(8): what it gives counts from then on, and its
   allowed IPs take the place of the first one's. One with this machine's own public key is left out, as by the kernel,
   so that one list of peers can serve all machines.

This end waits for peers where it has a port to wait on: ListenPort, or 55555 as the server of a shared key.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast

from vpntun.config import values
from vpntun.config.lines import Known, Section, parse
from vpntun.config.peer import NO_PSK, PeerSettings
from vpntun.config.tunnel import (
    CLIENT_KEEPALIVE,
    DEFAULT_PORT,
    EVERYTHING,
    HookLines,
    Role,
    Routing,
    Tunnel,
    derived_keys,
)
from vpntun.crypto.keys import KeyPair, agree
from vpntun.errors import BadPacket, ConfigurationError, PrivilegeError
from vpntun.runtime.log import notice
from vpntun.types import Transport

T = TypeVar("T")

FOLDERS = (Path("/etc/vpntun"), Path("/etc/wireguard"))
LARGEST = 32 << 20  # bytes; 130,000 allowed IPs take 5 MB at most

KNOWN: Known = {
    "Interface": (
        *("PrivateKey", "ListenPort", "FwMark"),
        *("Address", "DNS", "MTU", "Table", "PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig"),
        *("Transport", "Relay", "User", "SharedKey", "Role"),
    ),
    "Peer": (
        *("PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"),
        *("Transport", "Name"),
    ),
}
_ENDING = ".conf"
_NAME = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")  # wg-quick's; hooks put it into a shell's line for %i


def find_file(name: str) -> Path:
    """The configuration file of this path, or of this name in FOLDERS. Raises ConfigurationError or PrivilegeError."""
    if "/" in name or name.endswith(_ENDING):
        candidates = [Path(name)]
    else:
        candidates = [folder / f"{name}{_ENDING}" for folder in FOLDERS]
    for path in candidates:
        try:
            path.stat()
        except PermissionError:
            raise PrivilegeError(f"{path} cannot be looked for by this user: run as its owner, or as root") from None
        except (OSError, ValueError):
            continue
        return path
    raise ConfigurationError(f"there is no configuration file {' and no '.join(map(str, candidates))}")


def interface_of(path: Path) -> str:
    """The interface that a file is for, which is its name without the ending. Raises ConfigurationError."""
    interface = path.name.removesuffix(_ENDING)
    if not path.name.endswith(_ENDING) or interface in (".", "..") or not _NAME.fullmatch(interface):
        raise ConfigurationError(
            f"{path} gives no name for an interface: before its ending, {_ENDING}, stand up to 15 letters, digits and "
            "_=+.-; rename it, or give both: vpntun -i NAME -f FILE"
        )
    return interface


def read_file(path: Path, interface: str) -> Tunnel:
    """The tunnel that a file asks for, with its addresses, routes, name servers and hooks.

    Raises ConfigurationError, PrivilegeError, or KeyFileError about a shared key's file.
    """
    own, peers = _sections(path)
    if own.last("SaveConfig", values.one_of("true", "false")) == "true":
        notice("%s: SaveConfig has nothing to save here, since nothing but the file changes a tunnel", path)
    routes = own.last("Table", _unless_empty(values.table)) or "auto"
    if "SharedKey" in own and not any("AllowedIPs" in peer for peer in peers):
        routes = "off"  # allowed is everything, but nobody asked to have everything sent there
    tunnel = _tunnel(own, peers, interface)
    added: dict[str, Any] = {
        "addresses": _flat(own.every("Address", values.addresses)),
        "mtu": own.last("MTU", _unless_empty(values.mtu)),
        "routing": replace(tunnel.routing, table=routes),
        "dns": _flat(own.every("DNS", values.dns)),
        "hooks": HookLines(*(_hooks(own, key, interface) for key in ("PreUp", "PostUp", "PreDown", "PostDown"))),
    }
    try:
        return replace(tunnel, **added)
    except ConfigurationError as error:
        raise own.error(str(error)) from None


def read_peers(path: Path, interface: str) -> Tunnel:
    """The same with keys and peers alone, as `wg setconf` takes a file. What wg-quick adds may stand there, unread."""
    return replace(_tunnel(*_sections(path), interface), derived_addresses=(), derived_peer_addresses=())


def _sections(path: Path) -> tuple[Section, list[Section]]:
    """[Interface] and each [Peer]."""
    own: Section | None = None
    peers = []
    for section in parse(_read(path), str(path), KNOWN):
        if section.name == "Peer":
            peers.append(section)
        else:
            own = section if own is None else own.followed_by(section)
    if own is None:
        raise ConfigurationError(
            f"{path}: there is no [Interface]; begin with it, and a PrivateKey or a SharedKey in it"
        )
    return own, peers


def _tunnel(own: Section, peers: list[Section], interface: str) -> Tunnel:
    """What wg(8) would be told, and our keys."""
    made = _with_shared_key(own, peers, interface) if "SharedKey" in own else _with_key_pairs(own, peers, interface)
    return replace(
        made,
        routing=Routing("off", own.last("FwMark", values.mark) or 0),
        relay=own.last("Relay", values.one_of("yes", "no")) == "yes",
        user=own.last("User", str) or None,
    )


def _with_key_pairs(own: Section, peers: list[Section], interface: str) -> Tunnel:
    private = own.last("PrivateKey", values.key)
    if private is None:
        raise own.error("[Interface] has no PrivateKey; 'vpntun genkey' makes one (or give a SharedKey and a Role)")
    if "Role" in own:
        raise own.error("Role goes with SharedKey; between key pairs the one that has an Endpoint calls", "Role")
    identity = KeyPair.of(private)
    transport = own.last("Transport", values.transport) or "udp"
    port = own.last("ListenPort", values.port) or None
    settings = tuple(
        _peer(section, transport, public=public, psk=section.last("PresharedKey", values.key) or NO_PSK)
        for public, section in _by_key(peers, identity).items()
    )
    return Tunnel(interface, identity, settings, port, listen_on=transport if port is not None else None)


def _with_shared_key(own: Section, peers: list[Section], interface: str) -> Tunnel:
    role = own.last("Role", values.one_of("server", "client"))
    secret = own.last("SharedKey", values.shared_secret)
    if role is None or secret is None:
        raise own.error("SharedKey goes with Role, which is server at one end and client at the other", "SharedKey")
    if "PrivateKey" in own:
        raise own.error("give either a SharedKey or a PrivateKey", "PrivateKey")
    if len(peers) > 1:
        raise peers[1].error("a SharedKey is for one peer; for more, give each machine a PrivateKey")
    peer = peers[0] if peers else Section(own.file, own.line, "Peer", {})
    for key in ("PublicKey", "PresharedKey"):
        if key in peer:
            raise peer.error(f"with a SharedKey, the peer's {key} follows from it; leave this one out", key)
    if (role == "client") != ("Endpoint" in peer):
        raise peer.error(
            "the server of a SharedKey waits and calls nobody; leave Endpoint out, or change Role to client"
            if role == "server"
            else "the client of a SharedKey needs the server's Endpoint; put Endpoint = HOST:PORT into [Peer]",
            "Endpoint",
        )
    keys = derived_keys(cast(Role, role), secret)
    transport = own.last("Transport", values.transport) or "auto"
    settings = _peer(peer, transport, public=keys.peer, psk=keys.psk, is_vpntun=True)
    if role == "client" and "PersistentKeepalive" not in peer:
        settings = replace(settings, keepalive=CLIENT_KEEPALIVE)
    if "AllowedIPs" not in peer:
        settings = replace(settings, allowed=EVERYTHING)
    return Tunnel(
        interface,
        keys.identity,
        (settings,),
        own.last("ListenPort", values.port) or (DEFAULT_PORT if role == "server" else None),
        listen_on=transport if role == "server" else None,
        derived_addresses=keys.derived_addresses,
        derived_peer_addresses=keys.derived_peer_addresses,
    )


def _peer(section: Section, transport: Transport, **known: Any) -> PeerSettings:
    """A peer out of its section, and of what is known of it otherwise."""
    host, port = section.last("Endpoint", values.endpoint) or (None, 0)
    return PeerSettings(
        allowed=_flat(section.every("AllowedIPs", values.networks)),
        host=host,
        port=port,
        keepalive=section.last("PersistentKeepalive", values.keepalive) or 0.0,
        transport=section.last("Transport", values.transport) or transport,
        name=section.last("Name", values.name) or "",
        **known,
    )


def _by_key(peers: list[Section], identity: KeyPair) -> dict[bytes, Section]:
    """The sections by public key, each key once, and not this machine's own."""
    by_key: dict[bytes, Section] = {}
    for peer in peers:
        public = peer.last("PublicKey", values.key)
        if public is None:
            raise peer.error("[Peer] has no PublicKey; 'vpntun pubkey' tells it on the other machine")
        if public == identity.public:
            notice("%s:%d: this machine's own PublicKey; the peer is left out", peer.file, peer.line)
            continue
        try:
            agree(identity.private, public)
        except BadPacket:
            raise peer.error("no machine has this PublicKey: anybody could compute its secrets", "PublicKey") from None
        if public in by_key:
            peer = replace(peer, values={**by_key[public].values, "AllowedIPs": [], **peer.values})
        by_key[public] = peer
    return by_key


def _flat(lists: Iterable[list[T]]) -> tuple[T, ...]:
    return tuple(chain.from_iterable(lists))


def _hooks(own: Section, key: str, interface: str) -> tuple[str, ...]:
    return tuple(line.replace("%i", interface) for line in own.every(key, str) if line)


def _unless_empty(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """wg-quick takes some of its keys for not given where their value is empty."""
    return lambda text: parse(text) if text else None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            _warn_of_others(path, os.fstat(file.fileno()))
            content = file.read(LARGEST + 1)
    except PermissionError:
        raise PrivilegeError(f"{path} cannot be read by this user: run as its owner, or as root") from None
    except FileNotFoundError:
        raise ConfigurationError(f"{path} is not there") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from None
    if len(content) > LARGEST:
        raise ConfigurationError(f"{path} is too large for a configuration file, which has at most {LARGEST >> 20} MiB")
    if b"\0" in content:
        raise ConfigurationError(f"{path} is no text in UTF-8: there are zero bytes in it")
    # Bytes that are no UTF-8 may stand in comments, and in hooks, whose shell gets them as they are.
    return content.decode("utf-8-sig", "surrogateescape")


def _warn_of_others(path: Path, status: os.stat_result) -> None:
    """wg-quick's warning: neither the file nor its folder keeps others out."""
    if stat.S_ISREG(status.st_mode) and status.st_mode & path.resolve().parent.stat().st_mode & stat.S_IRWXO:
        notice("%s is open to everybody, and there are keys in it: chmod 600 %s", path, path)
