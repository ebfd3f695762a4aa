"""A phone added to a running server by `vpntun phone`: wireguard-go, in the phone's place, gets what was printed.

a, the laptop  10.0.0.1 ==veth0== 10.0.0.2  b, the server srv  10.0.1.2 ==veth1== 10.0.1.3  c, the phone
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns.lab import PORT, STARTED, Daemon, Lab, Machine, until
from vpntun.config.file import read_file
from vpntun.crypto.keys import KeyPair, format_key

LAPTOP, SERVER = KeyPair.generate(), KeyPair.generate()
SRV = f"""\
[Interface]
PrivateKey = {format_key(SERVER.private)}
Address = 10.9.0.1/24, fd09::1/64
ListenPort = {PORT}

[Peer]
Name = laptop
PublicKey = {format_key(LAPTOP.public)}
AllowedIPs = 10.9.0.2, fd09::2
"""
ON_THE_LAPTOP = f"""\
[Interface]
PrivateKey = {format_key(LAPTOP.private)}
Address = 10.9.0.2/24, fd09::2/64

[Peer]
PublicKey = {format_key(SERVER.public)}
Endpoint = 10.0.0.2:{PORT}
AllowedIPs = 10.9.0.0/24, fd09::/64
"""
DEVICE = "wg0"


@pytest.fixture(autouse=True)
def _installed() -> None:
    for tool in ("wireguard-go", "wg"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


@pytest.fixture
def server(lab: Lab) -> Daemon:
    daemon = lab.b.vpntun("up", write(lab, "srv", SRV))
    daemon.wait_for(STARTED)
    return daemon


def write(lab: Lab, name: str, text: str) -> Path:
    file = lab.folder / f"{name}.conf"
    file.touch(mode=0o600)
    file.write_text(text)
    return file


def add_phone(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    return lab.b.run(sys.executable, "-m", "vpntun", "phone", "-f", lab.folder / "srv.conf", *arguments)


def start_phone(lab: Lab, text: str) -> Machine:
    """Run wireguard-go in c with the configuration of the app, as the app would."""
    c = lab.add("c", "10.0.1.3", "fd02::3")
    lab.cable(lab.b, "veth1", c, "veth0")
    lab.b.run("ip", "address", "add", "10.0.1.2/24", "dev", "veth1")
    c.run("ip", "address", "add", "10.0.1.3/24", "dev", "veth0")
    daemon = c.popen("wireguard-go", "-f", DEVICE)
    assert until(lambda: c.run("wg", "show", DEVICE, check=False).returncode == 0, 5), str(daemon)
    known_to_wg = "".join(line for line in text.splitlines(True) if not line.startswith(("Address", "DNS")))
    c.run("wg", "setconf", DEVICE, "/dev/stdin", input=known_to_wg)
    app = read_file(write(lab, DEVICE, text), DEVICE)
    for address in app.addresses:
        c.run("ip", "address", "add", str(address), "dev", DEVICE)
    c.run("ip", "link", "set", DEVICE, "up")
    for network in app.peers[0].allowed:
        c.run("ip", "route", "add", str(network), "dev", DEVICE)
    return c


def test_a_phone_is_let_in_without_a_restart_and_other_peers_keep_their_sessions(lab: Lab, server: Daemon) -> None:
    laptop = lab.a.vpntun("up", write(lab, "laptop", ON_THE_LAPTOP))
    lab.ping(lab.b, "10.9.0.2")
    done = add_phone(lab, "handy", "--endpoint", "10.0.1.2")
    assert "srv: handy has 10.9.0.3 and fd09::3, and calls 10.0.1.2:55555" in done.stderr
    assert "srv: it can connect now" in done.stderr
    server.wait_for("peers: 1 added, 0 removed, 0 changed")
    c = start_phone(lab, done.stdout)
    for address in ("10.9.0.1", "fd09::1"):
        lab.ping(c, address)
    for address in ("10.9.0.3", "fd09::3", "10.9.0.2"):
        lab.ping(lab.b, address)
    shown = lab.b.run(sys.executable, "-m", "vpntun", "show", "srv").stdout
    assert "  name: handy\n" in shown
    assert laptop.log.count("connected to ") == 1
    private = read_file(lab.folder / f"{DEVICE}.conf", DEVICE).keys.private
    for text in (server.log, shown, (lab.folder / "srv.conf").read_text()):
        assert format_key(private) not in text
    assert server.stop() == 0


def test_two_phones_added_at_the_same_time_get_different_addresses(lab: Lab, server: Daemon) -> None:
    command = (sys.executable, "-m", "vpntun", "phone", "-f", lab.folder / "srv.conf", "--endpoint", lab.b.four)
    both = [lab.b.popen(*command, name) for name in ("one", "two")]
    assert [each.wait() for each in both] == [0, 0], lab.logs()
    peers = read_file(lab.folder / "srv.conf", "srv").peers
    assert sorted(str(network) for peer in peers for network in peer.allowed if network.version == 4) == [
        "10.9.0.2/32",
        "10.9.0.3/32",
        "10.9.0.4/32",
    ]
    server.wait_for("peers: 1 added", count=2)


def test_the_endpoint_is_the_servers_public_address_unless_another_is_given(lab: Lab) -> None:
    lab.b.run("ip", "address", "add", "11.0.0.2/24", "dev", "veth0")
    file = write(lab, "srv", SRV)
    status, said = lab.b.ask("phone", "handy", "-f", file)
    assert status == 3
    assert f"--endpoint HOST[:PORT]. A router in front of it has to forward UDP port {PORT}" in said
    assert file.read_text() == SRV
    lab.b.run("ip", "route", "add", "default", "via", "11.0.0.1")
    done = add_phone(lab, "handy")
    assert f"\nEndpoint = 11.0.0.2:{PORT}\n" in done.stdout
    assert "calls 11.0.0.2:55555, this machine's own address (--endpoint names another)" in done.stderr
    assert f"no running vpntun is called srv: it can connect once the tunnel has read {file}" in done.stderr
