"""Requests of the control socket about services by name.

GET  /v1/services         the services that this end offers, and how many use them
POST /v1/services/ask     ask the peers what they offer; the answer has the number by which to fetch that
GET  /v1/services/found   what has come to the question ?id=, and whether more is awaited
POST /v1/services/key     use a service with a key: the body is {"service": "ssh@desk", "key": KEY}, null for none
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from vpntun.config import values
from vpntun.config.forwards import ServiceName, parse_target
from vpntun.errors import ConfigurationError
from vpntun.services.services import Services
from vpntun.serving.http import Answer, Route, refusal


class ServiceRequests:
    """Answers to requests about the services of one tunnel; `services` returns None before they are made."""

    def __init__(self, services: Callable[[], Services | None]) -> None:
        self._services = services

    def routes(self) -> dict[str, Route]:
        """Return the routes of the requests."""
        return {
            "/v1/services": Route("GET", self._offered),
            "/v1/services/ask": Route("POST", self._ask),
            "/v1/services/found": Route("GET", self._found, frozenset({"id"})),
            "/v1/services/key": Route("POST", self._use_key, takes_body=True),
        }

    def _offered(self) -> Answer:
        services = self._services()
        return Answer(HTTPStatus.OK, {"offered": services.offering.status() if services is not None else []})

    def _ask(self) -> Answer:
        services = self._services()
        if services is None:
            return _too_early()
        return Answer(HTTPStatus.ACCEPTED, {"id": services.lists.begin()})

    def _found(self, id: str = "") -> Answer:
        services = self._services()
        with suppress(ValueError):
            if services is not None and (found := services.lists.report(int(id))) is not None:
                return Answer(HTTPStatus.OK, found)
        return refusal(HTTPStatus.NOT_FOUND, "nothing was asked under this id, or its answer was kept long enough")

    def _use_key(self, body: bytes) -> Answer:
        services = self._services()
        if services is None:
            return _too_early()
        try:
            name, key = parse_key_of_service(body)
        except ConfigurationError as error:
            return refusal(HTTPStatus.BAD_REQUEST, str(error))
        services.visits.give_key(name, key)
        return Answer(HTTPStatus.OK, {"service": str(name)})


def parse_key_of_service(body: bytes) -> tuple[ServiceName, bytes | None]:
    """Parse the name of a service and its key. Raises ConfigurationError, which never shows the key."""
    content: Any = None
    with suppress(ValueError, RecursionError):
        content = json.loads(body)
    match content:
        case {"service": str(service), "key": None | str() as key}:
            name = parse_target(service)
        case _:
            raise ConfigurationError('the body is {"service": SERVICE@PEER, "key": KEY}, where KEY may be null')
    if not isinstance(name, ServiceName):
        raise ConfigurationError("a key is for a service of a peer, such as ssh@desk")
    return name, None if key is None else values.key(key)


def _too_early() -> Answer:
    return refusal(HTTPStatus.CONFLICT, "the tunnel is still being set up: try again once it is")
