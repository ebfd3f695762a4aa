"""Requests of the control socket: zones are added and listed, and refused with a reason."""

from __future__ import annotations

import json
from http import HTTPStatus

from hypothesis import given
from hypothesis import strategies as st

from tests.machine import HandLoop
from tests.names.directories import ADDRESSES, tunnel
from vpntun.names.requests import name_routes
from vpntun.names.service import NameService
from vpntun.serving.http import Answer, follow


class Serving(NameService):
    """A name service that is open without sockets."""

    @property
    def is_open(self) -> bool:
        return True


def service(kind: type[NameService] = Serving) -> NameService:
    loop = HandLoop()
    made = kind(loop, "lo", tunnel, ADDRESSES, lambda _: False, lambda _: None, lambda: 0)
    loop.close()
    return made


def ask(present: NameService | None, method: str, path: str, body: bytes = b"") -> tuple[int, object]:
    answer = follow(name_routes(lambda: present), method, path, body)
    assert isinstance(answer, Answer)
    return answer.status, json.loads(answer.body)


def test_a_zone_is_added_and_listed_at_both_paths() -> None:
    present = service()
    for number, version in enumerate(("", "/v1")):
        body = json.dumps({"name": f"x{number}.", "defaultIP": "10.9.0.1"}).encode()
        assert ask(present, "POST", f"{version}/services/dns/add", body) == (200, {"added": f"x{number}"})
    for version in ("", "/v1"):
        status, listed = ask(present, "GET", f"{version}/services/dns/all")
        assert status == HTTPStatus.OK
        assert listed == [{"Name": f"x{number}.", "Records": [], "DefaultIP": "10.9.0.1"} for number in range(2)]
    assert present.directory().find(("a", "x1"))[0] == "x1"


def test_without_a_name_server_nothing_can_be_added() -> None:
    for present in (None, service(NameService)):
        status, refused = ask(present, "POST", "/services/dns/add", b'{"name": "x."}')
        assert (status, "DnsServer = yes" in str(refused)) == (HTTPStatus.CONFLICT, True)
        assert ask(present, "GET", "/services/dns/all") == (200, [])


@given(st.binary(max_size=40))
def test_any_body_is_answered(body: bytes) -> None:
    assert ask(service(), "POST", "/services/dns/add", body)[0] in (HTTPStatus.OK, HTTPStatus.BAD_REQUEST)
