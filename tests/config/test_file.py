"""Configuration files: what wg-quick's mean they mean here."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from tests.config.examples import (
    INTERFACE,
    LAPTOP,
    OFFICE,
    OWN,
    PEER,
    PSK,
    networks,
    write,
)
from tests.machine import logged
from vpntun.config import values
from vpntun.config.file import read_file
from vpntun.config.forwards import Forward
from vpntun.config.names import NameForward, NameRecord, NameSettings
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import EVERYTHING, HookLines, Routing, Tunnel
from vpntun.crypto.keys import format_key
from vpntun.errors import ConfigurationError


def test_a_file_that_sends_everything_through_the_tunnel(read: Callable[..., Tunnel]) -> None:
    tunnel = read(
        "# the laptop's end",
        "[Interface]",
        "Address = 10.77.0.8/24",
        "DNS = 10.77.0.1",
        f"PrivateKey = {format_key(OWN.private)}",
        "",
        "[Peer]",
        f"PublicKey = {format_key(OFFICE)}",
        f"PresharedKey = {format_key(PSK)}",
        "AllowedIPs = 0.0.0.0/0, ::/0   # everything",
        "Endpoint = vpn.example.org:51820",
        "PersistentKeepalive = 25",
    )
    assert tunnel == Tunnel(
        interface="wg7",
        identity=OWN,
        peers=(PeerSettings(OFFICE, EVERYTHING, PSK, "vpn.example.org", 51820, 25.0, "udp"),),
        port=None,
        listen_on=None,
        addresses=(ip_interface("10.77.0.8/24"),),
        routing=Routing("auto"),
        dns=("10.77.0.1",),
    )


def test_the_private_key_may_be_left_to_post_up(read: Callable[..., Tunnel]) -> None:
    tunnel = read("[Interface]", "PostUp = wg set %i private-key /etc/wireguard/%i.key", *PEER)
    assert tunnel.identity is None
    assert [peer.public for peer in tunnel.peers] == [LAPTOP]
    with pytest.raises(ConfigurationError, match="wg7 has no private key: put PrivateKey into"):
        _ = tunnel.keys
    given = tunnel.identified(OWN)
    assert (given.keys, given.peers) == (OWN, tunnel.peers)


def test_a_peer_with_the_key_that_post_up_gives_is_ignored_as_one_with_the_files_own(
    read: Callable[..., Tunnel],
) -> None:
    tunnel = read("[Interface]", "PostUp = true", *PEER, "[Peer]", f"PublicKey = {format_key(OWN.public)}")
    with logged() as lines:
        given = tunnel.identified(OWN)
    assert [peer.public for peer in given.peers] == [LAPTOP]
    assert lines == ["a PublicKey is this machine's own; the peer is ignored"]


def test_a_hubs_file_with_repeated_lines_and_several_peers(read: Callable[..., Tunnel]) -> None:
    tunnel = read(
        *INTERFACE,
        "Address = 10.77.0.1/24",
        "Address = 10.78.0.1/16, fd77::1/64",
        "ListenPort = 51820",
        "SaveConfig = false",
        *PEER,
        "AllowedIPs = 10.77.0.3/32, 10.77.4.1/24",
        "AllowedIPs = fd77::3",
        "[Peer]",
        f"PublicKey = {format_key(OFFICE)}",
        "AllowedIPs = 10.77.0.4/32, 192.168.0.0/16",
    )
    assert (tunnel.port, tunnel.listen_on) == (51820, "udp")
    assert tunnel.addresses == tuple(map(ip_interface, ("10.77.0.1/24", "10.78.0.1/16", "fd77::1/64")))
    assert [(peer.public, peer.allowed) for peer in tunnel.peers] == [
        (LAPTOP, networks("10.77.0.3/32", "10.77.4.0/24", "fd77::3/128")),
        (OFFICE, networks("10.77.0.4/32", "192.168.0.0/16")),
    ]
    assert all(peer.host is None for peer in tunnel.peers)


def test_hooks_keep_their_order_and_get_the_interfaces_name(read: Callable[..., Tunnel]) -> None:
    tunnel = read(
        *INTERFACE,
        "Table = 1234",
        "PreUp = modprobe tun # as ever",
        "PostUp = ip rule add dport 22 table 1234; echo %i = %i",
        "PostUp = iptables -A FORWARD -i %i -j ACCEPT",
        "PreDown = ip rule delete dport 22 table 1234",
        "PostDown = ",
        "PostDown = rm /tmp/%i.state",
    )
    assert tunnel.hooks == HookLines(
        pre_up=("modprobe tun",),
        post_up=("ip rule add dport 22 table 1234; echo wg7 = wg7", "iptables -A FORWARD -i wg7 -j ACCEPT"),
        pre_down=("ip rule delete dport 22 table 1234",),
        post_down=("rm /tmp/wg7.state",),
    )
    assert tunnel.routing.table == 1234


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"   \t\r\n", b"\n\n\n"])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\r\n\n", b"# caf\xe9, not UTF-8\n"])
def test_line_ends_blank_lines_and_a_byte_order_mark_are_ignored(tmp_path: Path, ending: bytes, before: bytes) -> None:
    lines = [*INTERFACE, "ListenPort = 7", *PEER, "AllowedIPs = 10.0.0.1"]
    path = write(tmp_path / "wg7.conf", before + ending.join(line.encode() for line in lines))
    tunnel = read_file(path, "wg7")
    assert tunnel.port == 7
    assert tunnel.peers[0].allowed == networks("10.0.0.1/32")


def test_bytes_that_are_not_utf8_reach_the_shell_of_a_hook_unchanged(tmp_path: Path) -> None:
    path = write(tmp_path / "wg7.conf", "\n".join(INTERFACE).encode() + b"\nPreUp = echo caf\xe9\n")
    assert os.fsencode(read_file(path, "wg7").hooks.pre_up[0]) == b"echo caf\xe9"


def test_keys_and_sections_in_any_case(read: Callable[..., Tunnel]) -> None:
    lines = [*INTERFACE, "ListenPort = 7", "FwMark = 9", *PEER, "AllowedIPs = 10.0.0.0/8", "PersistentKeepalive = 5"]
    shouted = [f"{name.upper()}{equals}{value}" for name, equals, value in (each.partition("=") for each in lines)]
    assert read(*shouted) == read(*lines)


@pytest.mark.parametrize(
    ("line", "what", "value"),
    [
        ("ListenPort = 0", "port", None),
        ("ListenPort = 51820", "port", 51820),
        ("ListenPort = domain", "port", 53),
        ("MTU = 1380", "mtu", 1380),
        ("MTU =", "mtu", None),
        ("DNS =", "dns", ()),
        ("DNS = 10.0.0.1,fd00::1 example.org  lan", "dns", ("10.0.0.1", "fd00::1", "example.org", "lan")),
        ("DNS = 10.0.0.1\nDNS = example.org", "dns", ("10.0.0.1", "example.org")),
        ("DNS = 10.0.0.1:53, [fd00::1]:53, [fd00::2]", "dns", ("10.0.0.1", "fd00::1", "fd00::2")),
        ("DNS = 10.0.0.1:5353, [fd00::1]:5353", "dns", ("10.0.0.1:5353", "[fd00::1]:5353")),
        ("Address =", "addresses", ()),
        ("Address = 10.0.0.1 fd00::1", "addresses", (ip_interface("10.0.0.1/32"), ip_interface("fd00::1/128"))),
        ("Table = auto", "routing", Routing("auto")),
        ("Table =", "routing", Routing("auto")),
        ("Table = OFF", "routing", Routing("off")),
        ("Table = 51820", "routing", Routing(51820)),
        ("Table = 0x10", "routing", Routing(16)),
        ("Table = main", "routing", Routing(254)),
        ("Table = 5\nTable = 6", "routing", Routing(6)),
        ("FwMark = off", "routing", Routing("auto", 0)),
        ("FwMark = 0", "routing", Routing("auto", 0)),
        ("FwMark = 51820", "routing", Routing("auto", 51820)),
        ("FwMark = 0xFFffFFff", "routing", Routing("auto", 0xFFFFFFFF)),
        ("FwMark = 0XCA6C", "routing", Routing("auto", 51820)),  # refused by wg(8), but it can mean nothing else
        ("Relay = yes", "relay", True),
        ("Relay = No", "relay", False),
        ("DSCP = inherit", "copies_dscp", True),
        ("DSCP = None", "copies_dscp", False),
        ("Device = tap\nMAC = 02:AA:bb:cc:dd:0e", "mac", bytes.fromhex("02aabbccdd0e")),
        ("Device = tap\nMAC = 02-aa-bb-cc-dd-0e", "mac", bytes.fromhex("02aabbccdd0e")),
        ("Device = tap\nMAC =", "mac", None),
        ("Device = tap\nBridge = br-lan.7", "bridge", "br-lan.7"),
        ("Device = tap\nBridge =", "bridge", None),
        ("Metrics = 127.0.0.1:9586", "metrics", ("127.0.0.1", 9586)),
        ("Metrics = unix:/run/metrics/tun3.sock", "metrics", Path("/run/metrics/tun3.sock")),
        ("Metrics =", "metrics", None),
        ("", "names", None),
        ("DnsServer = no\nDnsRecord = nas 10.0.0.7", "names", None),
        ("DnsServer = Yes", "names", NameSettings("wg7.internal")),
        (
            "DnsServer = yes\nDnsRecord = nas 10.0.0.7\nDnsForward = corp.example 10.0.0.53\nDnsDomain = Office.lan",
            "names",
            NameSettings(
                "office.lan",
                (NameRecord("nas.office.lan", (ip_address("10.0.0.7"),)),),
                (NameForward("corp.example", (("10.0.0.53", 53),)),),
            ),
        ),
        (
            "Forward = tcp :6443 192.168.127.2:6443\nForward = udp 127.0.0.1:53 10.9.0.1:53",
            "forwards",
            (
                Forward("tcp", ("", 6443), ("192.168.127.2", 6443)),
                Forward("udp", ("127.0.0.1", 53), ("10.9.0.1", 53)),
            ),
        ),
        ("Transport = tcp", "listen_on", None),
        ("Transport = tcp\nListenPort = 5", "listen_on", "tcp"),
        ("[Interface]\nListenPort = 5", "port", 5),
    ],
)
def test_a_line_of_interface(read: Callable[..., Tunnel], line: str, what: str, value: object) -> None:
    assert getattr(read(*INTERFACE, line), what) == value


@pytest.mark.parametrize(
    ("line", "what", "value"),
    [
        ("", "allowed", ()),
        ("AllowedIPs =", "allowed", ()),  # refused by wg(8), which takes a peer without the line
        ("AllowedIPs = 10.0.0.1", "allowed", networks("10.0.0.1/32")),
        ("AllowedIPs = fd00::1", "allowed", networks("fd00::1/128")),
        ("AllowedIPs = 10.1.2.3/8,fd00::1 / 64", "allowed", networks("10.0.0.0/8", "fd00::/64")),
        ("AllowedIPs = 10.0.0.0/8\nallowedips = 10.1.0.0/16", "allowed", networks("10.0.0.0/8", "10.1.0.0/16")),
        ("Endpoint = 192.0.2.1:51820", "host", "192.0.2.1"),
        ("Endpoint = 192.0.2.1:51820", "port", 51820),
        ("Endpoint = 10.1:51820", "host", "10.0.0.1"),
        ("Endpoint = [2001:DB8::1]:51820", "host", "2001:db8::1"),
        ("Endpoint = 2001:db8::1:51820", "host", "2001:db8::1"),
        ("Endpoint = [fe80::1%eth0]:51820", "host", "fe80::1%eth0"),
        ("Endpoint = no-such-name.invalid:51820", "host", "no-such-name.invalid"),
        ("Endpoint = vpn.example.org:domain", "port", 53),
        ("Endpoint = one.example.org:1\nEndpoint = two.example.org:2", "host", "two.example.org"),
        (f"PresharedKey = {format_key(PSK)}", "psk", PSK),
        (f"PresharedKey = {format_key(bytes(32))}", "psk", bytes(32)),
        ("PersistentKeepalive = 25", "keepalive", 25.0),
        ("PersistentKeepalive = off", "keepalive", 0.0),
        ("PersistentKeepalive = 0", "keepalive", 0.0),
        ("PersistentKeepalive = 65535", "keepalive", 65535.0),
        ("Transport = AUTO", "transport", "auto"),
        ("Name = Zoë's laptop", "name", "Zoë's laptop"),
    ],
)
def test_a_line_of_a_peer(read: Callable[..., Tunnel], line: str, what: str, value: object) -> None:
    assert getattr(read(*INTERFACE, *PEER, line).peers[0], what) == value


def test_the_mac_addresses_of_a_peer_on_a_tap_device_add_up(read: Callable[..., Tunnel]) -> None:
    lines = ["AllowedMACs = 02:00:00:00:00:01, 02-00-00-00-00-02", "AllowedMACs =", "AllowedMACs = 02:00:00:00:00:03"]
    [peer] = read(*INTERFACE, "Device = tap", *PEER, *lines).peers
    assert peer.allowed_macs == tuple(bytes([2, 0, 0, 0, 0, last]) for last in (1, 2, 3))


def test_the_interfaces_transport_is_the_default_of_its_peers(read: Callable[..., Tunnel]) -> None:
    other = ["[Peer]", f"PublicKey = {format_key(OFFICE)}"]
    tunnel = read(*INTERFACE, "Transport = auto", "ListenPort = 5", *PEER, "Transport = tcp", *other)
    assert tunnel.listen_on == "auto"
    assert [peer.transport for peer in tunnel.peers] == ["tcp", "auto"]
    assert read(*INTERFACE, *PEER).peers[0].transport == "udp"


def test_a_file_without_peers_makes_a_tunnel_without_peers(read: Callable[..., Tunnel]) -> None:
    assert read(*INTERFACE).peers == ()


def test_a_second_peer_with_the_same_key_changes_the_first_as_in_wg(read: Callable[..., Tunnel]) -> None:
    first = [*PEER, "AllowedIPs = 10.0.0.0/8", "Endpoint = 192.0.2.1:5", f"PresharedKey = {format_key(PSK)}"]
    between = ["[Peer]", f"PublicKey = {format_key(OFFICE)}"]
    [peer, other] = read(
        *INTERFACE, *first, *between, *PEER, "AllowedIPs = 10.1.0.0/16", "PersistentKeepalive = 9"
    ).peers
    assert peer == PeerSettings(LAPTOP, networks("10.1.0.0/16"), PSK, "192.0.2.1", 5, 9.0)
    assert other.public == OFFICE
    [peer] = read(*INTERFACE, *first, *PEER).peers
    assert peer.allowed == ()


def test_a_peer_with_this_machines_own_key_is_ignored(read: Callable[..., Tunnel]) -> None:
    with logged() as lines:
        tunnel = read(*INTERFACE, "[Peer]", f"PublicKey = {format_key(OWN.public)}", *PEER)
    assert [peer.public for peer in tunnel.peers] == [LAPTOP]
    assert len(lines) == 1
    assert "wg7.conf:3: this PublicKey is this machine's own" in lines[0]


def test_saveconfig_gets_one_notice(read: Callable[..., Tunnel]) -> None:
    with logged() as lines:
        assert read(*INTERFACE, "SaveConfig = true") == read(*INTERFACE, "SaveConfig = false")
    assert len(lines) == 1
    assert "SaveConfig has no effect" in lines[0]


def test_tables_have_the_names_that_ip_route_knows(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "rt_tables").write_text("# reserved\n255\tlocal\n 0 unspec\n100 office # ours\n0x65 lab\nnonsense\n7\n")
    (tmp_path / "d" / "more.conf").write_text("102 more\n99999999999 huge\n")
    files = (f"{tmp_path}/none", f"{tmp_path}/rt_tables", f"{tmp_path}/d/*.conf")
    named = {name: values.table(name, files) for name in ("main", "default", "local", "office", "lab", "more")}
    assert named == {"main": 254, "default": 253, "local": 255, "office": 100, "lab": 101, "more": 102}
    for name in ("unspec", "huge", "ours", "nonsense", "Main"):
        with pytest.raises(ConfigurationError, match="not a routing table"):
            values.table(name, files)
