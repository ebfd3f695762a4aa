"""Reading changes back from the journal, and only possible ones; tests/netns tests that they are taken back."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import tempfile
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine import logged, ordinary_user
from tests.netconf.kernel import add_up, in_own_network
from vpntun.netconf import change_kinds, cleanup, dns
from vpntun.netconf.change_kinds import (
    Address,
    GatewayRoute,
    LooseFilter,
    Mtu,
    OtherRoute,
    Route,
    Rule,
    Up,
    ValidMark,
)
from vpntun.netconf.changes import Change, entry_of
from vpntun.netconf.cleanup import KINDS, change_of, clean_up, remove_leftovers
from vpntun.netconf.dns import NameServers, entry_for
from vpntun.netconf.ethernet_kinds import BridgePort, Mac
from vpntun.netconf.journal import Journal, path_of
from vpntun.netconf.netlink import KERNELS_TABLES, FoundRule, InterfaceAddress, Link, Netlink
from vpntun.netconf.route_plan import full_tunnel_rules, is_of_a_vpntun, merging_rules

EVERY_KIND: list[Change] = [
    Mtu("tun3", 1500, 1380),
    Up("tun3"),
    Address("tun3", ip_interface("192.168.0.1/24")),
    Address("tun3", ip_interface("fd77::1/64")),
    Mac("tun3", "02:00:00:00:00:07", "fe:00:00:00:00:0a"),
    BridgePort("tun3", "br0"),
    Route("tun3", ip_network("10.0.0.0/8"), 254),
    Route("tun3", ip_network("::/0"), 51820, "fd77::1"),
    GatewayRoute("tun3", ip_network("10.0.0.0/8"), 254, gateway="10.9.0.2"),
    OtherRoute("tun4", ip_network("10.0.0.0/8"), 51820, "10.9.0.1"),
    Rule(4, 32402, 51820, 51820),
    Rule(6, 32401, 254, to="fd01::/64", shortest=64),
    ValidMark(51820),
    LooseFilter(1, 51820),
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
        {"kind": "LooseFilter", "former": True, "table": 51820},
        {"kind": "Address", "device": "tun3", "address": "192.168.0.300/24"},
        {"kind": "Address", "device": "tun3", "address": 3232235521},
        {"kind": "Route", "device": "tun3", "network": "10.0.0.1/8", "table": 254, "source": ""},
        {"kind": "Mac", "device": "tun3", "former": "02:00:00:00:00:07", "mac": "02:00"},
        {"kind": "Mac", "device": "tun4", "former": "02:00:00:00:00:07", "mac": "02:00:00:00:00:08"},
        {"kind": "BridgePort", "device": "tun3", "bridge": "b r"},
        {"kind": "BridgePort", "device": "br0", "bridge": "br0"},
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

    addr = route = rule

    def link(self, word: str, **fields: object) -> Link:
        """A question about a device of this name, or a change of the one that was asked for last."""
        if fields:
            self.rule(word, **fields)
        else:
            self.asked = word
        return Link(1, self.asked, 0, 1500, "tun", master=1)


@given(st.lists(likely() | st.dictionaries(st.text(), JSON) | JSON, max_size=8))
def test_no_entry_raises_and_none_touches_anything_but_this_interface(entries: list[object]) -> None:
    names: list[str] = []
    netlink = FakeNetlink()
    with tempfile.TemporaryDirectory() as made, logged(), pytest.MonkeyPatch.context() as patched:
        folder = Path(made)
        (folder / "all").mkdir()
        for setting in ("rp_filter", "src_valid_mark"):
            (folder / "all" / setting).write_text("2\n")
        patched.setattr(change_kinds, "CONF", folder)
        patched.setattr(cleanup, "Netlink", lambda: netlink)
        patched.setattr(dns, "_remove", names.append)
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
        GatewayRoute("eth0", ip_network("10.0.0.0/8"), 254, gateway="10.9.0.2"),
        GatewayRoute("tun3", ip_network("10.0.0.0/8"), 254, gateway="fd77::1"),
        GatewayRoute("tun3", ip_network("10.0.0.0/8"), 254),
        Rule(4, 0, 255),
        Rule(4, 32766, 254),
        Rule(9, 32402, 51820),
        Rule(4, 32402, 2**70),
        Rule(4, 32402, -1),
        Rule(4, 32401, 254, to="fd01::/64"),
        Rule(6, 32401, 254, to="fe80::%1/64"),
        Rule(4, 32401, 254, to="10.0.0.1"),
        LooseFilter(2, 51820),
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


def every_rule(netlink: Netlink) -> list[FoundRule]:
    return [rule for version in (4, 6) for rule in netlink.rules(version)]


def made(rule: FoundRule) -> Rule:
    """The change that makes such a rule."""
    return Rule(rule.version, rule.priority, rule.table, rule.mark, rule.to, rule.shortest)


def rules_left(netlink: Netlink) -> set[tuple[int, int, int]]:
    """Version, priority and table of the rules that a vpntun can have made."""
    return {
        (rule.version, rule.priority, rule.table)
        for rule in every_rule(netlink)
        if rule.priority in change_kinds.PRIORITIES
    }


def leave(netlink: Netlink, *changes: Change) -> None:
    for change in changes:
        assert change.make(netlink)


FULL = full_tunnel_rules(
    "gone0", [4, 6], 51820, 51820, [InterfaceAddress("eth0", "192.168.7.1", ip_network("192.168.7.0/24"))]
)
MERGED = merging_rules([ip_network("128.0.0.0/1")], 51821, 51821)


@in_own_network
def test_rules_and_routes_of_a_killed_tunnel_are_removed_without_a_journal(tmp_path: Path) -> None:
    subprocess.run(["ip", "tuntap", "add", "mode", "tun", "name", "other"], check=True)
    with Netlink() as netlink, logged() as lines:
        leave(netlink, *FULL, *MERGED, Up("other"), OtherRoute("other", ip_network("10.20.0.0/16"), 51820))
        assert len(rules_left(netlink)) == len({*FULL, *MERGED})
        assert remove_leftovers("tun3", tmp_path)
        assert rules_left(netlink) == set()
        assert netlink.routes(4, 51820) == []
        assert not remove_leftovers("tun3", tmp_path)
    assert len(lines) == 1
    assert "removed what a killed vpntun had left: 10 rules and routes" in lines[0]


@in_own_network
def test_rules_of_a_tunnel_whose_device_is_attached_stay(tmp_path: Path) -> None:
    with Netlink() as netlink:
        add_up(netlink, "test0")
        everything = [ip_network("0.0.0.0/0"), ip_network("::/0")]
        leave(netlink, *(Route("test0", each, 51820) for each in everything), *FULL, *MERGED)
        assert remove_leftovers("tun3", tmp_path)
        assert {table for _, _, table in rules_left(netlink)} == {0, 254, 51820}
        assert len(rules_left(netlink)) == len(FULL)


@in_own_network
def test_rules_in_the_journal_of_another_interface_stay_until_that_one_is_cleaned_up(tmp_path: Path) -> None:
    journal = Journal("home", tmp_path)
    with Netlink() as netlink:
        for change in FULL:
            journal.made(entry_of(change))
        leave(netlink, *FULL)
        assert not remove_leftovers("tun3", tmp_path)
        assert len(rules_left(netlink)) == len(FULL)
        assert remove_leftovers("home", tmp_path)
        assert rules_left(netlink) == set()


@in_own_network
def test_rules_that_block_nothing_may_be_the_operators_and_stay(tmp_path: Path) -> None:
    with Netlink() as netlink:
        leave(netlink, Rule(4, 32402, 4242, 4242), Rule(4, 32401, 254, to="10.0.0.0/24", shortest=24))
        assert not remove_leftovers("tun3", tmp_path)
        assert len(rules_left(netlink)) == 2


@in_own_network
def test_rules_of_other_programs_stay_beside_those_of_a_killed_tunnel(tmp_path: Path) -> None:
    others = [Rule(4, 32410, 77), Rule(4, 32402, 78, to="10.1.0.0/16"), Rule(4, 32501, 100)]
    others.append(Rule(4, 32600, 254, to="10.0.0.0/8"))
    with Netlink() as netlink:
        leave(netlink, *others, *FULL, *MERGED)
        assert {*FULL, *MERGED} == {made(rule) for rule in every_rule(netlink) if is_of_a_vpntun(rule)}
        assert remove_leftovers("tun3", tmp_path)
        assert rules_left(netlink) == {(rule.version, rule.priority, rule.table) for rule in others}


@in_own_network
def test_leftovers_that_this_user_may_not_remove_stay_without_a_word(tmp_path: Path) -> None:
    with Netlink() as netlink:
        leave(netlink, *FULL)
        tmp_path.chmod(0o755)
        with ordinary_user() as folder, logged() as lines:
            assert not remove_leftovers("tun3", folder)
        assert (len(rules_left(netlink)), lines) == (len(FULL), [])
