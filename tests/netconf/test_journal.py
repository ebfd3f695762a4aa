"""The journal: changes that were made and not taken back; trusted only if nobody else can have written it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine import NOBODY, logged, needs_root, no_more_descriptors, ordinary_user
from tests.netconf.kernel import in_own_network
from vpntun.netconf.journal import Entry, Journal, entries_of, path_of

ONE: Entry = {"kind": "Rule", "version": 4}
TWO: Entry = {"kind": "Rule", "version": 6}
THREE: Entry = {"kind": "NameServers", "lines": "nameserver 192.0.2.1\n"}


def test_the_next_process_finds_the_changes_not_taken_back_in_order(tmp_path: Path) -> None:
    journal = Journal("tun3", tmp_path)
    for entry in (ONE, TWO, THREE, ONE):
        journal.made(entry)
    journal.taken_back(TWO)
    assert entries_of(path_of("tun3", tmp_path)) == [ONE, THREE, ONE]


def test_the_file_is_removed_with_its_last_entry(tmp_path: Path) -> None:
    journal = Journal("tun3", tmp_path)
    journal.made(ONE)
    journal.made(TWO)
    journal.taken_back(TWO)
    assert path_of("tun3", tmp_path).exists()
    journal.taken_back(ONE)
    assert list(tmp_path.iterdir()) == []


def test_two_interfaces_have_two_journals(tmp_path: Path) -> None:
    Journal("tun3", tmp_path).made(ONE)
    assert entries_of(path_of("tun4", tmp_path)) == []


def test_nobody_else_can_read_the_journal_or_its_folder(tmp_path: Path) -> None:
    Journal("tun3", tmp_path / "new").made(ONE)
    path = path_of("tun3", tmp_path / "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_journal_that_cannot_be_written_is_one_notice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal("tun3", tmp_path / "file" / "folder")
    with logged() as lines:
        journal.made(ONE)
        journal.made(TWO)
        journal.taken_back(TWO)
        journal.taken_back(ONE)
    assert len([line for line in lines if "cannot be written" in line]) == 1


@in_own_network
def test_a_full_file_system_is_a_notice_at_the_first_change_and_the_journal_is_whole_once_there_is_room(
    tmp_path: Path,
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", tmp_path], check=True)
    filler = tmp_path / "filler"
    filler.write_bytes(bytes(8192))
    journal = Journal("tun3", tmp_path)
    with logged() as lines:
        for entry in (ONE, TWO, THREE):
            journal.made(entry)
        journal.taken_back(TWO)
    assert len([line for line in lines if "cannot be written (No space left on device)" in line]) == len(lines) == 1
    assert entries_of(path_of("tun3", tmp_path)) == []
    filler.unlink()
    with logged() as lines:
        journal.made(TWO)
        assert entries_of(path_of("tun3", tmp_path)) == [ONE, THREE, TWO]
    assert lines == []


def test_a_process_that_is_out_of_descriptors_notes_its_changes_all_the_same(tmp_path: Path) -> None:
    journal = Journal("tun3", tmp_path)
    journal.made(ONE)
    with no_more_descriptors(), logged() as lines:
        journal.made(TWO)
    assert lines == []
    assert entries_of(path_of("tun3", tmp_path)) == [ONE, TWO]


def test_a_line_that_cannot_be_read_is_ignored_and_the_others_count(tmp_path: Path) -> None:
    Journal("tun3", tmp_path).made(ONE)
    path = path_of("tun3", tmp_path)
    with path.open("ab") as file:
        file.write(b'\xff\xfe\n["made"]\n["made", 7]\n["lost", {}]\n[\n' + b"[" * 100_000 + b"\n")
    Journal("tun3", tmp_path).made(TWO)
    with logged() as lines:
        assert entries_of(path) == [ONE, TWO]
    assert len(lines) == 1
    assert "ignored 6 lines" in lines[0]


@given(st.binary(max_size=200))
def test_reading_arbitrary_bytes_raises_nothing(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    path = path_of("tun3", tmp_path_factory.mktemp("run"))
    path.write_bytes(garbage)
    path.chmod(0o600)
    with logged():
        assert entries_of(path) == []


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_journal_that_others_can_write_is_not_trusted(tmp_path: Path, mode: int) -> None:
    Journal("tun3", tmp_path).made(ONE)
    path = path_of("tun3", tmp_path)
    path.chmod(mode)
    with logged() as lines:
        assert entries_of(path) == []
    assert "others could have written it" in lines[0]


@needs_root
def test_a_journal_of_another_user_is_not_trusted(tmp_path: Path) -> None:
    path = path_of("tun3", tmp_path)
    path.write_text(json.dumps(["made", ONE]))
    path.chmod(0o600)
    os.chown(path, NOBODY, NOBODY)
    with logged() as lines:
        assert entries_of(path) == []
    assert "others could have written it" in lines[0]


def test_neither_a_link_nor_a_folder_is_trusted(tmp_path: Path) -> None:
    Journal("other", tmp_path).made(ONE)
    path_of("tun3", tmp_path).symlink_to(path_of("other", tmp_path))
    path_of("tun4", tmp_path).mkdir()
    with logged() as lines:
        assert entries_of(path_of("tun3", tmp_path)) == []
        assert entries_of(path_of("tun4", tmp_path)) == []
    assert len(lines) == 2


def test_a_link_is_not_followed_for_writing(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    path_of("tun3", tmp_path).symlink_to(target)
    with logged() as lines:
        Journal("tun3", tmp_path).made(ONE)
    assert target.read_text() == "precious"
    assert "cannot be written" in lines[0]


def test_a_held_journal_is_written_in_a_folder_that_is_not_writable_and_emptied_at_the_end() -> None:
    with ordinary_user() as folder:
        journal = Journal("tun3", folder)
        journal.made(ONE)
        journal.hold()
        folder.chmod(0o500)
        journal.made(TWO)
        assert entries_of(path_of("tun3", folder)) == [ONE, TWO]
        journal.taken_back(ONE)
        assert (entries_of(path_of("tun3", folder)), journal.is_empty) == ([TWO], False)
        journal.taken_back(TWO)
        assert (path_of("tun3", folder).read_text(), journal.is_empty) == ("", True)
        journal.made(THREE)
        assert entries_of(path_of("tun3", folder)) == [THREE]


def test_a_journal_that_cannot_be_held_is_a_notice_at_the_first_change(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal("tun3", tmp_path / "file" / "folder")
    with logged() as lines:
        journal.hold()
        assert lines == []
        journal.made(ONE)
    assert len(lines) == 1


def test_a_file_too_large_to_be_a_journal_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal("tun3", tmp_path).made(ONE)
    path = path_of("tun3", tmp_path)
    monkeypatch.setattr("vpntun.netconf.journal.LARGEST", path.stat().st_size)
    assert entries_of(path) == [ONE]
    monkeypatch.setattr("vpntun.netconf.journal.LARGEST", path.stat().st_size - 1)
    with logged() as lines:
        assert entries_of(path) == []
    assert len(lines) == 1
