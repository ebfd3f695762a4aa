"""A phone's free addresses, its section in the server's file, and its configuration for the app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.config.examples import INTERFACE, LAPTOP, OWN, PEER, SERVER, networks, write
from vpntun.config.file import read_file
from vpntun.config.peer import PeerSettings
from vpntun.config.phone import Phone, check_name, check_server, free_addresses, new_phone
from vpntun.config.tunnel import Tunnel
from vpntun.crypto.keys import KeyPair, format_key
from vpntun.errors import ConfigurationError

ENDPOINT = ("vpn.example.org", 51820)


def tunnel(*addresses: str, allowed: tuple[str, ...] = (), relay: bool = False) -> Tunnel:
    """Return a tunnel with these addresses, and one peer with these allowed IPs."""
    peer = PeerSettings(LAPTOP, networks(*allowed))
    return Tunnel("wg7", OWN, (peer,), 51820, "udp", tuple(map(ip_interface, addresses)), relay=relay)


def free(*addresses: str, allowed: tuple[str, ...] = ()) -> list[str]:
    return list(map(str, free_addresses(tunnel(*addresses, allowed=allowed))))


# addresses


def test_the_lowest_free_address_of_each_ip_version_is_taken() -> None:
    assert free("10.9.0.1/24", "fd09::1/64") == ["10.9.0.2", "fd09::2"]
    assert free("fd09::7/64", "10.9.0.254/24") == ["10.9.0.1", "fd09::1"]
    assert free("10.9.0.1/24", "fd09::1/64", allowed=("10.9.0.2", "10.9.0.4", "fd09::2", "fd09::3")) == [
        "10.9.0.3",
        "fd09::4",
    ]
    assert free("fd09::1/64") == ["fd09::2"]


def test_parts_of_the_network_that_a_peer_has_are_left_to_it() -> None:
    assert free("10.9.0.1/24", allowed=("10.9.0.0/25",)) == ["10.9.0.128"]
    assert free("10.9.0.1/24", allowed=("10.9.0.128/25", "10.9.0.2/31", "10.9.0.2/32")) == ["10.9.0.4"]
    assert free("fd09::1/64", allowed=("fd09::/65",)) == ["fd09::8000:0:0:0"]


def test_default_routes_and_their_halves_take_nothing() -> None:
    assert free("10.9.0.1/24", "fd09::1/64", allowed=("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/0", "8000::/1")) == [
        "10.9.0.2",
        "fd09::2",
    ]


def test_the_ends_of_a_network_are_no_machines() -> None:
    assert free("10.9.0.1/30") == ["10.9.0.2"]
    assert free("10.9.0.4/31") == ["10.9.0.5"]
    assert free("10.9.0.5/31") == ["10.9.0.4"]
    assert free("fd09::1/126", allowed=("fd09::2",)) == ["fd09::3"]
    assert free("fd09::1/127") == ["fd09::"]


@pytest.mark.parametrize(
    ("addresses", "allowed"),
    [
        (("10.9.0.1/32",), ()),
        (("fd09::1/128",), ()),
        (("10.9.0.1/30",), ("10.9.0.2",)),
        (("10.9.0.1/31",), ("10.9.0.0",)),
        (("10.9.0.1/24",), ("10.9.0.0/25", "10.9.0.128/25")),
        (("10.9.0.1/24",), ("10.9.0.0/24",)),
        (("10.9.0.1/24",), ("10.0.0.0/8",)),
        (("10.9.0.1/24", "fd09::1/128"), ()),
        (("fd09::1/126",), ("fd09::2", "fd09::3")),
    ],
)
def test_a_network_without_a_free_address_is_an_error_that_names_a_wider_one(
    addresses: tuple[str, ...], allowed: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigurationError, match=r"has no address left .* such as (10\.9\.0\.1/24|fd09::1/64)"):
        free(*addresses, allowed=allowed)


def test_the_next_network_of_the_same_ip_version_is_used_where_one_is_full() -> None:
    assert free("10.9.0.1/32", "10.9.0.1/24", "10.8.0.1/24") == ["10.9.0.2"]


def test_a_tunnel_without_addresses_of_its_own_is_refused() -> None:
    for addresses in ((), ("fe80::1/64",)):
        with pytest.raises(ConfigurationError, match="put Address into"):
            free(*addresses)


@given(
    data=st.data(),
    length=st.integers(20, 32),
    base=st.integers(0, 2**32 - 1),
)
def test_an_address_is_free_in_the_network_and_the_lowest_one(data: st.DataObject, length: int, base: int) -> None:
    own = IPv4Interface((base, length))
    near = st.builds(
        lambda offset, bits: IPv4Network(((int(own.network[0]) + offset) % 2**32, bits), strict=False),
        st.integers(0, own.network.num_addresses),
        st.integers(max(0, length - 2), 32),
    )
    allowed = data.draw(st.lists(near, max_size=8))
    machines = set(own.network.hosts()) - {own.ip}
    for each in allowed:
        machines -= {address for address in machines if address in each}
    given_to = Tunnel("wg7", OWN, (PeerSettings(LAPTOP, tuple(allowed)),), 51820, "udp", (own,))
    try:
        assert free_addresses(given_to) == (min(machines, default=None),)
    except ConfigurationError:
        assert machines == set()


# the phone


def test_a_phone_gets_keys_of_its_own_and_keeps_the_private_one_to_itself() -> None:
    one, other = (new_phone(tunnel("10.9.0.1/24"), "handy", ENDPOINT) for _ in range(2))
    assert len({one.identity.private, other.identity.private, one.psk, other.psk}) == 4
    assert format_key(one.identity.private) not in one.section()
    assert not any(repr(secret)[2:-1] in repr(one) for secret in (one.identity.private, one.psk))


def test_it_sends_the_tunnels_networks_into_the_tunnel_and_what_it_is_given() -> None:
    made = new_phone(
        tunnel("10.9.0.1/24", "fd09::1/64", allowed=("192.168.9.0/24",)),
        "handy",
        ENDPOINT,
        networks("10.20.0.0/16", "10.9.0.128/25"),
    )
    assert made.networks == networks("10.9.0.0/24", "10.20.0.0/16", "fd09::/64")


def test_through_a_relay_it_also_sends_what_other_peers_have_but_not_everything() -> None:
    relay = tunnel(
        "10.9.0.1/24", allowed=("10.9.0.2", "192.168.9.0/24", "fd07::/64", "0.0.0.0/0", "8000::/1"), relay=True
    )
    assert new_phone(relay, "handy", ENDPOINT).networks == networks("10.9.0.0/24", "192.168.9.0/24", "fd07::/64")
    everything = networks("0.0.0.0/0", "::/0")
    assert new_phone(relay, "handy", ENDPOINT, everything).networks == everything


def example(**changes: Any) -> Phone:
    made = Phone(
        name="handy",
        identity=KeyPair.of(b"\x40" * 32),
        psk=bytes(range(32)),
        addresses=(ip_address("10.9.0.2"), ip_address("fd09::2")),
        server=LAPTOP,
        endpoint=ENDPOINT,
        networks=networks("10.9.0.0/24", "fd09::/64"),
    )
    return replace(made, **changes)


def test_the_configuration_has_the_keys_that_the_app_knows() -> None:
    assert example().configuration().splitlines() == [
        "[Interface]",
        f"PrivateKey = {format_key(bytes([0x40] * 32))}",
        "Address = 10.9.0.2/32, fd09::2/128",
        "",
        "[Peer]",
        f"PublicKey = {format_key(LAPTOP)}",
        f"PresharedKey = {format_key(bytes(range(32)))}",
        "Endpoint = vpn.example.org:51820",
        "AllowedIPs = 10.9.0.0/24, fd09::/64",
        "PersistentKeepalive = 25",
    ]
    more = example(endpoint=("2001:db8::1", 4500), dns=("10.9.0.1", "example.org")).configuration()
    assert "\nEndpoint = [2001:db8::1]:4500\n" in more
    assert "\nDNS = 10.9.0.1, example.org\n" in more


def test_the_section_and_the_configuration_are_two_ends_of_one_link(tmp_path: Path) -> None:
    made = replace(example(), server=OWN.public)
    server = read_file(
        write(tmp_path / "wg7.conf", "\n".join([*INTERFACE, "ListenPort = 51820", made.section()]).encode()), "wg7"
    )
    app = read_file(write(tmp_path / "app.conf", made.configuration().encode()), "app")
    assert (server.peers[0].public, server.peers[0].psk) == (app.keys.public, app.peers[0].psk)
    assert server.peers[0].allowed == tuple(ip_network(each.ip) for each in app.addresses)
    assert server.peers[0].name == "handy"
    assert (app.peers[0].public, app.peers[0].host, app.peers[0].port) == (server.keys.public, *ENDPOINT)
    assert app.peers[0].keepalive == 25


# servers that phones cannot call


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (SERVER, "has a SharedKey"),
        (
            [*INTERFACE, "ListenPort = 5", "Device = tap"],
            "has a TAP device, and a phone's WireGuard carries no Ethernet",
        ),
        (INTERFACE, "put ListenPort into"),
        ([*INTERFACE, "ListenPort = 5", "Transport = tcp"], "Transport = auto"),
        (["[Interface]", "ListenPort = 5", "PostUp = wg set %i private-key x"], "put PrivateKey into"),
    ],
)
def test_a_tunnel_that_no_phone_can_call_is_refused(read: Callable[..., Tunnel], lines: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        check_server(read(*lines))


@pytest.mark.parametrize("transport", ["auto", "udp"])
def test_a_tunnel_that_listens_on_udp_is_accepted(read: Callable[..., Tunnel], transport: str) -> None:
    assert check_server(read(*INTERFACE, "ListenPort = 5", f"Transport = {transport}")) == 5


# names


def test_a_name_that_a_peer_has_is_refused(read: Callable[..., Tunnel]) -> None:
    lines = [*INTERFACE, *PEER, "Name = laptop", "#  name= desk ", "# Name =", "PublicKey = x # Name = other"]
    server = read(*lines[:-1])
    for name in ("laptop", "desk", " desk "):
        with pytest.raises(ConfigurationError, match=r"has a peer called \w+ already"):
            check_name(name, server, "\n".join(lines))
    for name in ("Laptop", "other", "desk 2"):
        assert check_name(name, server, "\n".join(lines)) == name


@pytest.mark.parametrize("name", ["", " ", "a#b", "a\nb", "a\tb", "\udc80", "x" * 65])
def test_a_name_that_a_file_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        check_name(name, tunnel("10.9.0.1/24"), "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=70))
def test_every_name_that_is_accepted_is_read_back_the_same(tmp_path: Path, name: str) -> None:
    try:
        accepted = check_name(name, tunnel("10.9.0.1/24"), "")
    except ConfigurationError:
        return
    for in_comment, expected in ((False, accepted), (True, "")):
        section = example(name=accepted).section(name_in_comment=in_comment)
        server = read_file(write(tmp_path / "wg7.conf", "\n".join([*INTERFACE, section]).encode()), "wg7")
        assert [peer.name for peer in server.peers] == [expected]
        with pytest.raises(ConfigurationError, match="already"):
            check_name(accepted, server, section)
