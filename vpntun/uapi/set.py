"""Changes that wg(8) asks for, applied to a tunnel's settings. Nothing here touches the running tunnel.

The result is what WireGuard would have:

    a key of this end       removes a peer that has the same key. A request's changes of such a peer are ignored
    replace_peers           the peers that the request does not name are removed; of those that it names, only
                            Name, Transport and AllowedMACs stay, which wg does not know
    an allowed IP           is taken from the peer that had exactly this prefix; on a TAP device it is refused
    an endpoint             a peer that this end calls is called there instead. Any other is asked there, gives up after
                            90 s without an answer, and may move, as with WireGuard
    listen_port             0 is any port. A tunnel that only called can be called from then on

An endpoint that the name of a called peer has changes nothing: wg looks names up by itself, and `wg syncconf` must not
replace a name by one of its addresses. Nor does the endpoint at which a peer is already, perhaps over TCP, as `wg
showconf` prints it. With a shared key both ends derive their keys from it, so wg cannot change them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from vpntun.config.peer import NO_PSK, PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.crypto.keys import KeyPair, clamp
from vpntun.errors import CannotChange
from vpntun.types import Network, Place
from vpntun.uapi.request import PeerChange, SetRequest


class Whereabouts(Protocol):
    """Where peers are."""

    def is_at(self, public: bytes, place: Place) -> bool:
        """Whether a peer is reached there now."""

    def name_has(self, peer: PeerSettings, place: Place) -> bool:
        """Whether this end calls a peer by a name that has this address, or under which the peer was found there."""


class Nowhere:
    """The whereabouts of peers that have no links."""

    def is_at(self, public: bytes, place: Place) -> bool:
        """Return False."""
        return False

    def name_has(self, peer: PeerSettings, place: Place) -> bool:
        """Return False."""
        return False


def applied(tunnel: Tunnel, request: SetRequest, where: Whereabouts) -> tuple[Tunnel, dict[bytes, Place]]:
    """Return the tunnel with these changes, and where peers are to be sent to from now on, by their public keys.

    Raises CannotChange, or ConfigurationError for values that cannot work together.
    """
    identity = _identity(tunnel, request)
    peers = {peer.public: peer for peer in tunnel.peers}
    former = dict(peers)
    if request.replace_peers:
        peers.clear()
    if identity is not None:
        peers.pop(identity.public, None)
    owners: dict[Network, bytes] = {}
    moved: dict[bytes, Place] = {}
    for change in request.peers:
        public = change.public
        if identity is not None and public == identity.public:
            continue
        if change.remove:
            peers.pop(public, None)
            moved.pop(public, None)
        elif public in peers or not change.update_only:
            present = peers.get(public) or _added(change, former.get(public))
            peers[public] = _changed(present, change, where)
            owners |= {network: public for network, is_added in change.allowed.items() if is_added}
            place = change.endpoint
            if place is not None and not where.is_at(public, place) and not _is_named(peers[public], place):
                moved[public] = place
    settings = tuple(_without_others(peer, owners) for peer in peers.values())
    fresh = replace(tunnel, identity=identity, peers=settings)
    if request.mark is not None:
        fresh = replace(fresh, routing=replace(tunnel.routing, fwmark=request.mark))
    return (fresh if request.port is None else _on_port(fresh, request.port)), moved


def _identity(tunnel: Tunnel, request: SetRequest) -> KeyPair | None:
    if request.private is None:
        return tunnel.identity
    identity = KeyPair.of(clamp(request.private)) if any(request.private) else None
    if tunnel.derived_addresses and identity != tunnel.identity:
        raise CannotChange("the private key is derived from the shared key: wg cannot change it")
    return identity


def _on_port(tunnel: Tunnel, port: int) -> Tunnel:
    if tunnel.tcp_port is not None and not port:
        raise CannotChange("peers connect over TCP, so the tunnel needs a port of its own: give one")
    return replace(tunnel, port=port or None, listen_on=tunnel.listen_on or ("udp" if port else None))


def _added(change: PeerChange, former: PeerSettings | None) -> PeerSettings:
    """Return the first settings of a peer that is added, or replaces `former`, which had the same key."""
    if former is None:
        return PeerSettings(change.public, ())
    kept = replace(former, allowed=(), keepalive=0.0, endpoint=None, psk=former.psk if former.is_vpntun else NO_PSK)
    return kept if change.endpoint is not None else replace(kept, host=None, port=0)


def _changed(peer: PeerSettings, change: PeerChange, where: Whereabouts) -> PeerSettings:
    if change.psk is not None and change.psk != peer.psk:
        if peer.is_vpntun:
            raise CannotChange("the preshared key is derived from the shared key: wg cannot change it")
        peer = replace(peer, psk=change.psk)
    if change.keepalive is not None:
        peer = replace(peer, keepalive=float(change.keepalive))
    if change.endpoint is not None:
        peer = _sent_to(peer, change.endpoint, where)
    if change.replace_allowed or change.allowed:
        peer = replace(peer, allowed=_allowed(peer, change))
    return peer


def _sent_to(peer: PeerSettings, place: Place, where: Whereabouts) -> PeerSettings:
    if peer.host is None:
        return peer if where.is_at(peer.public, place) else replace(peer, endpoint=place)
    return peer if where.name_has(peer, place) else replace(peer, host=place[0], port=place[1])


def _is_named(peer: PeerSettings, place: Place) -> bool:
    """Whether a peer is still called by its name."""
    return peer.host is not None and (peer.host, peer.port) != place


def _allowed(peer: PeerSettings, change: PeerChange) -> tuple[Network, ...]:
    allowed = dict.fromkeys(() if change.replace_allowed else peer.allowed)
    for network, is_added in change.allowed.items():
        if is_added:
            allowed[network] = None
        else:
            allowed.pop(network, None)
    found = tuple(allowed)
    return peer.allowed if found == peer.allowed else found


def _without_others(peer: PeerSettings, owners: dict[Network, bytes]) -> PeerSettings:
    """Take the prefixes from a peer that have become another's."""
    if not owners:
        return peer
    kept = tuple(network for network in peer.allowed if owners.get(network, peer.public) == peer.public)
    return peer if len(kept) == len(peer.allowed) else replace(peer, allowed=kept)
