"""Changes are made in order and taken back the other way; half a change is none; what stood already stays."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine import logged
from vpntun.errors import DeviceError
from vpntun.netconf.changes import Changes, entry_of
from vpntun.netconf.journal import Entry, Journal, entries_of, path_of
from vpntun.netconf.netlink import Netlink

world: list[str] = []
"""What is so on the host of these tests, in the order it became so."""

noted: list[list[Entry]] = []
"""What stood in the journal whenever something was made."""


@dataclass(frozen=True)
class Word:
    """A word in the world."""

    word: str
    journal: ClassVar[Path]
    on_device: ClassVar[bool] = False

    def make(self, _: Netlink) -> bool:
        noted.append(entries_of(self.journal))
        if self.word == "bad":
            raise DeviceError("bad")
        if self.word in world:
            return False
        world.append(self.word)
        return True

    def take_back(self, _: Netlink) -> None:
        if self.word == "stuck":
            raise OSError(errno.EPERM, "no")
        if self.word not in world:
            raise OSError(errno.ENOENT, "gone already")
        world.remove(self.word)


@dataclass(frozen=True)
class OnDevice(Word):
    """A word that goes with the device."""

    on_device: ClassVar[bool] = True


@pytest.fixture(autouse=True)
def journal(tmp_path: Path) -> Iterator[Journal]:
    Word.journal = path_of("tun3", tmp_path)
    yield Journal("tun3", tmp_path)
    world.clear()
    noted.clear()


@pytest.fixture
def netlink() -> Iterator[Netlink]:
    with Netlink() as opened:
        yield opened


def words(text: str) -> list[Word]:
    return [Word(each) for each in text.split()]


def monitor() -> str:
    return " ".join(world)


def test_they_are_made_in_order_and_taken_back(journal: Journal, netlink: Netlink) -> None:
    changes = Changes(journal, device_is_ephemeral=False)
    changes.reconcile(words("one two three"), netlink)
    assert monitor() == "one two three"
    changes.undo()
    assert monitor() == ""
    assert not Word.journal.exists()


def test_each_is_noted_before_it_is_made(journal: Journal, netlink: Netlink) -> None:
    Changes(journal, device_is_ephemeral=False).reconcile(words("one two"), netlink)
    one, two = map(entry_of, words("one two"))
    assert noted == [[one], [one, two]]


def test_a_new_set_makes_what_is_missing_and_then_takes_back_what_is_too_much(
    journal: Journal, netlink: Netlink
) -> None:
    changes = Changes(journal, device_is_ephemeral=False)
    changes.reconcile(words("one two three"), netlink)
    changes.reconcile(words("four two"), netlink)
    assert monitor() == "two four"
    assert entries_of(Word.journal) == [entry_of(each) for each in words("two four")]


def test_what_was_so_already_is_not_noted_and_stays(journal: Journal, netlink: Netlink) -> None:
    world.append("two")
    changes = Changes(journal, device_is_ephemeral=False)
    changes.reconcile(words("one two"), netlink)
    assert entries_of(Word.journal) == [entry_of(Word("one"))]
    changes.undo()
    assert monitor() == "two"


def test_where_one_fails_nothing_has_changed(journal: Journal, netlink: Netlink) -> None:
    changes = Changes(journal, device_is_ephemeral=False)
    changes.reconcile(words("one two"), netlink)
    with pytest.raises(DeviceError):
        changes.reconcile(words("three two four bad five"), netlink)
    assert monitor() == "one two"
    assert entries_of(Word.journal) == [entry_of(each) for each in words("one two")]


def test_what_is_gone_already_is_no_error(journal: Journal, netlink: Netlink) -> None:
    changes = Changes(journal, device_is_ephemeral=False)
    changes.reconcile(words("one two"), netlink)
    world.remove("one")
    with logged() as lines:
        changes.undo()
    assert (monitor(), lines) == ("", [])
    assert not Word.journal.exists()


def test_what_there_is_no_right_to_take_back_stays_in_the_journal_and_is_told(
    journal: Journal, netlink: Netlink
) -> None:
    changes = Changes(journal, device_is_ephemeral=False)
    changes.reconcile(words("one stuck two"), netlink)
    with logged() as lines:
        changes.undo()
    assert monitor() == "stuck"
    assert entries_of(Word.journal) == [entry_of(Word("stuck"))]
    assert "1 " in lines[0]


def test_what_is_on_a_device_that_goes_is_neither_noted_nor_taken_back(journal: Journal, netlink: Netlink) -> None:
    changes = Changes(journal, device_is_ephemeral=True)
    changes.reconcile([OnDevice("address"), Word("rule")], netlink)
    assert entries_of(Word.journal) == [entry_of(Word("rule"))]
    changes.undo()
    assert monitor() == "address"


def test_what_is_on_a_device_that_goes_can_still_be_exchanged(journal: Journal, netlink: Netlink) -> None:
    changes = Changes(journal, device_is_ephemeral=True)
    changes.reconcile([OnDevice("one"), OnDevice("two")], netlink)
    changes.reconcile([OnDevice("two"), OnDevice("three")], netlink)
    assert monitor() == "two three"


def test_what_is_on_a_device_that_stays_is_noted_and_taken_back(journal: Journal, netlink: Netlink) -> None:
    changes = Changes(journal, device_is_ephemeral=False)
    changes.reconcile([OnDevice("address")], netlink)
    assert entries_of(Word.journal) == [entry_of(OnDevice("address"))]
    changes.undo()
    assert monitor() == ""


def test_without_a_journal_it_works_the_same(netlink: Netlink) -> None:
    changes = Changes(None, device_is_ephemeral=False)
    changes.reconcile(words("one two"), netlink)
    changes.reconcile(words("two"), netlink)
    assert monitor() == "two"
    changes.undo()
    assert monitor() == ""


@given(st.data())
def test_whatever_fails_the_world_is_as_one_of_the_sets_says_and_the_journal_too(data: st.DataObject) -> None:
    world.clear()
    Word.journal.unlink(missing_ok=True)
    changes = Changes(Journal("tun3", Word.journal.parent), device_is_ephemeral=False)
    before: set[str] = set()
    with Netlink() as netlink:
        for wanted in data.draw(st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", "bad"])), max_size=6)):
            try:
                changes.reconcile(map(Word, wanted), netlink)
            except DeviceError:
                assert "bad" in wanted
            else:
                before = set(wanted)
            assert set(world) == before
            assert entries_of(Word.journal) == [entry_of(Word(each)) for each in world]
    changes.undo()
    assert world == []
