"""Questions to the kernel and its lists, also while these change."""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.machine import no_more_descriptors
from tests.netconf.kernel import in_own_network
from vpntun.netconf.netlink import RTM_GETADDR, RTM_GETROUTE, Netlink, whole
from vpntun.netconf.rtnetlink import Interrupted, Message, Questions

MANY = 2000  # addresses: their list is longer than the kernel prepares ahead


def add(*numbers: int) -> None:
    lines = "".join(f"address add 10.{number >> 8}.{number & 255}.1/32 dev lo\n" for number in numbers)
    subprocess.run(["ip", "-batch", "-"], check=True, text=True, input=lines)


@pytest.fixture
def questions() -> Iterator[Questions]:
    opened = Questions()
    yield opened
    opened.close()


def test_the_loopback_device_has_its_number_and_a_device_that_does_not_exist_has_none(questions: Questions) -> None:
    assert questions.index_of("lo") == socket.if_nametoindex("lo")
    with pytest.raises(OSError, match="No such device"):
        questions.index_of("gone0")


def test_a_question_is_answered_or_refused_with_the_kernels_reason(questions: Questions) -> None:
    body, found = questions.ask(RTM_GETROUTE, bytes((2, 32)) + bytes(10), [(1, bytes((127, 0, 0, 1)))])
    assert (body[1], found[1]) == (32, bytes((127, 0, 0, 1)))
    with pytest.raises(OSError, match="out of range") as refused:
        questions.ask(RTM_GETROUTE, bytes((2, 32)) + bytes(10), [(1, bytes(3))])
    assert refused.value.errno == errno.ERANGE


def test_a_process_without_descriptors_can_still_ask(questions: Questions) -> None:
    with no_more_descriptors():
        assert questions.index_of("lo") > 0
        assert list(questions.dump(RTM_GETADDR, bytes(8)))


@in_own_network
def test_a_list_that_changes_while_it_is_read_is_known_to_and_the_rest_of_it_can_be_left_unread() -> None:
    questions = Questions()
    with Netlink() as netlink:
        add(*range(1, MANY))
        listed: Iterator[Message] = questions.dump(RTM_GETADDR, bytes(8))
        next(listed)
        assert sum(1 for _ in questions.dump(RTM_GETADDR, bytes(8))) == MANY - 1
        listed = questions.dump(RTM_GETADDR, bytes(8))
        next(listed)
        add(MANY)
        with pytest.raises(Interrupted):
            list(listed)
        assert len(netlink.addresses()) == MANY
    questions.close()


def test_a_list_that_changes_without_end_is_used_as_it_is() -> None:
    tries = 0

    def read() -> Iterator[int]:
        nonlocal tries
        tries += 1
        yield tries
        if tries < 3 or always:
            raise Interrupted(errno.EINTR, "")

    always = False
    assert whole(read) == [3]
    always = True
    assert len(whole(read)) == 1
    assert tries > 10
