"""`vpntun mktun` and `vpntun rmtun`, which make and remove persistent devices for users who may not make their own."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

import pytest

from tests.netns.lab import NOBODY, Lab, Machine, start_server


def link(machine: Machine, device: str) -> dict[str, Any]:
    """The details of a device as ip(8) shows them."""
    shown: list[dict[str, Any]] = json.loads(machine.run("ip", "-json", "-details", "link", "show", device).stdout)
    return shown[0]


def test_a_device_is_made_with_the_options_given_and_stays(lab: Lab) -> None:
    addresses = "--address", "192.168.9.2/24", "--address", "fd99::2/64"
    assert lab.b.ask("mktun", "tun3", "--user", "nobody", "--group", "0", *addresses, "--mtu", "1400") == (0, "")
    shown = link(lab.b, "tun3")
    assert (shown["mtu"], "UP" in shown["flags"]) == (1400, True)
    made = shown["linkinfo"]["info_data"]
    assert (made["type"], made["persist"], made["user"], made["group"]) == ("tun", True, "nobody", "root")
    assert lab.b.addresses("tun3") == ["192.168.9.2/24", "fd99::2/64"]


def test_without_user_a_device_belongs_to_the_user_who_makes_it(lab: Lab) -> None:
    assert lab.b.ask("mktun", "tun3") == (0, "")
    assert link(lab.b, "tun3")["linkinfo"]["info_data"]["user"] == "root"


def test_making_a_device_again_keeps_it_and_applies_the_new_options(lab: Lab) -> None:
    assert lab.b.ask("mktun", "tun3", "--user", "nobody", "--address", "192.168.9.2/24") == (0, "")
    assert lab.b.ask("mktun", "tun3", "--user", "nobody", "--address", "192.168.9.2/24", "--mtu", "1380") == (0, "")
    assert (lab.b.addresses("tun3"), link(lab.b, "tun3")["mtu"]) == (["192.168.9.2/24"], 1380)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_an_ordinary_user_runs_both_ends_on_such_devices(lab: Lab, transport: str) -> None:
    home = lab.home()
    key = home / "vpntun.key"
    shutil.copy(lab.key, key)
    os.chown(key, NOBODY, NOBODY)
    daemons = []
    for machine, device, address, role in (
        (lab.b, "tun3", "192.168.9.2/24", ["-s"]),
        (lab.a, "tun11", "192.168.9.1/24", ["-c", lab.b.four]),
    ):
        assert machine.ask("mktun", device, "--user", "nobody", "--address", address) == (0, "")
        options = ["-i", device, "-k", str(key), "--transport", transport, "-v"]
        daemons.append(machine.vpntun(*role, *options, user="nobody", env={"HOME": str(home)}))
    lab.ping(lab.a, "192.168.9.2", within=10)
    lab.transfer(20_000_000, "192.168.9.2")
    assert link(lab.a, "tun11")["linkinfo"]["info_data"]["vnet_hdr"]
    for daemon in daemons:
        assert daemon.stop() == 0
        assert "superpackets" not in daemon.log  # the offloads work on such a device too
        assert "Traceback" not in daemon.log
    assert lab.a.ask("rmtun", "tun11") == (0, "")
    assert not lab.a.has_device("tun11")


def test_a_tap_device_is_made_with_the_mtu_of_an_ethernet_and_removed(lab: Lab) -> None:
    assert lab.b.ask("mktun", "--tap", "tap3", "--user", "nobody", "--address", "192.168.9.2/24") == (0, "")
    shown = link(lab.b, "tap3")
    assert (shown["mtu"], "UP" in shown["flags"], shown["link_type"]) == (1500, True, "ether")
    made = shown["linkinfo"]["info_data"]
    assert (made["type"], made["persist"], made["user"]) == ("tap", True, "nobody")
    assert lab.b.addresses("tap3") == ["192.168.9.2/24"]
    assert lab.b.ask("rmtun", "tap3") == (0, "")
    assert not lab.b.has_device("tap3")


def test_a_device_in_use_is_not_removed(lab: Lab) -> None:
    assert lab.b.ask("mktun", "tun3") == (0, "")
    server = start_server(lab, "--address", "192.168.9.2/24")
    status, said = lab.b.ask("rmtun", "tun3")
    assert (status, "tun3 is busy" in said) == (5, True), said
    assert server.stop() == 0
    assert lab.b.ask("rmtun", "tun3") == (0, "")
    assert not lab.b.has_device("tun3")


@pytest.mark.parametrize(
    ("device", "status", "says"),
    [
        ("veth0", 5, "veth0 is neither a TUN nor a TAP device"),
        ("tun9", 5, "there is no device tun9"),
    ],
)
def test_rmtun_refuses_a_device_of_another_kind(lab: Lab, device: str, status: int, says: str) -> None:
    ended, said = lab.b.ask("rmtun", device)
    assert (ended, says in said, said.count("\n")) == (status, True, 1), said
    assert lab.b.has_device("veth0")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["veth0"], 5, "veth0 exists already and is neither a TUN nor a TAP device"),
        (["tun7", "--tap"], 5, "tun7 exists already and is a TUN device"),
        (["tun7"], 5, "for user nobody"),
        (["tun8", "--user", "nosuch"], 3, "there is no user 'nosuch'"),
        (["tun8", "--address", "192.168.9.300/24"], 3, "192.168.9.300"),
        (["tun8", "--mtu", "100"], 3, "100"),
        (["a name"], 3, "a name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_device_that_cannot_be_made_gives_one_line_and_leaves_nothing(
    lab: Lab, arguments: list[str], status: int, says: str
) -> None:
    lab.b.run("ip", "tuntap", "add", "dev", "tun7", "mode", "tun", "user", "nobody")
    ended, said = lab.b.ask("mktun", *arguments)
    assert (ended, says in said, said.count("\n")) == (status, True, 1), said
    assert not lab.b.has_device("tun8")
    assert link(lab.b, "tun7")["linkinfo"]["info_data"]["user"] == "nobody"


def test_an_ordinary_user_may_neither_make_nor_remove_a_device(lab: Lab) -> None:
    assert lab.b.ask("mktun", "tun3") == (0, "")
    for command in (["mktun", "tun4"], ["rmtun", "tun3"]):
        done = lab.b.run(sys.executable, "-m", "vpntun", *command, check=False, user="nobody")
        assert (done.returncode, done.stderr.count("\n")) == (6, 1), done.stderr
    assert lab.b.has_device("tun3")
    assert not lab.b.has_device("tun4")
