"""A host whose IPv6 is switched off: the tunnel does without IPv6, says so, and carries IPv4."""

from __future__ import annotations

import pytest

from tests.netns.lab import Lab, start_client, start_server
from tests.netns.place import Place
from vpntun.crypto.keys import format_key

NOTICE = "IPv6 is disabled on {}, or its MTU is below 1280: "


@pytest.fixture
def off(lab: Lab) -> Lab:
    """The lab, with IPv6 switched off in a for its future devices, as in many containers."""
    lab.a.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    return lab


def test_a_file_with_ipv6_addresses_and_a_full_tunnel_carries_ipv4_and_check_says_the_same(off: Lab) -> None:
    place = Place(off)
    place.start_hub()
    client = place.start_a("0.0.0.0/0, ::/0")
    off.ping(off.a, "10.9.0.1", within=10)
    assert off.a.addresses("a") == ["10.9.0.2/24"]
    left_out, no_routes = NOTICE.format("a") + "left out fd09::2/64", NOTICE.format("a") + "the tunnel carries no IPv6"
    assert left_out in client.log
    assert no_routes in client.log
    assert client.stop() == 0
    status, said = off.a.ask("check", off.folder / "a.conf")
    assert status == 0
    assert "  addresses: 10.9.0.2/24\n" in said
    assert left_out in said
    assert no_routes in said


def test_check_lists_no_route_of_ipv6(off: Lab) -> None:
    file = off.folder / "split.conf"
    file.touch(mode=0o600)
    key = format_key(bytes(32))
    file.write_text(
        f"[Interface]\nPrivateKey = {key}\nAddress = fd09::2\n[Peer]\nPublicKey = {format_key(b'x' * 32)}\n"
        "AllowedIPs = 10.20.0.0/16, fd20::/64\n"
    )
    _, said = off.a.ask("check", file)
    assert "  addresses: none\n" in said
    assert "  routes: 10.20.0.0/16\n" in said


def test_options_are_treated_the_same(off: Lab) -> None:
    start_server(off, "--address", "192.168.9.2/24")
    own = "--address", "192.168.9.1/24", "--address", "fd99::1/64"
    client = start_client(off, *own, "--route", "10.20.0.0/16", "--route", "fd20::/64")
    off.ping(off.a, "192.168.9.2", within=10)
    assert NOTICE.format("tun11") + "left out fd99::1/64" in client.log
    assert "10.20.0.0/16" in off.a.run("ip", "route", "show", "dev", "tun11").stdout


def test_a_persistent_device_is_made_without_its_ipv6_address(off: Lab) -> None:
    made = off.a.ask("mktun", "tun11", "--address", "192.168.9.1/24", "--address", "fd99::1/64")
    assert made == (0, f"vpntun: tun11: {NOTICE.format('tun11')}left out fd99::1/64\n")
    assert off.a.addresses("tun11") == ["192.168.9.1/24"]
