"""Relay: bytes both ways between real sockets, the ends of directions, resets, slow receivers, and whom it wakes."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.forwards.sockets import Pair, has_ended, receive, tcp_pair, unix_pair, was_reset
from tests.machine import HandLoop, no_more_descriptors
from vpntun.forwards.pipes import PipePool
from vpntun.forwards.relay import MOST_PER_TURN, Relay, reset_at_close

KINDS = [(tcp_pair, tcp_pair), (unix_pair, tcp_pair), (tcp_pair, unix_pair), (unix_pair, unix_pair)]
NAMES = ["tcp-tcp", "unix-tcp", "tcp-unix", "unix-unix"]


class Relayed:
    """A relay, with the two ends that talk through it: `client` on the near side, `server` on the far one."""

    def __init__(self, loop: HandLoop, near: Pair, far: Pair) -> None:
        self.loop = loop
        self.client, near_end = near
        self.server, far_end = far
        self.pipes = PipePool()
        self.ended: list[Relay] = []
        self.relay = Relay(loop, near_end, far_end, self.pipes, self.ended.append)

    def close(self) -> None:
        self.relay.close()
        self.pipes.close()
        self.client.close()
        self.server.close()


@pytest.fixture(params=KINDS, ids=NAMES)
def relayed(request: pytest.FixtureRequest, loop: HandLoop, made: ExitStack) -> Relayed:
    """A relay between each two kinds of sockets."""
    near, far = request.param
    new = Relayed(loop, near(), far())
    made.callback(new.close)
    return new


@pytest.fixture
def over_tcp(loop: HandLoop, made: ExitStack) -> Relayed:
    new = Relayed(loop, tcp_pair(), tcp_pair())
    made.callback(new.close)
    return new


def fill(loop: HandLoop, end: socket.socket) -> int:
    """Send until nobody takes any more; return the number of bytes."""
    sent, quiet = 0, 0
    while quiet < 5:
        try:
            sent += end.send(bytes(65536))
            quiet = 0
        except BlockingIOError:
            quiet += 1
            loop.settle(0.01)
    return sent


def woken(loop: HandLoop, turns: int = 20) -> int:
    """The number of turns, of so many, in which some descriptor was ready."""
    count = 0
    for _ in range(turns):
        loop.poll(0.001)
        count += not loop.is_idle
    return count


def test_bytes_are_passed_on_both_ways_and_counted(relayed: Relayed) -> None:
    relayed.client.send(b"question")
    assert receive(relayed.loop, relayed.server, 8) == b"question"
    relayed.server.send(b"answer")
    assert receive(relayed.loop, relayed.client, 6) == b"answer"
    assert (relayed.relay.sent, relayed.relay.received) == (8, 6)


def test_bytes_that_came_before_the_relay_are_passed_on(loop: HandLoop, made: ExitStack) -> None:
    near, far = tcp_pair(), tcp_pair()
    near[0].send(b"early")
    near[0].shutdown(socket.SHUT_WR)
    new = Relayed(loop, near, far)
    made.callback(new.close)
    assert receive(loop, new.server, 5) == b"early"
    loop.until(lambda: has_ended(new.server))


def test_the_end_of_one_direction_is_carried_over_and_the_other_goes_on(relayed: Relayed) -> None:
    relayed.client.send(b"all")
    relayed.client.shutdown(socket.SHUT_WR)
    assert receive(relayed.loop, relayed.server, 3) == b"all"
    relayed.loop.until(lambda: has_ended(relayed.server), "for the end")
    relayed.server.send(b"late answer")
    assert receive(relayed.loop, relayed.client, 11) == b"late answer"
    assert relayed.ended == []
    relayed.server.close()
    relayed.loop.until(lambda: has_ended(relayed.client), "for the other end")
    relayed.loop.until(lambda: relayed.ended == [relayed.relay])


def test_a_half_closed_relay_lets_the_loop_sleep(relayed: Relayed) -> None:
    relayed.client.shutdown(socket.SHUT_WR)
    relayed.loop.until(lambda: has_ended(relayed.server))
    relayed.loop.settle()
    assert woken(relayed.loop) == 0


def test_a_relay_that_waits_for_a_slow_receiver_lets_the_loop_sleep(relayed: Relayed) -> None:
    sent = fill(relayed.loop, relayed.client)
    relayed.client.shutdown(socket.SHUT_WR)
    relayed.server.shutdown(socket.SHUT_WR)
    relayed.loop.until(lambda: has_ended(relayed.client))
    relayed.loop.settle()
    assert woken(relayed.loop) == 0
    assert receive(relayed.loop, relayed.server, sent) == bytes(sent)
    relayed.loop.until(lambda: relayed.ended == [relayed.relay])


def test_a_slow_receiver_holds_its_sender_back_and_only_a_pipe_of_bytes_waits_in_between(over_tcp: Relayed) -> None:
    for each, size in ((over_tcp.client, socket.SO_SNDBUF), (over_tcp.server, socket.SO_RCVBUF)):
        each.setsockopt(socket.SOL_SOCKET, size, 65536)
    fill(over_tcp.loop, over_tcp.client)
    moved = over_tcp.relay.sent
    over_tcp.loop.settle()
    assert over_tcp.relay.sent == moved
    over_tcp.server.send(b"other way")
    assert receive(over_tcp.loop, over_tcp.client, 9) == b"other way"


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_is_carried_over(over_tcp: Relayed, who: str) -> None:
    one = over_tcp.client if who == "client" else over_tcp.server
    other = over_tcp.server if who == "client" else over_tcp.client
    reset_at_close(one)
    one.close()
    over_tcp.loop.until(lambda: was_reset(other), "for the reset")
    assert over_tcp.ended == [over_tcp.relay]


@pytest.mark.parametrize("half_closed", [False, True])
def test_a_reset_is_carried_over_while_the_receiver_takes_no_more(over_tcp: Relayed, half_closed: bool) -> None:
    fill(over_tcp.loop, over_tcp.client)
    if half_closed:
        over_tcp.server.shutdown(socket.SHUT_WR)
        over_tcp.loop.settle()
    reset_at_close(over_tcp.client)
    over_tcp.client.close()
    over_tcp.loop.until(lambda: over_tcp.ended, "for the reset")


def test_a_reset_of_a_receiver_that_was_told_the_end_is_carried_over(over_tcp: Relayed) -> None:
    over_tcp.client.shutdown(socket.SHUT_WR)
    over_tcp.loop.until(lambda: has_ended(over_tcp.server))
    reset_at_close(over_tcp.server)
    over_tcp.server.close()
    over_tcp.loop.until(lambda: was_reset(over_tcp.client))


def test_a_unix_client_that_leaves_resets_a_server_that_goes_on_sending(loop: HandLoop, made: ExitStack) -> None:
    new = Relayed(loop, unix_pair(), tcp_pair())
    made.callback(new.close)
    new.client.close()

    def was_refused() -> bool:
        try:
            new.server.send(b"more")
        except OSError:
            return True
        return False

    loop.until(was_refused)
    assert new.ended == [new.relay]


def test_closing_resets_both_ends_and_calls_nobody(over_tcp: Relayed) -> None:
    over_tcp.relay.close()
    over_tcp.relay.close()
    over_tcp.loop.until(lambda: was_reset(over_tcp.client))
    over_tcp.loop.until(lambda: was_reset(over_tcp.server))
    assert over_tcp.ended == []


def test_bulk_leaves_the_loop_to_others_after_a_bounded_number_of_bytes(over_tcp: Relayed) -> None:
    for end in (over_tcp.client, over_tcp.server):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    with suppress(BlockingIOError):
        while True:
            over_tcp.client.send(bytes(65536))
    moved = over_tcp.relay.sent
    over_tcp.loop.poll(0.01)
    assert 0 < over_tcp.relay.sent - moved <= 2 * MOST_PER_TURN


def test_pipes_are_taken_only_while_bytes_wait(relayed: Relayed) -> None:
    relayed.client.send(b"a")
    receive(relayed.loop, relayed.server, 1)
    idle = len(os.listdir("/proc/self/fd"))
    fill(relayed.loop, relayed.client)
    assert len(os.listdir("/proc/self/fd")) == idle
    fill(relayed.loop, relayed.server)
    assert len(os.listdir("/proc/self/fd")) == idle + 2


def test_where_no_pipe_can_be_made_the_connections_are_reset(over_tcp: Relayed) -> None:
    with no_more_descriptors():
        over_tcp.client.send(b"a")
        over_tcp.loop.until(lambda: over_tcp.ended)
    over_tcp.loop.until(lambda: was_reset(over_tcp.server))


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["client sends", "server sends", "client reads", "server reads", "client ends", "server ends"]),
        st.integers(1, 300_000),
    ),
    max_size=12,
)


@settings(max_examples=30)
@given(kind=st.sampled_from(KINDS), steps=STEPS)
def test_whatever_is_sent_arrives_whole_in_whatever_order_it_is_read(
    kind: tuple[Callable[[], Pair], Callable[[], Pair]], steps: list[Step]
) -> None:
    loop = HandLoop()
    relayed = Relayed(loop, kind[0](), kind[1]())
    ends = {"client": relayed.client, "server": relayed.server}
    other = {"client": "server", "server": "client"}
    sent = {name: bytearray() for name in ends}
    got = {name: bytearray() for name in ends}
    ended: set[str] = set()

    def read(name: str, size: int) -> bool:
        """Read some; return whether the other end has ended."""
        try:
            piece = ends[name].recv(size)
        except BlockingIOError:
            return False
        got[name] += piece
        return not piece

    for step, size in steps:
        who, what = step.split()
        if what == "reads":
            read(who, size)
        elif what == "ends" and who not in ended:
            ended.add(who)
            ends[who].shutdown(socket.SHUT_WR)
        elif who not in ended:
            with suppress(BlockingIOError):
                piece = os.urandom(size)
                sent[who] += piece[: ends[who].send(piece)]
        loop.poll()
    for name in ends:
        if name not in ended:
            ends[name].shutdown(socket.SHUT_WR)
    over: set[str] = set()

    def is_over() -> bool:
        over.update(name for name in ends if name not in over and read(name, 1 << 20))
        return len(over) == 2

    loop.until(is_over, "for the ends")
    assert {name: got[other[name]] == sent[name] for name in ends} == {"client": True, "server": True}
    assert (relayed.relay.sent, relayed.relay.received) == (len(sent["client"]), len(sent["server"]))
    assert relayed.ended == [relayed.relay]
    relayed.close()
    loop.close()
