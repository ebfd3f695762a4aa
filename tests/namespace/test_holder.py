"""The holder as its parent asks it; the test plays the child, or forks a real one where there is a right to."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from tests.machine import HandLoop, logged
from vpntun.errors import DeviceError
from vpntun.namespace import holder as module
from vpntun.namespace.holder import Holder
from vpntun.namespace.messages import Channel


class Child:
    """The child's end of the channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def answer(self, request: int, *descriptors: int, **content: object) -> None:
        self._channel.send({"request": request, **content}, descriptors)

    def end(self) -> None:
        self._channel.close()


@pytest.fixture
def ends(loop: HandLoop) -> Iterator[tuple[Holder, Child, list[str]]]:
    ours, its = Channel.pair()
    ours.never_wait()
    holder, child, ends = Holder(ours, 0), Child(its), list[str]()
    holder.folder = os.open("/", os.O_PATH)
    holder.attach(loop, lambda: ends.append("end"))
    yield holder, child, ends
    holder.close()
    child.end()


Ends = tuple[Holder, Child, list[str]]


def test_an_answer_has_content_and_descriptors(ends: Ends) -> None:
    holder, child, _ = ends
    child.answer(1, 0, done={"count": 3})
    content, (copy,) = holder.ask("anything")
    assert content == {"count": 3}
    os.close(copy)


def test_an_answer_may_be_an_error_of_either_kind(ends: Ends) -> None:
    holder, child, _ = ends
    child.answer(1, failed="DeviceError", text="no device")
    with pytest.raises(DeviceError, match=r"^no device$"):
        holder.ask("anything")
    child.answer(2, errno=errno.EADDRINUSE, step="")
    with pytest.raises(OSError, match="Address already in use") as raised:
        holder.ask("anything")
    assert raised.value.errno == errno.EADDRINUSE


def test_a_child_that_does_not_answer_is_waited_for_once(
    loop: HandLoop, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, child, _ = ends
    with pytest.raises(TimeoutError):
        holder.ask("anything", 0.01)
    monkeypatch.setattr(module, "SECONDS_TO_ANSWER", 1000.0)
    with pytest.raises(TimeoutError):
        holder.ask("anything")
    child.answer(1, 0, done={})  # too late
    loop.settle()
    child.answer(2, done={"late": False})
    assert holder.ask("anything") == ({"late": False}, [])


def test_look_ups_are_answered_by_the_loop(loop: HandLoop, ends: Ends) -> None:
    holder, child, _ = ends
    answers: list[object] = []
    holder.look_up("db.internal", 53, lambda found, error: answers.append((found, error)))
    holder.look_up("none.internal", 53, lambda found, error: answers.append((found, str(error))))
    child.answer(2, errno=socket.EAI_NONAME, step="Name or service not known")
    child.answer(1, done={"found": [[socket.AF_INET, ["10.9.0.7", 53]]]})
    loop.until(lambda: len(answers) == 2)
    assert answers == [
        ([], "[Errno -2] Name or service not known"),
        ([(socket.AF_INET, ("10.9.0.7", 53))], None),
    ]


def test_what_the_child_has_logged_is_logged_here(ends: Ends) -> None:
    holder, child, _ = ends
    with logged() as lines:
        child.answer(1, done={}, log=[[35, "left out fd00::1 100%"]])
        holder.ask("anything")
    assert lines == ["left out fd00::1 100%"]


def test_the_end_of_the_child_is_told_once_and_ends_what_was_asked(loop: HandLoop, ends: Ends) -> None:
    holder, child, ended = ends
    errors: list[object] = []
    holder.look_up("db.internal", 53, lambda found, error: errors.append(error))
    child.end()
    loop.until(lambda: ended and errors)
    loop.settle()
    assert ended == ["end"]
    with pytest.raises(OSError, match="does not answer"):
        holder.ask("anything")
    holder.look_up("db.internal", 53, lambda found, error: errors.append(error))
    loop.until(lambda: len(errors) == 2)
