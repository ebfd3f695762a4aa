"""Arbitrary configuration files are read or refused; what is written out is read back the same."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.config.examples import (
    INTERFACE,
    LAPTOP,
    OWN,
    PEER,
    SECRETS,
    SERVER,
    write,
)
from tests.machine import logged
from vpntun.config.file import KNOWN, read_file, read_peers
from vpntun.config.forwards import ORIGINS, Forward, ServiceName
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import LARGEST_MTU_OF_TAP, HookLines, Routing, Tunnel
from vpntun.crypto.keys import KeyPair, clamp, format_key
from vpntun.errors import VpntunError
from vpntun.types import LARGEST_MTU, DeviceKind
from vpntun.types import written as written_place
from vpntun.wire.ethernet.mac import mac_text

KEY_LINES = st.sampled_from([key for keys in KNOWN.values() for key in keys])
VALUES = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            "",
            "0",
            "off",
            "auto",
            "tap",
            "02:00:00:00:00:01",
            "10.0.0.0/8",
            "fd00::1",
            "[::1]:5",
            "a:1",
            "server",
            "client",
            "true",
            "yes",
        ]
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
MACS = st.binary(min_size=6, max_size=6).map(lambda text: bytes([text[0] & 0xFE | 2, *text[1:]]))
FORWARDS = st.builds(
    Forward,
    st.just("tcp") | st.just("udp"),
    st.tuples(st.sampled_from(["", "127.0.0.1", "::1"]), st.integers(1, 65535)),
    st.tuples(st.sampled_from(["10.9.0.7", "fd00::7", "db.example"]), st.integers(1, 65535)),
    st.sampled_from(ORIGINS),
) | st.just(Forward("tcp", Path("/run/a.sock"), ServiceName("ssh", "desk")))
ADDRESSES = st.ip_addresses(network="10.0.0.0/8") | st.ip_addresses(network="fd00::/8")


@st.composite
def peers_settings(draw: st.DrawFn, device: DeviceKind) -> PeerSettings:
    host = draw(st.none() | HOSTS)
    return PeerSettings(
        public=KeyPair.of(clamp(draw(KEYS))).public,
        allowed=tuple(draw(st.lists(NETWORKS, max_size=5))) if device == "tun" else (),
        allowed_macs=tuple(draw(st.lists(MACS, max_size=3))) if device == "tap" else (),
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
    device: DeviceKind = draw(st.sampled_from(["tun", "tap"]))
    bridge = draw(st.sampled_from([None, "br0", "br-lan.7"])) if device == "tap" else None
    addresses = draw(st.lists(ADDRESSES)) if bridge is None else []
    peers = draw(st.lists(peers_settings(device), max_size=4, unique_by=lambda peer: peer.public))
    return Tunnel(
        interface="wg7",
        identity=identity,
        peers=tuple(peer for peer in peers if peer.public != identity.public),
        port=port,
        listen_on=draw(TRANSPORTS) if port is not None else None,
        addresses=tuple(ip_interface((each, 32 if each.version == 4 else 128)) for each in addresses),
        mtu=draw(st.none() | st.integers(1280, LARGEST_MTU if device == "tun" else LARGEST_MTU_OF_TAP)),
        routing=Routing(draw(TABLES) if device == "tun" else "off", draw(st.integers(0, 2**32 - 1))),
        dns=tuple(draw(st.lists(st.ip_addresses().map(str) | st.sampled_from(["example.org", "lan"]), max_size=3))),
        hooks=HookLines(
            *(tuple(draw(st.lists(WORDS.map(str.strip).filter(lambda t: "%i" not in t), max_size=2))) for _ in range(4))
        ),
        relay=device == "tun" and draw(st.booleans()),
        copies_dscp=draw(st.booleans()),
        device=device,
        mac=draw(st.none() | MACS) if device == "tap" else None,
        bridge=bridge,
        metrics=draw(st.sampled_from([None, Path("/run/metrics/a b.sock"), ("127.0.0.1", 9586), ("fd00::1", 1)])),
        forwards=tuple(draw(st.lists(FORWARDS, max_size=3, unique_by=lambda forward: forward.key))),
    )


def written(tunnel: Tunnel) -> str:
    """Write the configuration file of a tunnel."""
    lines = ["[Interface]", f"PrivateKey = {format_key(tunnel.keys.private)}"]
    lines += [f"ListenPort = {tunnel.port}", f"Transport = {tunnel.listen_on}"] if tunnel.port is not None else []
    lines += [f"Device = {tunnel.device}"]
    lines += [f"MAC = {mac_text(tunnel.mac)}"] if tunnel.mac is not None else []
    lines += [f"Bridge = {tunnel.bridge}"] if tunnel.bridge is not None else []
    lines += [f"MTU = {tunnel.mtu}"] if tunnel.mtu is not None else []
    lines += [f"Address = {', '.join(map(str, tunnel.addresses))}", f"DNS = {', '.join(tunnel.dns)}"]
    lines += [f"Table = {tunnel.routing.table}", f"FwMark = {tunnel.routing.fwmark}"]
    lines += [f"Relay = {'yes' if tunnel.relay else 'no'}"]
    if tunnel.metrics is not None:
        place = tunnel.metrics
        lines += [f"Metrics = {f'unix:{place}' if isinstance(place, Path) else written_place(place)}"]
    lines += [f"Forward = {each}" for each in tunnel.forwards]
    lines += [f"DSCP = {'inherit' if tunnel.copies_dscp else 'none'}"]
    for key, hooks in (("PreUp", tunnel.hooks.pre_up), ("PostUp", tunnel.hooks.post_up)):
        lines += [f"{key} = {hook}" for hook in hooks]
    for key, hooks in (("PreDown", tunnel.hooks.pre_down), ("PostDown", tunnel.hooks.post_down)):
        lines += [f"{key} = {hook}" for hook in hooks]
    for peer in tunnel.peers:
        lines += ["[Peer]", f"PublicKey = {format_key(peer.public)}", f"PresharedKey = {format_key(peer.psk)}"]
        lines += [f"AllowedIPs = {each}" for each in peer.allowed]
        lines += [f"AllowedMACs = {mac_text(each)}" for each in peer.allowed_macs]
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
