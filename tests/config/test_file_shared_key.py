"""Configuration files with a shared key, which only vpntun has, and files of keys and peers alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.config.examples import (
    CLIENT,
    INTERFACE,
    LAPTOP,
    OWN,
    PEER,
    SERVER,
    SHARED,
    networks,
)
from vpntun.config.file import read_peers
from vpntun.config.keyfile import create_shared
from vpntun.config.keys import derived_keys
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import DEFAULT_MTU, EVERYTHING, Routing, Tunnel
from vpntun.errors import ConfigurationError, KeyFileError

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
