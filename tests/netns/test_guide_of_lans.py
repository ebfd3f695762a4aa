"""The documents' examples of TAP devices: two machines on one Ethernet, two LANs as one, and several sites.

    c  10.20.0.13 ==eth1== a, the local machine ==== b, the remote machine ==eth1== e  10.20.0.15

The hosts' devices are veth0. Tests of LANs share one lab, and start and end their tunnels.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.documents import Step, blocks, steps
from tests.netns.lab import Lab, Machine, until
from tests.netns.networkd import PROGRAM, start_networkd
from tests.netns.taps import EVERYBODY, Watcher, frame, mac, send
from tests.reader import KEY, Reader
from vpntun.crypto.keys import KeyPair, format_key

BRIDGE_LINES = tuple(step for step in steps(blocks("two-lans")[0]) if step.command.startswith("ip "))
TUNNEL_LINES = tuple(step for step in steps(blocks("two-lans")[0]) if step not in BRIDGE_LINES)

ASKS_FOR_LEASE = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"veth0")
    asking.bind(("", 68))
    asking.sendto(bytes(300), ("255.255.255.255", 67))
with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as router:
    router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    router.sendto(bytes((134, 0)) + bytes(14), ("ff02::1%veth0", 0))
"""
"""Sends what a DHCP client sends, and a router advertisement."""


class Lans:
    """A reader at both gateways, each of which has a LAN of one host at eth1."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.reader = lab, Reader(lab)
        self.near, self.far = (lab.add(letter, f"10.20.0.{number}", "") for letter, number in (("c", 13), ("e", 15)))
        for host, gateway in ((self.near, lab.a), (self.far, lab.b)):
            lab.cable(host, "veth0", gateway, "eth1")
            host.run("ip", "address", "add", f"{host.four}/24", "dev", "veth0")
            link_local = f"fe80::{host.four.rpartition('.')[2]}/64"  # router advertisements come from one
            host.run("ip", "address", "add", link_local, "dev", "veth0", "nodad")

    @contextlib.contextmanager
    def tunnels(self, typed: Sequence[Step]) -> Iterator[None]:
        """Type these lines, and end their tunnels afterwards."""
        started = []
        try:
            for step in typed:
                if daemon := self.reader.take(step):
                    started.append(daemon)
            yield
        finally:
            statuses = [daemon.stop() for daemon in reversed(started)]
        assert statuses == [0] * len(statuses)

    def hosts_reach_each_other(self) -> None:
        self.lab.ping(self.near, self.far.four, within=10)
        self.lab.ping(self.far, self.near.four)


@pytest.fixture(scope="module")
def lans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lans]:
    """Both LANs, with the bridges of the guide and a shared key."""
    lab = Lab(tmp_path_factory.mktemp("lans"))
    try:
        made = Lans(lab)
        made.reader.share_a_key()
        for step in BRIDGE_LINES:
            made.reader.take(step)
        yield made
    finally:
        lab.close()


@pytest.mark.long
def test_two_machines_on_one_ethernet(lans: Lans) -> None:
    typed = steps(blocks("two-machines-on-one-ethernet")[0])
    with lans.tunnels(typed):
        neighbours = lans.lab.a.run("ip", "neigh", "show", "dev", "tap11").stdout
        assert mac(lans.lab.b, "tap3").hex(":") in neighbours


def test_two_lans_by_ip_and_what_show_tells_and_dhcp_kept_apart(lans: Lans) -> None:
    with lans.tunnels(TUNNEL_LINES):
        lans.hosts_reach_each_other()
        [show] = steps(blocks("two-lans")[1])
        said = lans.reader.run(lans.lab.a, "local", show.command)
        assert _form(said) == _form("\n".join(show.output))
        here, there = (re.findall(rf"{title}: (.+)", said)[0] for title in ("macs on this side", "  macs"))
        assert {mac(lans.lab.a, "tap11").hex(":"), mac(lans.near, "veth0").hex(":")} <= set(here.split(", "))
        assert mac(lans.far, "veth0").hex(":") in there
        assert mac(lans.lab.a, "br0") == mac(lans.lab.a, "eth1")
        if shutil.which("nft") is not None:
            check_that_dhcp_is_kept_apart(lans)


def _form(text: str) -> list[str]:
    """Return the lines with every key and list of MAC addresses alike."""
    text = re.sub(r"(?:[0-9a-f]{2}(?::[0-9a-f]{2}){5}(?:, )?)+", "MACS", text)
    return re.sub(r"[\w+/]{43}=", "KEY", text).splitlines()


def check_that_dhcp_is_kept_apart(lans: Lans) -> None:
    [rules] = blocks("dhcp-apart")
    file = lans.lab.folder / "apart.nft"
    file.write_text(rules)
    assert _crossing(lans.near, lans.far) == {"DHCP", "router"}
    lans.lab.b.run("nft", "-f", file)
    for one, other in ((lans.near, lans.far), (lans.far, lans.near)):
        assert _crossing(one, other) == set()
    lans.hosts_reach_each_other()
    lans.lab.b.run("nft", "delete", "table", "bridge", "apart")


def _crossing(one: Machine, other: Machine) -> set[str]:
    """What arrives at the other host when one asks for a lease and is a router."""
    watcher = Watcher(other, "veth0", None)
    one.run(sys.executable, "-c", ASKS_FOR_LEASE)
    send(one, "veth0", last := frame(EVERYBODY, mac(one, "veth0"), b"the last"))
    assert watcher.saw(last), one.lab.logs()
    seen = watcher.stop()
    is_dhcp = any(each[12:14] == b"\x08\0" and each[23] == 17 and each[36:38] == b"\0\x43" for each in seen)
    is_router = any(each[12:14] == b"\x86\xdd" and each[20] == 58 and each[54] == 134 for each in seen)
    return {name for name, came in (("DHCP", is_dhcp), ("router", is_router)) if came}


def test_the_two_commands_of_the_readme_are_those_of_the_guide() -> None:
    typed = tuple(steps(blocks("one-ethernet")[0]))
    assert typed == tuple(step for step in TUNNEL_LINES if step.command.startswith("vpntun "))


@pytest.mark.long
def test_a_tap_device_of_an_ordinary_user(lans: Lans) -> None:
    with lans.tunnels(steps(blocks("tap-of-a-user")[0])):
        theirs, roots = lans.reader.home / ".config/vpntun/vpntun.key", lans.reader.roots["local"] / KEY
        shutil.copy(theirs, roots)
        with lans.tunnels(TUNNEL_LINES[1:]):
            lans.hosts_reach_each_other()
    shutil.copy(lans.lab.key, roots)
    assert "master br0" in lans.lab.b.run("ip", "link", "show", "tap7").stdout
    lans.reader.take(Step("remote#", "vpntun rmtun tap7"))


@pytest.mark.long
@pytest.mark.skipif(not PROGRAM.exists(), reason="systemd-networkd is not installed")
def test_networkd_makes_the_bridge_and_takes_the_tunnel_in_whichever_starts_first(lab: Lab) -> None:
    lans = Lans(lab)
    reader = lans.reader
    for where, root in reader.roots.items():
        (root / KEY).parent.mkdir(mode=0o700)
        reader.write(where, "/etc/vpntun/private.key", format_key(KeyPair.generate().private))
    [text] = blocks("tap-of-networkd")
    calling = text.replace("REMOTE", "THEIR").replace("LOCAL", "REMOTE").replace("THEIR", "LOCAL")
    calling = calling.replace("ListenPort = 55555\nTransport = auto\n", "")
    calling += "\nEndpoint = remote.example.org:55555\nTransport = auto\nPersistentKeepalive = 25\n"
    reader.write("remote", "/etc/vpntun/tap3.conf", reader.translated(text))
    reader.write("local", "/etc/vpntun/tap3.conf", reader.translated(calling))
    names = {"bridge": "10-br0.netdev", "address": "10-br0.network", "ports": "10-ports-of-br0.network"}
    files = {file: blocks(f"networkd-{name}")[0] for name, file in names.items()}
    up = Step("remote#", "vpntun up tap3", ["waiting for the peer"])
    with lans.tunnels([up]):
        start_networkd(lab.b, reader.roots["remote"] / "etc", files)
        other = {name: text.replace("10.20.0.1/", "10.20.0.2/") for name, text in files.items()}
        start_networkd(lab.a, reader.roots["local"] / "etc", other)
        assert until(lambda: lab.a.addresses("br0") == ["10.20.0.2/24"], 10), lab.logs()
        with lans.tunnels([Step("local#", "vpntun up tap3", ["connected to"])]):
            lans.hosts_reach_each_other()
            lab.ping(lab.a, "10.20.0.1")
        with lans.tunnels([Step("local#", "vpntun up tap3", ["connected to"])]):
            lans.hosts_reach_each_other()


@pytest.mark.long
def test_several_sites_on_one_ethernet(lab: Lab) -> None:
    """b is the hub, a the office with the host d, and c the laptop."""
    laptop, host = lab.add("c", "10.0.1.3", ""), lab.add("d", "10.20.0.14", "")
    lab.cable(laptop, "veth0", lab.b, "veth1")
    laptop.run("ip", "address", "add", "10.0.1.3/24", "dev", "veth0")
    lab.b.run("ip", "address", "add", "10.0.1.2/24", "dev", "veth1")
    lab.cable(host, "veth0", lab.a, "eth1")
    host.run("ip", "address", "add", "10.20.0.14/24", "dev", "veth0")
    lab.a.run("ip", "link", "add", "br0", "type", "bridge")
    lab.a.run("ip", "link", "set", "br0", "up")
    lab.a.run("ip", "link", "set", "eth1", "master", "br0")
    [hub], [office] = blocks("switch"), blocks("site-of-the-switch")
    of_laptop = office.replace("OFFICE", "LAPTOP").replace(
        "Bridge = br0", "MAC = 02:00:5e:10:00:01\nAddress = 10.20.0.4/24"
    )
    keys = {name: KeyPair.generate() for name in ("HUB", "OFFICE", "LAPTOP")}
    _up(lab.b, hub, keys)
    _up(lab.a, office.replace("hub.example.org", "10.0.0.2"), keys)
    _up(laptop, of_laptop.replace("hub.example.org", "10.0.1.2"), keys)
    lab.ping(laptop, "10.20.0.3", within=20)
    lab.ping(laptop, host.four, within=20)
    lab.ping(host, "10.20.0.3")
    assert "02:00:5e:10:00:01" in host.run("ip", "neigh", "show", "10.20.0.4").stdout


def _up(machine: Machine, text: str, keys: dict[str, KeyPair]) -> None:
    for name, pair in keys.items():
        text = text.replace(f"{name}_PRIVATE", format_key(pair.private))
        text = text.replace(f"{name}_PUBLIC", format_key(pair.public))
    folder: Path = machine.lab.folder / f"files-{machine.name}"
    folder.mkdir()
    file = folder / "lan.conf"
    file.touch(mode=0o600)
    file.write_text(text)
    machine.vpntun("up", file)
