"""What a request of wg(8) makes of a tunnel's settings."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.datapath.ends import ALICE, BOB, CAROL, PSK, STRANGER
from vpntun.config.keyfile import create_shared
from vpntun.config.keys import shared_keys
from vpntun.config.peer import NO_PSK, PeerSettings
from vpntun.config.tunnel import Routing, Tunnel, to_one_peer
from vpntun.crypto.keys import KeyPair
from vpntun.errors import CannotChange, ConfigurationError
from vpntun.types import Network, Place
from vpntun.uapi.request import PeerChange, SetRequest
from vpntun.uapi.set import Nowhere, applied

NAMED = PeerSettings(
    BOB.public,
    (ip_network("10.0.0.0/24"), ip_network("fd00::/64")),
    PSK,
    host="hub.example.org",
    port=1,
    keepalive=25.0,
    transport="auto",
    name="hub",
)
CALLING = PeerSettings(CAROL.public, (ip_network("10.0.1.0/24"),), name="phone")
TUNNEL = Tunnel("tun3", ALICE, (NAMED, CALLING), 55555, "udp")
KNOWN: Place = ("192.0.2.1", 1)
CALLS_FROM: Place = ("198.51.100.1", 40000)


def networks(*texts: str) -> dict[Network, bool]:
    return {ip_network(text.removeprefix("-")): not text.startswith("-") for text in texts}


class Known(Nowhere):
    """The only name has one address, and the peer that calls is at the other place."""

    def is_at(self, public: bytes, place: Place) -> bool:
        return public == CAROL.public and place == CALLS_FROM

    def name_has(self, peer: PeerSettings, place: Place) -> bool:
        return peer.host == "hub.example.org" and place == KNOWN


WHERE = Known()


def made(request: SetRequest, tunnel: Tunnel = TUNNEL) -> Tunnel:
    return applied(tunnel, request, WHERE)[0]


def peers(*changes: PeerChange, replace_peers: bool = False, tunnel: Tunnel = TUNNEL) -> dict[bytes, PeerSettings]:
    request = SetRequest(peers=list(changes), replace_peers=replace_peers)
    return {peer.public: peer for peer in made(request, tunnel).peers}


def bob(**changes: object) -> PeerSettings:
    return peers(PeerChange(BOB.public, **changes))[BOB.public]  # type: ignore[arg-type]


def test_a_request_without_lines_changes_nothing() -> None:
    assert applied(TUNNEL, SetRequest(), WHERE) == (TUNNEL, {})
    assert peers(PeerChange(BOB.public)) == {BOB.public: NAMED, CAROL.public: CALLING}


# This end


def test_another_private_key_is_clamped_and_zeros_take_it_away() -> None:
    identity = made(SetRequest(private=b"x" * 32)).identity
    assert identity is not None
    assert identity.private == bytes([ord("x") & 248]) + b"x" * 30 + bytes([ord("x") & 127 | 64])
    assert made(SetRequest(private=bytes(32))).identity is None


def test_a_peer_with_this_ends_new_key_is_removed_and_one_that_is_set_is_ignored() -> None:
    assert [peer.public for peer in made(SetRequest(private=BOB.private)).peers] == [CAROL.public]
    assert [peer.public for peer in made(SetRequest(BOB.private, peers=[PeerChange(BOB.public)])).peers] == [
        CAROL.public
    ]
    assert ALICE.public not in peers(PeerChange(ALICE.public))
    freed = SetRequest(CAROL.private, peers=[PeerChange(ALICE.public)])
    assert [peer.public for peer in made(freed).peers] == [BOB.public, ALICE.public]


def test_the_mark_and_the_port_change() -> None:
    assert made(SetRequest(mark=7)) == replace(TUNNEL, routing=Routing(fwmark=7))
    assert made(SetRequest(port=1)) == replace(TUNNEL, port=1)
    assert made(SetRequest(port=0)) == replace(TUNNEL, port=None)


def test_a_tunnel_that_only_called_can_be_called_at_its_new_port() -> None:
    calling = replace(TUNNEL, port=None, listen_on=None)
    assert made(SetRequest(port=0), calling) == calling
    assert made(SetRequest(port=9), calling) == replace(calling, port=9, listen_on="udp")


def test_peers_that_connect_over_tcp_need_a_port() -> None:
    with pytest.raises(CannotChange, match="TCP"):
        made(SetRequest(port=0), replace(TUNNEL, listen_on="auto"))


# Peers


def test_an_added_peer_has_what_is_said_of_it() -> None:
    change = PeerChange(STRANGER.public, psk=PSK, keepalive=5, endpoint=("::1", 9), allowed=networks("10.5.0.0/16"))
    found, moved = applied(TUNNEL, SetRequest(peers=[change]), WHERE)
    added = PeerSettings(STRANGER.public, (ip_network("10.5.0.0/16"),), PSK, keepalive=5.0, endpoint=("::1", 9))
    assert found.peers == (NAMED, CALLING, added)
    assert moved == {STRANGER.public: ("::1", 9)}


def test_update_only_adds_nobody_and_remove_removes() -> None:
    assert STRANGER.public not in peers(PeerChange(STRANGER.public, update_only=True, keepalive=5))
    assert peers(PeerChange(BOB.public, update_only=True, keepalive=5))[BOB.public].keepalive == 5.0
    assert list(peers(PeerChange(BOB.public, remove=True), PeerChange(STRANGER.public, remove=True))) == [CAROL.public]
    again = peers(PeerChange(CAROL.public, remove=True), PeerChange(CAROL.public))
    assert again[CAROL.public].allowed == ()


def test_a_preshared_key_is_replaced_or_taken_away_and_other_values_stay() -> None:
    assert bob(psk=b"q" * 32) == replace(NAMED, psk=b"q" * 32)
    assert bob(psk=NO_PSK) == replace(NAMED, psk=NO_PSK)
    assert bob(keepalive=0) == replace(NAMED, keepalive=0.0)


def test_allowed_ips_are_added_removed_and_replaced() -> None:
    first, second = map(str, NAMED.allowed)
    assert bob(allowed=networks("10.7.0.0/16", first)).allowed == (*NAMED.allowed, ip_network("10.7.0.0/16"))
    assert bob(allowed=networks(f"-{first}", "-10.99.0.0/16")).allowed == (ip_network(second),)
    assert bob(allowed=networks("10.7.0.0/16"), replace_allowed=True).allowed == (ip_network("10.7.0.0/16"),)
    assert bob(replace_allowed=True).allowed == ()
    assert bob(allowed=networks(first, second), replace_allowed=True).allowed is NAMED.allowed


def test_an_allowed_ip_is_refused_on_a_tap_device_and_other_changes_are_not() -> None:
    tap = Tunnel("tap3", ALICE, (PeerSettings(BOB.public, ()),), 55555, "udp", device="tap")
    with pytest.raises(ConfigurationError, match="AllowedIPs have no meaning on a TAP device"):
        peers(PeerChange(BOB.public, allowed=networks("10.7.0.0/16")), tunnel=tap)
    replaced = PeerChange(BOB.public, replace_allowed=True, keepalive=25)
    assert peers(replaced, PeerChange(CAROL.public), tunnel=tap) == {
        BOB.public: PeerSettings(BOB.public, (), keepalive=25.0),
        CAROL.public: PeerSettings(CAROL.public, ()),
    }


def test_an_allowed_ip_is_taken_from_the_peer_that_had_exactly_this_prefix() -> None:
    found = peers(PeerChange(CAROL.public, allowed=networks("10.0.0.0/24", "fd00::/63")))
    assert found[BOB.public].allowed == (ip_network("fd00::/64"),)
    assert found[CAROL.public].allowed == (*CALLING.allowed, ip_network("10.0.0.0/24"), ip_network("fd00::/63"))
    both = peers(
        PeerChange(CAROL.public, allowed=networks("10.0.0.0/24")),
        PeerChange(STRANGER.public, allowed=networks("10.0.0.0/24")),
    )
    assert both[CAROL.public] == CALLING
    assert both[STRANGER.public].allowed == (ip_network("10.0.0.0/24"),)
    assert peers(PeerChange(CAROL.public, allowed=networks("-10.0.0.0/24")))[BOB.public] == NAMED


# Endpoints


def test_a_called_peer_is_called_elsewhere_unless_its_name_has_the_address() -> None:
    assert bob(endpoint=KNOWN) == NAMED
    assert applied(TUNNEL, SetRequest(peers=[PeerChange(BOB.public, endpoint=KNOWN)]), WHERE)[1] == {}
    elsewhere = SetRequest(peers=[PeerChange(BOB.public, endpoint=("192.0.2.9", 9))])
    found, moved = applied(TUNNEL, elsewhere, WHERE)
    assert found.peers == (replace(NAMED, host="192.0.2.9", port=9), CALLING)
    assert moved == {BOB.public: ("192.0.2.9", 9)}
    assert applied(found, elsewhere, WHERE) == (found, moved), "it may have moved since"


def test_a_peer_that_calls_stays_one_and_is_sent_to_there() -> None:
    change = PeerChange(CAROL.public, endpoint=("192.0.2.9", 9))
    found, moved = applied(TUNNEL, SetRequest(peers=[change]), WHERE)
    assert found.peers == (NAMED, replace(CALLING, endpoint=("192.0.2.9", 9)))
    assert moved == {CAROL.public: ("192.0.2.9", 9)}
    assert applied(found, SetRequest(peers=[change]), WHERE) == (found, moved), "it may have moved since"


def test_a_peer_that_is_there_already_stays_as_it_is() -> None:
    request = SetRequest(peers=[PeerChange(CAROL.public, endpoint=CALLS_FROM)])
    assert applied(TUNNEL, request, WHERE) == (TUNNEL, {})
    request.replace_peers = True
    assert applied(TUNNEL, request, WHERE)[1] == {}


def test_an_endpoint_that_the_tunnel_itself_covers_is_refused() -> None:
    covering = replace(TUNNEL, routes=(ip_network("192.0.2.0/24"),))
    with pytest.raises(ConfigurationError, match="into the tunnel"):
        made(SetRequest(peers=[PeerChange(BOB.public, endpoint=("192.0.2.9", 9))]), covering)


# All peers replaced


def test_replaced_peers_keep_only_what_wg_does_not_know() -> None:
    found = peers(PeerChange(BOB.public, allowed=networks("10.0.0.0/24")), replace_peers=True)
    assert found == {BOB.public: PeerSettings(BOB.public, (ip_network("10.0.0.0/24"),), transport="auto", name="hub")}


def test_a_replaced_peer_of_a_tap_device_is_limited_to_its_mac_addresses_as_before() -> None:
    limited = PeerSettings(BOB.public, (), allowed_macs=(b"\x02abcde",))
    tap = Tunnel("tap3", ALICE, (limited,), 55555, "udp", device="tap")
    assert peers(PeerChange(BOB.public), replace_peers=True, tunnel=tap) == {BOB.public: limited}


@pytest.mark.parametrize(("place", "host"), [(KNOWN, ("hub.example.org", 1)), (("192.0.2.9", 9), ("192.0.2.9", 9))])
def test_a_replaced_peer_with_an_endpoint_is_still_called(place: Place, host: Place) -> None:
    found = peers(PeerChange(BOB.public, endpoint=place), replace_peers=True)[BOB.public]
    assert (found.host, found.port, found.name) == (*host, "hub")


# Shared keys


@pytest.fixture
def shared(tmp_path: Path) -> Tunnel:
    create_shared(tmp_path / "shared.key")
    return to_one_peer("tun3", "192.0.2.1", 1, "auto", shared_keys("client", tmp_path / "shared.key", "192.0.2.1"))


def test_derived_keys_stay(shared: Tunnel) -> None:
    [peer] = shared.peers
    for request in (
        SetRequest(private=ALICE.private),
        SetRequest(private=bytes(32)),
        SetRequest(peers=[PeerChange(peer.public, psk=PSK)]),
    ):
        with pytest.raises(CannotChange, match="derived from the shared key"):
            made(request, shared)


def test_everything_else_of_a_shared_keys_tunnel_may_change(shared: Tunnel) -> None:
    [peer] = shared.peers
    assert shared.identity is not None
    same = SetRequest(shared.identity.private, peers=[PeerChange(peer.public, psk=peer.psk, keepalive=3)])
    assert made(same, shared) == replace(shared, peers=(replace(peer, keepalive=3.0),))
    replaced = peers(PeerChange(peer.public, endpoint=KNOWN), replace_peers=True, tunnel=shared)[peer.public]
    assert (replaced.psk, replaced.is_vpntun, replaced.transport) == (peer.psk, True, "auto")


# Anything

KEYS = [ALICE, BOB, CAROL, STRANGER]
CHANGES = st.builds(
    PeerChange,
    st.sampled_from([keys.public for keys in KEYS]),
    st.booleans(),
    st.booleans(),
    st.none() | st.just(PSK),
    st.none() | st.just(("192.0.2.9", 9)),
    st.none() | st.integers(0, 65535),
    st.booleans(),
    st.dictionaries(st.sampled_from([ip_network(f"10.{n}.0.0/16") for n in range(4)]), st.booleans()),
)


@given(
    st.lists(
        st.builds(
            SetRequest,
            st.none() | st.sampled_from([bytes(32), *(keys.private for keys in KEYS)]),
            st.none() | st.integers(0, 65535),
            st.none() | st.integers(0, 0xFFFFFFFF),
            st.booleans(),
            st.lists(CHANGES, max_size=4),
        ),
        max_size=4,
    )
)
def test_after_any_requests_each_prefix_has_one_owner_and_nobody_has_this_ends_key(requests: list[SetRequest]) -> None:
    tunnel = replace(TUNNEL, peers=())
    for request in requests:
        tunnel, moved = applied(tunnel, request, Nowhere())
        publics = [peer.public for peer in tunnel.peers]
        allowed = [network for peer in tunnel.peers for network in peer.allowed]
        assert len(set(publics)) == len(publics)
        assert len(set(allowed)) == len(allowed)
        assert set(moved) <= set(publics)
        assert tunnel.identity is None or tunnel.identity.public not in publics
        assert tunnel.identity is None or tunnel.identity == KeyPair.of(tunnel.identity.private)
