"""Checks of a tunnel's settings before anything is opened, and the keys and addresses it gets."""

from __future__ import annotations

import stat
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.machine import logged, ordinary_user
from vpntun.config.keyfile import create_shared
from vpntun.config.peer import NO_PSK
from vpntun.config.tunnel import (
    EVERYTHING,
    LARGEST_MTU,
    LARGEST_MTU_OF_TAP,
    Keys,
    Tunnel,
    check_mtu,
    parse_interface,
    parse_network,
    shared_keys,
    to_one_peer,
    wireguard_keys,
)
from vpntun.crypto.keys import KeyPair, clamp, format_key
from vpntun.errors import ConfigurationError, KeyFileError

OWN, PEER = KeyPair.of(clamp(b"o" * 32)), KeyPair.of(clamp(b"p" * 32))
SECRET = b"s" * 32
KEYS = Keys(OWN, PEER.public, SECRET)
LOW_ORDER = ["0" * 64, "01" + "0" * 62, "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"]


def tunnel(**changes: Any) -> Tunnel:
    good: dict[str, Any] = {
        "interface": "tun3",
        "host": "192.0.2.1",
        "port": 55555,
        "transport": "auto",
        "keys": KEYS,
        "allowed": EVERYTHING,
        "addresses": (),
        "routes": (),
        "mtu": None,
    }
    return to_one_peer(**{**good, **changes})


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        tunnel(**changes)
    return str(caught.value)


def networks(*texts: str) -> tuple[object, ...]:
    return tuple(map(ip_network, texts))


def interfaces(*texts: str) -> tuple[object, ...]:
    return tuple(map(ip_interface, texts))


# The tunnel


def test_a_valid_tunnel_is_accepted() -> None:
    made = tunnel(routes=networks("10.0.0.0/8"), addresses=interfaces("192.168.0.1/24", "fd00::1/64"), mtu=1420)
    assert made.mtu == 1420


@pytest.mark.parametrize("port", [0, -1, 65536, 10**9])
def test_a_number_that_is_not_a_port_is_refused(port: int) -> None:
    assert f"{port} is not a port" in refusal(port=port)


@pytest.mark.parametrize("port", [1, 65535])
def test_the_first_and_the_last_port_are_ports(port: int) -> None:
    assert tunnel(port=port).peers[0].port == port
    assert tunnel(port=port, host=None).port == port


@pytest.mark.parametrize("mtu", [-1, 0, 1, 68, 575, LARGEST_MTU + 1, 65535, 65536, 10**9])
def test_an_mtu_that_cannot_work_is_refused(mtu: int) -> None:
    assert f"an MTU of {mtu} cannot work" in refusal(mtu=mtu)


@pytest.mark.parametrize("mtu", [576, 1280, 1420, 9000, LARGEST_MTU])
def test_an_mtu_that_works_is_accepted(mtu: int) -> None:
    assert tunnel(mtu=mtu).mtu == mtu


def test_the_largest_mtu_of_a_tap_leaves_room_for_its_frames_header_and_record_in_one_send() -> None:
    check_mtu(LARGEST_MTU_OF_TAP, (), "tap")
    with pytest.raises(ConfigurationError, match="cannot work on a TAP device: it must be 576 to 64000"):
        check_mtu(LARGEST_MTU_OF_TAP + 1, (), "tap")


def test_an_mtu_too_small_for_ipv6_is_refused_only_with_an_ipv6_address() -> None:
    assert "too small for IPv6" in refusal(mtu=1279, addresses=interfaces("192.168.0.1/24", "fd00::1/64"))
    assert tunnel(mtu=1279, addresses=interfaces("192.168.0.1/24")).mtu == 1279
    assert tunnel(mtu=1280, addresses=interfaces("fd00::1/64")).mtu == 1280


@pytest.mark.parametrize(
    ("host", "route"),
    [
        ("192.0.2.1", "192.0.2.0/24"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("192.0.2.1", "0.0.0.0/0"),
        ("192.0.2.1", "128.0.0.0/1"),
        ("2001:db8::1", "2001:db8::/32"),
        ("2001:db8::1", "::/0"),
        ("fe80::1%eth0", "fe80::/10"),
    ],
)
def test_a_route_that_covers_the_peer_itself_is_refused_with_an_explanation(host: str, route: str) -> None:
    message = refusal(host=host, routes=networks("10.0.0.0/8", route))
    assert route in message
    assert host in message
    assert "sent into the tunnel" in message


def test_an_address_whose_network_covers_the_peer_is_refused_too() -> None:
    assert "192.0.2.0/24" in refusal(addresses=interfaces("192.0.2.99/24"))


@pytest.mark.parametrize(("host", "route"), [("192.0.2.1", "::/0"), ("2001:db8::1", "0.0.0.0/0"), (None, "0.0.0.0/0")])
def test_a_route_of_the_other_ip_version_or_of_a_server_covers_nothing(host: str | None, route: str) -> None:
    assert tunnel(host=host, routes=networks(route)).routes == networks(route)


def test_the_addresses_of_a_name_can_be_checked_after_the_look_up() -> None:
    named = tunnel(host="remote.example.org", routes=networks("192.0.2.0/24"))
    assert named.covering(ip_interface("192.0.2.7").ip) == ip_network("192.0.2.0/24")
    assert named.covering(ip_interface("192.0.3.7").ip) is None


def test_the_repr_of_a_tunnel_holds_no_secret() -> None:
    text = repr(tunnel())
    for secret in (SECRET, OWN.private):
        assert repr(secret)[2:-1] not in text
        assert secret.hex() not in text
        assert format_key(secret) not in text


# Addresses and networks


@pytest.mark.parametrize("text", ["192.168.0.1/24", "10.0.0.1/32", "fd00::1/64", "::1/128"])
def test_an_address_with_a_prefix_length_is_accepted(text: str) -> None:
    assert str(parse_interface(text)) == text


@pytest.mark.parametrize(
    "text",
    ["192.168.0.1", "fd00::1", "192.168.0.1/33", "192.168.0/24", "fd00::1/129", "", "/24", "name/24", "1.2.3.4/-1"],
)
def test_anything_but_an_address_with_a_prefix_length_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix length"):
        parse_interface(text)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.168.0.0/24", "192.168.0.0/24"),
        ("192.168.0.77/24", "192.168.0.0/24"),
        ("10.0.0.1", "10.0.0.1/32"),
        ("fd00:1::9/64", "fd00:1::/64"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_a_network_is_accepted_and_its_host_bits_are_masked_off(text: str, network: str) -> None:
    assert str(parse_network(text)) == network


@pytest.mark.parametrize("text", ["", "name", "10.0.0.0/33", "10.0.0/24", "fd00::/129", "10.0.0.0/x", "fd00::/64/64"])
def test_anything_but_a_network_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a network"):
        parse_network(text)


# Shared keys


def test_one_file_makes_two_ends_that_know_each_other(tmp_path: Path) -> None:
    create_shared(tmp_path / "key")
    server, client = shared_keys("server", tmp_path / "key", None), shared_keys("client", tmp_path / "key", "host")
    assert server.peer == client.identity.public
    assert client.peer == server.identity.public
    assert server.identity.public != client.identity.public
    assert server.psk == client.psk != NO_PSK


def test_the_derived_addresses_of_the_two_ends_are_neighbours(tmp_path: Path) -> None:
    create_shared(tmp_path / "key")
    server, client = shared_keys("server", tmp_path / "key", None), shared_keys("client", tmp_path / "key", "host")
    assert server.derived_peer_addresses == tuple(each.ip for each in client.derived_addresses)
    assert client.derived_peer_addresses == tuple(each.ip for each in server.derived_addresses)
    for own, other, around in zip(
        server.derived_addresses, client.derived_addresses, ("100.64.0.0/10", "fd00::/8"), strict=True
    ):
        assert own.ip != other.ip
        assert own.network == other.network
        assert own.ip in ip_network(around)
    assert str(server.derived_addresses[1].ip).endswith("::1")
    assert str(client.derived_addresses[1].ip).endswith("::2")


def test_two_files_give_other_keys_and_other_addresses(tmp_path: Path) -> None:
    create_shared(tmp_path / "one")
    create_shared(tmp_path / "two")
    one, two = (shared_keys("server", tmp_path / name, None) for name in ("one", "two"))
    assert one.peer != two.peer
    assert one.derived_addresses != two.derived_addresses


def test_a_missing_key_file_that_was_given_is_an_error_for_both_roles(tmp_path: Path) -> None:
    for role in ("server", "client"):
        with pytest.raises(KeyFileError, match="does not exist"):
            shared_keys(role, tmp_path / "key", "host")
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_a_key_makes_one_and_says_how_to_copy_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with ordinary_user() as folder, logged() as lines:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
        path = folder / "vpntun" / "vpntun.key"
        keys = shared_keys("server", None, None)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert f"scp -p {path}" in lines[0]
        assert path.read_text().split("\n")[1] not in "".join(lines)
        again = shared_keys("server", None, None)
        assert again.identity.public == keys.identity.public
        assert len(lines) == 1
        assert shared_keys("client", None, "host").peer == keys.identity.public


def test_a_client_without_a_key_says_where_it_is_expected_and_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with ordinary_user() as folder:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
        with pytest.raises(KeyFileError) as caught:
            shared_keys("client", None, "remote.example.org")
        assert str(folder / "vpntun" / "vpntun.key") in str(caught.value)
        assert "remote.example.org" in str(caught.value)
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_default_key_that_is_a_dangling_link_is_refused(monkeypatch: pytest.MonkeyPatch, role: Any) -> None:
    with ordinary_user() as folder:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
        (folder / "vpntun").mkdir()
        (folder / "vpntun" / "vpntun.key").symlink_to(folder / "elsewhere")
        with pytest.raises(KeyFileError, match="symbolic links"):
            shared_keys(role, None, "host")
        assert not (folder / "elsewhere").exists()


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_default_folder_that_this_user_may_not_enter_is_a_key_file_error(
    monkeypatch: pytest.MonkeyPatch, role: Any
) -> None:
    with ordinary_user() as folder:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
        (folder / "vpntun").mkdir(mode=0)
        with pytest.raises(KeyFileError, match=r"vpntun\.key"):
            shared_keys(role, None, "host")


# WireGuard's keys


def key_file(path: Path, key: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_text(format_key(key) + "\n")
    return path


def test_wireguard_keys_work_with_and_without_a_preshared_key(tmp_path: Path) -> None:
    own, psk = key_file(tmp_path / "own", OWN.private), key_file(tmp_path / "psk", SECRET)
    without = wireguard_keys(own, format_key(PEER.public), None)
    assert (without.identity, without.peer, without.psk) == (OWN, PEER.public, bytes(32))
    assert wireguard_keys(own, format_key(PEER.public), psk).psk == SECRET
    assert without.derived_addresses == without.derived_peer_addresses == ()


def test_this_ends_own_key_as_the_peer_is_refused(tmp_path: Path) -> None:
    own = key_file(tmp_path / "own", OWN.private)
    with pytest.raises(ConfigurationError, match="this end's own public key"):
        wireguard_keys(own, format_key(OWN.public), None)


@pytest.mark.parametrize("peer", ["", "key", format_key(PEER.public)[:-1], format_key(PEER.public) + "x", "ä" * 44])
def test_the_error_for_a_malformed_peer_key_names_the_option(tmp_path: Path, peer: str) -> None:
    own = key_file(tmp_path / "own", OWN.private)
    with pytest.raises(ConfigurationError, match="--peer: "):
        wireguard_keys(own, peer, None)


@pytest.mark.parametrize("peer", LOW_ORDER)
def test_an_unsafe_peer_key_is_refused(tmp_path: Path, peer: str) -> None:
    own = key_file(tmp_path / "own", OWN.private)
    with pytest.raises(ConfigurationError, match="--peer: "):
        wireguard_keys(own, format_key(bytes.fromhex(peer)), None)


def test_a_private_or_preshared_key_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    own, psk = key_file(tmp_path / "own", OWN.private), key_file(tmp_path / "psk", SECRET)
    psk.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        wireguard_keys(own, format_key(PEER.public), psk)
    own.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        wireguard_keys(own, format_key(PEER.public), None)
