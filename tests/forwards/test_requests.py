"""Requests about forwards: vpntun's own and gvproxy's, every refusal, and nothing else for untrusted bodies."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.sample_status import FORWARD
from tests.forwards.fake_forwards import FakeForwards
from tests.forwards.sockets import Loopback, free_port
from tests.machine import HandLoop
from vpntun.config.forwards import parse_forward
from vpntun.forwards.forwards import Forwards
from vpntun.forwards.requests import forward_routes
from vpntun.forwards.ways import Way
from vpntun.serving.http import Answer, follow

SSH = b'{"local": ":2222", "remote": "192.168.127.2:22"}'


Table = FakeForwards | Forwards


class Asked:
    """The routes of a tunnel, and what they answer."""

    def __init__(self, forwards: Table | None) -> None:
        self._routes = forward_routes("tun3", lambda: forwards)

    def __call__(self, method: str, target: str, body: bytes = b"") -> tuple[int, str]:
        answer = follow(self._routes, method, target, body)
        assert isinstance(answer, Answer)
        return answer.status.value, answer.body.decode()

    def json(self, method: str, target: str, body: bytes = b"") -> tuple[int, Any]:
        status, text = self(method, target, body)
        return status, json.loads(text)


@pytest.fixture
def asked() -> Asked:
    return Asked(FakeForwards())


def test_a_client_of_gvproxy_exposes_lists_and_unexposes(asked: Asked) -> None:
    more = b'{"local": "127.0.0.1:53", "remote": "192.168.127.2:53", "protocol": "udp"}'
    assert asked("POST", "/services/forwarder/expose", SSH) == (200, "")
    assert asked("POST", "/services/forwarder/expose", more) == (200, "")
    assert asked.json("GET", "/services/forwarder/all") == (
        200,
        [
            {"local": "127.0.0.1:53", "remote": "192.168.127.2:53", "protocol": "udp"},
            {"local": ":2222", "remote": "192.168.127.2:22", "protocol": "tcp"},
        ],
    )
    assert asked("POST", "/services/forwarder/unexpose", b'{"local": ":2222"}') == (200, "")
    assert asked.json("GET", "/v1/services/forwarder/all")[1] == [json.loads(more)]


def test_a_client_of_gvproxy_gets_errors_as_text_in_words_that_it_knows(asked: Asked) -> None:
    asked("POST", "/services/forwarder/expose", SSH)
    assert asked("POST", "/services/forwarder/expose", SSH) == (
        409,
        "proxy already running: :2222 is exposed already\n",
    )
    assert asked("POST", "/services/forwarder/unexpose", b'{"local": ":1"}') == (
        404,
        "proxy not found: no forward listens on :1\n",
    )
    status, reason = asked(
        "POST", "/services/forwarder/expose", b'{"local": ":1", "remote": "a:1", "protocol": "sctp"}'
    )
    assert (status, reason.startswith("unknown protocol")) == (400, True)
    assert asked("GET", "/services/forwarder/expose")[0] == 405


def test_the_requests_of_vpntun_answer_with_objects(asked: Asked) -> None:
    assert asked.json("POST", "/v1/services/forwarder/expose", SSH) == (200, {"exposed": "tcp :2222 192.168.127.2:22"})
    [reported] = asked.json("GET", "/v1/forwards")[1]["forwards"]
    assert (reported["listen"], reported["target"], reported["connections"]) == (":2222", "192.168.127.2:22", 2)
    assert asked.json("POST", "/v1/services/forwarder/unexpose", SSH) == (200, {"unexposed": True})
    assert asked.json("POST", "/v1/services/forwarder/unexpose", SSH) == (404, {"error": "no forward listens on :2222"})
    assert asked.json("POST", "/v1/services/forwarder/expose", b'{"local": ":1", "remote": "a:1"}') == (
        409,
        {"error": ":1 is in use: choose another port"},
    )
    assert asked.json("POST", "/v1/services/forwarder/expose", b"{")[0] == 400


def test_the_log_says_what_requests_have_changed(asked: Asked, caplog: pytest.LogCaptureFixture) -> None:
    asked("POST", "/services/forwarder/expose", SSH)
    asked("POST", "/services/forwarder/expose", SSH)
    asked("POST", "/v1/services/forwarder/unexpose", SSH)
    assert caplog.messages == [
        "a request has begun the forward tcp :2222 192.168.127.2:22",
        "a request has ended the forward that listens on tcp :2222",
    ]


def test_forwards_of_both_sides_may_listen_at_the_same_port() -> None:
    asked = Asked(FakeForwards(parse_forward("tcp :22 127.0.0.1:22 from peer")))
    assert asked("POST", "/services/forwarder/expose", b'{"local": ":22", "remote": "10.9.0.7:22"}')[0] == 200
    assert asked("POST", "/services/forwarder/unexpose", b'{"local": ":22", "from": "peer"}')[0] == 200
    assert asked.json("GET", "/services/forwarder/all")[1] == [
        {"local": ":22", "remote": "10.9.0.7:22", "protocol": "tcp"}
    ]


def test_a_tunnel_that_is_being_set_up_has_no_forwards_yet() -> None:
    asked = Asked(None)
    assert asked.json("GET", "/v1/forwards") == (200, {"forwards": []})
    assert asked.json("GET", "/services/forwarder/all") == (200, [])
    status, answer = asked.json("POST", "/v1/services/forwarder/expose", SSH)
    assert (status, answer["error"]) == (409, "tun3 is still being set up: try again once it is")


def test_the_table_of_a_tunnel_answers_with_the_fields_that_are_documented(loop: HandLoop, made: ExitStack) -> None:
    side = Loopback(loop)
    forwards = Forwards(loop, {"here": Way(side, side)})
    made.callback(forwards.close)
    asked, port = Asked(forwards), free_port()
    body = json.dumps({"local": f"127.0.0.1:{port}", "remote": "127.0.0.1:1"}).encode()
    assert asked("POST", "/services/forwarder/expose", body) == (200, "")
    assert asked("POST", "/services/forwarder/expose", body)[0] == 409
    [reported] = asked.json("GET", "/v1/forwards")[1]["forwards"]
    assert list(reported) == list(FORWARD)
    inside = b'{"local": ":1", "remote": "a:1", "from": "inside"}'
    assert asked("POST", "/services/forwarder/expose", inside)[0] == 400
    assert asked("POST", "/services/forwarder/unexpose", body) == (200, "")
    assert asked("POST", "/services/forwarder/unexpose", body)[0] == 404


@given(st.binary(max_size=64), st.sampled_from(["expose", "unexpose"]), st.sampled_from(["", "/v1"]))
def test_an_untrusted_body_is_refused_as_the_clients_fault(body: bytes, request: str, begin: str) -> None:
    assert Asked(FakeForwards())("POST", f"{begin}/services/forwarder/{request}", body)[0] == 400
