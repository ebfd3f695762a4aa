"""Requests of the control socket: zones are added and listed, and refused with a reason."""

from __future__ import annotations

import json
import sys
from http import HTTPStatus

import pytest
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
    """Make a request under /v1; return the status and the content."""
    answer = follow(name_routes(lambda: present), method, f"/v1{path}", body)
    assert isinstance(answer, Answer)
    return answer.status, json.loads(answer.body)


def ask_as_gvproxy(present: NameService | None, body: bytes) -> tuple[int, str]:
    """Add a zone as programs do that were written for gvproxy."""
    answer = follow(name_routes(lambda: present), "POST", "/services/dns/add", body)
    assert isinstance(answer, Answer)
    return answer.status, answer.body.decode()


def test_a_zone_is_added_and_listed_at_both_paths() -> None:
    present = service()
    assert ask(present, "POST", "/services/dns/add", b'{"name": "x0"}') == (200, {"added": "x0"})
    assert ask_as_gvproxy(present, b'{"name": "x1.", "defaultIP": "10.9.0.1"}') == (200, "")
    status, listed = ask(present, "GET", "/services/dns/all")
    assert status == HTTPStatus.OK
    assert listed == [
        {"Name": "x0.", "Records": [], "DefaultIP": ""},
        {"Name": "x1.", "Records": [], "DefaultIP": "10.9.0.1"},
    ]
    assert present.directory().find(("a", "x1"))[0] == "x1"


def test_a_zone_that_cannot_be_used_is_refused_with_the_reason() -> None:
    status, refused = ask(service(), "POST", "/services/dns/add", b"{}")
    assert (status, refused) == (400, {"error": "a zone needs a name, such as apps.example."})
    assert ask_as_gvproxy(service(), b"{}") == (400, "a zone needs a name, such as apps.example.\n")


def test_a_missing_package_is_named_to_whoever_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "regex", None)
    body = b'{"name": "x.", "records": [{"regexp": "^a", "ip": "10.9.0.9"}]}'
    status, refused = ask(service(), "POST", "/services/dns/add", body)
    assert (status, "pip install regex" in str(refused)) == (HTTPStatus.CONFLICT, True)
    assert ask_as_gvproxy(service(), body)[0] == HTTPStatus.CONFLICT


def test_without_a_name_server_nothing_can_be_added() -> None:
    for present in (None, service(NameService)):
        status, refused = ask(present, "POST", "/services/dns/add", b'{"name": "x."}')
        assert (status, "DnsServer = yes" in str(refused)) == (HTTPStatus.CONFLICT, True)
        assert ask(present, "GET", "/services/dns/all") == (200, [])
        assert ask_as_gvproxy(present, b"{}")[0] == HTTPStatus.CONFLICT


@given(st.binary(max_size=40))
def test_any_body_is_answered(body: bytes) -> None:
    for status, _ in (ask(service(), "POST", "/services/dns/add", body), ask_as_gvproxy(service(), body)):
        assert status in (HTTPStatus.OK, HTTPStatus.BAD_REQUEST)
