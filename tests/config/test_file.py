"""Configuration files: wg-quick's keys mean the same here, and each error names its line."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crypto.pair import LOW_ORDER_POINTS
from tests.machine import logged, ordinary_user
from vpntun.config import file as subject
from vpntun.config import values
from vpntun.config.file import KNOWN, LARGEST, find_file, interface_of, read_file, read_peers
from vpntun.config.keyfile import create_shared
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import DEFAULT_MTU, EVERYTHING, HookLines, Routing, Tunnel, derived_keys
from vpntun.crypto.keys import KeyPair, clamp, format_key
from vpntun.errors import ConfigurationError, KeyFileError, PrivilegeError, VpntunError

OWN = KeyPair.of(clamp(b"o" * 32))
LAPTOP = KeyPair.of(clamp(b"l" * 32)).public
OFFICE = KeyPair.of(clamp(b"f" * 32)).public
PSK = bytes(range(32))
SHARED = bytes(range(100, 132))
SECRETS = [format_key(each) for each in (OWN.private, PSK, SHARED)]

INTERFACE = ["[Interface]", f"PrivateKey = {format_key(OWN.private)}"]
PEER = ["[Peer]", f"PublicKey = {format_key(LAPTOP)}"]
SERVER = ["[Interface]", "Role = server", f"SharedKey = {format_key(SHARED)}"]
CLIENT = ["[Interface]", "Role = client", f"SharedKey = {format_key(SHARED)}"]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Tunnel]:
    """Function that reads lines as the file of the interface wg7."""

    def take(*lines: str, by: Callable[[Path, str], Tunnel] = read_file) -> Tunnel:
        path = write(tmp_path / "wg7.conf", "\n".join(lines).encode())
        return by(path, "wg7")

    return take


@pytest.fixture
def refusal(tmp_path: Path, read: Callable[..., Tunnel]) -> Callable[..., str]:
    """Function that returns the error for lines that are refused, without the path of the folder."""

    def take(*lines: str) -> str:
        with pytest.raises(ConfigurationError) as caught:
            read(*lines)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return take


def write(path: Path, content: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


def networks(*texts: str) -> tuple[Any, ...]:
    return tuple(map(ip_network, texts))


# What wg-quick's files mean


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
        ("Relay = yes", "relay", True),
        ("Relay = No", "relay", False),
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
        ("AllowedIPs =", "allowed", ()),
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


# What is ours


def test_the_server_of_a_shared_key_needs_only_its_role(read: Callable[..., Tunnel]) -> None:
    keys = derived_keys("server", SHARED)
    expected = Tunnel(
        interface="wg7",
        identity=keys.identity,
        peers=(PeerSettings(keys.peer, EVERYTHING, keys.psk, transport="auto", is_vpntun=True),),
        port=55555,
        listen_on="auto",
        derived_addresses=keys.derived_addresses,
        derived_peer_addresses=keys.derived_peer_addresses,
    )
    assert read(*SERVER) == expected
    assert read(*SERVER, "[Peer]") == expected


def test_the_client_of_a_shared_key_has_the_servers_endpoint_and_keeps_the_path_open(
    read: Callable[..., Tunnel],
) -> None:
    keys = derived_keys("client", SHARED)
    endpoint = ["[Peer]", "Endpoint = vpn.example.org:55555"]
    tunnel = read(*CLIENT, *endpoint)
    assert (tunnel.identity, tunnel.derived_addresses, tunnel.derived_peer_addresses) == (
        keys.identity,
        keys.derived_addresses,
        keys.derived_peer_addresses,
    )
    assert (tunnel.port, tunnel.listen_on) == (None, None)
    assert tunnel.peers == (
        PeerSettings(keys.peer, EVERYTHING, keys.psk, "vpn.example.org", 55555, 25.0, "auto", is_vpntun=True),
    )
    assert tunnel.default_mtu == DEFAULT_MTU
    changed = read(*CLIENT, "Transport = udp", "ListenPort = 9", *endpoint, "PersistentKeepalive = off", "Name = hub")
    assert (changed.port, changed.listen_on) == (9, None)
    assert (changed.peers[0].transport, changed.peers[0].keepalive, changed.peers[0].name) == ("udp", 0.0, "hub")
    assert read(*CLIENT, *endpoint, "Transport = tcp").peers[0].transport == "tcp"


def test_a_shared_key_may_be_given_by_the_path_of_its_file(read: Callable[..., Tunnel], tmp_path: Path) -> None:
    path = tmp_path / "office.key"
    secret = create_shared(path)
    tunnel = read("[Interface]", "Role = server", f"SharedKey = {path}", "ListenPort = 443", "Transport = tcp")
    assert tunnel.identity == derived_keys("server", secret).identity
    assert (tunnel.port, tunnel.listen_on) == (443, "tcp")


def test_with_a_shared_key_everything_is_allowed_but_only_given_networks_are_routed(
    read: Callable[..., Tunnel],
) -> None:
    assert read(*SERVER, "Table = auto").routing.table == "off"
    assert read(*SERVER, "Table = 7", "[Peer]").routing.table == "off"
    given = read(*SERVER, "[Peer]", "AllowedIPs = 10.0.0.0/8")
    assert given.routing.table == "auto"
    assert given.peers[0].allowed == networks("10.0.0.0/8")
    assert read(*SERVER, "[Peer]", "AllowedIPs = 0.0.0.0/0").routing.table == "auto"


def test_a_shared_keys_file_that_others_can_read_is_refused_with_the_line(
    read: Callable[..., Tunnel], tmp_path: Path
) -> None:
    path = tmp_path / "office.key"
    create_shared(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match=rf"wg7\.conf:3: SharedKey: .*chmod 600 {path}"):
        read("[Interface]", "Role = server", f"SharedKey = {path}")
    with pytest.raises(KeyFileError, match=r"wg7\.conf:2: SharedKey: .*does not exist"):
        read("[Interface]", f"SharedKey = {tmp_path}/none", "Role = server")


# Keys and peers alone


def test_read_peers_ignores_the_keys_that_wg_quick_adds(read: Callable[..., Tunnel]) -> None:
    wg = [*INTERFACE, "ListenPort = 5", "FwMark = 7", "Relay = yes", *PEER, "AllowedIPs = 0.0.0.0/0"]
    quick = ["[Interface]", "Address = 10.0.0.1/8", "DNS = 10.0.0.1", "MTU = 1300", "Table = 9", "PostUp = x"]
    assert read(*quick, *wg, by=read_peers) == read(*wg, by=read_peers)
    tunnel = read(*wg, by=read_peers)
    assert tunnel.routing == Routing("off", 7)
    assert tunnel == Tunnel(
        "wg7", OWN, (PeerSettings(LAPTOP, networks("0.0.0.0/0")),), 5, "udp", routing=Routing("off", 7), relay=True
    )


def test_read_peers_ignores_wrong_values_but_not_unknown_keys(read: Callable[..., Tunnel]) -> None:
    read(*INTERFACE, "Table = nonsense", by=read_peers)
    with pytest.raises(ConfigurationError, match="did you mean Table"):
        read(*INTERFACE, "Tabel = 5", by=read_peers)


def test_read_peers_leaves_out_the_addresses_derived_from_a_shared_key(read: Callable[..., Tunnel]) -> None:
    tunnel = read(*SERVER, by=read_peers)
    assert (tunnel.derived_addresses, tunnel.derived_peer_addresses, tunnel.default_mtu) == ((), (), DEFAULT_MTU)


def test_keys_and_peers_may_come_through_a_pipe() -> None:
    reader, writer = os.pipe()
    os.write(writer, "\n".join(INTERFACE).encode())
    os.close(writer)
    assert read_peers(Path(f"/dev/fd/{reader}"), "wg7").identity == OWN
    os.close(reader)


# What is wrong


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ListenPort = 65536", "ListenPort: '65536' is not a port: ports are 1 to 65535"),
        ("ListenPort =", "ListenPort: '' is not a port"),
        ("ListenPort = no-such-service", "ListenPort: 'no-such-service' is not a port"),
        ("FwMark = 0x100000000", "FwMark: '0x100000000' is not a mark: give off, or 1 to 0xffffffff"),
        ("FwMark = -1", "FwMark: '-1' is not a mark"),
        ("Address = 10.0.0.256/24", "Address: '10.0.0.256/24' is not an address, such as 192.168.0.1/24"),
        ("Address = 10.0.0.1/24, home", "Address: 'home' is not an address"),
        ("Address = fe80::1%eth0/64", "Address: 'fe80::1%eth0/64' is not an address"),
        ("DNS = 10.0.0.1.2", "DNS: '10.0.0.1.2' is neither a name server's address nor a search domain"),
        ("DNS = what?", "DNS: 'what?' is neither"),
        ("MTU = 68", "MTU: an MTU of '68' cannot work: it must be 576 to 65475"),
        ("MTU = large", "MTU: an MTU of 'large' cannot work"),
        ("Table = no-such-table", "Table: 'no-such-table' is not a routing table: give auto, off, a number, or"),
        ("Table = 0", "Table: '0' is not a routing table"),
        ("SaveConfig = yes", "SaveConfig: 'yes' is not true or false"),
        ("Transport = sctp", "Transport: 'sctp' is not auto, udp or tcp"),
        ("Relay = maybe", "Relay: 'maybe' is not yes or no"),
        ("PrivateKey = short", "PrivateKey: this is not a key: a key is 32 bytes in base64"),
        ("Role = server", "Role requires SharedKey"),
        ("PublicKey = x", "PublicKey is not a key of [Interface]; it belongs in [Peer]"),
        ("PrivateKye = x", "there is no key PrivateKye in [Interface]; did you mean PrivateKey?"),
        ("Adress = x", "there is no key Adress in [Interface]; did you mean Address?"),
        ("[Peers]", "there is no section [Peers]; did you mean [Peer]?"),
        ("[Peer]", "[Peer] has no PublicKey; 'vpntun pubkey' prints it"),
        ("PostUp", "this line is neither [Section] nor Key = value"),
    ],
)
def test_a_bad_line_of_interface_is_refused_with_its_line_number_and_a_hint(
    refusal: Callable[..., str], line: str, said: str
) -> None:
    assert refusal(*INTERFACE, line).startswith(f"wg7.conf:3: {said}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("PublicKey = short", "PublicKey: this is not a key"),
        (f"PublicKey = {format_key(LOW_ORDER_POINTS[0])}", "this PublicKey is unsafe"),
        ("PresharedKey =", "PresharedKey: this is not a key"),
        ("AllowedIPs = 10.0.0.0/33", "AllowedIPs: '10.0.0.0/33' is not a network, such as 192.168.0.0/24"),
        ("AllowedIPs = 10.0.0.0/8, office", "AllowedIPs: 'office' is not a network"),
        ("AllowedIPs = 10.0.0.0/8 10.1.0.0/16", "AllowedIPs: '10.0.0.0/8 10.1.0.0/16' is not a network"),
        ("AllowedIPs = 10.0.0.0/8,", "AllowedIPs: '' is not a network"),
        ("AllowedIPs = fe80::1%eth0", "AllowedIPs: 'fe80::1%eth0' is not a network"),
        ("Endpoint = vpn.example.org", "Endpoint: 'vpn.example.org' is not HOST:PORT; a peer has no default port"),
        ("Endpoint = vpn.example.org:", "Endpoint: 'vpn.example.org:' is not HOST:PORT; a peer has no default port"),
        ("Endpoint = [2001:db8::1]", "Endpoint: '[2001:db8::1]' is not HOST:PORT; a peer has no default port"),
        ("Endpoint = 2001:db8::1", "Endpoint: '2001:db8::1' is not HOST:PORT; brackets go round an IPv6 address"),
        ("Endpoint = :51820", "Endpoint: ':51820' is not HOST:PORT"),
        ("Endpoint = 192.0.2.300:51820", "Endpoint: '192.0.2.300:51820' is not HOST:PORT"),
        ("Endpoint = https://vpn.example.org:443", "Endpoint: 'https://vpn.example.org:443' is not HOST:PORT"),
        ("Endpoint = vpn.example.org:70000", "Endpoint: '70000' is not a port"),
        ("Endpoint = vpn.example.org:0", "Endpoint: port 0 cannot be called"),
        ("PersistentKeepalive = 65536", "PersistentKeepalive: '65536' is not an interval: give off, or 1 to 65535"),
        ("PersistentKeepalive = often", "PersistentKeepalive: 'often' is not an interval"),
        ("Transport = quic", "Transport: 'quic' is not auto, udp or tcp"),
        ("Name = a\tb", "Name: a name has at most 64 characters, all of them printable"),
        (f"Name = {'n' * 65}", "Name: a name has at most 64 characters"),
        ("ListenPort = 5", "ListenPort is not a key of [Peer]; it belongs in [Interface]"),
        ("AllowedIP = 10.0.0.0/8", "there is no key AllowedIP in [Peer]; did you mean AllowedIPs?"),
    ],
)
def test_a_bad_line_of_a_peer_is_refused_with_its_line_number_and_a_hint(
    refusal: Callable[..., str], line: str, said: str
) -> None:
    assert refusal(*INTERFACE, *PEER, line).startswith(f"wg7.conf:5: {said}")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "wg7.conf: there is no [Interface] section; begin with one"),
        (PEER, "wg7.conf: there is no [Interface]"),
        (["Address = 10.0.0.1"], "wg7.conf:1: this line comes before any section; begin with [Interface]"),
        (["", "[Interface]", "MTU = 1280"], "wg7.conf:2: [Interface] has no PrivateKey; 'vpntun genkey' makes one"),
        ([*INTERFACE, "Address = fd00::1/64", "MTU = 1000"], "wg7.conf:1: an MTU of 1000 is too small for IPv6"),
        (
            [*INTERFACE, "Address = 192.0.2.9/24", *PEER, "Endpoint = 192.0.2.1:5"],
            "wg7.conf:1: 192.0.2.0/24 covers 192.0.2.1",
        ),
        (["[Interface]", f"SharedKey = {SECRETS[2]}"], "wg7.conf:2: SharedKey requires Role: server"),
        ([*SERVER, f"PrivateKey = {SECRETS[0]}"], "wg7.conf:4: give either a SharedKey or a PrivateKey"),
        ([*SERVER, "[Peer]", "[Peer]"], "wg7.conf:5: a SharedKey is for one peer"),
        ([*SERVER, *PEER], "wg7.conf:5: the peer's PublicKey is derived from the SharedKey"),
        ([*SERVER, "[Peer]", f"PresharedKey = {SECRETS[1]}"], "wg7.conf:5: the peer's PresharedKey is derived"),
        ([*SERVER, "[Peer]", "Endpoint = host:5"], "wg7.conf:5: the server of a SharedKey waits to be called"),
        ([*CLIENT], "wg7.conf:1: the client of a SharedKey needs the server's Endpoint"),
        ([*CLIENT, "[Peer]", "Name = hub"], "wg7.conf:4: the client of a SharedKey needs the server's Endpoint"),
        ([*SERVER[:2], "SharedKey = office.key"], "wg7.conf:3: SharedKey: this is not a key"),
        ([*SERVER, "Role = both"], "wg7.conf:4: Role: 'both' is not server or client"),
    ],
)
def test_contradicting_or_missing_keys_are_refused_with_a_hint(
    refusal: Callable[..., str], lines: list[str], said: str
) -> None:
    assert refusal(*lines).startswith(said)


@pytest.mark.parametrize(
    "lines",
    [
        [f"PrivateKey {SECRETS[0]}"],
        [SECRETS[0]],
        [f"Endpoint = {SECRETS[1]}:5"],
        [f"ListenPort = {SECRETS[0]}"],
        [f"Table = {SECRETS[0][:-1]}"],
        [f"SharedKey = {SECRETS[2]}x", "Role = server"],
        [f"SharedKey = /{SECRETS[2][:-2]}", "Role = server"],
        [f"PrivateKey = {SECRETS[0][:-1]}"],
        [f"DNS = {SECRETS[0]}"],
        ["[Peer]", f"AllowedIPs = {SECRETS[1]}"],
        ["[Peer]", f"PresharedKey = {SECRETS[1][:-1]}"],
        ["[Peer]", f"PublicKey = {format_key(LAPTOP)}", f"Endpoint = {SECRETS[1]}:5"],
        [f"[{SECRETS[0]}]"],
    ],
)
def test_no_message_holds_a_secret(refusal: Callable[..., str], lines: list[str]) -> None:
    said = refusal("[Interface]", *lines)
    for secret in SECRETS:
        assert not any(secret[start : start + 10] in said for start in range(len(secret) - 10))


def test_the_repr_of_a_tunnel_holds_no_secret(read: Callable[..., Tunnel]) -> None:
    for tunnel in (read(*INTERFACE, *PEER, f"PresharedKey = {format_key(PSK)}"), read(*SERVER)):
        for secret in (OWN.private, PSK, SHARED, tunnel.identity.private, derived_keys("server", SHARED).psk):
            assert repr(secret)[2:-1] not in repr(tunnel)
            assert format_key(secret) not in repr(tunnel)


# The file itself


def test_a_file_that_others_can_read_gets_a_warning(tmp_path: Path, read: Callable[..., Tunnel]) -> None:
    read(*INTERFACE)
    path = tmp_path / "wg7.conf"
    for folder_mode, mode, warned in ((0o755, 0o644, True), (0o700, 0o644, False), (0o755, 0o640, False)):
        tmp_path.chmod(folder_mode)
        path.chmod(mode)
        with logged() as lines:
            read_file(path, "wg7")
        assert lines == ([f"{path} contains keys and is open to everybody: chmod 600 {path}"] if warned else [])
    tmp_path.chmod(0o700)


def test_a_missing_file_a_folder_and_a_file_that_is_too_large_are_configuration_errors(tmp_path: Path) -> None:
    large = write(tmp_path / "large.conf", b"")
    os.truncate(large, LARGEST + 1)
    for path, said in ((tmp_path / "none.conf", "does not exist"), (tmp_path, "directory"), (large, "at most 32 MiB")):
        with pytest.raises(ConfigurationError, match=said):
            read_file(path, "wg7")


def test_a_file_with_zero_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a text file"):
        read_file(write(tmp_path / "wg7.conf", "\n".join(INTERFACE).encode("utf-16")), "wg7")


def test_a_file_that_this_user_may_not_read_is_a_privilege_error() -> None:
    with ordinary_user() as folder:
        write(folder / "wg7.conf", b"").chmod(0)
        with pytest.raises(PrivilegeError, match="as its owner, or as root"):
            read_file(folder / "wg7.conf", "wg7")


def test_a_name_is_looked_for_in_vpntuns_folder_and_then_in_wireguards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = (tmp_path / "vpntun", tmp_path / "wireguard")
    monkeypatch.setattr(subject, "FOLDERS", folders)
    with pytest.raises(ConfigurationError) as caught:
        find_file("hub")
    assert str(caught.value) == (f"there is no configuration file {folders[0]}/hub.conf or {folders[1]}/hub.conf")
    for folder in reversed(folders):
        folder.mkdir()
        write(folder / "hub.conf", b"")
        assert find_file("hub") == folder / "hub.conf"
    assert interface_of(find_file("hub")) == "hub"


def test_a_path_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "hub.conf", b"")
    assert find_file("hub.conf") == Path("hub.conf")
    assert find_file("./hub.conf") == Path("hub.conf")
    assert find_file(str(tmp_path / "hub.conf")) == tmp_path / "hub.conf"
    for name in ("other.conf", "./hub", f"{tmp_path}/hub", "hub.conf/x", "a\0.conf"):
        with pytest.raises(ConfigurationError, match="there is no configuration file"):
            find_file(name)


def test_a_folder_that_this_user_may_not_enter_is_a_privilege_error() -> None:
    with ordinary_user() as folder:
        (folder / "closed").mkdir(mode=0)
        with pytest.raises(PrivilegeError, match="as its owner, or as root"):
            find_file(f"{folder}/closed/hub.conf")


@pytest.mark.parametrize("name", ["wg0", "wg-quick_=+.", "a" * 15])
def test_a_files_name_is_the_interfaces(name: str) -> None:
    assert interface_of(Path(f"/etc/vpntun/{name}.conf")) == name


@pytest.mark.parametrize(
    "name", ["wg0", "wg0.conf.bak", ".conf", "..conf", "...conf", "a" * 16 + ".conf", "a b.conf", "$(x).conf"]
)
def test_a_files_name_that_no_interface_should_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name an interface"):
        interface_of(Path("/etc/vpntun") / name)


# Any file at all

KEY_LINES = st.sampled_from([key for keys in KNOWN.values() for key in keys])
VALUES = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["", "0", "off", "auto", "10.0.0.0/8", "fd00::1", "[::1]:5", "a:1", "server", "client", "true", "yes"]
    ),
    st.sampled_from([*SECRETS, format_key(LAPTOP), format_key(OWN.public)]),
)
LINES = st.one_of(
    st.sampled_from(["[Interface]", "[Peer]", *INTERFACE, *PEER, *SERVER]),
    st.builds("{} = {}".format, KEY_LINES, VALUES),
    st.text(max_size=20),
)


def read_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for by in (read_file, read_peers):
        try:
            assert isinstance(by(path, "wg7"), Tunnel)
        except VpntunError as error:
            assert not any(secret in str(error) for secret in SECRETS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary())
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    with logged():
        read_or_refuse(tmp_path / "wg7.conf", content)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(lines=st.lists(LINES, max_size=12))
def test_any_lines_are_read_or_refused(tmp_path: Path, lines: list[str]) -> None:
    with logged():
        read_or_refuse(tmp_path / "wg7.conf", "\n".join([*INTERFACE, *lines]).encode("utf-8", "replace"))


KEYS = st.binary(min_size=32, max_size=32)
NETWORKS = st.one_of(
    st.builds(lambda n, p: ip_network((n, p), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)),
    st.builds(lambda n, p: IPv6Network((n, p), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128)),
)
WORDS = st.text("abcxyzé$;'\"%=,()-_. ", min_size=1).map(lambda text: f"x{text}x")
HOSTS = st.one_of(
    (st.ip_addresses(network="198.51.100.0/24") | st.ip_addresses(network="2001:db8::/32")).map(str),
    st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z][a-z0-9-]{0,20}){0,3}", fullmatch=True),
)
TRANSPORTS: st.SearchStrategy[Any] = st.sampled_from(["auto", "udp", "tcp"])
TABLES: st.SearchStrategy[Any] = st.sampled_from(["auto", "off"]) | st.integers(1, 2**32 - 1)
ADDRESSES = st.ip_addresses(network="10.0.0.0/8") | st.ip_addresses(network="fd00::/8")


@st.composite
def peers_settings(draw: st.DrawFn) -> PeerSettings:
    host = draw(st.none() | HOSTS)
    return PeerSettings(
        public=KeyPair.of(clamp(draw(KEYS))).public,
        allowed=tuple(draw(st.lists(NETWORKS, max_size=5))),
        psk=draw(KEYS),
        host=host,
        port=draw(st.integers(1, 65535)) if host is not None else 0,
        keepalive=float(draw(st.integers(0, 65535))),
        transport=draw(TRANSPORTS),
        name=draw(st.just("") | WORDS.filter(lambda text: len(text) <= 64)),
    )


@st.composite
def tunnels(draw: st.DrawFn) -> Tunnel:
    identity = KeyPair.of(clamp(draw(KEYS)))
    port = draw(st.none() | st.integers(1, 65535))
    peers = draw(st.lists(peers_settings(), max_size=4, unique_by=lambda peer: peer.public))
    return Tunnel(
        interface="wg7",
        identity=identity,
        peers=tuple(peer for peer in peers if peer.public != identity.public),
        port=port,
        listen_on=draw(TRANSPORTS) if port is not None else None,
        addresses=tuple(ip_interface((each, 32 if each.version == 4 else 128)) for each in draw(st.lists(ADDRESSES))),
        mtu=draw(st.none() | st.integers(1280, 65475)),
        routing=Routing(draw(TABLES), draw(st.integers(0, 2**32 - 1))),
        dns=tuple(draw(st.lists(st.ip_addresses().map(str) | st.sampled_from(["example.org", "lan"]), max_size=3))),
        hooks=HookLines(
            *(tuple(draw(st.lists(WORDS.map(str.strip).filter(lambda t: "%i" not in t), max_size=2))) for _ in range(4))
        ),
        relay=draw(st.booleans()),
    )


def written(tunnel: Tunnel) -> str:
    """Write the configuration file of a tunnel."""
    lines = ["[Interface]", f"PrivateKey = {format_key(tunnel.identity.private)}"]
    lines += [f"ListenPort = {tunnel.port}", f"Transport = {tunnel.listen_on}"] if tunnel.port is not None else []
    lines += [f"MTU = {tunnel.mtu}"] if tunnel.mtu is not None else []
    lines += [f"Address = {', '.join(map(str, tunnel.addresses))}", f"DNS = {', '.join(tunnel.dns)}"]
    lines += [f"Table = {tunnel.routing.table}", f"FwMark = {tunnel.routing.fwmark}"]
    lines += [f"Relay = {'yes' if tunnel.relay else 'no'}"]
    for key, hooks in (("PreUp", tunnel.hooks.pre_up), ("PostUp", tunnel.hooks.post_up)):
        lines += [f"{key} = {hook}" for hook in hooks]
    for key, hooks in (("PreDown", tunnel.hooks.pre_down), ("PostDown", tunnel.hooks.post_down)):
        lines += [f"{key} = {hook}" for hook in hooks]
    for peer in tunnel.peers:
        lines += ["[Peer]", f"PublicKey = {format_key(peer.public)}", f"PresharedKey = {format_key(peer.psk)}"]
        lines += [f"AllowedIPs = {each}" for each in peer.allowed]
        lines += [f"PersistentKeepalive = {peer.keepalive:g}", f"Transport = {peer.transport}", f"Name = {peer.name}"]
        if peer.host is not None:
            lines.append(f"Endpoint = {f'[{peer.host}]' if ':' in peer.host else peer.host}:{peer.port}")
    return "\n".join(lines)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(tunnel=tunnels())
def test_a_tunnel_that_is_written_out_and_read_back_is_the_same(tmp_path: Path, tunnel: Tunnel) -> None:
    path = write(tmp_path / "wg7.conf", written(tunnel).encode())
    assert read_file(path, "wg7") == tunnel


@pytest.mark.parametrize("version", [4, 6])
def test_very_many_allowed_ips_can_be_read(read: Callable[..., Tunnel], version: int) -> None:
    many: list[Any] = [
        IPv4Network((0x0A000000 + (n << 8), 24)) if version == 4 else IPv6Network(((0xFD00 << 112) + (n << 64), 64))
        for n in range(20_000)
    ]
    half = len(many) // 2
    tunnel = read(
        *INTERFACE,
        *PEER,
        f"AllowedIPs = {', '.join(map(str, many[:half]))}",
        *(f"AllowedIPs = {each}" for each in many[half:]),
    )
    assert tunnel.peers[0].allowed == tuple(many)
