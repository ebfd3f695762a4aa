"""Changes: made in order, taken back in reverse order, all or none, and never those that others made."""

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
"""The state of a fake host: the words that were made, in order."""

noted: list[list[Entry]] = []
"""The journal's entries each time a word was made."""


@dataclass(frozen=True)
class Word:
    """A change that adds a word to the world."""

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
    """A change that vanishes with the device."""

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


def state() -> str:
    return " ".join(world)


def test_changes_are_made_in_order_and_taken_back(journal: Journal, netlink: Netlink) -> None:
    changes = Changes(journal, device_is_ephemeral=False)
    changes.reconcile(words("one two three"), netlink)
    assert state() == "one two three"
    changes.undo()
    assert state() == ""
    assert not Word.journal.exists()


def test_each_change_is_noted_before_it_is_made(journal: Journal, netlink: Netlink) -> None:
    Changes(journal, device_is_ephemeral=False).reconcile(words("one two"), netlink)
    one, two = map(entry_of, words("one two"))
    assert noted == [[one], [one, two]]


def test_a_new_set_makes_the_missing_changes_and_takes_back_the_unwanted(journal: Journal, netlink: Netlink) -> None:
    changes = Changes(journal, device_is_ephemeral=False)
    changes.reconcile(words("one two three"), netlink)
    changes.reconcile(words("four two"), netlink)
    assert state() == "two four"
    assert entries_of(Word.journal) == [entry_of(each) for each in words("two four")]


def test_a_setting_made_by_others_is_not_noted_and_stays(journal: Journal, netlink: Netlink) -> None:
    world.append("two")
    changes = Changes(journal, device_is_ephemeral=False)
    changes.reconcile(words("one two"), netlink)
    assert entries_of(Word.journal) == [entry_of(Word("one"))]
    changes.undo()
    assert state() == "two"


def test_nothing_has_changed_if_one_change_fails(journal: Journal, netlink: Netlink) -> None:
    changes = Changes(journal, device_is_ephemeral=False)
    changes.reconcile(words("one two"), netlink)
    with pytest.raises(DeviceError):
        changes.reconcile(words("three two four bad five"), netlink)
    assert state() == "one two"
    assert entries_of(Word.journal) == [entry_of(each) for each in words("one two")]


def test_a_change_that_is_gone_already_is_no_error(journal: Journal, netlink: Netlink) -> None:
    changes = Changes(journal, device_is_ephemeral=False)
    changes.reconcile(words("one two"), netlink)
    world.remove("one")
    with logged() as lines:
        changes.undo()
    assert (state(), lines) == ("", [])
    assert not Word.journal.exists()


def test_a_change_that_may_not_be_taken_back_stays_in_the_journal_with_a_notice(
    journal: Journal, netlink: Netlink
) -> None:
    changes = Changes(journal, device_is_ephemeral=False)
    changes.reconcile(words("one stuck two"), netlink)
    with logged() as lines:
        changes.undo()
    assert state() == "stuck"
    assert entries_of(Word.journal) == [entry_of(Word("stuck"))]
    assert "1 " in lines[0]


def test_a_change_on_an_ephemeral_device_is_neither_noted_nor_taken_back(journal: Journal, netlink: Netlink) -> None:
    changes = Changes(journal, device_is_ephemeral=True)
    changes.reconcile([OnDevice("address"), Word("rule")], netlink)
    assert entries_of(Word.journal) == [entry_of(Word("rule"))]
    changes.undo()
    assert state() == "address"


def test_changes_on_an_ephemeral_device_can_still_be_replaced(journal: Journal, netlink: Netlink) -> None:
    changes = Changes(journal, device_is_ephemeral=True)
    changes.reconcile([OnDevice("one"), OnDevice("two")], netlink)
    changes.reconcile([OnDevice("two"), OnDevice("three")], netlink)
    assert state() == "two three"


def test_a_change_on_a_lasting_device_is_noted_and_taken_back(journal: Journal, netlink: Netlink) -> None:
    changes = Changes(journal, device_is_ephemeral=False)
    changes.reconcile([OnDevice("address")], netlink)
    assert entries_of(Word.journal) == [entry_of(OnDevice("address"))]
    changes.undo()
    assert state() == ""


def test_without_a_journal_it_works_the_same(netlink: Netlink) -> None:
    changes = Changes(None, device_is_ephemeral=False)
    changes.reconcile(words("one two"), netlink)
    changes.reconcile(words("two"), netlink)
    assert state() == "two"
    changes.undo()
    assert state() == ""


@given(st.data())
def test_world_and_journal_match_the_last_set_that_succeeded(data: st.DataObject) -> None:
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
