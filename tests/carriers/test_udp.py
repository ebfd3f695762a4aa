"""The UDP carrier: its sockets, the endpoints that it makes, and what it tells the engine."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from contextlib import ExitStack

import pytest

from tests.carriers.test_sockets import MARK, mark_of
from tests.carriers.test_udp_socket import free_port
from tests.carriers.user import RecordingUser
from tests.machine import HandLoop, needs_root, no_more_descriptors
from vpntun.carriers.base import ConnectionOwner
from vpntun.carriers.sockets import families
from vpntun.carriers.udp import MOST_FORMER, SECONDS_BETWEEN, UdpCarrier
from vpntun.core.endpoint import Endpoint, Outcome
from vpntun.errors import PortInUse

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
    udp.held.append(([memoryview(b"late")], 0, endpoint, None, 0))
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


# Fresh ports


def started(
    loop: HandLoop, port: int = 0, *, serving: bool = False, versions: Iterable[int] | None = None
) -> UdpCarrier:
    """A carrier that has just been started."""
    carrier = UdpCarrier(
        loop, port, answers_from_where_asked=serving, versions=[socket.AF_INET] if versions is None else versions
    )
    carrier.start(RecordingUser())
    return carrier


def renewed(carrier: UdpCarrier, loop: HandLoop, *in_use: Endpoint) -> bool:
    loop.pass_time(SECONDS_BETWEEN)
    return carrier.renew(in_use)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def port_seen(endpoint: Endpoint | None, other: socket.socket) -> int:
    """Return the port from which a datagram to this endpoint arrives at the other socket."""
    assert endpoint is not None
    assert endpoint.send([memoryview(b"x")]) is Outcome.SENT
    return int(other.recvfrom(10)[1][1])


def test_later_candidates_are_called_from_a_fresh_port_and_endpoints_in_use_keep_theirs(loop: HandLoop) -> None:
    carrier = started(loop)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(5)
        in_use = carrier.candidate(other.getsockname())
        assert in_use is not None
        ports = [port_seen(in_use, other)]
        for _ in range(4):
            assert renewed(carrier, loop, in_use)
            candidate = carrier.candidate(other.getsockname())
            assert candidate == in_use
            ports.append(port_seen(candidate, other))
            assert port_seen(in_use, other) == ports[0]
        assert len(set(ports)) == 5
    carrier.close()


def test_a_former_port_receives_until_another_has_followed_and_for_as_long_as_it_is_in_use(loop: HandLoop) -> None:
    carrier, user = UdpCarrier(loop, 0, answers_from_where_asked=False, versions=[socket.AF_INET]), RecordingUser()
    carrier.start(user)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(5)
        in_use = carrier.candidate(other.getsockname())
        assert in_use is not None
        first = port_seen(in_use, other)
        assert renewed(carrier, loop, in_use)
        second = port_seen(carrier.candidate(other.getsockname()), other)
        assert renewed(carrier, loop, in_use)
        before = descriptors()
        for port in (first, second):
            other.sendto(b"%d" % port, ("127.0.0.1", port))
        loop.until(lambda: len(user.received) == 2, "for both")
        assert renewed(carrier, loop, in_use)
        assert descriptors() == before, "the second port is closed"
        assert renewed(carrier, loop)
        assert renewed(carrier, loop)
        assert descriptors() == before - 1, "the first port is closed"
    carrier.close()


def test_fresh_ports_are_opened_for_every_ip_version(loop: HandLoop) -> None:
    carrier = UdpCarrier(loop, 0, answers_from_where_asked=False)
    carrier.start(RecordingUser())
    former = dict(carrier.sockets)
    assert renewed(carrier, loop)
    assert list(carrier.sockets) == list(former)
    assert not set(carrier.sockets.values()) & set(former.values())
    carrier.close()


def test_the_user_is_told_what_became_of_held_datagrams(loop: HandLoop) -> None:
    carrier, user = UdpCarrier(loop, 0, answers_from_where_asked=False, versions=[socket.AF_INET]), RecordingUser()
    carrier.start(user)
    udp = carrier.sockets[socket.AF_INET]
    udp.held.append(([memoryview(bytes(65508))], 0, udp.endpoint(HERE), True, 0))
    loop.await_writable(udp.fileno(), True)
    loop.poll()
    assert user.held_sent_later == [("127.0.0.1:4242", Outcome.TOO_BIG, 1, 65508)]
    assert user.can_send_again == [None]
    carrier.close()


@needs_root
def test_a_fresh_port_has_the_mark_that_was_set_last(loop: HandLoop) -> None:
    carrier = started(loop)
    carrier.set_mark(MARK)
    assert renewed(carrier, loop)
    assert mark_of(carrier.sockets[socket.AF_INET].fileno()) == MARK
    carrier.close()


def test_no_descriptor_is_left_open_if_a_fresh_port_cannot_be_watched(
    loop: HandLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrier = started(loop)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(loop, "watch", refuse)
    before = descriptors()
    assert not renewed(carrier, loop)
    assert descriptors() == before
    carrier.close()


@pytest.mark.parametrize("serving", [False, True])
def test_a_port_that_was_asked_for_or_that_peers_call_is_kept(loop: HandLoop, serving: bool) -> None:
    carrier = started(loop, 0 if serving else free_port(socket.AF_INET), serving=serving)
    kept = carrier.sockets[socket.AF_INET]
    assert not renewed(carrier, loop)
    assert carrier.sockets == {socket.AF_INET: kept}
    carrier.close()


def test_peers_that_search_at_the_same_time_share_a_fresh_port(loop: HandLoop) -> None:
    carrier = started(loop)
    assert renewed(carrier, loop)
    shared = carrier.sockets[socket.AF_INET]
    loop.pass_time(SECONDS_BETWEEN - 0.1)
    assert not carrier.renew([])
    assert carrier.sockets == {socket.AF_INET: shared}
    carrier.close()


def test_without_descriptors_the_port_is_kept_and_nothing_is_left_behind(loop: HandLoop) -> None:
    carrier = started(loop)
    before = descriptors()
    with no_more_descriptors():
        assert not renewed(carrier, loop)
    assert carrier.renew([])
    assert descriptors() == before + 1
    carrier.close()


def test_the_ports_in_use_by_many_peers_are_bounded(loop: HandLoop) -> None:
    carrier = started(loop)
    before, in_use = descriptors(), []
    for _ in range(100):
        endpoint = carrier.candidate(HERE)
        assert endpoint is not None
        in_use.append(endpoint)
        renewed(carrier, loop, *in_use)
    assert descriptors() - before == MOST_FORMER + 1
    carrier.close()
    assert descriptors() == before - 1


# Another port


def test_after_a_change_every_datagram_leaves_from_the_new_port_and_the_old_one_is_free(loop: HandLoop) -> None:
    first, second = free_port(socket.AF_INET), free_port(socket.AF_INET)
    carrier, user = UdpCarrier(loop, first, answers_from_where_asked=True, versions=[socket.AF_INET]), RecordingUser()
    carrier.start(user)
    before = descriptors()
    with ExitStack() as stack, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(5)
        change = carrier.prepare_port(second, stack, can_be_called=True)
        assert port_seen(carrier.candidate(other.getsockname()), other) == first
        change()
        stack.pop_all()
        assert port_seen(carrier.candidate(other.getsockname()), other) == carrier.port == second
        other.sendto(b"hello", ("127.0.0.1", second))
        loop.until(lambda: user.received == [b"hello"])
        UdpCarrier(loop, first, answers_from_where_asked=True, versions=[socket.AF_INET]).close()
    assert descriptors() == before
    carrier.close()


def test_the_port_that_the_kernel_has_chosen_stays_once_it_is_asked_for(loop: HandLoop) -> None:
    carrier = started(loop)
    kept = carrier.sockets[socket.AF_INET]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other, ExitStack() as stack:
        other.bind(("127.0.0.1", 0))
        other.settimeout(5)
        port = port_seen(carrier.candidate(other.getsockname()), other)
        carrier.prepare_port(port, stack, can_be_called=True)()
        assert port_seen(carrier.candidate(other.getsockname()), other) == carrier.port == port
        other.sendto(b"hello", ("127.0.0.1", port))
        [arrival] = kept.receive()
        assert arrival[3].flow.source == socket.inet_aton("127.0.0.1"), "answers leave from where the peer has sent to"
    assert carrier.sockets == {socket.AF_INET: kept}
    assert not renewed(carrier, loop)
    carrier.close()


def test_a_socket_on_any_port_stays_if_peers_may_not_call_there_any_more(loop: HandLoop) -> None:
    carrier = started(loop, serving=True)
    kept = carrier.sockets[socket.AF_INET]
    with ExitStack() as stack:
        carrier.prepare_port(0, stack, can_be_called=False)()
    assert carrier.sockets == {socket.AF_INET: kept}
    assert renewed(carrier, loop)
    carrier.close()


def test_the_socket_of_the_other_ip_version_follows_to_the_port_that_the_kernel_has_chosen(loop: HandLoop) -> None:
    carrier = UdpCarrier(loop, 0, answers_from_where_asked=False)
    carrier.start(RecordingUser())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other, ExitStack() as stack:
        other.bind(("127.0.0.1", 0))
        other.settimeout(5)
        port = port_seen(carrier.candidate(other.getsockname()), other)
        carrier.prepare_port(port, stack, can_be_called=True)()
        stack.pop_all()
    assert list(carrier.sockets) == families()
    assert {udp.port for udp in carrier.sockets.values()} == {port}
    carrier.close()


def test_a_port_that_is_not_wanted_after_all_or_is_taken_changes_nothing(loop: HandLoop) -> None:
    carrier = started(loop)
    before = descriptors()
    with ExitStack() as stack:
        carrier.prepare_port(free_port(socket.AF_INET), stack, can_be_called=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other, ExitStack() as stack:
        other.bind(("", 0))
        with pytest.raises(PortInUse):
            carrier.prepare_port(other.getsockname()[1], stack, can_be_called=True)
    assert descriptors() == before
    assert renewed(carrier, loop), "its port is still any"
    carrier.close()
