"""Ancillary data: what is asked of the kernel for sent datagrams, and read of received ones, whatever it contains."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.carriers.test_udp_socket import LOCALHOST
from vpntun.carriers.ancillary import (
    IP_PKTINFO,
    IPV6_PKTINFO,
    SOL_UDP,
    UDP_GRO,
    received,
    segmented,
    sent_from,
    source_of,
    with_tos,
)
from vpntun.carriers.sockets import families

SOURCES = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
LEVELS = st.sampled_from([SOL_UDP, socket.IPPROTO_IP, socket.IPPROTO_IPV6]) | st.integers(0, 300)
KINDS = st.sampled_from([UDP_GRO, IP_PKTINFO, IPV6_PKTINFO, socket.IP_TOS, socket.IPV6_TCLASS]) | st.integers(0, 300)


@given(SOURCES)
def test_a_source_address_is_read_from_the_message_that_sets_it(source: bytes) -> None:
    assert source_of(sent_from(source)) == source
    assert source_of(()) == b""


@pytest.mark.parametrize("family", families())
def test_the_kernel_cuts_a_send_into_datagrams_with_a_tos_byte_and_tells_the_receiver(family: int) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as receiver, socket.socket(family, socket.SOCK_DGRAM) as sender:
        receiver.bind((LOCALHOST[family], 0))
        receiver.settimeout(5.0)
        if family == socket.AF_INET:
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            receiver.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        else:
            receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sender.sendmsg([b"x" * 250], [segmented(100), with_tos(family, 0x02)], 0, receiver.getsockname())
        for length in (100, 100, 50):
            datagram, messages, *_ = receiver.recvmsg(1000, 200)
            segment, local, ecn = received(messages)
            assert (len(datagram), segment, ecn) == (length, 0, 0x02)
            assert source_of(local) == socket.inet_pton(family, LOCALHOST[family])


def test_the_device_of_an_address_is_kept_for_link_local_ones_alone() -> None:
    device = struct.pack("=I", 3)
    for host, kept in (("fe80::1", device), ("2001:db8::1", bytes(4))):
        address = socket.inet_pton(socket.AF_INET6, host)
        _, local, _ = received([(socket.IPPROTO_IPV6, IPV6_PKTINFO, address + device)])
        assert local == sent_from(address, kept)


@given(st.lists(st.tuples(LEVELS, KINDS, st.binary(max_size=40)), max_size=4))
def test_whatever_is_received_is_read_or_ignored(messages: list[tuple[int, int, bytes]]) -> None:
    segment, local, ecn = received(messages)
    assert 0 <= segment < 1 << 32
    assert len(source_of(local)) in (0, 4, 16)
    assert 0 <= ecn <= 3
