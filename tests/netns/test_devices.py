"""Devices that vpntun makes and removes, and existing ones that it leaves as they were, for root and ordinary users."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.netns.lab import NOBODY, STARTED, Lab, Machine, far, start_pair, start_server
from vpntun.config.tunnel import DEFAULT_MTU


def persistent(machine: Machine, device: str, *addresses: str, user: str = "root", mode: str = "tun") -> None:
    machine.run("ip", "tuntap", "add", "dev", device, "mode", *mode.split(), "user", user)
    for address in addresses:
        at_once = ["nodad"] if ":" in address else []  # an Ethernet's neighbours are otherwise asked first
        machine.run("ip", "address", "add", address, "dev", device, *at_once)
    machine.run("ip", "link", "set", device, "mtu", "1380", "up")


def state(machine: Machine, device: str) -> dict[str, Any]:
    """The settings of a device, without the carrier flag and other state that depends on a program holding it."""
    shown = json.loads(machine.run("ip", "-json", "-details", "address", "show", "dev", device).stdout)[0]
    kept = {name: shown[name] for name in ("ifname", "mtu", "linkinfo", "txqlen")}
    kept["linkinfo"].get("info_data", {}).pop("numtxqueues", None)
    return {**kept, "up": "UP" in shown["flags"], "addresses": machine.addresses(device)}


def test_a_new_device_is_up_with_the_mtu_and_gone_at_the_end(lab: Lab) -> None:
    server, client = start_pair(lab, client=["--mtu", "1300"])
    assert state(lab.b, "tun3")["mtu"] == DEFAULT_MTU
    assert state(lab.a, "tun11")["mtu"] == 1300
    lab.ping(lab.a, far(lab), size=1272)
    for daemon in (server, client):
        assert daemon.stop() == 0
    assert not lab.a.has_device("tun11")
    assert not lab.b.has_device("tun3")


def sent_into(machine: Machine, device: str) -> int:
    """The number of packets that the kernel has given to the device since it was made."""
    shown = json.loads(machine.run("ip", "-json", "-statistics", "link", "show", "dev", device).stdout)[0]
    return int(shown["stats64"]["tx"]["packets"])


def test_the_kernel_sends_nothing_of_its_own_into_an_idle_tunnel(lab: Lab) -> None:
    lab.a.run("sysctl", "-qw", "net.ipv6.conf.default.accept_ra=2")
    start_pair(lab)
    time.sleep(1.5)  # the kernel would report its multicast groups at once, and again within a second
    assert (sent_into(lab.a, "tun11"), sent_into(lab.b, "tun3")) == (0, 0)
    assert "fe80" not in lab.a.run("ip", "address", "show", "dev", "tun11").stdout


def test_a_link_local_address_that_is_asked_for_is_there(lab: Lab) -> None:
    start_pair(lab, server=["--address", "fe80::2/64"], client=["--address", "fe80::1/64"])
    lab.ping(lab.a, "fe80::2%tun11", within=10)


@pytest.mark.parametrize(
    ("mode", "option"), [("tun", "-u"), pytest.param("tap multi_queue", "-a", marks=pytest.mark.long)]
)
def test_a_persistent_device_is_used_and_left_as_it_was_found(lab: Lab, mode: str, option: str) -> None:
    persistent(lab.b, "tun3", "192.168.9.2/24", "fd99::2/64", mode=mode)
    persistent(lab.a, "tun11", "192.168.9.1/24", "fd99::1/64", mode=mode)
    before = state(lab.a, "tun11"), state(lab.b, "tun3")
    daemons = [lab.b.vpntun("-s", option, "-i", "tun3", "-k", lab.key)]
    daemons.append(lab.a.vpntun("-c", lab.b.four, option, "-i", "tun11", "-k", lab.key))
    lab.ping(lab.a, "192.168.9.2", within=10)
    lab.ping(lab.a, "fd99::2", within=5)
    for daemon in daemons:
        assert daemon.stop() == 0
    assert (state(lab.a, "tun11"), state(lab.b, "tun3")) == before


def test_options_on_a_persistent_device_are_undone_at_the_end(lab: Lab) -> None:
    persistent(lab.a, "tun11", "192.168.9.1/24")
    before = state(lab.a, "tun11")
    start_server(lab, "--address", "192.168.0.2/24")
    client = lab.a.vpntun(
        "-c", lab.b.four, "-i", "tun11", "-k", lab.key, "--address", "192.168.0.1/24", "--mtu", "1400"
    )
    lab.ping(lab.a, "192.168.0.2", within=10)
    assert state(lab.a, "tun11")["mtu"] == 1400
    assert client.stop() == 0
    assert state(lab.a, "tun11") == before


def test_an_address_that_exists_already_is_accepted_and_kept(lab: Lab) -> None:
    persistent(lab.a, "tun11", "192.168.0.1/24")
    start_server(lab, "--address", "192.168.0.2/24")
    client = lab.a.vpntun("-c", lab.b.four, "-i", "tun11", "-k", lab.key, "--address", "192.168.0.1/24")
    lab.ping(lab.a, "192.168.0.2", within=10)
    assert client.stop() == 0
    assert lab.a.addresses("tun11") == ["192.168.0.1/24"]


def test_a_device_that_was_down_is_down_again(lab: Lab) -> None:
    lab.a.run("ip", "tuntap", "add", "dev", "tun11", "mode", "tun")
    start_server(lab, "--address", "192.168.0.2/24")
    client = lab.a.vpntun("-c", lab.b.four, "-i", "tun11", "-k", lab.key, "--address", "192.168.0.1/24")
    lab.ping(lab.a, "192.168.0.2", within=10)
    assert client.stop() == 0
    assert state(lab.a, "tun11")["up"] is False
    assert lab.a.addresses("tun11") == []


def test_an_ordinary_user_runs_either_end_on_a_device_of_their_own(lab: Lab) -> None:
    home = lab.home()
    key = owned(lab.key, home / "vpntun.key")
    persistent(lab.b, "tun3", "192.168.9.2/24", user="nobody")
    persistent(lab.a, "tun11", "192.168.9.1/24", user="nobody")
    environment = {"HOME": str(home)}
    daemons = [lab.b.vpntun("-s", "-i", "tun3", "-k", key, user="nobody", env=environment)]
    daemons.append(lab.a.vpntun("-c", lab.b.four, "-i", "tun11", "-k", key, user="nobody", env=environment))
    lab.ping(lab.a, "192.168.9.2", within=10)
    lab.transfer(5_000_000, "192.168.9.2")
    for daemon in daemons:
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log
    assert state(lab.a, "tun11")["addresses"] == ["192.168.9.1/24"]


def test_an_ordinary_users_key_is_in_their_configuration_folder(lab: Lab) -> None:
    home = lab.home()
    persistent(lab.b, "tun3", "192.168.9.2/24", user="nobody")
    server = lab.b.vpntun("-s", "-i", "tun3", user="nobody", env={"HOME": "/", "XDG_CONFIG_HOME": str(home)})
    server.wait_for("scp ")
    made = home / "vpntun" / "vpntun.key"
    assert (made.stat().st_uid, made.stat().st_mode & 0o777) == (NOBODY, 0o600)

    persistent(lab.a, "tun11", "192.168.9.1/24")
    lab.a.vpntun("-c", lab.b.four, "-i", "tun11", "-k", owned(made, lab.folder / "copy.key", user=0))
    lab.ping(lab.a, "192.168.9.2", within=10)


def test_a_device_that_is_deleted_ends_the_program_with_its_status(lab: Lab) -> None:
    server, client = start_pair(lab)
    lab.ping(lab.a, far(lab))
    lab.a.run("ip", "link", "del", "tun11")
    assert client.wait(seconds=5) == 5
    assert "tun11" in client.log.splitlines()[-1]
    assert "Traceback" not in client.log
    assert server.running


def test_a_device_that_goes_down_and_comes_up_again_carries_on(lab: Lab) -> None:
    _, client = start_pair(lab)
    lab.ping(lab.a, far(lab))
    address = far(lab)
    addresses = lab.a.addresses("tun11")
    lab.a.run("ip", "link", "set", "tun11", "down")
    lab.b.run("ping", "-c2", "-i0.2", "-W1", addresses[0].partition("/")[0], check=False)
    lab.a.run("ip", "link", "set", "tun11", "up")
    lab.ping(lab.a, address, within=5)
    assert client.running


def test_a_device_that_was_moved_to_another_namespace_carries_and_only_its_mtu_is_unknown(lab: Lab) -> None:
    other = lab.add("c", "10.0.1.3", "fd02::3")
    _, client = start_pair(lab)
    lab.ping(lab.a, far(lab))
    [four, _] = lab.a.addresses("tun11")
    lab.a.run("ip", "link", "set", "tun11", "netns", other.name)
    other.run("sh", "-ec", f"ip address add {four} dev tun11; ip link set tun11 up")
    lab.ping(other, far(lab))
    shown = lab.a.run(sys.executable, "-m", "vpntun", "show", "tun11").stdout
    assert "state: connected" in shown
    assert "mtu:" not in shown.replace("path mtu:", "")
    assert lab.a.ask("down", "tun11") == (0, "")
    assert client.wait() == 0
    assert not other.has_device("tun11")


def test_show_works_while_the_device_has_another_name(lab: Lab) -> None:
    _, client = start_pair(lab)
    for step in (["down"], ["name", "other"]):
        lab.a.run("ip", "link", "set", "tun11", *step)
    assert "mtu:" not in lab.a.run(sys.executable, "-m", "vpntun", "show", "tun11").stdout.replace("path mtu:", "")
    for step in (["name", "tun11"], ["up"]):
        lab.a.run("ip", "link", "set", "other" if step[0] == "name" else "tun11", *step)
    assert "\n  mtu:" in lab.a.run(sys.executable, "-m", "vpntun", "show", "tun11").stdout
    assert client.running


def test_two_tunnels_on_one_machine(lab: Lab) -> None:
    start_pair(lab)
    other = lab.new_key("other.key")
    lab.b.vpntun("-s", "-i", "tun4", "-p", "4500", "-k", other).wait_for(STARTED)
    lab.a.vpntun("-c", lab.b.four, "-i", "tun12", "-p", "4500", "-k", other).wait_for(STARTED)
    lab.ping(lab.a, far(lab))
    lab.ping(lab.a, lab.b.address_of("tun4"))


def owned(key: Path, copy: Path, user: int = NOBODY) -> Path:
    """Copy a key file and give the copy to a user."""
    shutil.copy(key, copy)
    copy.chmod(0o600)
    os.chown(copy, user, user)
    return copy
