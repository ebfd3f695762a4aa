"""What a request to WireGuard's configuration protocol may say."""

from __future__ import annotations

import errno
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.datapath.ends import ALICE, BOB, CAROL, PSK
from vpntun.types import Network
from vpntun.uapi.request import BadRequest, PeerChange, RequestParser, SetRequest

PEER = f"public_key={BOB.public.hex()}"


def parsed(*lines: str) -> SetRequest | BadRequest | None:
    parser = RequestParser()
    for line in lines:
        parser.take(line.encode("latin-1"))
    return parser.result()


def of_peer(*lines: str) -> PeerChange | BadRequest:
    request = parsed("set=1", PEER, *lines)
    if isinstance(request, SetRequest):
        [peer] = request.peers
        return peer
    assert request is not None
    return request


def network(text: str) -> Network:
    return ip_network(text)


def test_a_get_request_is_one_line() -> None:
    assert parsed("get=1") is None
    assert isinstance(parsed("get=1", "get=1"), BadRequest)


def test_every_key_is_taken() -> None:
    assert parsed(
        "set=1",
        f"private_key={ALICE.private.hex()}",
        "listen_port=55555",
        "fwmark=4294967295",
        "replace_peers=true",
        PEER,
        "update_only=true",
        f"preshared_key={PSK.hex()}",
        "endpoint=[fe80::1%eth0]:51820",
        "persistent_keepalive_interval=25",
        "replace_allowed_ips=true",
        "allowed_ip=10.0.0.1/8",
        "allowed_ip=fd00::1/64",
        "allowed_ip=-192.0.2.0/24",
        "protocol_version=1",
        f"public_key={CAROL.public.hex()}",
        "remove=true",
    ) == SetRequest(
        ALICE.private,
        55555,
        0xFFFFFFFF,
        True,
        [
            PeerChange(
                BOB.public,
                update_only=True,
                psk=PSK,
                endpoint=("fe80::1%eth0", 51820),
                keepalive=25,
                replace_allowed=True,
                allowed={network("10.0.0.0/8"): True, network("fd00::/64"): True, network("192.0.2.0/24"): False},
            ),
            PeerChange(CAROL.public, remove=True),
        ],
    )


def test_a_request_may_change_nothing() -> None:
    assert parsed("set=1") == SetRequest()


def test_the_last_line_about_a_value_counts() -> None:
    again = of_peer(
        "allowed_ip=10.0.0.0/8", "replace_allowed_ips=true", "allowed_ip=10.1.0.0/16", "allowed_ip=-10.1.0.0/16"
    )
    assert again == PeerChange(BOB.public, replace_allowed=True, allowed={network("10.1.0.0/16"): False})
    assert parsed("set=1", "listen_port=1", "listen_port=2") == SetRequest(port=2)


@pytest.mark.parametrize(
    "line",
    [
        "private_key=",
        f"private_key={ALICE.private.hex()[:-1]}",
        f"private_key={ALICE.private.hex()[:-2]}  ",
        "listen_port=65536",
        "listen_port=-1",
        "listen_port=+1",
        "listen_port= 1",
        "listen_port=0x1",
        "listen_port=",
        "listen_port=00000000001",
        "listen_port=\xb2",
        "fwmark=4294967296",
        "replace_peers=false",
        "allowed_ip=10.0.0.0/8",
        "errno=0",
        "=",
    ],
)
def test_what_cannot_be_set_of_this_end_is_refused(line: str) -> None:
    bad = parsed("set=1", line)
    assert isinstance(bad, BadRequest)
    assert bad.number == (errno.EPROTO if "\xb2" in line else errno.EINVAL)


@pytest.mark.parametrize(
    "line",
    [
        "listen_port=1",
        "remove=1",
        "update_only=false",
        "replace_allowed_ips=yes",
        "preshared_key=00",
        "protocol_version=2",
        "persistent_keepalive_interval=65536",
        "persistent_keepalive_interval=off",
        "endpoint=192.0.2.1",
        "endpoint=192.0.2.1:0",
        "endpoint=192.0.2.1:65536",
        "endpoint=192.0.2.1%eth0:1",
        "endpoint=2001:db8::1:1",
        "endpoint=[2001:db8::1]",
        "endpoint=[192.0.2.1]:1",
        "endpoint=[fe80::1%]:1",
        "endpoint=vpn.example.org:1",
        "endpoint=:1",
        "allowed_ip=10.0.0.0",
        "allowed_ip=10.0.0.0/33",
        "allowed_ip=10.0.0/8",
        "allowed_ip=fd00::/129",
        "allowed_ip=fe80::%eth0/64",
        "allowed_ip=--10.0.0.0/8",
        "allowed_ip=/8",
        "allowed_ip=",
    ],
)
def test_what_cannot_be_set_of_a_peer_is_refused(line: str) -> None:
    bad = of_peer(line)
    assert isinstance(bad, BadRequest)
    assert bad.number == errno.EINVAL


def test_the_first_bad_line_decides_and_no_value_is_shown() -> None:
    bad = parsed("set=1", "private_key=secret", "no equals sign")
    assert isinstance(bad, BadRequest)
    assert (bad.number, str(bad)) == (errno.EINVAL, "private_key is not a key in hexadecimal")


NAMES = ["private_key", "listen_port", "fwmark", "replace_peers", "public_key", "remove", "preshared_key", "endpoint"]
VALUES = ["true", "1", BOB.public.hex(), "0" * 64, "192.0.2.1:1", "[::1]:1", "10.0.0.0/8", "-::/0", "", "-"]
LINES = st.binary(max_size=80) | st.builds(
    lambda name, value: f"{name}={value}".encode(),
    st.sampled_from([*NAMES, "update_only", "persistent_keepalive_interval", "replace_allowed_ips", "allowed_ip"]),
    st.sampled_from(VALUES) | st.text(max_size=20),
)


@given(st.sampled_from([b"set=1", b"get=1", b""]), st.lists(LINES, max_size=20))
def test_arbitrary_lines_give_a_request_or_what_is_wrong_with_it(first: bytes, lines: list[bytes]) -> None:
    parser = RequestParser()
    for line in (first, *lines):
        parser.take(line)
    result = parser.result()
    if isinstance(result, SetRequest):
        assert result.port is None or 0 <= result.port <= 0xFFFF
        assert all(len(peer.public) == 32 for peer in result.peers)
    else:
        assert result is None or result.number in (errno.EINVAL, errno.EPROTO)
