"""The UDP carrier: its sockets, the endpoints that it makes, and what it tells the engine."""

from __future__ import annotations

import socket

import pytest

from tests.carriers.user import RecordingUser
from tests.machine import HandLoop
from vpntun.carriers.base import ConnectionOwner
from vpntun.carriers.sockets import families
from vpntun.carriers.udp import UdpCarrier

HERE = ("127.0.0.1", 4242)
SIX = ("::1", 4242, 0, 0)


@pytest.fixture
def carrier(loop: HandLoop) -> UdpCarrier:
    return UdpCarrier(loop, 0, answers_from_where_asked=False, versions=[socket.AF_INET])


def test_a_candidate_is_an_endpoint_of_the_socket_with_its_ip_version(carrier: UdpCarrier) -> None:
    endpoint = carrier.candidate(HERE)
    assert endpoint is not None
    assert (endpoint.carrier, endpoint.address, endpoint.is_stream) == ("udp", HERE, False)
    assert carrier.candidate(SIX) is None
    carrier.close()


def test_without_sockets_nobody_can_be_called(loop: HandLoop) -> None:
    carrier = UdpCarrier(loop, 0, answers_from_where_asked=False, versions=())
    assert not carrier.can_call
    assert carrier.candidate(HERE) is None
    carrier.close()


def test_there_is_a_socket_for_each_ip_version_unless_versions_are_given(loop: HandLoop) -> None:
    carrier = UdpCarrier(loop, 0, answers_from_where_asked=False)
    assert list(carrier.sockets) == families()
    carrier.close()


def test_datagrams_are_handed_to_the_user_from_the_start_on(carrier: UdpCarrier, loop: HandLoop) -> None:
    user = RecordingUser()
    udp = carrier.sockets[socket.AF_INET]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        to_other = carrier.candidate(other.getsockname())
        assert to_other is not None
        to_other.send([memoryview(b"there")])
        other.settimeout(5)
        assert other.recv(10) == b"there"
        carrier.start(user)
        other.sendto(b"back", ("127.0.0.1", udp.port))
        loop.until(lambda: user.received, "for the datagram")
    assert user.received == [b"back"]
    carrier.close()


def test_the_user_learns_when_a_socket_accepts_data_again(carrier: UdpCarrier, loop: HandLoop) -> None:
    user = RecordingUser()
    carrier.start(user)
    udp = carrier.sockets[socket.AF_INET]
    endpoint = udp.endpoint(HERE)
    udp.held.append(([memoryview(b"late")], 0, endpoint, None))
    assert not endpoint.ready()
    loop.await_writable(udp.fileno(), True)
    loop.until(lambda: user.can_send_again, "for the socket to be writable")
    assert user.can_send_again == [None]
    assert endpoint.ready()
    carrier.close()


def test_a_dial_fails_since_udp_has_no_connections(carrier: UdpCarrier) -> None:
    answers: list[object] = []
    carrier.dial(carrier.sockets[socket.AF_INET].endpoint(HERE), ConnectionOwner(), answers.append)
    assert answers == [None]
    carrier.close()
