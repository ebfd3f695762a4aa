"""`vpntun doctor` in real namespaces: each fault is made there, found, and gone again once it is mended.

    a  10.0.0.1, fd01::1  ==veth0==  10.0.0.2, fd01::2  b, where doctor looks

b is the server "hub" of a configuration file, 10.9.0.1, whose peers need not exist. Faults that cannot be made here,
such as an interpreter that is a debug build, are in tests/doctor/.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.netns.lab import PORT, STARTED, Daemon, Lab, Machine, far, firewall, start_pair, start_server, until
from vpntun.crypto.keys import KeyPair, format_key, generate_private

NO_OFFLOADS = Path(__file__).with_name("no_offloads.py")
LAN = "192.168.7.0/24"


class Found(NamedTuple):
    """The findings of one run about one thing: this machine, or a tunnel."""

    all: list[dict[str, Any]]
    status: int

    def of(self, check: str) -> list[dict[str, Any]]:
        return [each for each in self.all if each["check"] == check]

    def verdict(self, check: str) -> str:
        """The worst verdict of a check."""
        verdicts = {each["verdict"] for each in self.of(check)}
        return next(each for each in ("failed", "warning", "skipped", "ok") if each in verdicts)

    def fault(self, check: str) -> str:
        """The text and remedy of the only finding of a check that is not ok."""
        (fault,) = [each for each in self.of(check) if each["verdict"] != "ok"]
        assert fault["remedy"], fault
        return f"{fault['verdict']}: {fault['text']} -> {fault['remedy']}"

    def bad(self) -> set[str]:
        return {each["check"] for each in self.all if each["verdict"] in ("warning", "failed")}


def examine(
    machine: Machine, *arguments: str | Path, about: str = "", before: tuple[str, ...] = (), **run: Any
) -> Found:
    """Run doctor, and return what it finds about this machine ("") or a tunnel. `before`: a command that runs it."""
    command = [*before, sys.executable, "-m", "vpntun", "doctor", "--json", *arguments]
    done = machine.run(*command, check=False, **run)
    assert done.returncode in (0, 12), done
    findings = json.loads(done.stdout)["findings"]
    assert (done.returncode == 12) == any(each["verdict"] == "failed" for each in findings)
    assert not any("internal error, " in each["text"] for each in findings), done.stdout
    return Found([each for each in findings if each["about"] == about], done.returncode)


class Hub:
    """The server in b, with its file. `peers`: the lines of each peer's section."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.b = lab, lab.b
        self.file = lab.folder / "hub.conf"

    def start(self, *peers: str, own: str = "", run: tuple[str | Path, ...] = ("-m", "vpntun"), **how: Any) -> Daemon:
        self.write(*peers, own=own)
        daemon = self.b.popen(sys.executable, *run, "up", self.file, **how)
        daemon.wait_for(STARTED)
        return daemon

    def write(self, *peers: str, own: str = "") -> Path:
        sections = [f"[Peer]\nPublicKey = {format_key(KeyPair.generate().public)}\n{lines}\n" for lines in peers]
        self.file.touch(mode=0o600)
        self.file.write_text(
            f"[Interface]\nPrivateKey = {format_key(generate_private())}\nAddress = 10.9.0.1/24\nListenPort = {PORT}\n"
            f"{own}\n{''.join(sections)}"
        )
        return self.file

    def examine(self, *arguments: str | Path, **run: Any) -> Found:
        return examine(self.b, *arguments, about="hub", **run)


LAPTOP = "Name = laptop\nAllowedIPs = 10.9.0.2/32"
PHONE = "Name = phone\nAllowedIPs = 10.9.0.3/32"
SITE = f"Name = site\nAllowedIPs = 10.9.0.4/32, {LAN}"


def called(endpoint: str, allowed: str = "10.9.0.2/32") -> str:
    return f"Name = office\nAllowedIPs = {allowed}\nEndpoint = {endpoint}:{PORT}"


@pytest.fixture
def hub(lab: Lab) -> Hub:
    return Hub(lab)


@pytest.fixture
def nft() -> None:
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")


# This machine.


def test_a_pair_that_works_has_nothing_to_mend(lab: Lab) -> None:
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    for machine, device in ((lab.a, "tun11"), (lab.b, "tun3")):
        found = examine(machine, about=device)
        assert found.bad() == set(), found
        assert found.verdict("version") == "ok"
        assert found.status == 0
    assert [each["text"] for each in examine(lab.a, about="tun11").of("route to peer")] == [
        f"{peer_name(lab)} at 10.0.0.2:{PORT} is reached through veth0"
    ]


def peer_name(lab: Lab) -> str:
    return str(lab.a.status("tun11")["peers"][0]["public_key"])


def test_another_file_in_place_of_the_tun_device(lab: Lab) -> None:
    found = examine(lab.a, binds={"/dev/net/tun": Path("/dev/null")})
    assert found.fault("TUN device").startswith("failed: /dev/net/tun is device 1:3, not the TUN device")


def test_no_tun_device_at_all(lab: Lab) -> None:
    empty = lab.folder / "empty"
    empty.mkdir()
    found = examine(lab.a, binds={"/dev/net": empty})
    assert found.fault("TUN device").startswith("failed: there is no /dev/net/tun -> load the module")
    assert found.of("offloads") == []


def test_a_tun_device_that_an_ordinary_user_may_not_open(lab: Lab) -> None:
    closed = lab.folder / "tun"
    os.mknod(closed, 0o600 | 0o020000, os.makedev(10, 200))
    found = examine(lab.a, user="65534", binds={"/dev/net/tun": closed}, env={"HOME": str(lab.home())})
    assert found.fault("TUN device").startswith("failed: /dev/net/tun may not be opened -> run as root")


def test_root_without_the_capability(lab: Lab) -> None:
    found = examine(lab.a, before=("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--"))
    assert found.fault("capability").startswith("failed: root lacks CAP_NET_ADMIN")
    assert found.verdict("offloads") == "skipped"


def test_an_ordinary_user_is_told_what_was_not_checked(lab: Lab) -> None:
    found = examine(lab.a, user="65534", env={"HOME": str(lab.home())})
    assert found.fault("capability").startswith("warning: this user has no CAP_NET_ADMIN")
    assert "as root" in found.fault("offloads")
    assert found.verdict("offloads") == "skipped"
    assert found.status == 0


def without_cryptography(lab: Lab) -> dict[str, str]:
    """The environment of an interpreter that lacks the package."""
    package = lab.folder / "without" / "cryptography"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('the test has removed it')\n")
    return {"PYTHONPATH": str(package.parent)}


def test_the_slower_cipher_of_the_program_and_of_a_running_tunnel(lab: Lab, hub: Hub) -> None:
    without = without_cryptography(lab)
    assert "the package cryptography is not installed" in examine(lab.b, env=without).fault("AEAD")
    hub.start(LAPTOP, env=without)
    assert examine(lab.b).verdict("AEAD") == "ok"
    assert "libsodium" in hub.examine().fault("AEAD")


def test_a_running_tunnel_whose_device_has_no_offloads(hub: Hub) -> None:
    hub.start(LAPTOP, run=(NO_OFFLOADS,))
    assert hub.examine().fault("offloads").startswith("warning: the device takes no superpackets")


def test_the_key_that_doctor_is_given(lab: Lab) -> None:
    assert examine(lab.a, "-k", lab.key).verdict("key file") == "ok"
    lab.key.chmod(0o640)
    assert "is open to others" in examine(lab.a, "-k", lab.key).fault("key file")


# Tunnels.


@pytest.mark.long
def test_a_suspended_tunnel_has_failed_and_the_others_are_examined(lab: Lab, hub: Hub) -> None:
    server = start_server(lab, "-p", "55556")
    hub.start(LAPTOP)
    server.process.send_signal(signal.SIGSTOP)
    try:
        assert "has not answered within 3 s" in examine(lab.b, about="tun3").fault("tunnel")
        assert hub.examine().verdict("version") == "ok"
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_only_the_tunnel_that_is_named_is_examined(lab: Lab, hub: Hub) -> None:
    start_server(lab, "-p", "55556")
    hub.start(LAPTOP)
    assert examine(lab.b, "hub", about="tun3").all == []
    assert hub.examine("hub").verdict("version") == "ok"
    assert hub.examine(hub.file).verdict("configuration") == "ok"


def test_the_mode_of_a_file(hub: Hub) -> None:
    hub.write(LAPTOP)
    hub.file.chmod(0o644)
    assert "chmod 600" in hub.examine(hub.file).fault("file's mode")


def test_a_route_to_a_peer_that_leads_into_the_tunnel(hub: Hub) -> None:
    hub.start(called("10.66.0.9"), own="Table = off")
    assert "no route leads to office" in hub.examine().fault("route to peer")
    hub.b.run("ip", "route", "add", "10.66.0.0/16", "dev", "hub")
    assert "leads into the tunnel itself" in hub.examine().fault("route to peer")
    hub.b.run("ip", "route", "add", "10.66.0.9", "via", "10.0.0.1")
    assert hub.examine().verdict("route to peer") == "ok"


def test_a_file_whose_routes_would_lead_to_its_peer(hub: Hub) -> None:
    hub.b.run("ip", "route", "add", "default", "via", "10.0.0.1")
    hub.write(called("10.66.0.9", allowed="10.66.0.0/16"))
    found = hub.examine(hub.file)
    assert "leads into the tunnel itself, since 10.66.0.0/16" in found.fault("route to peer")
    hub.b.run("ip", "route", "add", "10.66.0.9", "via", "10.0.0.1")
    assert hub.examine(hub.file).verdict("route to peer") == "ok"


@pytest.mark.parametrize("allowed", ["192.168.7.128/25", "192.168.0.0/16"])
def test_a_network_of_a_peer_that_overlaps_with_this_machines(hub: Hub, allowed: str) -> None:
    hub.b.run("ip", "address", "add", "192.168.7.1/24", "dev", "veth0")
    hub.start(f"Name = site\nAllowedIPs = {allowed}")
    fault = hub.examine().fault("overlaps")
    assert fault.startswith(f"warning: {allowed} of site")
    assert f"veth0's network {LAN}" in fault


def test_a_network_of_a_peer_that_this_machine_has_too(hub: Hub) -> None:
    hub.start(SITE)
    assert hub.examine().verdict("overlaps") == "ok"
    hub.b.run("ip", "address", "add", "192.168.7.1/24", "dev", "veth0")
    assert f"failed: {LAN} of site is the network of veth0, too: one of them" in hub.examine().fault("overlaps")


def test_a_network_of_a_peer_that_another_tunnel_has(lab: Lab, hub: Hub) -> None:
    hub.write(SITE)
    assert hub.examine(hub.file).verdict("overlaps") == "ok"
    start_server(lab, "-p", "55556", "--route", LAN)
    fault = hub.examine(hub.file).fault("overlaps")
    assert f"{LAN} of site is the network of tun3, too: the tunnel does not start" in fault
    status, said = lab.b.ask("up", hub.file)
    assert (status, "there is a route to 192.168.7.0/24 already" in said) == (3, True)


def test_an_address_of_the_tunnel_that_another_device_has(hub: Hub) -> None:
    hub.start(LAPTOP)
    hub.b.run("ip", "address", "add", "10.9.0.1/32", "dev", "veth0")
    assert "10.9.0.1 is the address of veth0, too" in hub.examine().fault("overlaps")


def test_a_full_tunnel_that_another_program_has_led_around(hub: Hub) -> None:
    hub.b.run("ip", "route", "add", "default", "via", "10.0.0.1")
    hub.start(called("10.0.0.1", allowed="0.0.0.0/0"))
    assert hub.examine().bad() - {"drops", "link"} == set()
    hub.b.run("ip", "rule", "add", "priority", "100", "lookup", "main")
    assert "IPv4 leaves by veth0, beside the tunnel" in hub.examine().fault("full tunnel")


def test_an_uplink_that_is_too_narrow_for_a_plain_wireguard(hub: Hub) -> None:
    hub.start(called("10.0.0.1"))
    assert hub.examine().verdict("MTU") == "ok"
    hub.b.run("ip", "link", "set", "veth0", "mtu", "1400")
    assert "set the tunnel's MTU to 1340 or less" in hub.examine().fault("MTU")


def test_a_kernel_that_does_not_forward(hub: Hub) -> None:
    hub.b.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    hub.start(LAPTOP, PHONE)
    assert "Relay = yes" in hub.examine().fault("forwarding")
    hub.b.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    assert hub.examine().verdict("forwarding") == "ok"


def test_a_relay_needs_no_forwarding(hub: Hub) -> None:
    hub.b.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    hub.start(LAPTOP, PHONE, own="Relay = yes")
    assert hub.examine().verdict("forwarding") == "ok"


def test_a_strict_reverse_path_filter_without_a_route_back(hub: Hub) -> None:
    hub.start(SITE, own="Table = off")
    hub.b.run("sysctl", "-qw", "net.ipv4.conf.hub.rp_filter=1", "net.ipv4.conf.all.rp_filter=0")
    assert f"packets from {LAN} of site are dropped" in hub.examine().fault("rp_filter")
    hub.b.run("ip", "route", "add", LAN, "dev", "hub")
    assert hub.examine().verdict("rp_filter") == "ok"


def test_a_strict_filter_on_the_uplink_of_a_full_tunnel(hub: Hub) -> None:
    hub.b.run("ip", "route", "add", "default", "via", "10.0.0.1")
    hub.b.run("sysctl", "-qw", "net.ipv4.conf.veth0.rp_filter=1")
    hub.start(called("10.0.0.1", allowed="0.0.0.0/0"))
    assert hub.examine().verdict("rp_filter") == "ok"

    def is_found() -> bool:
        """Look while the setting is off: the tunnel sets it again."""
        hub.b.run("sysctl", "-qw", "net.ipv4.conf.all.src_valid_mark=0", "net.ipv4.conf.all.rp_filter=1")
        return "the reverse path filter of veth0 is strict" in str(hub.examine().of("rp_filter"))

    assert until(is_found, 20)


NFT = """
table inet filter {{
  chain input {{
    type filter hook input priority filter; policy drop;
    ct state vmap {{ established : accept, related : accept, invalid : drop }}
    iif lo accept
    udp dport {port} accept
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "{inside}" accept
    oifname "{inside}" accept
  }}
}}
"""


@pytest.mark.usefixtures("nft")
def test_rules_of_nftables_that_drop_the_port_or_what_is_forwarded(hub: Hub) -> None:
    hub.b.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    hub.start(LAPTOP, PHONE)
    hub.b.run("nft", "-f", "-", input=NFT.format(port=PORT, inside="hub"))
    assert hub.examine().verdict("firewall") == "ok", hub.examine()
    hub.b.run("nft", "-f", "-", input="flush ruleset\n" + NFT.format(port=22, inside="hub"))
    assert f"failed: calls to UDP port {PORT} are dropped by the chain inet filter input" in hub.examine().fault(
        "firewall"
    )
    hub.b.run("nft", "-f", "-", input="flush ruleset\n" + NFT.format(port=PORT, inside="docker0"))
    assert "warning: IPv4 packets that this machine forwards" in hub.examine().fault("firewall")


@pytest.mark.usefixtures("nft")
def test_rules_of_iptables_that_drop_the_port(hub: Hub) -> None:
    hub.start(LAPTOP)
    tool = firewall()[0]
    hub.b.run(tool, "-P", "INPUT", "DROP")
    hub.b.run(tool, "-A", "INPUT", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT")
    found = hub.examine()
    if tool.endswith("-legacy"):
        assert "iptables-legacy are not examined" in found.fault("firewall")
        return
    assert "over IPv4 are dropped by the chain ip filter INPUT" in found.fault("firewall")
    hub.b.run(tool, "-N", "CALLS")
    hub.b.run(tool, "-A", "INPUT", "-j", "CALLS")
    hub.b.run(tool, "-A", "CALLS", "-p", "udp", "--dport", str(PORT), "-m", "comment", "--comment", "x", "-j", "ACCEPT")
    assert hub.examine().verdict("firewall") == "ok"


def test_a_firewall_that_cannot_be_read(hub: Hub) -> None:
    hub.start(LAPTOP)
    found = hub.examine(binds={"/usr/sbin/nft": Path("/dev/null")} if Path("/usr/sbin/nft").exists() else {})
    assert found.verdict("firewall") == "skipped"


def test_a_peer_whose_key_is_not_configured(lab: Lab) -> None:
    server = start_server(lab)
    assert examine(lab.b, about="tun3").verdict("drops") == "ok"
    stranger, _ = lab.new_identity("stranger.key")
    public = json.loads(lab.b.ask("show", "tun3", "--json")[1])["public_key"]
    keys = ("--private-key", stranger, "--peer", public)
    lab.a.vpntun("-c", lab.b.four, "-i", "tun11", *keys, "--address", "10.8.0.2/24").wait_for(STARTED)
    assert until(lambda: examine(lab.b, about="tun3").verdict("drops") == "warning", 10), server
    assert "a key that is not configured here" in examine(lab.b, about="tun3").fault("drops")


def test_nothing_is_changed(lab: Lab, hub: Hub) -> None:
    hub.start(LAPTOP, PHONE)
    state = (
        "ip -d link; ip address; ip route show table all; ip rule; sysctl -a 2>/dev/null | grep -E '^net.*(rp_f|forw)'"
    )

    def is_settled() -> bool:
        addresses = hub.b.run("ip", "address").stdout
        return "fe80" in addresses and not re.search("tentative|NO-CARRIER", addresses)

    assert until(is_settled, 10), "a lab's links and their addresses come up by themselves"
    before = hub.b.run("sh", "-c", state).stdout
    hub.examine()
    assert hub.b.run("sh", "-c", state).stdout == before
