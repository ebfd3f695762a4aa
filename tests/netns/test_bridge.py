"""A TAP device in a bridge: it joins one that is there, leaves it at the end, and joins two LANs into one."""

from __future__ import annotations

import json
from typing import Any

from tests.netns.lab import Daemon, Lab, Machine

MAC = "02:00:00:00:00:07"


def make_bridge(machine: Machine, name: str = "br0", *addresses: str) -> None:
    machine.run("ip", "link", "add", name, "type", "bridge")
    for address in addresses:
        machine.run("ip", "address", "add", address, "dev", name)
    machine.run("ip", "link", "set", name, "up")


def make_tap(machine: Machine, *options: str) -> None:
    machine.run("ip", "tuntap", "add", "dev", "tap3", "mode", "tap", *options)


def tap(machine: Machine) -> dict[str, Any]:
    """The bridge, the MAC address and the state of tap3, and its addresses except the kernel's link-local one."""
    shown = json.loads(machine.run("ip", "-json", "address", "show", "dev", "tap3").stdout)[0]
    return {
        "bridge": shown.get("master"),
        "mac": shown["address"],
        "up": "UP" in shown["flags"],
        "addresses": machine.addresses("tap3"),
    }


def start(lab: Lab, *options: str) -> Daemon:
    """Run a server in b on tap3 until its device is set up."""
    daemon = lab.b.vpntun("-s", "-a", "-i", "tap3", "-k", lab.key, *options)
    daemon.wait_for("waiting for the peer")
    return daemon


def test_two_bridges_are_one_lan_and_a_device_of_vpntuns_own_leaves_nothing_behind(lab: Lab) -> None:
    make_bridge(lab.a, "br0", "10.7.0.1/24")
    make_bridge(lab.b, "br0", "10.7.0.2/24", "fd07::2/64")
    server = start(lab, "--bridge", "br0")
    first = tap(lab.b)
    assert (first["bridge"], first["up"], first["addresses"]) == ("br0", True, [])
    assert "fe80" not in lab.b.run("ip", "address", "show", "dev", "tap3").stdout
    client = lab.a.vpntun("-c", lab.b.four, "-a", "-i", "tap11", "-k", lab.key, "--bridge", "br0")
    lab.ping(lab.a, "10.7.0.2", within=10)
    assert server.stop() == 0
    assert not lab.b.has_device("tap3")
    assert lab.b.addresses("br0") == ["10.7.0.2/24", "fd07::2/64"]
    server = start(lab, "--bridge", "br0")
    assert tap(lab.b) == first, "its MAC address too is the same"
    for daemon in (server, client):
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log


def test_a_device_that_existed_is_put_back_while_the_tunnel_runs_and_left_as_it_was_even_after_a_kill(lab: Lab) -> None:
    make_bridge(lab.b)
    make_tap(lab.b)
    before = tap(lab.b)
    server = start(lab, "--bridge", "br0", "--mac", MAC)
    assert tap(lab.b) == {**before, "bridge": "br0", "mac": MAC, "up": True}
    lab.b.run("ip", "link", "set", "tap3", "nomaster")
    server.wait_for("put back what had been removed: the place of tap3 in the bridge br0")
    assert tap(lab.b)["bridge"] == "br0"
    server.kill()
    assert tap(lab.b)["bridge"] == "br0"
    server = start(lab)
    assert "took back what a killed vpntun had left: 3 changes" in server.log
    assert tap(lab.b) == before
    assert server.stop() == 0


def test_a_device_leaves_its_bridge_although_privileges_were_given_up_and_one_that_was_in_it_stays(lab: Lab) -> None:
    make_bridge(lab.b)
    make_tap(lab.b)
    before = tap(lab.b)
    assert start(lab, "--bridge", "br0", "--user", "nobody").stop() == 0
    assert tap(lab.b) == before
    lab.b.run("ip", "link", "set", "tap3", "master", "br0", "up")
    before = tap(lab.b)
    assert start(lab, "--bridge", "br0").stop() == 0
    assert tap(lab.b) == before


def test_what_is_no_bridge_is_refused_and_so_is_a_device_of_another_bridge(lab: Lab) -> None:
    for bridge, says in (("br0", "make it ('ip link add br0 type bridge' and"), ("veth0", "veth0 is not a bridge")):
        refuses(lab, bridge, says)
        assert not lab.b.has_device("tap3")
    for name in ("br0", "br1"):
        make_bridge(lab.b, name)
    make_tap(lab.b)
    lab.b.run("ip", "link", "set", "tap3", "master", "br1")
    before = tap(lab.b)
    refuses(lab, "br0", "tap3 belongs to br1 already: take it out ('ip link set tap3 nomaster')")
    assert tap(lab.b) == before


def refuses(lab: Lab, bridge: str, says: str) -> None:
    status, said = lab.b.ask("-s", "-a", "-i", "tap3", "-k", lab.key, "--bridge", bridge)
    assert (status, says in said, said.count("\n")) == (5, True, 1), said
