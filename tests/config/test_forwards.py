"""Forwards as they are written: each spelling has one meaning, and a bad one says what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.config.forwards import Forward, ServiceName, parse_forward, parse_listening, parse_target
from vpntun.config.names import parse_address, parse_domain, parse_forward_of_names
from vpntun.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("tcp :6443 192.168.127.2:6443", Forward("tcp", ("", 6443), ("192.168.127.2", 6443))),
        (":6443 192.168.127.2:6443", Forward("tcp", ("", 6443), ("192.168.127.2", 6443))),
        ("unix:/run/a b.example:1 from peer", Forward("tcp", Path("/run/a"), ("b.example", 1), "peer")),
        ("TCP [::1]:80 [fd00::2]:80", Forward("tcp", ("::1", 80), ("fd00::2", 80))),
        ("udp 127.0.0.1:53 dns.example:53", Forward("udp", ("127.0.0.1", 53), ("dns.example", 53))),
        ("tcp unix:/run/a b.example:1", Forward("tcp", Path("/run/a"), ("b.example", 1))),
        ("tcp :1 unix:/run/a", Forward("tcp", ("", 1), Path("/run/a"))),
        ("tcp :22 127.0.0.1:22 from peer", Forward("tcp", ("", 22), ("127.0.0.1", 22), "peer")),
        ("tcp :22 127.0.0.1:22 from inside", Forward("tcp", ("", 22), ("127.0.0.1", 22), "inside")),
        ("tcp 127.0.0.1:2222 ssh@desk", Forward("tcp", ("127.0.0.1", 2222), ServiceName("ssh", "desk"))),
    ],
)
def test_each_spelling_is_read_and_written_alike(text: str, meant: Forward) -> None:
    assert parse_forward(text) == meant
    assert parse_forward(str(meant)) == meant


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tcp :6443", "a forward is tcp or udp"),
        ("sctp :1 a:1", "sctp"),
        ("tcp 6443 a:1", "nothing can listen on '6443': give :PORT"),
        ("tcp :0 a:1", "nothing can listen on"),
        ("tcp localhost:1 a:1", "nothing can listen on"),
        ("tcp ::1:80 a:1", "nothing can listen on"),
        ("tcp :1 a", "nothing can be reached at 'a': give HOST:PORT"),
        ("tcp :1 fd00::7:5432", r"such as db.example:5432 or \[fd00::7\]:5432"),
        ("tcp :1 @desk", "SERVICE@PEER"),
        ("tcp unix:run/a a:1", "absolute path"),
        ("udp unix:/run/a a:1", "use it with tcp"),
        ("udp :1 ssh@desk", "use it with tcp"),
        ("tcp :1 ssh@desk from peer", "without 'from'"),
        ("tcp :1 a:1 from afar", "a forward is tcp or udp"),
    ],
)
def test_a_bad_forward_is_refused_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        parse_forward(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_forward, parse_listening, parse_target):
        with suppress(ConfigurationError):
            parse(text)


@pytest.mark.parametrize("parse", [parse_listening, parse_target, parse_domain, parse_address, parse_forward_of_names])
def test_no_error_shows_text_that_might_be_a_key(parse: Callable[[str], object]) -> None:
    key = "aG9vb29vb29vb29vb29vb29vb29vb29vb29vb29vb28="
    for text in (key, f"unix:{key}", f"example {key}", f"{key}@desk"):
        said = ""
        try:
            parse(text)
        except ConfigurationError as error:
            said = str(error)
        assert key[:43] not in said
