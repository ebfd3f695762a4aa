"""Whatever can be made can be read out of the journal again, and nothing else; the taking back is in tests/netns."""

from __future__ import annotations

import json
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.host.machine import logged
from vpntun.host.changes import Change, entry_of
from vpntun.host.cleanup import KINDS, change_of, clean_up
from vpntun.host.dns import NameServers
from vpntun.host.journal import Journal, path_of
from vpntun.host.steps import Address, LooseFilter, Mtu, Route, Rule, Up

EVERY_KIND: list[Change] = [
    Mtu("tun3", 1500, 1380),
    Up("tun3"),
    Address("tun3", ip_interface("192.168.0.1/24")),
    Address("tun3", ip_interface("fd77::1/64")),
    Route("tun3", ip_network("10.0.0.0/8"), 254),
    Route("tun3", ip_network("::/0"), 51820, "fd77::1"),
    Rule(4, 5182, 51820, 51820),
    Rule(6, 5181, 254, to="fd01::/64", shortest=64),
    LooseFilter(1),
    NameServers("tun.tun3", "nameserver 192.0.2.1\nsearch example.org\n"),
]


@pytest.mark.parametrize("change", EVERY_KIND)
def test_a_change_comes_out_of_the_journal_as_it_went_in(change: Change, tmp_path: Path) -> None:
    Journal("tun3", tmp_path).made(entry_of(change))
    [_, entry] = json.loads(path_of("tun3", tmp_path).read_text())
    assert change_of(entry) == change


def test_every_kind_is_tried() -> None:
    assert {type(each).__name__ for each in EVERY_KIND} == set(KINDS)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"kind": "Reboot"},
        {"kind": 7},
        {"kind": "Up"},
        {"kind": "Up", "device": 3},
        {"kind": "Up", "device": "tun3", "more": 1},
        {"kind": "Mtu", "device": "tun3", "former": "1500", "mtu": 1380},
        {"kind": "LooseFilter", "former": True},
        {"kind": "Address", "device": "tun3", "address": "192.168.0.300/24"},
        {"kind": "Address", "device": "tun3", "address": 3232235521},
        {"kind": "Route", "device": "tun3", "network": "10.0.0.1/8", "table": 254, "source": ""},
    ],
)
def test_what_is_no_change_is_none(entry: dict[str, str | int]) -> None:
    assert change_of(entry) is None


@given(st.dictionaries(st.sampled_from(["kind", "device", "address", "former"]), st.text() | st.integers()))
def test_no_entry_raises(entry: dict[str, str | int]) -> None:
    change_of(entry)


def test_nothing_to_clean_up_is_not_worth_a_word(tmp_path: Path) -> None:
    with logged() as lines:
        clean_up("tun3", tmp_path)
    assert lines == []


def test_a_journal_of_nonsense_is_passed_over_with_a_notice_and_does_not_stay(tmp_path: Path) -> None:
    path = path_of("tun3", tmp_path)
    path.write_text('garbage\n["made", {"kind": "Reboot"}]\n')
    path.chmod(0o600)
    with logged() as lines:
        clean_up("tun3", tmp_path)
    assert ["cannot be read" in lines[0], "no kind" in lines[1]] == [True, True]
    assert not path.exists()


def test_a_device_that_has_gone_has_taken_its_changes_along(tmp_path: Path) -> None:
    journal = Journal("gone0", tmp_path)
    for change in (Up("gone0"), Address("gone0", ip_interface("192.168.0.1/24"))):
        journal.made(entry_of(change))
    with logged() as lines:
        clean_up("gone0", tmp_path)
    assert len(lines) == 1
    assert not path_of("gone0", tmp_path).exists()
