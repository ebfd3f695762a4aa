"""Switch of a TAP device and its links: it learns at which port each MAC address is, and sends frames there alone.

    source         Its address is claimed for the port at which the frame came in (core/mac_table.py). The frame is
                   dropped if the address belongs to another port, or AllowedMACs does not name it.
    destination    Known at another port: the frame goes there. Known at the same port: it is dropped.
                   Unknown, or a group such as all stations: it goes to all other ports, at a limited rate for each port
                   at which such frames come in.

The ports are the links, and LOCAL for this side: the device, and the bridge that it may be in. With one link there is
only one other port, so everything goes there that is not known to be at the port where it came in. Then the rate of
frames for all is limited only towards the peer: it is limited where they come in, and at a hub each site has its own
limit.

A network with a loop brings frames back, at another port than the one that has their source. They are dropped and
counted as "frame came back", and the log names their addresses. STP's frames pass as all others do, so that bridges
find the loop themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from weakref import WeakKeyDictionary

from vpntun.core.bucket import TokenBucket, TokenBuckets
from vpntun.core.endpoint import Reachable
from vpntun.core.mac_table import LOCAL, MacTable, OwnSide
from vpntun.datapath.sending.distributor import Distributor
from vpntun.datapath.switching.header_cache import HeaderCache, header_of
from vpntun.errors import BadPacket
from vpntun.link.link import Link
from vpntun.runtime.log import NOTICE, Limited
from vpntun.runtime.loop import Loop
from vpntun.wire.ethernet.frame import LARGEST_HEADER
from vpntun.wire.ethernet.mac import mac_text
from vpntun.wire.message import Buffer
from vpntun.wire.vnet import NEEDS_CSUM, SEGMENT_SIZE, UNFINISHED, VNET_HEADER

COPIES_PER_SECOND, COPIES_AT_ONCE = 4000, 4000
"""Limits on frames for all, for each port at which they come in. Each counts once for each port to which it goes, and a
superpacket as its segments. So the work that one site can cause does not grow with the number of sites."""
MOST_WAITING = 64 * 1024
"""Bytes that wait for a peer without a session, beyond which frames for all are not added. So one site cannot fill the
queues of all peers that are away, nor push out what waits there for one station."""
SECONDS_BETWEEN_CLAIMS = 5.0
"""A frame that is like one before (wire/likeness.py) claims nothing. So while frames pass, what is known about them is
forgotten this often, and the next ones claim their addresses again."""


class Switch:
    """Switch of one device, and the forwarder of its delivery.

    table     MAC addresses of all ports
    arriving  the link that a frame may come from, and the port that it goes to, by the frame's header
    longest   bytes of the longest frame, superpackets aside
    discard   drops the frames that were forwarded and not sent yet, after an error has interrupted this

    `links`: those of the engine, by peer.
    """

    def __init__(self, links: Mapping[Reachable, Link], distributor: Distributor, loop: Loop, mtu: int) -> None:
        self.follow_mtu(mtu)
        self._links = links
        self._distributor = distributor
        self._loop = loop
        self.table: MacTable[Link] = MacTable()
        self.arriving: HeaderCache[tuple[Link, Link | Literal[OwnSide.LOCAL]]] = HeaderCache()
        self.table.empty_on_change(self.arriving)
        self.discard = distributor.discard
        self._allowed: WeakKeyDictionary[Link, frozenset[bytes]] = WeakKeyDictionary()
        self._limits: TokenBuckets[Link] = TokenBuckets(COPIES_PER_SECOND, COPIES_AT_ONCE)
        self._limit_here = TokenBucket(COPIES_PER_SECOND, COPIES_AT_ONCE)
        self._reached: list[Link] | None = None
        """Links at which a peer can be reached; None: to be found out. It is asked once for all frames at hand."""
        self._forgets_soon = False
        self._came_back = Limited(
            NOTICE,
            "a frame of %s, which is at %s, came from %s: if a second path joins the two, turn on STP at its bridges, "
            "or cut it; if the machine has moved, it is believed once its former place is silent",
        )
        self._not_allowed = Limited(NOTICE, "a frame of %s came from %s, whose AllowedMACs do not name it")
        self._too_many = Limited(
            NOTICE,
            "too many frames for all stations come from %s: "
            f"{COPIES_PER_SECOND} copies a second are sent, and the rest is dropped",
        )

    def follow_mtu(self, mtu: int) -> None:
        """Take no frames that are longer than another MTU of the device allows, in bytes, unless they are cut."""
        self.longest = mtu + LARGEST_HEADER

    def follow_links(self) -> None:
        """Adapt to the links that there are now."""
        self._reached = None
        self.table.share_among(len(self._links) + 1)
        self.table.empty_caches()  # what went to the only link may be for all of them now

    def forget(self, link: Link) -> None:
        """Forget a link that was removed."""
        self.table.forget(link)
        self.follow_links()

    def allow(self, link: Link, addresses: frozenset[bytes]) -> None:
        """Take frames of a link only from these MAC addresses; from any if there are none."""
        self._allowed[link] = addresses
        self.table.forget(link)

    # Frames from the device

    def claim_here(self, frame: memoryview) -> None:
        """Claim the source of a frame from the device for this side. Raises BadPacket if a link has it."""
        source, now = bytes(frame[6:12]), self._loop.now
        if not self.table.claim(source, LOCAL, now):
            self._came_back(mac_text(source), self._owner(source), "this side")
            raise BadPacket("frame came back")
        self._forget_soon()

    def link_for(self, frame: memoryview, field: int) -> Link | None:
        """Return the link for a frame from the device; None if it is for all of several links.

        `field`: its segment field. Raises BadPacket if it is for no link, or exceeds the limit on frames for all.
        """
        links, now = self._links, self._loop.now
        if not links:
            raise BadPacket("no peer")
        only = next(iter(links.values())) if len(links) == 1 else None
        if not frame[0] & 1:
            port = self.table.find(bytes(frame[:6]), now)
            if port is LOCAL:
                raise BadPacket("for this side")
            if port is not None or only is not None:
                return port or only
        if not self._may_copy(self._limit_here, len(self._links_reached()), frame, field & SEGMENT_SIZE):
            self._too_many("this side")
            raise BadPacket("too many frames for all")
        return only

    def flood(self, frame: memoryview, field: int, sender: Link | None = None) -> None:
        """Send a frame to all links at which a peer can be reached, except its sender's."""
        copy, now = bytes(frame), self._loop.now
        for link in self._links_reached():
            if link.queue.size > MOST_WAITING and link.peer.sending_session(now) is None:
                link.drops["queue full"] += 1
            elif link is not sender:
                self._distributor.put_aside(link, copy, field)

    def flush(self) -> None:
        """Send the frames that were forwarded, now that no more are at hand."""
        self._reached = None
        self._distributor.flush()

    def send_all(self) -> None:
        """Send the frames that the device has handed over. It may have more."""
        self._reached = None
        self._distributor.send_all()

    # Frames from links

    def claim(self, link: Link, frame: memoryview) -> None:
        """Claim the source of a link's frame for the link. Raises BadPacket if the link may not have it."""
        source, now = bytes(frame[6:12]), self._loop.now
        allowed = self._allowed.get(link)
        if allowed and source not in allowed:
            self._not_allowed(mac_text(source), _name(link))
            raise BadPacket("MAC address not allowed")
        if not self.table.claim(source, link, now):
            self._came_back(mac_text(source), self._owner(source), _name(link))
            is_here = self.table.find(source, now) is LOCAL
            raise BadPacket("frame came back" if is_here else "MAC address of another peer")
        self._forget_soon()

    def take(self, link: Link, header: Buffer, packet: memoryview) -> bool:
        """Forward or drop a frame of a link, as Forwarder.take. Forwarded ones are sent at the next `flush` at most."""
        known = self.arriving.find(header_of(packet))
        port = known[1] if known is not None and known[0] is link else self._look_up(link, packet)
        if port is LOCAL:
            return False
        flags, _, _, size, _, _ = VNET_HEADER.unpack_from(header)
        field = UNFINISHED | size if flags & NEEDS_CSUM else 0
        if port is link:
            link.drops["for the same side"] += 1
        elif port is not None:
            self._distributor.send(port, packet, field)
        elif len(self._links) == 1:
            return False
        elif self._may_copy(self._limits.of(link), len(self._links_reached()), packet, size):
            self.flood(packet, field, link)
            return False
        else:
            self._too_many(_name(link))
            link.drops["too many frames for all"] += 1
        return True

    def _look_up(self, link: Link, frame: memoryview) -> Link | Literal[OwnSide.LOCAL] | None:
        """Return the port of a frame's destination, and keep it for frames with the same header."""
        port = None if frame[0] & 1 else self.table.find(bytes(frame[:6]), self._loop.now)
        if port is not None and port is not link:
            self.arriving.keep(header_of(frame), (link, port))
        return port

    def _links_reached(self) -> list[Link]:
        if self._reached is None:
            self._reached = [link for link in self._links.values() if link.endpoint is not None]
        return self._reached

    def _may_copy(self, limit: TokenBucket, copies: int, frame: memoryview, size: int) -> bool:
        """Return whether the limit on frames for all allows a frame. `size`: bytes of its segments; 0: it has none."""
        count = max(1, copies) * (-(-len(frame) // size) if size else 1)
        return limit.take(self._loop.now, min(count, COPIES_AT_ONCE))

    def _owner(self, address: bytes) -> str:
        port = self.table.find(address, self._loop.now)
        return _name(port) if isinstance(port, Link) else "this side"

    def _forget_soon(self) -> None:
        if not self._forgets_soon:
            self._forgets_soon = True
            self._loop.call_later(SECONDS_BETWEEN_CLAIMS, self._forget)

    def _forget(self) -> None:
        self._forgets_soon = False
        self.table.forget_old(self._loop.now)
        self.table.empty_caches()


def _name(link: Link) -> str:
    return link.name or "the peer"
