"""`vpntun INTERFACE`, as wg-quick runs it where the kernel has no WireGuard."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns.lab import Lab, Machine, firewall, until
from vpntun.crypto.keys import KeyPair, format_key
from vpntun.wire.message import DATA_OVERHEAD

pytestmark = pytest.mark.skipif(shutil.which("wg-quick") is None, reason="wg-quick is not installed")

SECONDS = 10.0
IPV4_AND_UDP = IPV4_AND_ICMP = 20 + 8
PROGRAM = str(Path(sys.executable).with_name("vpntun"))
BY_WG_QUICK = {"WG_QUICK_USERSPACE_IMPLEMENTATION": PROGRAM, "LOG_LEVEL": "verbose"}


def start(machine: Machine, interface: str = "wg0") -> subprocess.CompletedProcess[str]:
    return machine.run(PROGRAM, interface, env=BY_WG_QUICK, check=False)


def interfaces(machine: Machine) -> list[str]:
    """The interfaces that wg finds a socket of."""
    return machine.run("wg", "show", "interfaces").stdout.split()


def sockets(machine: Machine) -> list[str]:
    return machine.run("find", "/run/vpntun", "/run/wireguard", "-type", "s").stdout.split()


def test_the_command_returns_when_wg_and_ip_find_the_interface(lab: Lab) -> None:
    done = start(lab.a)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert lab.a.run("wg", "show", "wg0").stdout == "interface: wg0\n"
    shown = lab.a.run("ip", "address", "show", "dev", "wg0").stdout
    assert "mtu 1420" in shown
    assert "state DOWN" in shown
    assert "inet" not in shown
    assert lab.a.ask("show", "wg0")[1].startswith("interface: wg0\n")


@pytest.mark.parametrize("removal", ["ip link delete wg0", "rm /run/wireguard/wg0.sock", "vpntun down wg0"])
def test_it_ends_with_its_device_or_its_socket_and_leaves_nothing(lab: Lab, removal: str) -> None:
    start(lab.a)
    lab.a.run("sh", "-ec", removal.replace("vpntun", f"{sys.executable} -m vpntun"))
    assert until(lambda: not sockets(lab.a) and not lab.a.has_device("wg0"), SECONDS), sockets(lab.a)


def test_it_can_be_started_again_at_once(lab: Lab) -> None:
    start(lab.a)
    for _ in range(3):
        lab.a.run("ip", "link", "delete", "wg0")
        done = start(lab.a)
        assert (done.returncode, done.stderr) == (0, "")
        assert lab.a.has_device("wg0")
        assert interfaces(lab.a) == ["wg0"]


def test_a_second_one_is_refused_and_so_is_a_socket_that_another_process_has(lab: Lab) -> None:
    start(lab.a)
    done = start(lab.a)
    assert done.returncode == 8
    assert "another vpntun runs wg0 already" in done.stderr
    listen = "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('/run/wireguard/wg1.sock'); s.listen(); "
    other = lab.a.popen(sys.executable, "-c", listen + "print('listens', flush=True); time.sleep(60)")
    other.wait_for("listens")
    done = start(lab.a, "wg1")
    assert done.returncode == 8
    assert f"process {other.process.pid} answers at /var/run/wireguard/wg1.sock" in done.stderr
    assert "--no-uapi" not in done.stderr, "it takes no options, and cannot do without the socket"
    assert not lab.a.has_device("wg1")


def test_a_name_is_no_command_without_wg_quicks_variable(lab: Lab) -> None:
    done = lab.a.run("env", "-u", "WG_QUICK_USERSPACE_IMPLEMENTATION", PROGRAM, "wg0", check=False)
    assert done.returncode == 2
    assert "No such command 'wg0'" in done.stderr
    assert not lab.a.has_device("wg0")


# wg-quick itself


class Quick:
    """Two machines whose tunnels wg-quick sets up, each with a file wg0.conf: b waits for a."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.a, self.b = lab, lab.a, lab.b
        self.keys = {machine: KeyPair.generate() for machine in (self.a, self.b)}
        self.psk = format_key(KeyPair.generate().private)
        self.files = {machine: lab.folder / machine.name / "wg0.conf" for machine in self.keys}
        for file in self.files.values():
            file.parent.mkdir(mode=0o700)

    def write(self, *, own: str = "", allowed: str = "10.9.0.1, fd09::1") -> None:
        """Write both files. `own`: more lines for a's [Interface]; `allowed`: its AllowedIPs."""
        endpoint = f"Endpoint = {self.b.four}:51820\nPersistentKeepalive = 25"
        self._write(self.a, f"Address = 10.9.0.2/24, fd09::2/64\n{own}", self.b, f"AllowedIPs = {allowed}\n{endpoint}")
        listening = "Address = 10.9.0.1/24, fd09::1/64\nListenPort = 51820"
        self._write(self.b, listening, self.a, "AllowedIPs = 10.9.0.2, fd09::2")

    def _write(self, machine: Machine, own: str, other: Machine, peer: str) -> None:
        self.files[machine].touch(mode=0o600)
        self.files[machine].write_text(
            f"[Interface]\nPrivateKey = {format_key(self.keys[machine].private)}\n{own}\n\n"
            f"[Peer]\nPublicKey = {self.public(other)}\nPresharedKey = {self.psk}\n{peer}\n"
        )

    def public(self, machine: Machine) -> str:
        return format_key(self.keys[machine].public)

    def up(self, *machines: Machine) -> None:
        for machine in machines:
            machine.run("wg-quick", "up", self.files[machine], env=BY_WG_QUICK)

    def down(self, machine: Machine) -> None:
        machine.run("wg-quick", "down", self.files[machine], env=BY_WG_QUICK)
        assert until(lambda: not sockets(machine), SECONDS), sockets(machine)


@pytest.fixture
def quick(lab: Lab) -> Quick:
    if lab.a.run("ip", "link", "add", "probe", "type", "wireguard", check=False).returncode == 0:
        pytest.skip("this kernel has WireGuard, which wg-quick prefers")
    return Quick(lab)


def network_of(machine: Machine) -> str:
    """What wg-quick may change on a machine, except link-local addresses, which come late."""
    shown = "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; nft list ruleset"
    return "\n".join(line for line in machine.run("sh", "-c", shown).stdout.splitlines() if "fe80" not in line)


def test_up_and_down_with_both_ends_talking(quick: Quick) -> None:
    quick.write()
    before = network_of(quick.a)
    quick.up(quick.b, quick.a)
    for address in ("10.9.0.1", "fd09::1"):
        quick.lab.ping(quick.a, address, SECONDS)
    quick.lab.ping(quick.b, "10.9.0.2", SECONDS, size=1392)
    shown = quick.b.run("wg", "show", "wg0", "allowed-ips").stdout
    assert shown == f"{quick.public(quick.a)}\t10.9.0.2/32 fd09::2/128\n"
    [peer] = quick.a.status("wg0")["peers"]
    assert (peer["state"], peer["vpntun"]) == ("connected", True)
    for machine in (quick.a, quick.b):
        quick.down(machine)
        assert not machine.has_device("wg0")
    assert network_of(quick.a) == before
    quick.up(quick.b, quick.a)
    quick.lab.ping(quick.a, "10.9.0.1", SECONDS)


@pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="wireguard-go is not installed")
def test_the_other_end_may_be_wireguard_go(quick: Quick) -> None:
    quick.write()
    quick.b.run("wg-quick", "up", quick.files[quick.b], env={"WG_QUICK_USERSPACE_IMPLEMENTATION": "wireguard-go"})
    quick.up(quick.a)
    for address in ("10.9.0.1", "fd09::1"):
        quick.lab.ping(quick.a, address, SECONDS)


def test_a_full_tunnel_with_wg_quicks_own_mark_and_rules(quick: Quick) -> None:
    quick.write(allowed="0.0.0.0/0, ::/0")
    before = network_of(quick.a)
    quick.b.run("ip", "address", "add", "203.0.113.1/32", "dev", "lo")
    quick.up(quick.b, quick.a)
    assert quick.a.run("wg", "show", "wg0", "fwmark").stdout == "0xca6c\n"
    assert "dev wg0 table 51820" in quick.a.run("ip", "route", "get", "203.0.113.1").stdout
    quick.lab.ping(quick.a, "203.0.113.1", SECONDS)
    quick.lab.ping(quick.a, "fd09::1", SECONDS)
    quick.down(quick.a)
    assert network_of(quick.a) == before


def test_what_wg_has_changed_is_saved_by_wg_quick(quick: Quick) -> None:
    quick.write(own="SaveConfig = true")
    quick.up(quick.b, quick.a)
    quick.a.run("wg", "set", "wg0", "listen-port", "51821", "peer", quick.public(quick.b), "allowed-ips", "10.9.0.0/24")
    quick.down(quick.a)
    saved = quick.files[quick.a].read_text()
    for line in (
        "Address = 10.9.0.2/24",
        "ListenPort = 51821",
        f"PrivateKey = {format_key(quick.keys[quick.a].private)}",
        f"PresharedKey = {quick.psk}",
        "AllowedIPs = 10.9.0.0/24",
        "PersistentKeepalive = 25",
    ):
        assert f"{line}\n" in saved
    quick.up(quick.a)
    quick.lab.ping(quick.a, "10.9.0.1", SECONDS)


def test_a_service_reloads_by_syncconf_without_losing_the_session(quick: Quick) -> None:
    quick.write()
    quick.up(quick.b, quick.a)
    quick.lab.ping(quick.a, "10.9.0.1", SECONDS)
    handshake = quick.a.run("wg", "show", "wg0", "latest-handshakes").stdout
    quick.write(allowed="10.9.0.0/24")
    quick.a.run("bash", "-c", f"wg syncconf wg0 <(wg-quick strip {quick.files[quick.a]})")
    assert "10.9.0.0/24" in quick.a.run("wg", "show", "wg0", "allowed-ips").stdout
    quick.lab.ping(quick.a, "10.9.0.1", SECONDS)
    assert quick.a.run("wg", "show", "wg0", "latest-handshakes").stdout == handshake


@pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="wireguard-go is not installed")
def test_the_mtu_that_wg_quick_sets_after_the_peers_is_followed(quick: Quick) -> None:
    """A packet is padded to a multiple of 16 bytes, but not beyond the MTU, 1320: 8 bytes less than a multiple."""
    for machine in (quick.a, quick.b):
        machine.run("ip", "link", "set", "veth0", "mtu", "1400")
    quick.write()
    quick.b.run("wg-quick", "up", quick.files[quick.b], env={"WG_QUICK_USERSPACE_IMPLEMENTATION": "wireguard-go"})
    quick.up(quick.a)
    assert "mtu 1320" in quick.a.run("ip", "link", "show", "wg0").stdout
    [tool, _] = firewall()
    longest = 1320 + DATA_OVERHEAD + IPV4_AND_UDP
    quick.b.run(tool, "-A", "INPUT", "-p", "udp", "-m", "length", "--length", f"{longest + 1}:65535", "-j", "DROP")
    quick.lab.ping(quick.a, "10.9.0.1", SECONDS, size=1319 - IPV4_AND_ICMP)
