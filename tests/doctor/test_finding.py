"""Findings: how they are made of errors, counted, and written as JSON."""

from __future__ import annotations

import json

from vpntun.doctor.finding import as_json, bounded, counted, failed, ok, parts_of, refused, skipped, warning
from vpntun.errors import ConfigurationError, DeviceError

FOUND = [ok("a", "fine"), warning("b", "slow", "faster"), failed("c", "broken", "mend it"), skipped("d", "no right")]


def test_the_message_of_an_error_is_the_text_and_the_remedy() -> None:
    assert refused("device", DeviceError("there is no device: load the module: tun")) == failed(
        "device", "there is no device", "load the module: tun"
    )


def test_the_place_in_a_file_is_a_part_of_the_text() -> None:
    assert parts_of(ConfigurationError("/a/b.conf:4: there is no key X")) == ("/a/b.conf:4: there is no key X", "")
    assert parts_of(ConfigurationError("/a/b.conf:4: no key: add one")) == ("/a/b.conf:4: no key", "add one")


def test_findings_are_counted_by_verdict() -> None:
    assert counted([*FOUND, FOUND[0]]) == {"ok": 2, "warning": 1, "failed": 1, "skipped": 1}
    assert list(counted([])) == ["ok", "warning", "failed", "skipped"]


def test_of_many_findings_alike_a_few_are_shown_and_the_others_counted() -> None:
    many = [failed("route", f"to {number}", "mend it") for number in range(1010)]
    found = list(bounded([*many, *FOUND], 10))
    assert found[:10] == many[:10]
    assert found[10:14] == FOUND
    assert [each.text for each in found[14:]] == ["1,000 more like these"]
    assert (found[14].check, found[14].verdict) == ("route", "failed")
    assert list(bounded(many[:10], 10)) == many[:10]


def test_json_has_every_finding_and_the_numbers() -> None:
    written = json.loads(json.dumps(as_json(iter(FOUND))))
    assert written["summary"] == {"ok": 1, "warning": 1, "failed": 1, "skipped": 1}
    assert written["findings"][1] == {
        "check": "b",
        "verdict": "warning",
        "text": "slow",
        "remedy": "faster",
        "about": "",
    }
    assert written["findings"][3]["text"] == "not checked: no right"
