"""A TAP device in a bridge: it joins one that is there, and leaves it at the end."""

from __future__ import annotations

import json
from typing import Any

from tests.netns.lab import Daemon, Lab, Machine
from vpntun.config.keyfile import read_shared
from vpntun.crypto.shared import SharedIdentity
from vpntun.wire.ethernet.mac import derived_mac, mac_text

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


def test_a_device_of_vpntuns_own_joins_without_addresses_and_is_gone_at_the_end(lab: Lab) -> None:
    make_bridge(lab.b, "br0", "10.7.0.2/24", "fd07::2/64")
    server = start(lab, "--bridge", "br0")
    state = tap(lab.b)
    assert (state["bridge"], state["up"], state["addresses"]) == ("br0", True, [])
    assert state["mac"] == mac_text(derived_mac(SharedIdentity.of(read_shared(lab.key)).server.public))
    assert "fe80" not in lab.b.run("ip", "address", "show", "dev", "tap3").stdout
    assert server.stop() == 0
    assert not lab.b.has_device("tap3")
    assert lab.b.addresses("br0") == ["10.7.0.2/24", "fd07::2/64"]


def test_a_device_that_existed_is_put_back_while_the_tunnel_runs_and_is_left_as_it_was_found(lab: Lab) -> None:
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
    server = start(lab, "--bridge", "br0", "--user", "nobody")
    assert "took back what a killed vpntun had left: 3 changes" in server.log
    assert tap(lab.b) == {**before, "bridge": "br0", "up": True}
    assert server.stop() == 0
    assert tap(lab.b) == before


def test_a_device_that_was_in_the_bridge_stays_there_and_one_of_another_bridge_is_refused(lab: Lab) -> None:
    make_bridge(lab.b)
    make_bridge(lab.b, "br1")
    make_tap(lab.b)
    lab.b.run("ip", "link", "set", "tap3", "master", "br0", "up")
    before = tap(lab.b)
    assert start(lab, "--bridge", "br0").stop() == 0
    assert tap(lab.b) == before
    status, said = lab.b.ask("-s", "-a", "-i", "tap3", "-k", lab.key, "--bridge", "br1")
    expected = "tap3 belongs to br0 already: take it out ('ip link set tap3 nomaster')"
    assert (status, expected in said, said.count("\n")) == (5, True, 1), said
    assert tap(lab.b) == before
