"""One configured peer: what it is unless the operator says otherwise, and how its networks are written."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.datapath.ends import ALICE, BOB, CAROL
from vpntun.config.peer import MOST_LISTED, NO_PSK, PeerSettings, find_peer
from vpntun.crypto.keys import format_key, shortened
from vpntun.errors import AmbiguousPeer, NoSuchPeer
from vpntun.types import Network

PUBLIC = b"p" * 32
networks = st.one_of(
    st.builds(lambda n, p: ip_network((n, p), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)),
    st.builds(lambda n, p: ip_network((n, p), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128)),
)


def test_a_peer_is_a_plain_wireguard_that_calls_unless_it_is_said_otherwise() -> None:
    peer = PeerSettings(PUBLIC, ())
    assert (peer.host, peer.transport, peer.keepalive, peer.is_vpntun) == (None, "udp", 0, False)
    assert peer.psk == NO_PSK == bytes(32)


@given(st.lists(networks, max_size=5))
def test_its_networks_are_written_as_python_writes_them(allowed: list[Network]) -> None:
    written = PeerSettings(PUBLIC, tuple(allowed)).allowed_as_text
    assert [ip_network(each) for each in written] == allowed
    for network, text in zip(allowed, written, strict=True):
        if getattr(network.network_address, "ipv4_mapped", None) is None and network.version == 4:
            assert text == str(network)


def test_its_secret_is_not_printed() -> None:
    assert "secret" not in repr(PeerSettings(PUBLIC, (), psk=b"secret".ljust(32, b"!")))


OFFICE = PeerSettings(ALICE.public, (), name="office")
UNNAMED = PeerSettings(BOB.public, ())
PEERS = [OFFICE, UNNAMED]


@pytest.mark.parametrize(
    ("called", "found"),
    [
        ("office", OFFICE),
        (format_key(ALICE.public), OFFICE),
        (format_key(BOB.public), UNNAMED),
        (format_key(BOB.public)[:8], UNNAMED),
        (f"peer {shortened(format_key(BOB.public))}", UNNAMED),
    ],
)
def test_a_peer_is_found_by_its_name_its_key_or_the_beginning_of_its_key(called: str, found: PeerSettings) -> None:
    assert find_peer(PEERS, called) is found


def test_the_only_peer_needs_no_name() -> None:
    assert find_peer([UNNAMED], None) is UNNAMED


def test_a_name_counts_more_than_the_beginning_of_another_peers_key() -> None:
    named = PeerSettings(ALICE.public, (), name=format_key(BOB.public)[:8])
    assert find_peer([UNNAMED, named], named.name) is named


@pytest.mark.parametrize("called", ["offic", "nobody", "", "peer ", "peer office", format_key(CAROL.public)])
def test_an_unknown_peer_is_refused_with_a_list_of_the_peers(called: str) -> None:
    with pytest.raises(NoSuchPeer) as caught:
        find_peer(PEERS, called)
    assert str(caught.value).endswith(f": office ({format_key(ALICE.public)}), {format_key(BOB.public)}")


def test_a_tunnel_without_peers_says_so() -> None:
    with pytest.raises(NoSuchPeer, match="has no peers"):
        find_peer([], None)


def test_several_matching_peers_are_listed_with_their_keys() -> None:
    other = PeerSettings(CAROL.public, (), name="office")
    with pytest.raises(AmbiguousPeer) as caught:
        find_peer([OFFICE, UNNAMED, other], "office")
    assert format_key(ALICE.public) in str(caught.value)
    assert format_key(CAROL.public) in str(caught.value)
    assert format_key(BOB.public) not in str(caught.value)
    with pytest.raises(AmbiguousPeer):
        find_peer(PEERS, None)


def test_a_beginning_that_two_keys_share_is_refused() -> None:
    twins = [PeerSettings(bytes([0, 0, number]) + bytes(29), ()) for number in (1, 2)]
    with pytest.raises(AmbiguousPeer):
        find_peer(twins, "AA")
    assert find_peer(twins, "AAAC") is twins[1]


def test_ten_of_a_thousand_peers_are_listed() -> None:
    many = [PeerSettings(number.to_bytes(32, "little"), (), name=f"n{number}") for number in range(1000)]
    with pytest.raises(NoSuchPeer, match=f"and {1000 - MOST_LISTED} more$"):
        find_peer(many, "nobody")
