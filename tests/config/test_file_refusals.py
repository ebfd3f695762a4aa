"""A configuration file that is wrong is refused with the line, and with a hint; no message holds a secret."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.config.examples import (
    CLIENT,
    INTERFACE,
    LAPTOP,
    OWN,
    PEER,
    PSK,
    SECRETS,
    SERVER,
    SHARED,
)
from tests.crypto.pair import LOW_ORDER_POINTS
from vpntun.config.keys import derived_keys
from vpntun.config.tunnel import Tunnel
from vpntun.crypto.keys import format_key


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
        ("DNS = 10.0.0.1:", "DNS: '10.0.0.1:' is neither"),
        ("DNS = 10.0.0.1:0", "DNS: '10.0.0.1:0' is neither"),
        ("DNS = [fd00::1]:65536", "DNS: '[fd00::1]:65536' is neither"),
        ("DNS = [fd00::1", "DNS: '[fd00::1' is neither"),
        ("DNS = dns.example.org:53", "DNS: 'dns.example.org:53' is neither"),
        ("MTU = 68", "MTU: an MTU of '68' cannot work: it must be 576 to 65475"),
        ("MTU = large", "MTU: an MTU of 'large' cannot work"),
        ("Table = no-such-table", "Table: 'no-such-table' is not a routing table: give auto, off, a number, or"),
        ("Table = 0", "Table: '0' is not a routing table"),
        ("SaveConfig = yes", "SaveConfig: 'yes' is not true or false"),
        ("Transport = sctp", "Transport: 'sctp' is not auto, udp or tcp"),
        ("Relay = maybe", "Relay: 'maybe' is not yes or no"),
        ("DSCP = EF", "DSCP: 'EF' is not inherit or none"),
        ("Device = bridge", "Device: 'bridge' is not tun or tap"),
        ("Forward = tcp 6443", "Forward: a forward is tcp or udp, where to listen, and the target, such as"),
        ("Metrics = 9586", "Metrics: '9586' is no place for metrics: give unix:/PATH, or an address of this machine"),
        ("Metrics = unix:metrics.sock", "Metrics: 'unix:metrics.sock' is no place for metrics"),
        (f"Metrics = unix:/{'m.-' * 36}", "Metrics: the path of a socket has at most 107 bytes, and 'unix:/m.-m"),
        ("Metrics = localhost:9586", "Metrics: 'localhost:9586' is no place for metrics"),
        ("Metrics = 127.0.0.1:0", "Metrics: '127.0.0.1:0' is no place for metrics"),
        ("Metrics = ::1:9586", "Metrics: '::1:9586' is no place for metrics"),
        ("Metrics = [127.0.0.1]:9586", "Metrics: '[127.0.0.1]:9586' is no place for metrics"),
        ("DnsServer = 10.0.0.1", "DnsServer: '10.0.0.1' is not yes or no"),
        ("DnsRecord = nas 10.0.0.7", "DnsRecord is for the tunnel's own name server: add DnsServer = yes"),
        ("DnsDomain = what?", "DnsDomain: 'what?' is not a name in the DNS"),
        ("DnsForward = corp.example", "DnsForward: give a domain and the addresses of its name servers"),
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
        (["[Interface]", "PreUp = true", "PostDown = true"], "wg7.conf:1: [Interface] has no PrivateKey;"),
        (
            [*INTERFACE, "Device = tap", "MAC = 02:00:00:00:00"],
            "wg7.conf:4: MAC: '02:00:00:00:00' is not a MAC address: give six numbers of two hexadecimal",
        ),
        (
            [*INTERFACE, "Device = tap", "MAC = 03:00:00:00:00:01"],
            "wg7.conf:4: MAC: the MAC address 03:00:00:00:00:01 is that of a group of stations",
        ),
        (
            [*INTERFACE, "Device = tap", "Bridge = br 0"],
            "wg7.conf:4: Bridge: 'br 0' cannot be a bridge's name: give an interface's name, such as br0",
        ),
        (
            [*INTERFACE, "Device = tap", "Bridge = bridge-of-sixteen"],
            "wg7.conf:4: Bridge: 'bridge-of-sixteen' cannot be a bridge's name",
        ),
        ([*INTERFACE, "Device = tap", "Bridge = .."], "wg7.conf:4: Bridge: '..' cannot be a bridge's name"),
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
        ["Device = tap", f"MAC = {SECRETS[0]}"],
        ["Device = tap", f"Bridge = {SECRETS[0]}"],
        ["Device = tap", "[Peer]", f"AllowedMACs = {SECRETS[1]}"],
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
        for secret in (OWN.private, PSK, SHARED, tunnel.keys.private, derived_keys("server", SHARED).psk):
            assert repr(secret)[2:-1] not in repr(tunnel)
            assert format_key(secret) not in repr(tunnel)
