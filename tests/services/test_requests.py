"""Requests of the control socket about services: what this end offers, and what its peers do."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.services.town import KEY, Town
from vpntun.config.forwards import ServiceName
from vpntun.config.services import Service
from vpntun.crypto.keys import format_key
from vpntun.errors import ConfigurationError
from vpntun.services.requests import ServiceRequests, parse_key_of_service
from vpntun.serving.http import Answer, follow


def request(requests: ServiceRequests, method: str, target: str) -> tuple[int, dict[str, Any]]:
    answer = follow(requests.routes(), method, target)
    assert isinstance(answer, Answer)
    return int(answer.status), json.loads(answer.body)


def test_offers_are_shown_without_their_keys(town: Town) -> None:
    town.desk.set(Service("ssh", ("127.0.0.1", 22), KEY, ("laptop",)))
    status, content = request(ServiceRequests(lambda: town.desk.services), "GET", "/v1/services")
    assert status == 200
    assert content["offered"] == [
        {
            "service": "ssh",
            "target": "127.0.0.1:22",
            "key": True,
            "allowed": ["laptop"],
            "connections": 0,
            "connections_total": 0,
            "connections_refused": 0,
        }
    ]
    assert format_key(KEY) not in json.dumps(content)


def test_what_peers_offer_is_fetched_by_a_number(town: Town) -> None:
    town.desk.set(Service("ssh", ("127.0.0.1", 22), KEY))
    requests = ServiceRequests(lambda: town.laptop.services)
    status, begun = request(requests, "POST", "/v1/services/ask")
    assert status == 202
    target = f"/v1/services/found?id={begun['id']}"
    assert request(requests, "GET", target)[1] == {"state": "asked", "services": [], "without": []}
    town.run(1.0)
    [service] = request(requests, "GET", target)[1]["services"]
    assert (service["name"], service["key"]) == ("ssh@desk", True)


def test_peers_that_cannot_tell_are_named_with_the_reason(town: Town) -> None:
    for link in list(town.hub.end.links.values()):
        town.hub.end.engine.remove(link)
    requests = ServiceRequests(lambda: town.hub.services)
    _, begun = request(requests, "POST", "/v1/services/ask")
    town.run()
    without = request(requests, "GET", f"/v1/services/found?id={begun['id']}")[1]["without"]
    assert [each["peer"] for each in without] == ["laptop", "desk"]


def test_a_number_of_nothing_and_a_tunnel_without_services_yet_are_refused(town: Town) -> None:
    for target in ("/v1/services/found?id=7", "/v1/services/found?id=x", "/v1/services/found"):
        assert request(ServiceRequests(lambda: town.hub.services), "GET", target)[0] == 404
    requests = ServiceRequests(lambda: None)
    assert request(requests, "POST", "/v1/services/ask")[0] == 409
    assert request(requests, "GET", "/v1/services")[1] == {"offered": []}
    assert request(requests, "GET", "/v1/services/found?id=1")[0] == 404


def test_a_key_is_used_from_now_on_and_taken_back(town: Town) -> None:
    requests = ServiceRequests(lambda: town.laptop.services)
    town.laptop.set(ssh_desk=b"f" * 32)

    def use(key: str | None) -> int:
        body = json.dumps({"service": "ssh@desk", "key": key}).encode()
        answer = follow(requests.routes(), "POST", "/v1/services/key", body)
        assert isinstance(answer, Answer)
        return int(answer.status)

    assert use(format_key(KEY)) == 200
    assert town.laptop.services.visits.key_of(ServiceName("ssh", "desk")) == KEY
    assert use("short") == 400
    assert use(None) == 200
    assert town.laptop.services.visits.key_of(ServiceName("ssh", "desk")) == b"f" * 32


@given(
    st.binary()
    | st.fixed_dictionaries({"service": st.text() | st.just("ssh@desk") | st.none(), "key": st.text() | st.none()}).map(
        lambda content: json.dumps(content).encode()
    )
)
def test_any_body_names_a_service_and_its_key_or_is_refused(body: bytes) -> None:
    with suppress(ConfigurationError):
        name, key = parse_key_of_service(body)
        assert name.service
        assert key is None or len(key) == 32
