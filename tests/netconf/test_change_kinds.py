"""Each kind of change is made in a real kernel, is made only once, and is taken back without a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from tests.netconf.kernel import add, add_up, in_own_network
from vpntun.errors import ConfigurationError, DeviceError, PrivilegeError
from vpntun.netconf import change_kinds
from vpntun.netconf.change_kinds import (
    LOOSE,
    STRICT,
    Address,
    GatewayRoute,
    LooseFilter,
    Mtu,
    Route,
    Rule,
    Up,
    ValidMark,
    filter_is_strict,
    filter_setting,
)
from vpntun.netconf.changes import Change
from vpntun.netconf.netlink import MAIN, Netlink, family_of

DEVICE = "test0"
NO_PREFIX_LENGTH = 0xFFFFFFFF


def state_of(netlink: Netlink) -> dict[str, object]:
    """All that a change of one device or of the rules can touch, without what the kernel adds by itself."""
    link = netlink.link(DEVICE)
    return {
        "mtu": link.mtu,
        "up": link.is_up,
        "addresses": {
            (each.device, each.address, each.network) for each in netlink.addresses() if "fe80" not in each.address
        },
        "routes": {
            (table, each) for version in (4, 6) for table in (7, MAIN) for each in netlink.routes(version, table)
        }
        - {(MAIN, ip_network("fe80::/64"))},
        "rules": sorted((version, rule.priority) for version in (4, 6) for rule in netlink.rules(version)),
    }


@dataclass(frozen=True)
class Case:
    """A change, and how it shows."""

    change: Change
    shows: Callable[[Netlink], bool]


def rules(netlink: Netlink, version: int, priority: int) -> list[dict[str, object]]:
    """The rules of this priority, as far as the kernel says something of them."""
    found = []
    for rule in netlink.requests.get_rules(family=family_of(version)):
        if rule.get_attr("FRA_PRIORITY") == priority:
            attributes = ("FRA_TABLE", "FRA_FWMARK", "FRA_DST")
            found.append({name: rule.get_attr(name) for name in attributes if rule.get_attr(name) is not None})
            found[-1] |= {"action": rule["action"], "inverted": bool(rule["flags"] & 2), "length": rule["dst_len"]}
            if (shortest := rule.get_attr("FRA_SUPPRESS_PREFIXLEN")) != NO_PREFIX_LENGTH:
                found[-1]["suppressed"] = shortest
    return found


CASES = {
    "mtu": Case(Mtu(DEVICE, 1500, 1380), lambda netlink: netlink.link(DEVICE).mtu == 1380),
    "up": Case(Up(DEVICE), lambda netlink: netlink.link(DEVICE).is_up),
    "IPv4 address": Case(
        Address(DEVICE, ip_interface("192.168.0.1/24")),
        lambda netlink: any(each.address == "192.168.0.1" for each in netlink.addresses()),
    ),
    "IPv6 address": Case(
        Address(DEVICE, ip_interface("fd77::1/64")),
        lambda netlink: any(each.address == "fd77::1" for each in netlink.addresses()),
    ),
    "rule": Case(
        Rule(4, 32402, 7, 51820),
        lambda netlink: (
            rules(netlink, 4, 32402)
            == [{"FRA_TABLE": 7, "FRA_FWMARK": 51820, "action": 1, "inverted": True, "length": 0}]
        ),
    ),
    "rule to a network": Case(
        Rule(6, 32401, 7, to="fd01::/64"),
        lambda netlink: (
            rules(netlink, 6, 32401)
            == [{"FRA_TABLE": 7, "FRA_DST": "fd01::", "action": 1, "inverted": False, "length": 64}]
        ),
    ),
    "rule of a length": Case(
        Rule(4, 32420, 7, shortest=9),
        lambda netlink: (
            rules(netlink, 4, 32420) == [{"FRA_TABLE": 7, "action": 1, "inverted": False, "length": 0, "suppressed": 8}]
        ),
    ),
    "rule that refuses": Case(
        Rule(4, 5300, 0), lambda netlink: [each["action"] for each in rules(netlink, 4, 5300)] == [7]
    ),
}


@pytest.mark.parametrize("name", CASES)
@in_own_network
def test_a_change_shows_and_is_taken_back_without_a_trace(name: str) -> None:
    case = CASES[name]
    with Netlink() as netlink:
        add(netlink, DEVICE)
        before = state_of(netlink)
        assert not case.shows(netlink)
        assert case.change.make(netlink)
        assert case.shows(netlink)
        case.change.take_back(netlink)
        assert state_of(netlink) == before


@pytest.mark.parametrize("name", [name for name in CASES if name != "mtu"])
@in_own_network
def test_a_change_that_is_so_already_is_not_made(name: str) -> None:
    with Netlink() as netlink:
        add(netlink, DEVICE)
        assert CASES[name].change.make(netlink)
        assert not CASES[name].change.make(netlink)


@pytest.mark.parametrize("source", ["", "10.9.0.1"])
@in_own_network
def test_a_route_leads_to_its_device_from_its_source(source: str) -> None:
    with Netlink() as netlink:
        add_up(netlink, DEVICE, "10.9.0.1/24")
        route = Route(DEVICE, ip_network("10.7.0.0/16"), 7, source)
        assert route.make(netlink)
        assert not route.make(netlink)
        (found,) = netlink.requests.get_routes(family=2, table=7)
        assert (found.get_attr("RTA_OIF"), found.get_attr("RTA_PREFSRC") or "") == (netlink.index_of(DEVICE), source)
        route.take_back(netlink)
        assert list(netlink.routes(4, 7)) == []


@pytest.mark.parametrize(
    ("network", "gateway"), [("10.7.0.0/16", "10.9.0.2"), ("fd88::/64", "fd77::2"), ("fd88::/64", "fe80::2")]
)
@in_own_network
def test_a_route_leads_to_its_gateway(network: str, gateway: str) -> None:
    with Netlink() as netlink:
        add_up(netlink, DEVICE, "10.9.0.1/24")
        Address(DEVICE, ip_interface("fd77::1/64")).make(netlink)
        route = GatewayRoute(DEVICE, ip_network(network), 7, gateway=gateway)
        assert route.make(netlink)
        assert not route.make(netlink)
        family = family_of(route.network.version)
        (found,) = netlink.requests.get_routes(family=family, table=7)
        assert (found.get_attr("RTA_OIF"), found.get_attr("RTA_GATEWAY")) == (netlink.index_of(DEVICE), gateway)
        route.take_back(netlink)
        assert list(netlink.routes(route.network.version, 7)) == []


@in_own_network
def test_a_gateway_that_is_no_other_station_of_the_device_is_refused_with_a_hint() -> None:
    with Netlink() as netlink:
        add_up(netlink, DEVICE, "10.9.0.1/24")
        with pytest.raises(DeviceError, match=r"the gateway 10\.8\.0\.2 must be another station in the network of"):
            GatewayRoute(DEVICE, ip_network("10.7.0.0/16"), MAIN, gateway="10.8.0.2").make(netlink)


@in_own_network
def test_a_route_by_another_device_is_in_the_way() -> None:
    with Netlink() as netlink:
        for name in (DEVICE, "other"):
            add_up(netlink, name)
        assert Route("other", ip_network("10.7.0.0/16"), MAIN).make(netlink)
        with pytest.raises(ConfigurationError, match=r"a route to 10\.7\.0\.0/16 already, through another device"):
            Route(DEVICE, ip_network("10.7.0.0/16"), MAIN).make(netlink)


@in_own_network
def test_an_ipv6_address_is_usable_at_once() -> None:
    with Netlink() as netlink:
        add(netlink, DEVICE)
        Up(DEVICE).make(netlink)
        Address(DEVICE, ip_interface("fd77::1/64")).make(netlink)
        (flags,) = [
            each.get_attr("IFA_FLAGS")
            for each in netlink.requests.get_addr(family=10)
            if each.get_attr("IFA_ADDRESS") == "fd77::1"
        ]
        assert not flags & 0x40, "tentative"


@pytest.mark.parametrize("name", ["mtu", "up", "IPv4 address"])
@in_own_network
def test_on_a_device_that_has_gone_nothing_is_made(name: str) -> None:
    with Netlink() as netlink, pytest.raises(DeviceError, match="is gone"):
        CASES[name].change.make(netlink)


# The reverse path filter; /proc shows the network of whoever opens it


def set_filters(every: int, **devices: int) -> None:
    for name, setting in {"all": every, "default": 0, **devices}.items():
        (change_kinds.CONF / name / "rp_filter").write_text(f"{setting}\n")


@pytest.mark.parametrize(
    ("every", "device", "strict"),
    [(0, 0, False), (STRICT, 0, True), (0, STRICT, True), (LOOSE, STRICT, False), (LOOSE, 0, False)],
)
@in_own_network
def test_the_greater_setting_of_all_and_of_a_device_counts(every: int, device: int, strict: bool) -> None:
    with Netlink() as netlink:
        add(netlink, DEVICE)
    set_filters(every, **{DEVICE: device})
    assert filter_is_strict() is strict


@in_own_network
def test_a_strict_filter_is_made_loose_once_and_set_back() -> None:
    set_filters(STRICT)
    change = LooseFilter(filter_setting(), 7)
    with Netlink() as netlink:
        assert change.make(netlink)
        assert (filter_setting(), filter_is_strict()) == (LOOSE, False)
        assert not change.make(netlink)
        change.take_back(netlink)
    assert filter_setting() == STRICT


@in_own_network
def test_a_filter_that_somebody_else_has_set_meanwhile_is_left_alone() -> None:
    set_filters(STRICT)
    with Netlink() as netlink:
        LooseFilter(STRICT, 7).make(netlink)
        set_filters(0)
        LooseFilter(STRICT, 7).take_back(netlink)
    assert filter_setting() == 0


@in_own_network
def test_marks_are_made_valid_once_and_invalid_again() -> None:
    setting = change_kinds.CONF / "all" / "src_valid_mark"
    with Netlink() as netlink:
        assert ValidMark(7).make(netlink)
        assert setting.read_text() == "1\n"
        assert not ValidMark(7).make(netlink)
        ValidMark(7).take_back(netlink)
    assert setting.read_text() == "0\n"


@in_own_network
def test_marks_stay_valid_until_the_last_tunnel_ends() -> None:
    setting, first, second = (change_kinds.CONF / "all" / "src_valid_mark", Rule(4, 32402, 7, 7), Rule(4, 32421, 8, 8))
    with Netlink() as netlink:
        for change in (ValidMark(7), first, ValidMark(8), second):
            assert change.make(netlink)
        first.take_back(netlink)
        ValidMark(7).take_back(netlink)
        assert setting.read_text() == "1\n"
        second.take_back(netlink)
        ValidMark(8).take_back(netlink)
    assert setting.read_text() == "0\n"


@in_own_network
def test_a_filter_stays_loose_until_the_last_tunnel_ends() -> None:
    set_filters(STRICT)
    first, second = Rule(4, 32402, 7, 7), Rule(4, 32421, 8, 8)
    with Netlink() as netlink:
        for change in (LooseFilter(STRICT, 7), first, LooseFilter(STRICT, 8), second):
            assert change.make(netlink)
        first.take_back(netlink)
        LooseFilter(STRICT, 7).take_back(netlink)
        assert filter_setting() == LOOSE
        second.take_back(netlink)
        LooseFilter(STRICT, 8).take_back(netlink)
    assert filter_setting() == STRICT


@pytest.mark.parametrize("strict", [False, True])
def test_a_setting_that_cannot_be_written_matters_only_to_a_strict_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    monkeypatch.setattr(change_kinds, "CONF", tmp_path)
    for name in ("all", "eth0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rp_filter").write_text(f"{int(strict)}\n")
    (tmp_path / "all" / "src_valid_mark").mkdir()  # not even root can write there, as in a container
    with Netlink() as netlink:
        if strict:
            with pytest.raises(PrivilegeError, match="Set it before starting vpntun"):
                ValidMark(7).make(netlink)
        else:
            assert not ValidMark(7).make(netlink)


def test_the_filter_is_read_where_the_kernel_has_it() -> None:
    assert Path("/proc/sys/net/ipv4/conf") == change_kinds.CONF
    assert filter_setting() in (0, STRICT, LOOSE)
