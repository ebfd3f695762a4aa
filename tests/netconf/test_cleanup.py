"""Reading changes back from the journal, and only possible ones; tests/netns tests that they are taken back."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine import logged
from vpntun.netconf import change_kinds, cleanup, dns
from vpntun.netconf.change_kinds import Address, LooseFilter, Mtu, OtherRoute, Route, Rule, Up, ValidMark
from vpntun.netconf.changes import Change, entry_of
from vpntun.netconf.cleanup import KINDS, change_of, clean_up
from vpntun.netconf.dns import NameServers, entry_for
from vpntun.netconf.journal import Journal, path_of
from vpntun.netconf.netlink import KERNELS_TABLES

EVERY_KIND: list[Change] = [
    Mtu("tun3", 1500, 1380),
    Up("tun3"),
    Address("tun3", ip_interface("192.168.0.1/24")),
    Address("tun3", ip_interface("fd77::1/64")),
    Route("tun3", ip_network("10.0.0.0/8"), 254),
    Route("tun3", ip_network("::/0"), 51820, "fd77::1"),
    OtherRoute("tun4", ip_network("10.0.0.0/8"), 51820, "10.9.0.1"),
    Rule(4, 32402, 51820, 51820),
    Rule(6, 32401, 254, to="fd01::/64", shortest=64),
    ValidMark(51820),
    LooseFilter(1),
    NameServers(entry_for("tun3"), "nameserver 192.0.2.1\nsearch example.org\n"),
]


@pytest.mark.parametrize("change", EVERY_KIND)
def test_a_change_is_read_from_the_journal_as_it_was_written(change: Change, tmp_path: Path) -> None:
    Journal("tun3", tmp_path).made(entry_of(change))
    [_, entry] = json.loads(path_of("tun3", tmp_path).read_text())
    assert change_of(entry, "tun3") == change


def test_every_kind_of_change_is_tested() -> None:
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
def test_an_entry_that_is_not_a_change_is_ignored(entry: dict[str, str | int]) -> None:
    assert change_of(entry, "tun3") is None


NUMBERS = st.integers(-2, 32420) | st.sampled_from([2**31, 2**32 - 1, 2**32, 2**63, 2**70])
NAMES = st.sampled_from(["gone0", "eth0", "", "x" * 40, "a\0b", "\ud800"])
PLACES = st.sampled_from(
    ["10.0.0.0/8", "fd00::/8", "::/0", "fe80::%1/64", "10.1.1.1", "10.0.0.1/8", "1/2", "/", "x", ""]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | NUMBERS | NAMES | PLACES | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = {"int": NUMBERS, "str": NAMES | PLACES, "Network": PLACES, "Interface": PLACES}


@st.composite
def likely(draw: st.DrawFn) -> dict[str, object]:
    """An entry with the fields of its kind, and arbitrary values in them."""
    name = draw(st.sampled_from(sorted(KINDS)))
    fields = dataclasses.fields(KINDS[name])
    return {"kind": name} | {each.name: draw(FIELDS[str(each.type)] | JSON) for each in fields}


class FakeNetlink:
    """A fake netlink that records the requests and the devices they name."""

    def __init__(self) -> None:
        self.requests = self
        self.devices: set[str] = set()
        self.asked = ""
        self.fields: list[dict[str, object]] = []

    def __enter__(self) -> FakeNetlink:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def index_of(self, device: str) -> int:
        self.asked = device
        return 1

    def rules(self, _: int) -> list[object]:
        return []

    def rule(self, *_: str, **fields: object) -> None:
        self.fields.append(fields)
        if fields.get("table") in (None, *KERNELS_TABLES):  # in other tables there are routes of other tunnels
            self.devices.add(self.asked or "gone0")

    link = addr = route = rule


@given(st.lists(likely() | st.dictionaries(st.text(), JSON) | JSON, max_size=8))
def test_no_entry_raises_and_none_touches_anything_but_this_interface(entries: list[object]) -> None:
    netlink, names = FakeNetlink(), []
    with tempfile.TemporaryDirectory() as made, logged(), pytest.MonkeyPatch.context() as patched:
        folder = Path(made)
        (folder / "all").mkdir()
        for setting in ("rp_filter", "src_valid_mark"):
            (folder / "all" / setting).write_text("2\n")
        patched.setattr(change_kinds, "CONF", folder)
        patched.setattr(cleanup, "Netlink", lambda: netlink)
        patched.setattr(dns, "_resolvconf", lambda *arguments, **_: names.append(arguments[1]))
        path = path_of("gone0", folder)
        path.write_text("".join(f"{json.dumps(['made', entry])}\n" for entry in entries))
        path.chmod(0o600)
        clean_up("gone0", folder)
        assert not path.exists()
        assert int((folder / "all" / "rp_filter").read_text()) in (0, 1, 2)
    assert netlink.devices <= {"gone0"}
    assert set(names) <= {entry_for("gone0")}
    for fields in netlink.fields:
        assert all(0 <= each < 1 << 32 for each in fields.values() if isinstance(each, int))
        assert fields.get("family", 2) in (2, 10)
        assert fields.get("priority", 32400) in change_kinds.PRIORITIES


@pytest.mark.parametrize(
    "change",
    [
        Up("eth0"),
        Mtu("eth0", 1500, 1380),
        Address("eth0", ip_interface("192.168.0.1/24")),
        Route("eth0", ip_network("10.0.0.0/8"), 254),
        Route("tun3", ip_network("10.0.0.0/8"), 254, "fd77::1"),
        Rule(4, 0, 255),
        Rule(4, 32766, 254),
        Rule(9, 32402, 51820),
        Rule(4, 32402, 2**70),
        Rule(4, 32402, -1),
        Rule(4, 32401, 254, to="fd01::/64"),
        Rule(6, 32401, 254, to="fe80::%1/64"),
        Rule(4, 32401, 254, to="10.0.0.1"),
        LooseFilter(2),
        NameServers("eth0", ""),
    ],
)
def test_a_change_that_this_interface_cannot_have_made_is_ignored(change: Change) -> None:
    assert change_of(entry_of(change), "tun3") is None


def test_nothing_is_logged_if_there_is_nothing_to_clean_up(tmp_path: Path) -> None:
    with logged() as lines:
        clean_up("tun3", tmp_path)
    assert lines == []


def test_a_journal_of_nonsense_is_ignored_with_a_notice_and_removed(tmp_path: Path) -> None:
    path = path_of("tun3", tmp_path)
    path.write_text('garbage\n["made", {"kind": "Reboot"}]\n')
    path.chmod(0o600)
    with logged() as lines:
        clean_up("tun3", tmp_path)
    assert ["cannot be read" in lines[0], "cannot belong to tun3" in lines[1]] == [True, True]
    assert not path.exists()


def test_the_changes_of_a_deleted_device_count_as_taken_back(tmp_path: Path) -> None:
    journal = Journal("gone0", tmp_path)
    for change in (Up("gone0"), Address("gone0", ip_interface("192.168.0.1/24"))):
        journal.made(entry_of(change))
    with logged() as lines:
        clean_up("gone0", tmp_path)
    assert len(lines) == 1
    assert not path_of("gone0", tmp_path).exists()
