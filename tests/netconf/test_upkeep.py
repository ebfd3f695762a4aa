"""Upkeep: what others remove from a device or from the rules is put back, without end, fights or long pauses."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from tests.machine import HandLoop, logged, no_more_descriptors, ordinary_user
from tests.netconf.kernel import add, add_bridge, add_up, in_own_network
from vpntun.netconf.changes import Change, Changes
from vpntun.netconf.journal import Journal
from vpntun.netconf.netlink import MAIN, Netlink
from vpntun.netconf.routing import HostRoutes
from vpntun.netconf.settings import DeviceSettings
from vpntun.netconf.upkeep import Host, Upkeep

DEVICE = "test0"


class Tunnel:
    """The settings of a full tunnel, on a device that is no TUN device, and their upkeep."""

    def __init__(self, folder: Path) -> None:
        self.loop = HandLoop()
        self.netlink = Netlink()
        add(self.netlink, DEVICE)
        add_up(self.netlink, "uplink", "192.168.7.1/24")
        journal = Journal(DEVICE, folder)
        self.settings = DeviceSettings(DEVICE, journal)
        addresses = [ip_interface("10.9.0.2/24"), ip_interface("fd09::2/64")]
        self.settings.apply(addresses, [ip_network("10.7.0.0/16"), ip_network("fd07::/64")], None)
        self.routes = HostRoutes(DEVICE, "auto", 0, journal, ephemeral=False)
        everything = [ip_network("0.0.0.0/0"), ip_network("::/0")]
        self.mark = self.routes.choose_mark(everything)
        self.routes.apply(everything)
        self.upkeep = Upkeep(DEVICE, self.loop, [self.settings, self.routes])
        self.whole = self.state()

    def look(self, seconds: float = 1.0) -> None:
        self.upkeep.look()
        self.loop.pass_time(seconds)

    def state(self) -> tuple[set[str], ...]:
        """The device's addresses, its routes, and the rules."""
        addresses = {str(each) for each in self.netlink.addresses() if each.device == DEVICE}
        routes = {
            f"{table}: {each}"
            for version in (4, 6)
            for table in (MAIN, self.mark)
            for each in self.netlink.routes(version, table, DEVICE)
        }
        rules = {str(each) for version in (4, 6) for each in self.netlink.rules(version)}
        return tuple({each for each in these if "fe80" not in each} for these in (addresses, routes, rules))

    def close(self) -> None:
        self.upkeep.close()
        self.routes.undo()
        self.settings.undo()
        self.netlink.close()
        self.loop.close()


@contextmanager
def tunnel(folder: Path) -> Iterator[Tunnel]:
    made = Tunnel(folder)
    try:
        yield made
    finally:
        made.close()


def ip(command: str) -> None:
    for each in command.split("; "):
        subprocess.run(["ip", *each.split()], check=True)


@in_own_network
def test_a_device_that_was_taken_down_stays_down_and_is_whole_once_it_is_up_again(tmp_path: Path) -> None:
    with tunnel(tmp_path) as kept, logged() as lines:
        kept.look()
        ip(f"link set {DEVICE} down")
        kept.look()
        kept.look()
        assert not kept.netlink.link(DEVICE).is_up
        assert [line for line in lines if "was taken down" in line] == lines
        ip(f"link set {DEVICE} up")
        assert kept.state() != kept.whole
        kept.look()
        assert kept.state() == kept.whole
        assert "put back what had been removed: the address fd09::2/64, the route to" in lines[-1]
        assert "beside" not in lines[-1]


@in_own_network
def test_a_device_that_was_found_down_was_not_taken_down(tmp_path: Path) -> None:
    with Netlink() as netlink:
        add(netlink, DEVICE)
    loop = HandLoop()
    upkeep = Upkeep(DEVICE, loop, [DeviceSettings(DEVICE, Journal(DEVICE, tmp_path))])
    with logged() as lines:
        for state, said in (("down", 0), ("up", 0), ("down", 1)):
            ip(f"link set {DEVICE} {state}")
            upkeep.look()
            loop.pass_time(1)
            assert len(lines) == said
    upkeep.close()


@in_own_network
def test_rules_that_were_deleted_are_put_back_and_a_notice_says_that_packets_left_beside_the_tunnel(
    tmp_path: Path,
) -> None:
    with tunnel(tmp_path) as kept:
        for command in ("rule del table {0}", "-6 rule flush", "rule flush; rule add table main priority 32766"):
            with logged() as lines:
                ip(command.format(kept.mark))
                kept.look()
            assert not kept.whole[2] - kept.state()[2] - {each for each in kept.whole[2] if "priority=3276" in each}
            assert "put back what had been removed: rule" in lines[0]
            assert "beside the tunnel" in lines[0]


@in_own_network
def test_single_addresses_and_routes_are_put_back(tmp_path: Path) -> None:
    with tunnel(tmp_path) as kept:
        for command, said in (
            (f"address del 10.9.0.2/24 dev {DEVICE}", "the address 10.9.0.2/24"),
            (f"address flush dev {DEVICE}", "the address 10.9.0.2/24, the address fd09::2/64"),
            (f"route del default table {kept.mark}", "the route to 0.0.0.0/0"),
            (f"-6 route flush table {kept.mark}", "the route to fd09::/64, the route to ::/0"),
            (f"route del 10.7.0.0/16 dev {DEVICE}", "the route to 10.7.0.0/16"),
        ):
            with logged() as lines:
                ip(command)
                kept.look(10)
            assert kept.state() == kept.whole, command
            assert said in lines[0]


@in_own_network
def test_nothing_is_said_or_done_while_nothing_is_missing(tmp_path: Path) -> None:
    with tunnel(tmp_path) as kept, logged() as lines:
        ip("address add 10.66.0.1/32 dev lo; link add other type veth; route add 10.68.0.0/16 dev uplink table 7")
        for _ in range(3):
            kept.look()
        assert lines == []
        assert kept.state() == kept.whole


@in_own_network
def test_the_rules_follow_the_networks_of_this_host_without_a_descriptor_too(tmp_path: Path) -> None:
    with tunnel(tmp_path) as kept:
        with no_more_descriptors(), logged() as lines:
            kept.netlink.requests.addr("add", index=kept.netlink.index_of("uplink"), address="10.66.0.1", prefixlen=24)
            kept.look()
            assert any("10.66.0.0/24" in each for each in kept.state()[2])
            kept.netlink.requests.addr("del", index=kept.netlink.index_of("uplink"), address="10.66.0.1", prefixlen=24)
            kept.look()
        assert lines == []
        assert kept.state() == kept.whole


@in_own_network
def test_a_program_that_keeps_removing_something_is_not_fought_without_end(tmp_path: Path) -> None:
    with tunnel(tmp_path) as kept, logged() as lines:
        came = {"address": 0, "rule": 0}
        for _ in range(300):
            if any("10.9.0.2" in each for each in kept.state()[0]):
                ip(f"address del 10.9.0.2/24 dev {DEVICE}")
                came["address"] += 1
            if any("action=7" in each and "version=4" in each for each in kept.state()[2]):
                ip("rule del unreachable")
                came["rule"] += 1
            kept.look(0.2)
        assert came["address"] <= 1 + 5 + 1
        assert 50 <= came["rule"] <= 1 + 5 + 60
        assert any(
            "keeps removing the address 10.9.0.2/24: from now on it is put back once a minute" in e for e in lines
        )
        assert len(lines) < 30
        kept.loop.pass_time(60)
        kept.loop.pass_time(60)
        assert kept.state() == kept.whole


@in_own_network
def test_what_cannot_be_put_back_is_said_and_tried_again_later(tmp_path: Path) -> None:
    with tunnel(tmp_path) as kept:
        ip(f"address del fd09::2/64 dev {DEVICE}")
        with ordinary_user(), logged() as lines:
            kept.look()
        assert "the address fd09::2/64 cannot be put back: no right" in lines[0]
        kept.loop.pass_time(10)
        kept.loop.pass_time(1)
        assert kept.state() == kept.whole


@in_own_network
def test_what_was_never_set_is_not_said_to_be_put_back(tmp_path: Path) -> None:
    with tunnel(tmp_path) as kept:
        ip("address add 10.66.0.1/24 dev uplink")
        with ordinary_user(), logged() as lines:
            kept.look()
        assert "rule 32401 of IPv4 cannot be set: no right" in lines[0]
        with logged() as lines:
            kept.loop.pass_time(10)
            kept.loop.pass_time(1)
        assert any("10.66.0.0/24" in each for each in kept.state()[2])
        assert lines == []
        with logged() as lines:
            ip("rule del to 10.66.0.0/24")
            kept.look()
        assert "put back what had been removed: rule 32401" in lines[0]


@in_own_network
def test_a_look_starts_one_timer_however_much_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tunnel(tmp_path) as kept:
        timers: list[float] = []
        later = kept.loop.call_later

        def count(seconds: float, callback: Callable[[], None]) -> None:
            timers.append(seconds)
            later(seconds, callback)

        monkeypatch.setattr(kept.loop, "call_later", count)
        ip(f"link set {DEVICE} down; link set {DEVICE} up")
        with ordinary_user(), logged():
            kept.look()
        assert timers.count(10.0) == 1
        kept.loop.pass_time(10)
        kept.loop.pass_time(1)
        assert kept.state() == kept.whole


@in_own_network
def test_a_device_that_has_gone_or_has_no_ipv6_any_more_is_left_alone(tmp_path: Path) -> None:
    with tunnel(tmp_path) as kept, logged() as lines:
        ip(f"link set {DEVICE} mtu 1200")
        kept.look()
        ip(f"link set {DEVICE} mtu 1400")
        kept.look()
        assert kept.state() == kept.whole
        assert len(lines) == 1
        ip(f"link del {DEVICE}")
        kept.look()
        assert len(lines) == 1


@in_own_network
def test_a_look_is_divided_into_short_turns(tmp_path: Path) -> None:
    with tunnel(tmp_path) as kept:
        lines = [f"address add 10.66.{number}.1/24 dev uplink" for number in range(200)]
        subprocess.run(["ip", "-batch", "-"], check=True, text=True, input="\n".join(lines))
        before = len(kept.state()[2])
        kept.upkeep.look()
        turns, clock = 0, kept.loop.clock
        clock.ticks = 0.0005  # each look at the clock takes as long
        while len(kept.state()[2]) < before + 200:
            kept.loop.pass_time(0.01)
            turns += 1
        assert 50 < turns < 200


@in_own_network
def test_what_the_device_had_before_is_put_back_too_and_stays_at_the_end(tmp_path: Path) -> None:
    with Netlink() as netlink:
        add_up(netlink, DEVICE, "fd09::2/64")
        settings = DeviceSettings(DEVICE, Journal(DEVICE, tmp_path))
        settings.apply([ip_interface("fd09::2/64"), ip_interface("10.9.0.2/24")], [], None)
        loop = HandLoop()
        upkeep = Upkeep(DEVICE, loop, [settings])
        ip(f"address flush dev {DEVICE}")
        upkeep.look()
        loop.pass_time(1)
        upkeep.close()
        settings.undo()
        assert {str(each.address) for each in netlink.addresses() if each.device == DEVICE} == {"fd09::2"}


@in_own_network
def test_a_device_without_a_bridge_is_put_back_into_its_own_and_one_in_another_bridge_stays_there(
    tmp_path: Path,
) -> None:
    with Netlink() as netlink:
        add(netlink, DEVICE)
        for name in ("br0", "br1"):
            add_bridge(netlink, name)
        settings = DeviceSettings(DEVICE, Journal(DEVICE, tmp_path))
        settings.apply([], [], None, bridge="br0")
        loop = HandLoop()
        upkeep = Upkeep(DEVICE, loop, [settings])

        def bridge_after(command: str) -> str:
            ip(command)
            upkeep.look()
            loop.pass_time(1)
            names = {each.number: each.name for each in netlink.links()}
            return names.get(netlink.link(DEVICE).master, "")

        with logged() as lines:
            assert bridge_after(f"link set {DEVICE} nomaster") == "br0"
            assert lines == [f"put back what had been removed: the place of {DEVICE} in the bridge br0"]
            assert bridge_after(f"link set {DEVICE} master br1") == "br1"
            assert bridge_after("link del br1; link del br0") == ""
            assert lines[1:] == ["the bridge br0 was removed, and nothing passes until it is made again"]
            assert bridge_after("link add br0 type bridge") == "br0"
        assert len(lines) == 3
        upkeep.close()
        settings.undo()
        assert netlink.link(DEVICE).master == 0


@in_own_network
def test_a_bug_in_a_look_does_not_prevent_the_next(tmp_path: Path) -> None:
    class Faulty:
        looks = 0
        changes = Changes(None, device_is_ephemeral=True)
        current: tuple[Change, ...] = ()

        def follow(self, _: Host) -> list[Change]:
            self.looks += 1
            if self.looks <= 2:
                if self.looks == 2:
                    upkeep.look()  # the network changes meanwhile
                raise KeyError
            return []

    loop, part = HandLoop(), Faulty()
    upkeep = Upkeep(DEVICE, loop, [part])
    with logged():
        for _ in range(2):
            upkeep.look()
            loop.pass_time(1)
        loop.pass_time(1)
    assert (part.looks, loop.internal_errors.count) == (3, 2)
    upkeep.look()
    loop.pass_time(1)
    assert part.looks == 4
    upkeep.close()
