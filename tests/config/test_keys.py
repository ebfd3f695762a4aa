"""Keys of both ends: one file makes two ends that know each other, and WireGuard's keys are checked."""

from __future__ import annotations

import stat
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.crypto.pair import LOW_ORDER_POINTS
from tests.machine import logged, ordinary_user
from vpntun.config.keyfile import create_shared
from vpntun.config.keys import shared_keys, wireguard_keys
from vpntun.config.peer import NO_PSK
from vpntun.crypto.keys import KeyPair, clamp, format_key
from vpntun.errors import ConfigurationError, KeyFileError

OWN, PEER = KeyPair.of(clamp(b"o" * 32)), KeyPair.of(clamp(b"p" * 32))
SECRET = b"s" * 32


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


@pytest.mark.parametrize("peer", LOW_ORDER_POINTS, ids=lambda point: point.hex()[:8])
def test_an_unsafe_peer_key_is_refused(tmp_path: Path, peer: bytes) -> None:
    own = key_file(tmp_path / "own", OWN.private)
    with pytest.raises(ConfigurationError, match="--peer: "):
        wireguard_keys(own, format_key(peer), None)


def test_a_private_or_preshared_key_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    own, psk = key_file(tmp_path / "own", OWN.private), key_file(tmp_path / "psk", SECRET)
    psk.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        wireguard_keys(own, format_key(PEER.public), psk)
    own.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        wireguard_keys(own, format_key(PEER.public), None)
