"""Captures on request: GET /v1/capture streams the packets inside the tunnel, as pcapng.

The query selects packets (`peer`, `net`, each as often as needed) and bounds the capture (`packets`, `bytes`,
`seconds`, `snaplen`). It also ends with its client, with the tunnel, and with the client's wish: when that sends no
more, it still gets the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from weakref import ref

from vpntun.capture.recording import WHOLE_PACKETS, Bounds, Recording
from vpntun.capture.selection import Selection
from vpntun.config import values
from vpntun.config.peer import find_peer
from vpntun.control.reset import refusal_because
from vpntun.control.state import TunnelState
from vpntun.errors import AmbiguousPeer, ConfigurationError, NoSuchPeer, VpntunError
from vpntun.link.link import Link
from vpntun.runtime.log import log, notice
from vpntun.runtime.loop import Loop
from vpntun.serving.http import Answer, Route, StreamAnswer, refusal
from vpntun.types import NEVER

MOST_CAPTURES = 2
PCAPNG = "application/x-pcapng"
SMALLEST_CAPTURE = 4096
LONGEST_CAPTURE = 10 * 365 * 86400.0
"""Seconds, and so the largest value of `seconds`."""


class Captures:
    """The captures of one tunnel, which are few: each takes some MiB, and time for each packet."""

    def __init__(self, state: TunnelState, loop: Loop) -> None:
        self._state = state
        self._loop = loop
        self._running: list[Recording] = []

    def routes(self) -> Mapping[str, Route]:
        """Return the requests that this answers."""
        fields = frozenset({"packets", "bytes", "seconds", "snaplen"})
        return {"/v1/capture": Route("GET", self._answer, fields, frozenset({"peer", "net"}))}

    def _answer(
        self,
        peer: Sequence[str] = (),
        net: Sequence[str] = (),
        packets: str | None = None,
        bytes: str | None = None,
        seconds: str | None = None,
        snaplen: str | None = None,
    ) -> Answer | StreamAnswer:
        try:
            networks = [network for text in net for network in values.networks(text)]
            bounds = Bounds(
                _number("packets", packets, 1, NEVER),
                _number("bytes", bytes, SMALLEST_CAPTURE, NEVER),
                int(_number("snaplen", snaplen, 1, WHOLE_PACKETS)),
            )
            limit = _number("seconds", seconds, 0, LONGEST_CAPTURE)
        except ConfigurationError as bad:
            return refusal(HTTPStatus.BAD_REQUEST, str(bad))
        try:
            peers = [find_peer(self._state.tunnel.peers, called).public for called in peer]
            recording = self._start(Selection(peers, networks), bounds)
        except (AmbiguousPeer, NoSuchPeer, _CannotCapture) as error:
            return refusal_because(error)
        if seconds is not None:
            self._loop.call_later(limit, _end_of(recording))
        return StreamAnswer(PCAPNG, recording)

    def _start(self, selection: Selection, bounds: Bounds) -> Recording:
        """Start a capture. Raises _CannotCapture."""
        mirror, interface = self._state.mirror, self._state.tunnel.interface
        if mirror is None:
            raise _CannotCapture(f"{interface} is still being set up: capture later")
        if len(self._running) >= MOST_CAPTURES:
            raise _CannotCapture(f"{MOST_CAPTURES} captures of {interface} are running, which is the most: end one")
        kind = self._state.tunnel.device
        recording = Recording(interface, self._links(), selection, bounds, self._ended, kind=kind)
        self._running.append(recording)
        mirror.show(recording)
        notice("a capture of the packets in the tunnel has begun")
        return recording

    def _links(self) -> list[Link]:
        """Return the links of the peers, as far as there are any yet."""
        links, found = self._state.links, []
        if links is not None:
            for peer in self._state.tunnel.peers:
                with suppress(KeyError):  # a peer that a reload is about to add
                    found.append(links.of(peer.public))
        return found

    def _ended(self, recording: Recording) -> None:
        self._running.remove(recording)
        if self._state.mirror is not None:
            self._state.mirror.hide(recording)
        log.info("a capture has ended")


def _end_of(recording: Recording) -> Callable[[], None]:
    """Return a function that ends the recording, and does not keep what waits in it once nobody else does."""
    reference = ref(recording)

    def end() -> None:
        if (still := reference()) is not None:
            still.end()

    return end


class _CannotCapture(VpntunError):
    """There can be no capture now."""


def _number(name: str, text: str | None, least: float, most: float) -> float:
    """Return the number of a field, `most` if there is none. Raises ConfigurationError."""
    if text is None:
        return most
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not least <= number <= most:
        limit = "" if most == NEVER else f" and at most {most:.0f}"
        raise ConfigurationError(f"{name} must be a number, at least {least:.0f}{limit}: not {text!r}")
    return number
