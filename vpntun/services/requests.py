"""Requests of the control socket about services by name.

GET  /v1/services         the services that this end offers, and how many use them
POST /v1/services/ask     ask the peers what they offer; the answer has the number by which to fetch that
GET  /v1/services/found   what has come to the question ?id=, and whether more is awaited
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

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
        }

    def _offered(self) -> Answer:
        services = self._services()
        return Answer(HTTPStatus.OK, {"offered": services.offering.status() if services is not None else []})

    def _ask(self) -> Answer:
        services = self._services()
        if services is None:
            return refusal(HTTPStatus.CONFLICT, "the tunnel is still being set up")
        return Answer(HTTPStatus.ACCEPTED, {"id": services.lists.begin()})

    def _found(self, id: str = "") -> Answer:
        services = self._services()
        with suppress(ValueError):
            if services is not None and (found := services.lists.report(int(id))) is not None:
                return Answer(HTTPStatus.OK, found)
        return refusal(HTTPStatus.NOT_FOUND, "nothing was asked under this id, or its answer was kept long enough")
