"""Marks of one tunnel, the kernel's filter, and the refusal to become a full tunnel later.

The plan of routes and rules is in test_route_plan.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.machine import logged
from tests.netconf.kernel import add_up, in_own_network
from vpntun.errors import CannotChange, ConfigurationError, PrivilegeError
from vpntun.firewall.arrivals import Arrivals
from vpntun.netconf import change_kinds
from vpntun.netconf.change_kinds import Route, Rule, Up
from vpntun.netconf.journal import Journal
from vpntun.netconf.netlink import MAIN, Netlink
from vpntun.netconf.route_plan import Table, full_tunnel_rules
from vpntun.netconf.routing import HostRoutes
from vpntun.netconf.upkeep import Host
from vpntun.types import Network


def networks(text: str) -> list[Network]:
    return [ip_network(each) for each in text.split()]


def tunnel(folder: Path, table: Table, mark: int = 0) -> HostRoutes:
    return HostRoutes("tun3", table, mark, Journal("tun3", folder), ephemeral=True)


def is_marking(device: str) -> bool:
    """Whether a tunnel has the tables of this device's name, which then cannot be made again."""
    second = Arrivals(device)
    try:
        return not second.mark(7, [])
    finally:
        second.close()


@pytest.fixture
def of(tmp_path: Path) -> Iterator[list[HostRoutes]]:
    made: list[HostRoutes] = []
    yield made
    for each in made:
        each.undo()


@pytest.mark.parametrize(
    ("table", "mark", "allowed", "chosen"),
    [
        ("off", 0, "0.0.0.0/0", 0),
        ("off", 7, "0.0.0.0/0", 7),
        (99, 0, "0.0.0.0/0", 0),
        (99, 7, "0.0.0.0/0", 7),
        ("auto", 0, "10.0.0.0/9 fd00::/8", 0),
        ("auto", 7, "10.0.0.0/8", 7),
        ("auto", 7, "0.0.0.0/0", 7),
        ("auto", 7, "8.0.0.0/6", 7),
    ],
)
def test_the_mark_is_the_operators_or_none(
    tmp_path: Path, of: list[HostRoutes], table: Table, mark: int, allowed: str, chosen: int
) -> None:
    of.append(tunnel(tmp_path, table, mark))
    assert of[0].choose_mark(networks(allowed)) == chosen


@pytest.mark.parametrize("allowed", ["::/0", "0.0.0.0/1 128.0.0.0/1", "8.0.0.0/6"])
def test_allowed_ips_that_may_contain_an_endpoint_get_a_mark_chosen_once(
    tmp_path: Path, of: list[HostRoutes], allowed: str
) -> None:
    of.append(tunnel(tmp_path, "auto"))
    chosen = of[0].choose_mark(networks(allowed))
    assert chosen >= 51820
    assert of[0].choose_mark(networks(allowed)) == chosen


@pytest.mark.parametrize("mark", [253, 254, 255])
def test_a_full_tunnel_never_uses_a_table_of_the_kernel(tmp_path: Path, of: list[HostRoutes], mark: int) -> None:
    of.append(tunnel(tmp_path, "auto", mark))
    with pytest.raises(ConfigurationError, match=f"FwMark {mark}"):
        of[0].choose_mark(networks("0.0.0.0/0"))


def test_becoming_a_full_tunnel_takes_a_restart(tmp_path: Path, of: list[HostRoutes]) -> None:
    of.append(tunnel(tmp_path, "auto"))
    assert of[0].choose_mark(networks("10.0.0.0/9")) == 0
    with pytest.raises(ConfigurationError, match="start it again"):
        of[0].apply(networks("10.0.0.0/9 ::/0"))


def settings() -> tuple[int, ...]:
    return tuple(int((change_kinds.CONF / "all" / name).read_text()) for name in ("rp_filter", "src_valid_mark"))


@pytest.mark.parametrize(("marked", "during"), [(True, (1, 1)), (False, (2, 0))], ids=["marked", "unmarked"])
@in_own_network
def test_a_strict_filter_stays_strict_where_arriving_packets_can_be_marked(
    tmp_path: Path, marked: bool, during: tuple[int, int]
) -> None:
    with Netlink() as netlink:
        add_up(netlink, "tun3", "10.9.0.2/24")
    (change_kinds.CONF / "all" / "rp_filter").write_text("1\n")
    other = Arrivals("tun3")
    if not marked:
        other.mark(7, [])  # so that the name is taken
    routes = tunnel(tmp_path, "auto")
    routes.choose_mark(networks("0.0.0.0/0"))
    with logged() as lines:
        routes.apply(networks("0.0.0.0/0"))
        with Netlink() as netlink:
            routes.follow(Host(netlink, addresses=netlink.addresses()))
    assert settings() == during
    assert len(lines) == (0 if marked else 1)
    routes.undo()
    assert settings() == (1, 0)


@pytest.mark.parametrize(
    ("marked", "before", "during"),
    [(True, (1, 0), (1, 1)), (True, (1, 1), (1, 1)), (False, (1, 0), (2, 0)), (False, (2, 0), (2, 0))],
)
@in_own_network
def test_the_last_of_two_tunnels_restores_what_the_operator_had_set(
    tmp_path: Path, marked: bool, before: tuple[int, ...], during: tuple[int, ...]
) -> None:
    for name, setting in zip(("rp_filter", "src_valid_mark"), before, strict=True):
        (change_kinds.CONF / "all" / name).write_text(f"{setting}\n")
    tunnels, taken = [], []
    for device, allowed in (("tun3", "0.0.0.0/0"), ("tun4", "8.0.0.0/6")):
        with Netlink() as netlink:
            add_up(netlink, device)
        if not marked:
            taken.append(Arrivals(device))
            taken[-1].mark(7, [])
        tunnels.append(HostRoutes(device, "auto", 0, Journal(device, tmp_path), ephemeral=True))
        tunnels[-1].choose_mark(networks(allowed))
        tunnels[-1].apply(networks(allowed))
    tunnels[0].undo()
    assert settings() == during
    tunnels[1].undo()
    assert settings() == before


@pytest.mark.parametrize(("mark", "given"), [(0, [7, 0]), (9, [])])
@in_own_network
def test_sockets_carry_the_mark_of_another_full_tunnel_while_it_is_up_unless_the_operator_has_chosen_one(
    tmp_path: Path, mark: int, given: list[int]
) -> None:
    marks: list[int] = []
    routes = HostRoutes("tun3", "auto", mark, Journal("tun3", tmp_path), ephemeral=True, set_mark=marks.append)
    with Netlink() as netlink:
        rules = [each for number in (8, 7) for each in full_tunnel_rules("tun4", [4, 6], number, number, [])]
        for rule in rules:
            rule.make(netlink)
        routes.rules_changed()
        routes.rules_changed()
        for rule in rules:
            rule.take_back(netlink)
        routes.rules_changed()
    assert marks == given


@in_own_network
def test_a_user_who_may_not_set_marks_is_told_once_that_the_tunnel_goes_through_the_full_one(tmp_path: Path) -> None:
    def refuse(_: int) -> None:
        raise PrivilegeError("no right")

    routes = HostRoutes("tun3", "auto", 0, Journal("tun3", tmp_path), ephemeral=True, set_mark=refuse)
    with Netlink() as netlink, logged() as lines:
        for rule in full_tunnel_rules("tun4", [4], 7, 7, []):
            rule.make(netlink)
        routes.rules_changed()
        routes.rules_changed()
    assert lines == ["another full tunnel is up, and this tunnel's own packets go through it: no right"]


@in_own_network
def test_a_rule_of_another_program_does_not_prevent_a_full_tunnel(tmp_path: Path, of: list[HostRoutes]) -> None:
    with Netlink() as netlink:
        add_up(netlink, "tun3", "10.9.0.2/24")
        Rule(4, 32402, 77, to="10.1.1.1/32").make(netlink)
    of.append(tunnel(tmp_path, "auto"))
    of[0].choose_mark(networks("0.0.0.0/0"))
    of[0].apply(networks("0.0.0.0/0"))
    assert of[0].current


@in_own_network
def test_a_refused_change_leaves_a_full_tunnel_and_its_marks_as_they_were(tmp_path: Path, of: list[HostRoutes]) -> None:
    with Netlink() as netlink:
        add_up(netlink, "tun3", "10.9.0.2/24")
        add_up(netlink, "uplink", "10.5.0.1/16")
    of.append(tunnel(tmp_path, "auto"))
    of[0].choose_mark(networks("0.0.0.0/0"))
    of[0].apply(networks("0.0.0.0/0"))
    before = of[0].current
    with pytest.raises(ConfigurationError, match="through another device"):
        of[0].apply(networks("10.5.0.0/16"))
    assert of[0].current == before
    assert is_marking("tun3")
    of[0].apply(networks("10.6.0.0/16"))
    assert not is_marking("tun3")


@in_own_network
def test_a_refused_start_leaves_no_marks(tmp_path: Path, of: list[HostRoutes]) -> None:
    with Netlink() as netlink:
        add_up(netlink, "tun3", "10.9.0.2/24")
        add_up(netlink, "uplink")
        Route("uplink", ip_network("fd05::/64"), MAIN).make(netlink)
    of.append(tunnel(tmp_path, "auto"))
    of[0].choose_mark(networks("0.0.0.0/0 fd05::/64"))
    with pytest.raises(ConfigurationError, match="through another device"):
        of[0].apply(networks("0.0.0.0/0 fd05::/64"))
    assert not is_marking("tun3")


def routed(netlink: Netlink, network: str, table: int) -> set[int]:
    """The numbers of the devices to which the network is routed in a table."""
    return {each.device for each in netlink.found_routes(4, table) if each.network == ip_network(network)}


@in_own_network
def test_a_new_allowed_ip_replaces_the_copy_of_another_tunnels_route_unless_it_is_refused(
    tmp_path: Path, of: list[HostRoutes]
) -> None:
    subprocess.run(["ip", "tuntap", "add", "mode", "tun", "name", "other"], check=True)
    with Netlink() as netlink:
        add_up(netlink, "tun3", "10.9.0.2/24")
        add_up(netlink, "uplink")
        for change in (Up("other"), Route("other", ip_network("10.5.0.0/16"), MAIN)):
            change.make(netlink)
        Route("uplink", ip_network("fd05::/64"), MAIN).make(netlink)
        own, other = (netlink.index_of(device) for device in ("tun3", "other"))
        of.append(tunnel(tmp_path, "auto"))
        table = of[0].choose_mark(networks("0.0.0.0/0"))
        of[0].apply(networks("0.0.0.0/0"))
        assert routed(netlink, "10.5.0.0/16", table) == {other}
        with pytest.raises(ConfigurationError, match="fd05"):
            of[0].apply(networks("0.0.0.0/0 10.5.0.0/16 fd05::/64"))
        assert routed(netlink, "10.5.0.0/16", table) == {other}
        of[0].apply(networks("0.0.0.0/0 10.5.0.0/16"))
        assert routed(netlink, "10.5.0.0/16", table) == {own}
        of[0].apply(networks("0.0.0.0/0"))
        assert routed(netlink, "10.5.0.0/16", table) == {other}


@pytest.mark.parametrize(("table", "mark"), [("off", 0), ("off", 7), ("auto", 7), (99, 7)])
@in_own_network
def test_the_operators_mark_may_change_where_no_rule_of_the_tunnel_needs_it(
    tmp_path: Path, table: Table, mark: int
) -> None:
    marks: list[int] = []
    routes = HostRoutes("tun3", table, mark, Journal("tun3", tmp_path), ephemeral=True, set_mark=marks.append)
    routes.choose_mark(networks("10.0.0.0/24"))
    assert not routes.needs_its_mark
    routes.change_mark(9)
    with Netlink() as netlink:
        for rule in full_tunnel_rules("tun4", [4], 8, 8, []):
            rule.make(netlink)
    routes.rules_changed()
    assert marks == [9], "the operator has chosen one"
    routes.change_mark(0)
    routes.rules_changed()
    assert marks == [9, 0, 8]


@in_own_network
def test_a_full_tunnel_keeps_the_mark_that_its_rules_need(tmp_path: Path, of: list[HostRoutes]) -> None:
    with Netlink() as netlink:
        add_up(netlink, "tun3", "10.9.0.2/24")
    of.append(tunnel(tmp_path, "auto"))
    mark = of[0].choose_mark(networks("0.0.0.0/0"))
    for is_set in (False, True):
        if is_set:
            of[0].apply(networks("0.0.0.0/0"))
        assert of[0].needs_its_mark
        of[0].change_mark(0)
        of[0].change_mark(mark)
        with pytest.raises(CannotChange, match=f"need the mark {mark}"):
            of[0].change_mark(mark + 1)


@in_own_network
def test_a_mark_that_this_user_may_not_set_changes_nothing(tmp_path: Path) -> None:
    def refuse(_: int) -> None:
        raise PrivilegeError("no right")

    routes = HostRoutes("tun3", "off", 7, Journal("tun3", tmp_path), ephemeral=True, set_mark=refuse)
    with pytest.raises(PrivilegeError):
        routes.change_mark(9)
    assert routes.choose_mark(()) == 7
