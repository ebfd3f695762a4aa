"""SOCKS5's messages: layout by RFC 1928, messages that arrive in parts, and nonsense, which raises only BadPacket."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.errors import BadPacket
from vpntun.socks.messages import (
    CONNECT,
    NO_METHOD,
    REFUSED,
    UDP_ASSOCIATE,
    Datagram,
    Request,
    UnknownAddressType,
    choice_of,
    methods_of,
    reply_of,
    size_of_greeting,
    size_of_request,
)
from vpntun.types import Place

ports = st.integers(0, 65535)
addresses = st.ip_addresses().map(str)
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=254).map("h".__add__)


def address_of(place: Place) -> bytes:
    """Write an address as RFC 1928 does, section 5."""
    host, port = place
    try:
        address = ip_address(host)
    except ValueError:
        return b"\x03" + bytes([len(host)]) + host.encode() + port.to_bytes(2, "big")
    return (b"\x01" if address.version == 4 else b"\x04") + address.packed + port.to_bytes(2, "big")


def read(stream: bytes, size_of: Callable[[bytes], int]) -> bytes:
    """Read a message off a stream as the program does: never more than is known to belong to it."""
    message = b""
    while (wanted := size_of(message)) > len(message):
        assert wanted <= len(stream), "a byte was asked for that does not belong to the message"
        message = stream[:wanted]
    return message


def test_the_fields_are_where_rfc_1928_puts_them() -> None:
    assert methods_of(b"\x05\x02\x00\x02") == b"\x00\x02"
    assert choice_of(NO_METHOD) == b"\x05\xff"
    assert Request.parse(b"\x05\x01\x00\x01\x0a\x00\x00\x07\x01\xbb") == Request(CONNECT, ("10.0.0.7", 443))
    assert Request.parse(b"\x05\x01\x00\x03\x04desk\x00\x16") == Request(CONNECT, ("desk", 22))
    assert Request.parse(b"\x05\x03\x00\x04" + bytes(15) + b"\x01\x00\x35") == Request(UDP_ASSOCIATE, ("::1", 53))
    assert reply_of(REFUSED) == b"\x05\x05\x00\x01" + bytes(6)
    assert reply_of(0, ("fe80::1%lo", 258)) == b"\x05\x00\x00\x04\xfe\x80" + bytes(13) + b"\x01\x01\x02"
    assert Datagram.parse(b"\0\0\0\x03\x02ns\x00\x35hello") == Datagram(("ns", 53), b"hello")
    assert Datagram(("10.0.0.7", 53), b"hello").pack() == b"\0\0\0\x01\x0a\x00\x00\x07\x00\x35hello"


@given(st.binary(max_size=255), st.binary(max_size=20))
def test_a_greeting_is_read_to_its_last_byte_and_no_further(methods: bytes, behind: bytes) -> None:
    greeting = b"\x05" + bytes([len(methods)]) + methods
    assert read(greeting + behind, size_of_greeting) == greeting
    assert methods_of(greeting) == methods


@given(st.integers(0, 255), st.integers(0, 255), addresses | names, ports, st.binary(max_size=20))
def test_a_request_is_read_to_its_last_byte_and_no_further(
    command: int, reserved: int, host: str, port: int, behind: bytes
) -> None:
    message = bytes([5, command, reserved]) + address_of((host, port))
    assert read(message + behind, size_of_request) == message
    parsed = Request.parse(message)
    assert (parsed.command, parsed.destination[1]) == (command, port)
    assert parsed.destination[0] == host


@given(addresses, ports, st.binary(max_size=50))
def test_a_datagram_is_parsed_as_it_was_packed(host: str, port: int, data: bytes) -> None:
    assert Datagram.parse(Datagram((host, port), data).pack()) == Datagram((host, port), data)


@given(names, ports, st.binary(max_size=50))
def test_a_datagram_may_be_for_a_name(name: str, port: int, data: bytes) -> None:
    assert Datagram.parse(b"\0\0\0" + address_of((name, port)) + data) == Datagram((name, port), data)


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x05", b"\x05\x01\x00\x03", b"\0\0\0\x03", b"\0\0\0\x01"]))
def test_no_bytes_raise_anything_but_bad_packet(noise: bytes, begin: bytes) -> None:
    for parse in (size_of_greeting, size_of_request, methods_of, Request.parse, Datagram.parse):
        with suppress(BadPacket):
            parse(begin + noise)


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\n", b"\x04\x01\x00\x50\x0a\x00\x00\x01\x00", b"\x16\x03\x01"])
def test_another_protocol_is_known_by_its_first_byte(begin: bytes) -> None:
    for size_of in (size_of_greeting, size_of_request):
        with pytest.raises(BadPacket, match="no SOCKS5"):
            size_of(begin[:1])


@pytest.mark.parametrize("kind", [0, 2, 5, 255])
def test_an_unknown_type_of_address_is_told_apart(kind: int) -> None:
    with pytest.raises(UnknownAddressType):
        size_of_request(bytes([5, 1, 0, kind, 1]))
    with pytest.raises(UnknownAddressType):
        Datagram.parse(bytes([0, 0, 0, kind]) + bytes(20))


@pytest.mark.parametrize("name", [b"", b"a b", b"a\x00b", b"caf\xc3\xa9", b"a\n", b"\x1b[2J"])
def test_a_name_is_of_visible_letters(name: bytes) -> None:
    address = b"\x03" + bytes([len(name)]) + name + b"\x00\x50"
    with pytest.raises(BadPacket, match="bad request"):
        Request.parse(b"\x05\x01\x00" + address)
    with pytest.raises(BadPacket, match="bad datagram"):
        Datagram.parse(b"\0\0\0" + address)


@pytest.mark.parametrize("fragment", [1, 127, 128, 255])
def test_a_fragment_is_refused(fragment: int) -> None:
    with pytest.raises(BadPacket, match="fragment"):
        Datagram.parse(bytes([0, 0, fragment]) + address_of(("10.0.0.7", 53)) + b"hello")
