"""Requests of the control socket about forwards.

    GET  /v1/forwards                     all forwards, with their counters
    POST /v1/services/forwarder/expose    begin a forward: the body says which (gvproxy.py)
    POST /v1/services/forwarder/unexpose  end one; its connections go on
    GET  /v1/services/forwarder/all       all forwards, as gvproxy lists them

The last three also exist without /v1, for programs written for gvproxy. There a success has no content, and an error is
a line of text, which are what these programs expect. Requests that cannot be done are refused with 400 (the body is
bad), 404 (no such forward) or 409 (the forward exists, or cannot be opened; the error says why).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

from vpntun.config.forwards import Forward, ForwardProtocol, Listening, Origin, spelled
from vpntun.errors import ConfigurationError, ForwardExists, NoSuchForward, VpntunError
from vpntun.forwards.gvproxy import members_of, parse_expose, parse_unexpose
from vpntun.runtime.log import NOTICE, LineLimit
from vpntun.serving.http import Answer, Route, line, refusal

MOST_LINES = 10


class Exposing(Protocol):
    """The forwards of a tunnel, as these requests need them."""

    def expose(self, forward: Forward) -> None:
        """Begin a forward. Raises ForwardExists, or VpntunError with the reason why it cannot be opened."""

    def unexpose(self, protocol: ForwardProtocol, listen: Listening, origin: Origin) -> None:
        """End a forward. Raises NoSuchForward."""

    def status(self) -> Sequence[Mapping[str, Any]]:
        """Report all forwards with their counters, in the fields of docs/control.rst."""


class ForwardRequests:
    """Answers to requests about the forwards of one tunnel. Its methods raise VpntunError.

    `forwards` returns None as long as the tunnel is being set up.
    """

    def __init__(self, interface: str, forwards: Callable[[], Exposing | None]) -> None:
        self._interface = interface
        self._forwards = forwards
        self._log = LineLimit(MOST_LINES)

    def expose(self, body: bytes) -> dict[str, Any]:
        """Begin the forward of a body, and return it as it would be in a file."""
        forward = parse_expose(body)
        self._table.expose(forward)
        self._log.log(NOTICE, "a request has begun the forward %s", forward)
        return {"exposed": str(forward)}

    def unexpose(self, body: bytes) -> dict[str, Any]:
        """End the forward that a body names."""
        protocol, listen, origin = parse_unexpose(body)
        self._table.unexpose(protocol, listen, origin)
        self._log.log(NOTICE, "a request has ended the forward that listens on %s %s", protocol, spelled(listen))
        return {"unexposed": True}

    def list(self) -> Answer:
        """List the forwards as gvproxy does, sorted as it sorts them."""
        members = map(members_of, self._reported())
        return Answer(HTTPStatus.OK, sorted(members, key=lambda each: (each["local"], each["protocol"])))

    def report(self) -> Answer:
        """Report the forwards with their counters."""
        return Answer(HTTPStatus.OK, {"forwards": self._reported()})

    def _reported(self) -> Sequence[Mapping[str, Any]]:
        forwards = self._forwards()
        return forwards.status() if forwards is not None else ()

    @property
    def _table(self) -> Exposing:
        forwards = self._forwards()
        if forwards is None:
            raise VpntunError(f"{self._interface} is still being set up: try again once it is")
        return forwards


def forward_routes(interface: str, forwards: Callable[[], Exposing | None]) -> dict[str, Route]:
    """Return the routes of forwards; `forwards` as in ForwardRequests."""
    requests = ForwardRequests(interface, forwards)
    return {
        "/v1/forwards": Route("GET", requests.report),
        "/v1/services/forwarder/expose": Route("POST", partial(_answer, requests.expose), takes_body=True),
        "/v1/services/forwarder/unexpose": Route("POST", partial(_answer, requests.unexpose), takes_body=True),
        "/v1/services/forwarder/all": Route("GET", requests.list),
        "/services/forwarder/expose": Route("POST", partial(_answer_as_gvproxy, requests.expose), takes_body=True),
        "/services/forwarder/unexpose": Route("POST", partial(_answer_as_gvproxy, requests.unexpose), takes_body=True),
        "/services/forwarder/all": Route("GET", requests.list),
    }


def _answer(act: Callable[[bytes], dict[str, Any]], body: bytes) -> Answer:
    try:
        return Answer(HTTPStatus.OK, act(body))
    except VpntunError as error:
        return refusal(_status_of(error), str(error))


def _answer_as_gvproxy(act: Callable[[bytes], dict[str, Any]], body: bytes) -> Answer:
    try:
        act(body)
    except VpntunError as error:
        return line(_status_of(error), f"{_phrase_of(error)}{error}")
    return line(HTTPStatus.OK, "")


def _status_of(error: VpntunError) -> HTTPStatus:
    if isinstance(error, ConfigurationError):
        return HTTPStatus.BAD_REQUEST
    return HTTPStatus.NOT_FOUND if isinstance(error, NoSuchForward) else HTTPStatus.CONFLICT


def _phrase_of(error: VpntunError) -> str:
    """Return the words of gvproxy that its clients may look for in the text of an error."""
    if isinstance(error, ForwardExists):
        return "proxy already running: "
    return "proxy not found: " if isinstance(error, NoSuchForward) else ""
