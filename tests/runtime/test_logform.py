"""Formats of a log line: whatever an event contains, it is one printable line that programs can parse."""

from __future__ import annotations

import json
import logging
import shlex
from datetime import datetime
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.runtime.logform import NOTICE, Form, escape, formatter, priority

FORMS: list[Form] = ["text", "logfmt", "json"]


def event(text: str, *arguments: object, level: int = NOTICE, **attributes: object) -> logging.LogRecord:
    record = logging.LogRecord("vpntun", level, "file", 1, text, arguments, None)
    record.created = 1738324800.0426
    record.__dict__.update(attributes)
    return record


def test_text_is_for_people() -> None:
    assert formatter("text", "tun3").format(event("connected to %s", "there")) == "vpntun: tun3: connected to there"


def test_text_starts_with_the_time_on_request() -> None:
    line = formatter("text", "tun3", with_time=True).format(event("up"))
    assert line == "2025-01-31T12:00:00.042Z vpntun: tun3: up"


def test_the_final_error_names_no_interface() -> None:
    said = event("the device tun3 has gone", level=logging.ERROR, is_last=True)
    assert formatter("text", "tun3").format(said) == "vpntun: the device tun3 has gone"


def test_logfmt_names_each_value() -> None:
    line = formatter("logfmt", "tun3").format(event("connected to %s", "there", fields={"peer": "office", "mtu": 1500}))
    assert line == (
        'time=2025-01-31T12:00:00.042Z level=notice interface=tun3 message="connected to there" peer=office mtu=1500'
    )


def test_json_is_one_object() -> None:
    line = formatter("json", "tun3").format(event("up", level=logging.INFO, fields={"peer": "office"}))
    assert json.loads(line) == {
        "time": "2025-01-31T12:00:00.042Z",
        "level": "info",
        "interface": "tun3",
        "message": "up",
        "peer": "office",
    }


@pytest.mark.parametrize(
    ("level", "name", "number"),
    [
        (logging.ERROR, "error", 3),
        (logging.WARNING, "warning", 4),
        (NOTICE, "notice", 5),
        (logging.INFO, "info", 6),
        (logging.DEBUG, "debug", 7),
    ],
)
def test_each_level_has_a_name_and_a_priority(level: int, name: str, number: int) -> None:
    said = event("up", level=level)
    assert json.loads(formatter("json", "tun3").format(said))["level"] == name
    assert priority(said) == number


@pytest.mark.parametrize("form", FORMS)
@given(said=st.text())
def test_any_message_is_one_printable_line(form: Form, said: str) -> None:
    line = formatter(form, "tun3").format(event("peer says %s", said, fields={"peer": said}))
    assert line.isprintable()


@given(said=st.text())
def test_json_parses_to_the_original_message(said: str) -> None:
    assert json.loads(formatter("json", "tun3").format(event("%s", said)))["message"] == said


@given(said=st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])), name=st.sampled_from(["peer", "a"]))
def test_logfmt_parses_to_its_fields(said: str, name: str) -> None:
    line = formatter("logfmt", "tun3").format(event("%s", said, fields={name: said}))
    words = dict(word.split("=", 1) for word in shlex.split(line))
    assert set(words) == {"time", "level", "interface", "message", name}
    if said.isprintable() and "\\" not in said:
        assert words["message"] == words[name] == said


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_the_time_is_in_iso_8601(form: Literal["logfmt", "json"]) -> None:
    line = formatter(form, "tun3").format(event("up"))
    stated = json.loads(line)["time"] if form == "json" else line.split()[0].removeprefix("time=")
    assert datetime.fromisoformat(stated.replace("Z", "+00:00")).timestamp() == pytest.approx(1738324800.042)


def test_printable_text_is_not_escaped() -> None:
    assert escape("plain é 漢 \\n") == "plain é 漢 \\n"
    assert escape("a\nb\x1b") == r"a\nb\x1b"
