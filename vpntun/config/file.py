"""Reader of configuration files in wg-quick's format, with a few keys of vpntun's own.

    wg(8)'s      [Interface] PrivateKey, ListenPort, FwMark
                 [Peer]      PublicKey, PresharedKey, AllowedIPs, Endpoint, PersistentKeepalive
    wg-quick's   [Interface] Address, DNS, MTU, Table, PreUp, PostUp, PreDown, PostDown, SaveConfig
    vpntun's     [Interface] Device, MAC, Bridge, Transport, Relay, DSCP, User, Metrics, Forward, Service, ServiceKey,
                             AllowFrom, DnsServer, DnsDomain, DnsRecord, DnsForward, and SharedKey with Role instead of
                             the key pairs
                 [Peer]      AllowedMACs, Transport, Name

1. The file is read, up to LARGEST bytes. A notice warns if everybody can access it.
2. lines.py splits it into sections, and values.py parses their values; each error names the file and the line.
3. Several [Interface] sections count as one. If a key is repeated, its last value counts, except that addresses, name
   servers, allowed IPs, hooks, forwards and services add up.
4. A second [Peer] with the same public key changes the first, as in wg(8): the values it gives replace the first one's,
   and the first one's allowed IPs are dropped in any case. A [Peer] with this machine's own public key is ignored, as
   by the kernel, so that all machines can share one list of peers.

5. PrivateKey may be missing if there is a PostUp, which can give it: `wg set %i private-key FILE`.

This end waits for peers if it has a port to listen on: ListenPort, or 55555 as the server of a shared key.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast

from vpntun.config import values
from vpntun.config.ethernet import check_sections
from vpntun.config.forwards import parse_forward
from vpntun.config.keys import Role, derived_keys
from vpntun.config.lines import Known, Section, parse
from vpntun.config.names import NameSettings, default_domain, parse_domain, parse_forward_of_names, parse_record
from vpntun.config.peer import NO_PSK, PeerSettings
from vpntun.config.services import read_services
from vpntun.config.tunnel import CLIENT_KEEPALIVE, DEFAULT_PORT, EVERYTHING, HookLines, Routing, Tunnel
from vpntun.crypto.keys import KeyPair, agree, generate_private
from vpntun.errors import BadPacket, ConfigurationError, PrivilegeError
from vpntun.runtime.log import notice
from vpntun.types import DeviceKind, Transport

T = TypeVar("T")

LARGEST = 32 << 20  # bytes; 130,000 allowed IPs take 5 MB at most

KNOWN: Known = {
    "Interface": (
        *("PrivateKey", "ListenPort", "FwMark"),
        *("Address", "DNS", "MTU", "Table", "PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig"),
        *("Device", "MAC", "Bridge"),
        *("Transport", "Relay", "DSCP", "User", "Metrics", "SharedKey", "Role"),
        *("Forward", "Service", "ServiceKey", "AllowFrom"),
        *("DnsServer", "DnsDomain", "DnsRecord", "DnsForward"),
    ),
    "Peer": (
        *("PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"),
        *("AllowedMACs", "Transport", "Name"),
    ),
}


def read_file(path: Path, interface: str, *, in_namespace: bool = False) -> Tunnel:
    """Read a file's tunnel, with its addresses, routes, name servers and hooks. `in_namespace`: as Tunnel has it.

    Raises ConfigurationError, PrivilegeError, or KeyFileError about a shared key's file.
    """
    own, peers = _sections(path)
    if own.last("SaveConfig", values.one_of("true", "false")) == "true":
        notice("%s: SaveConfig has no effect: a running tunnel never writes the file", path)
    routes = own.last("Table", _unless_empty(values.table)) or "auto"
    if "SharedKey" in own and not any("AllowedIPs" in peer for peer in peers):
        routes = "off"  # everything is allowed, but a route for everything must be asked for
    tunnel = _tunnel(own, peers, interface, leaves_key_to_hooks="PostUp" in own)
    if tunnel.device == "tap" and routes == "auto":
        routes = "off"
    added: dict[str, Any] = {
        "forwards": tuple(own.every("Forward", parse_forward)),
        "addresses": _flat(own.every("Address", values.addresses)),
        "mtu": own.last("MTU", _unless_empty(values.mtu)),
        "routing": replace(tunnel.routing, table=routes),
        "dns": _flat(own.every("DNS", values.dns)),
        "names": _names(own, interface),
        "in_namespace": in_namespace,
        "hooks": HookLines(*(_hooks(own, key, interface) for key in ("PreUp", "PostUp", "PreDown", "PostDown"))),
    }
    try:
        return replace(tunnel, **added)
    except ConfigurationError as error:
        raise own.error(str(error)) from None


def read_peers(path: Path, interface: str) -> Tunnel:
    """Read a file's keys and peers, as `wg setconf` does; wg-quick's keys may be present and are ignored."""
    return replace(_tunnel(*_sections(path), interface), derived_addresses=(), derived_peer_addresses=())


def _sections(path: Path) -> tuple[Section, list[Section]]:
    """Return the [Interface] section and every [Peer] section."""
    own: Section | None = None
    peers = []
    for section in parse(_read(path), str(path), KNOWN):
        if section.name == "Peer":
            peers.append(section)
        else:
            own = section if own is None else own.followed_by(section)
    if own is None:
        raise ConfigurationError(
            f"{path}: there is no [Interface] section; begin with one that has a PrivateKey or a SharedKey"
        )
    return own, peers


def _tunnel(own: Section, peers: list[Section], interface: str, *, leaves_key_to_hooks: bool = False) -> Tunnel:
    """Make a tunnel of the keys that wg(8) reads and of vpntun's own.

    `leaves_key_to_hooks`: PrivateKey may be missing, since hooks can give it.
    """
    device = own.last("Device", values.device) or "tun"
    check_sections(own, peers, device)
    if "SharedKey" in own:
        made = _with_shared_key(own, peers, interface, device)
    else:
        made = _with_key_pairs(own, peers, interface, device, leaves_key_to_hooks=leaves_key_to_hooks)
    return replace(
        made,
        mac=own.last("MAC", _unless_empty(values.mac)),
        bridge=own.last("Bridge", _unless_empty(values.bridge)),
        routing=Routing("off", own.last("FwMark", values.mark) or 0),
        relay=own.last("Relay", values.one_of("yes", "no")) == "yes",
        copies_dscp=own.last("DSCP", values.one_of("inherit", "none")) == "inherit",
        user=own.last("User", str) or None,
        metrics=own.last("Metrics", _unless_empty(values.metrics)),
        services=read_services(own),
    )


def _with_key_pairs(
    own: Section, peers: list[Section], interface: str, device: DeviceKind, *, leaves_key_to_hooks: bool
) -> Tunnel:
    private = own.last("PrivateKey", values.key)
    if private is None and not leaves_key_to_hooks:
        raise own.error("[Interface] has no PrivateKey; 'vpntun genkey' makes one (or give a SharedKey and a Role)")
    if "Role" in own:
        raise own.error("Role requires SharedKey; with key pairs, the end that has an Endpoint calls the other", "Role")
    identity = KeyPair.of(private) if private is not None else None
    transport = own.last("Transport", values.transport) or "udp"
    port = own.last("ListenPort", values.port) or None
    settings = tuple(
        _peer(section, transport, public=public, psk=section.last("PresharedKey", values.key) or NO_PSK)
        for public, section in _by_key(peers, identity).items()
    )
    listen_on = transport if port is not None else None
    return Tunnel(interface, identity, settings, port, listen_on, device=device)


def _with_shared_key(own: Section, peers: list[Section], interface: str, device: DeviceKind) -> Tunnel:
    role = own.last("Role", values.one_of("server", "client"))
    secret = own.last("SharedKey", values.shared_secret)
    if role is None or secret is None:
        raise own.error("SharedKey requires Role: server at one end, client at the other", "SharedKey")
    if "PrivateKey" in own:
        raise own.error("give either a SharedKey or a PrivateKey, not both", "PrivateKey")
    if len(peers) > 1:
        raise peers[1].error("a SharedKey is for one peer; for more peers, give each machine a PrivateKey")
    peer = peers[0] if peers else Section(own.file, own.line, "Peer", {})
    for key in ("PublicKey", "PresharedKey"):
        if key in peer:
            raise peer.error(f"the peer's {key} is derived from the SharedKey; remove this line", key)
    if (role == "client") != ("Endpoint" in peer):
        raise peer.error(
            "the server of a SharedKey waits to be called; remove Endpoint, or change Role to client"
            if role == "server"
            else "the client of a SharedKey needs the server's Endpoint; put Endpoint = HOST:PORT into [Peer]",
            "Endpoint",
        )
    keys = derived_keys(cast(Role, role), secret)
    transport = own.last("Transport", values.transport) or "auto"
    settings = _peer(peer, transport, public=keys.peer, psk=keys.psk, is_vpntun=True)
    if role == "client" and "PersistentKeepalive" not in peer:
        settings = replace(settings, keepalive=CLIENT_KEEPALIVE)
    if "AllowedIPs" not in peer and device == "tun":
        settings = replace(settings, allowed=EVERYTHING)
    return Tunnel(
        interface,
        keys.identity,
        (settings,),
        own.last("ListenPort", values.port) or (DEFAULT_PORT if role == "server" else None),
        listen_on=transport if role == "server" else None,
        derived_addresses=keys.derived_addresses,
        derived_peer_addresses=keys.derived_peer_addresses,
        device=device,
    )


def _peer(section: Section, transport: Transport, **known: Any) -> PeerSettings:
    """Make a peer of its section and of its keys; `transport` is the default if the section has none."""
    host, port = section.last("Endpoint", values.endpoint) or (None, 0)
    return PeerSettings(
        allowed=_flat(section.every("AllowedIPs", values.networks)),
        host=host,
        port=port,
        keepalive=section.last("PersistentKeepalive", values.keepalive) or 0.0,
        transport=section.last("Transport", values.transport) or transport,
        name=section.last("Name", values.name) or "",
        allowed_macs=_flat(section.every("AllowedMACs", values.macs)),
        **known,
    )


def _names(own: Section, interface: str) -> NameSettings | None:
    """Return the settings of the name server; None without one. They are checked even if it is switched off."""
    serves = own.last("DnsServer", values.one_of("yes", "no"))
    domain = own.last("DnsDomain", parse_domain) or default_domain(interface)
    records = own.every("DnsRecord", partial(parse_record, domain=domain))
    settings = NameSettings(domain, tuple(records), tuple(own.every("DnsForward", parse_forward_of_names)))
    for key in ("DnsDomain", "DnsRecord", "DnsForward"):
        if serves is None and key in own:
            raise own.error(f"{key} is for the tunnel's own name server: add DnsServer = yes", key)
    return settings if serves == "yes" else None


def _by_key(peers: list[Section], identity: KeyPair | None) -> dict[bytes, Section]:
    """Return the sections by public key, with repeated keys merged and this machine's own key left out."""
    by_key: dict[bytes, Section] = {}
    # Any private key exposes an unsafe public one.
    private = identity.private if identity is not None else generate_private()
    for peer in peers:
        public = peer.last("PublicKey", values.key)
        if public is None:
            raise peer.error("[Peer] has no PublicKey; 'vpntun pubkey' prints it on the other machine")
        if identity is not None and public == identity.public:
            notice("%s:%d: this PublicKey is this machine's own; the peer is ignored", peer.file, peer.line)
            continue
        try:
            agree(private, public)
        except BadPacket:
            raise peer.error(
                "this PublicKey is unsafe: anybody could compute the secrets of its tunnel", "PublicKey"
            ) from None
        if public in by_key:
            peer = replace(peer, values={**by_key[public].values, "AllowedIPs": [], **peer.values})
        by_key[public] = peer
    return by_key


def _flat(lists: Iterable[list[T]]) -> tuple[T, ...]:
    return tuple(chain.from_iterable(lists))


def _hooks(own: Section, key: str, interface: str) -> tuple[str, ...]:
    return tuple(line.replace("%i", interface) for line in own.every(key, str) if line)


def _unless_empty(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """Wrap a parser so that an empty value counts as not given, as wg-quick treats some of its keys."""
    return lambda text: parse(text) if text else None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            _warn_of_others(path, os.fstat(file.fileno()))
            content = file.read(LARGEST + 1)
    except PermissionError:
        raise PrivilegeError(f"{path} cannot be read by this user: run as its owner, or as root") from None
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from None
    if len(content) > LARGEST:
        raise ConfigurationError(f"{path} is too large: a configuration file has at most {LARGEST >> 20} MiB")
    if b"\0" in content:
        raise ConfigurationError(f"{path} is not a text file: it contains zero bytes")
    # Comments and hooks may contain bytes that are not UTF-8; the shell of a hook gets them unchanged.
    return content.decode("utf-8-sig", "surrogateescape")


def _warn_of_others(path: Path, status: os.stat_result) -> None:
    """Warn, as wg-quick does, if the modes of both the file and its folder let everybody in."""
    if stat.S_ISREG(status.st_mode) and status.st_mode & path.resolve().parent.stat().st_mode & stat.S_IRWXO:
        notice("%s contains keys and is open to everybody: chmod 600 %s", path, path)
