"""JSON of forwards: gvproxy's spelling and vpntun's own, round trips, and whatever else may be in a body."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.forwards.fake_forwards import FakeForwards
from vpntun.config.forwards import Forward, Target, parse_forward
from vpntun.errors import ConfigurationError
from vpntun.forwards.gvproxy import members_of, parse_expose, parse_unexpose


def body(**members: Any) -> bytes:
    return json.dumps({name.rstrip("_"): value for name, value in members.items()}).encode()


@pytest.mark.parametrize(
    ("members", "forward"),
    [
        ({"local": ":6443", "remote": "192.168.127.2:6443"}, "tcp :6443 192.168.127.2:6443"),
        ({"local": ":53", "remote": "10.9.0.1:53", "protocol": "udp"}, "udp :53 10.9.0.1:53"),
        ({"local": "127.0.0.1:22", "remote": "desk:22", "protocol": ""}, "tcp 127.0.0.1:22 desk:22"),
        (
            {"local": "/run/a.sock", "remote": "tcp://10.9.0.7:5432", "protocol": "unix"},
            "tcp unix:/run/a.sock 10.9.0.7:5432",
        ),
        (
            {"local": "unix:///run/a.sock", "remote": "unix:///run/b.sock", "protocol": "unix"},
            "tcp unix:/run/a.sock unix:/run/b.sock",
        ),
        ({"local": "unix:/run/a.sock", "remote": "ssh@desk"}, "tcp unix:/run/a.sock ssh@desk"),
        ({"local": ":22", "remote": "127.0.0.1:22", "from": "peer"}, "tcp :22 127.0.0.1:22 from peer"),
        ({"local": "[::1]:80", "remote": "[::1]:81", "from": "inside"}, "tcp [::1]:80 [::1]:81 from inside"),
        ({"local": ":80", "remote": "a:80", "name": "later versions may have more members"}, "tcp :80 a:80"),
    ],
)
def test_a_body_says_which_forward(members: dict[str, str], forward: str) -> None:
    assert parse_expose(json.dumps(members).encode()) == parse_forward(forward)
    assert parse_unexpose(json.dumps(members).encode()) == parse_forward(forward).key


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 4096, "not JSON"),
        (b'[":6443"]', "not a JSON object"),
        (body(remote="a:1"), "'local' is missing"),
        (body(local=":1"), "'remote' is missing"),
        (body(local=1, remote="a:1"), "'local' has to be one line of text"),
        (body(local=":1", remote="a:1\n"), "'remote' has to be one line of text"),
        (body(local="/run/\ud800", remote="tcp://a:1", protocol="unix"), "'local' has to be one line of text"),
        (body(local=":1", remote=":1"), "nothing can be reached at"),
        (body(local="6443", remote="a:1"), "nothing can listen on"),
        (body(local=r"\\.\pipe\a", remote="tcp://a:1", protocol="npipe"), "unknown protocol 'npipe'"),
        (body(local="/a", remote="ssh-tunnel://root@a:22/run/b.sock?key=c", protocol="unix"), "not SERVICE@PEER"),
        (body(local="/a", remote="a:1", protocol="udp"), "nothing can listen on"),
        (body(local="unix:/a", remote="a:1", protocol="udp"), "a unix socket carries connections"),
        (body(local=":1", remote="a:1", from_="here and there"), "'from' is 'here and there'"),
    ],
)
def test_a_bad_body_is_refused_with_the_reason(refused: bytes, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        parse_expose(refused)


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=3)
TEXTS = st.sampled_from(["tcp", "udp", "unix", "unix:", "unix:///", "/a", ":1", "a:1", "a@b", "[::1]:1", "peer"])
BODIES = st.dictionaries(st.sampled_from(["local", "remote", "protocol", "from"]), TEXTS | st.text() | VALUES)


@given(st.binary(max_size=64) | BODIES.map(json.dumps).map(str.encode))
def test_nothing_but_a_refusal_comes_of_a_body(sent: bytes) -> None:
    for parse in (parse_expose, parse_unexpose):
        try:
            parse(sent)
        except ConfigurationError as error:
            assert str(error).isprintable()


PLACES = st.tuples(st.sampled_from(["", "127.0.0.1", "::1", "10.9.0.7"]), st.integers(1, 65535))
PATHS = st.from_regex(r"/[a-z0-9/]{1,20}[a-z]", fullmatch=True).map(Path)


@given(PLACES | PATHS, PLACES.filter(lambda place: place[0] != "") | PATHS, st.sampled_from(["here", "peer", "inside"]))
def test_what_is_listed_names_the_same_forward(listen: Any, target: Target, origin: Any) -> None:
    forward = Forward("tcp", listen, target, origin)
    assert parse_expose(json.dumps(members_of(reported(forward))).encode()) == forward


def reported(forward: Forward) -> dict[str, Any]:
    """Return a forward as the status reports it."""
    [status] = FakeForwards(forward).status()
    return status


def test_forwards_are_listed_in_the_spelling_of_gvproxy() -> None:
    assert members_of(reported(parse_forward("tcp :6443 192.168.127.2:6443"))) == {
        "local": ":6443",
        "remote": "192.168.127.2:6443",
        "protocol": "tcp",
    }
    assert members_of(reported(parse_forward("tcp unix:/run/a.sock 10.9.0.7:5432"))) == {
        "local": "/run/a.sock",
        "remote": "tcp://10.9.0.7:5432",
        "protocol": "unix",
    }
