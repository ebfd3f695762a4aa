"""One configured peer: what it is unless the operator says otherwise, and how its networks are written."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from vpntun.config.peer import NO_PSK, PeerSettings
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
