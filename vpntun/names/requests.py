"""Requests of the control socket about the name server.

    POST /v1/services/dns/add    add a zone (added_zones.py); 400 and why if it cannot be used, 409 without a server
    GET  /v1/services/dns/all    list the zones that were added, as gvproxy lists them

Both also exist without /v1, for programs written for gvproxy. There a success of the first has no content, and an error
is a line of text, which are what these programs expect.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from vpntun.errors import ConfigurationError, VpntunError
from vpntun.names.added_zones import parse_zone
from vpntun.names.service import NameService
from vpntun.serving.http import Answer, Route, line, refusal


class NameRequests:
    """Answers to requests about the name server. `service` returns that of the moment; None before it is made."""

    def __init__(self, service: Callable[[], NameService | None]) -> None:
        self._service = service

    def add(self, body: bytes) -> Answer:
        """Add the zone of a body."""
        service = self._service()
        if service is None or not service.is_open:
            return refusal(
                HTTPStatus.CONFLICT, "this tunnel has no name server: put DnsServer = yes into its file, and reload it"
            )
        try:
            zone = parse_zone(body)
            service.add(zone)
        except ConfigurationError as error:
            return refusal(HTTPStatus.BAD_REQUEST, str(error))
        except VpntunError as error:  # a package is missing
            return refusal(HTTPStatus.CONFLICT, str(error))
        return Answer(HTTPStatus.OK, {"added": zone.name})

    def add_as_gvproxy(self, body: bytes) -> Answer:
        """Add the zone of a body, and answer as gvproxy does."""
        answer = self.add(body)
        assert isinstance(answer.content, dict)
        return line(answer.status, answer.content.get("error", ""))

    def list(self) -> Answer:
        """List the zones that were added."""
        service = self._service()
        return Answer(HTTPStatus.OK, service.added.as_json() if service is not None else [])


def name_routes(service: Callable[[], NameService | None]) -> dict[str, Route]:
    """Return the routes of the name server; `service` as in NameRequests."""
    requests = NameRequests(service)
    return {
        "/v1/services/dns/add": Route("POST", requests.add, takes_body=True),
        "/v1/services/dns/all": Route("GET", requests.list),
        "/services/dns/add": Route("POST", requests.add_as_gvproxy, takes_body=True),
        "/services/dns/all": Route("GET", requests.list),
    }
