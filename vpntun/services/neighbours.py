"""Peers of one tunnel as services see them: by name, by link, and by the addresses that lead to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from vpntun.config.peer import PeerSettings, find_peer
from vpntun.config.services import ServiceSettings
from vpntun.config.tunnel import Tunnel
from vpntun.crypto.keys import format_key
from vpntun.errors import CannotAskYet, NoSuchPeer, VpntunError
from vpntun.link.link import Link
from vpntun.runtime.loop import Loop
from vpntun.wire.inside.request import SERVICES
from vpntun.wire.inside.services import Asked

SECONDS_BETWEEN = 0.2
"""Pause before a peer that cannot be asked yet is tried again."""

OnAnswer = Callable[["dict[str, Any]"], None]
"""Called with what the peer has answered, which is untrusted."""
OnFailed = Callable[[str], None]
"""Called with the reason why there is no answer."""

SUBJECT = "it "
"""Beginning of a peer's reason for a refusal, if it tells of the peer itself."""
_FORWARDS = {4: Path("/proc/sys/net/ipv4/conf/all/forwarding"), 6: Path("/proc/sys/net/ipv6/conf/all/forwarding")}


def kernel_forwards(version: int) -> bool:
    """Return whether this machine's kernel forwards packets of an IP version."""
    with suppress(OSError):
        return _FORWARDS[version].read_text().strip() != "0"
    return False


def told_of(name: str, reason: str) -> str:
    """Return the reason of a peer's refusal with this name as its subject."""
    return f"{name} {reason.removeprefix(SUBJECT)}" if reason.startswith(SUBJECT) else f"{name}: {reason}"


@dataclass(frozen=True)
class Visitor:
    """Who asks for a service. `public`: key of the peer that sent the request. `names`: what AllowFrom may call it."""

    public: bytes
    names: tuple[str, ...]

    def __str__(self) -> str:
        return self.names[0]


class Neighbours:
    """The peers of a tunnel. `tunnel`: its present settings. `link_of`: the link of a public key; raises VpntunError.

    `link_to`: the link to which packets to an address (4 or 16 bytes) go, by the allowed IPs. `forwards`: whether this
    machine's kernel forwards packets of an IP version.
    """

    def __init__(
        self,
        loop: Loop,
        tunnel: Callable[[], Tunnel],
        link_of: Callable[[bytes], Link],
        link_to: Callable[[bytes], Link | None],
        forwards: Callable[[int], bool] = kernel_forwards,
    ) -> None:
        self._loop = loop
        self._tunnel = tunnel
        self._link_of = link_of
        self._link_to = link_to
        self._forwards = forwards

    def __iter__(self) -> Iterator[PeerSettings]:
        return iter(self._tunnel().peers)

    def __len__(self) -> int:
        return len(self._tunnel().peers)

    @property
    def services(self) -> ServiceSettings:
        """What this end offers, and the keys of services that it uses."""
        return self._tunnel().services

    def called(self, name: str) -> PeerSettings:
        """Find a peer by its name or key; "" is the only peer. Raises NoSuchPeer or AmbiguousPeer."""
        return find_peer(self._tunnel().peers, name or None)

    def named(self, name: str) -> PeerSettings:
        """Find a peer by its whole name or key, so that another peer learns no keys by trying. Raises NoSuchPeer."""
        found = [peer for peer in self if peer.name == name]
        found = found or [peer for peer in self if format_key(peer.public) == name]
        if len(found) != 1:
            raise NoSuchPeer(f"it has no peer {name}, or several")
        return found[0]

    def ask(
        self, peer: PeerSettings, asked: Asked, on_answer: OnAnswer, on_failed: OnFailed, patience: float = 0.0
    ) -> None:
        """Ask a peer; the loop calls one of the two.

        `patience`: for how many seconds to try if the peer cannot be asked yet: a link without traffic has no session,
        and is asked for one, as by a packet; a peer that is asked too much is asked later.
        """
        until = self._loop.now + patience

        def attempt() -> None:
            try:
                link = self._link_of(peer.public)
                if patience:
                    link.session_to_send_with()
                link.ask(SERVICES, asked.content(), answered)
            except VpntunError as error:
                if isinstance(error, CannotAskYet) and self._loop.now < until:
                    self._loop.call_later(SECONDS_BETWEEN, attempt)
                else:
                    self._loop.call_later(0.0, partial(on_failed, str(error)))

        def answered(content: dict[str, Any] | None) -> None:
            if content is None:
                on_failed("it has not answered within 10 s")
            else:
                on_answer(content)

        attempt()

    def answer_again(self, public: bytes) -> None:
        """Have a peer's requests answered whose answers have become ready; it may be gone by now."""
        with suppress(VpntunError):
            self._link_of(public).answer_again()

    def name_of(self, public: bytes) -> str:
        """Return what this end calls a peer: its name, or else its public key."""
        named = (peer.name for peer in self if peer.public == public)
        return next(named, "") or format_key(public)

    def visitor(self, link: Link, asker: str) -> Visitor:
        """Return who asks by a link. `asker`: as the link's peer calls whom it asks for, or empty."""
        public = link.peer.public
        name = self.name_of(public)
        if not asker:
            return Visitor(public, (name, format_key(public)))
        through = f"{asker}@{name}"
        return Visitor(public, (asker, through) if self._has_one_hub_alone else (through,))

    def leads_to(self, address: str, peer: PeerSettings) -> bool:
        """Return whether packets to an address go to this peer, by the allowed IPs; a TAP device has none."""
        if self._tunnel().device == "tap":
            return True
        link = self._link_to(ip_address(address).packed)
        return link is not None and link.peer.public == peer.public

    @property
    def _has_one_hub_alone(self) -> bool:
        """Whether this end calls its only peer. One that calls this end may be the last of several peers."""
        return [peer.host is None for peer in self] == [False]

    @property
    def is_hub(self) -> bool:
        """Whether packets from one peer to another one pass through this end, of one IP version at least."""
        return self._passes_on(4) or self._passes_on(6)

    def passes_on(self, address: str) -> bool:
        """Return whether packets from one peer to this address of another one pass through this end."""
        return self._passes_on(ip_address(address).version)

    def _passes_on(self, version: int) -> bool:
        tunnel = self._tunnel()
        return tunnel.relay or tunnel.device == "tap" or self._forwards(version)


def refused(reason: object) -> Mapping[str, Any]:
    """Return an answer that says why a request is refused."""
    return {"refused": str(reason)}
