"""Requests of the control socket about the name server, as gvisor-tap-vsock has them, where /v1 is left out.

POST /v1/services/dns/add    add a zone (added_zones.py); 400 and why if it cannot be used, 409 without a server
GET  /v1/services/dns/all    list the zones that were added, as a JSON array
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus

from vpntun.errors import ConfigurationError
from vpntun.names.added_zones import parse_zone
from vpntun.names.service import NameService
from vpntun.serving.http import Answer, Route, refusal


def name_routes(service: Callable[[], NameService | None]) -> dict[str, Route]:
    """Return the routes. `service` returns the name server of the moment; None before it is made."""

    def add(body: bytes) -> Answer:
        present = service()
        if present is None or not present.is_open:
            return refusal(
                HTTPStatus.CONFLICT, "this tunnel has no name server: put DnsServer = yes into its file, and reload it"
            )
        try:
            zone = parse_zone(body)
            present.add(zone)
        except ConfigurationError as error:
            return refusal(HTTPStatus.BAD_REQUEST, str(error))
        return Answer(HTTPStatus.OK, {"added": zone.name})

    def list_all() -> Answer:
        present = service()
        return Answer(HTTPStatus.OK, json.dumps(present.added.as_json() if present is not None else []).encode())

    routes = {
        "/v1/services/dns/add": Route("POST", add, takes_body=True),
        "/v1/services/dns/all": Route("GET", list_all),
    }
    return routes | {path.removeprefix("/v1"): route for path, route in routes.items()}
