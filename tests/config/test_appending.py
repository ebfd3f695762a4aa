"""A section is appended as a whole, and taken back if what follows fails; the file stays what it is otherwise."""

from __future__ import annotations

import fcntl
import os
import resource
import stat
import struct
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.examples import write
from tests.machine import needs_root, ordinary_user
from vpntun.config.appending import appended, locked
from vpntun.config.lines import parse
from vpntun.errors import ConfigurationError, PrivilegeError

SECTION = "[Peer]\nName = handy\n"


def add(path: Path) -> None:
    with locked(path), appended(path, SECTION):
        pass


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b"# caf\xe9\r\n[Interface]\nMTU=1400 # mine\n", b"# caf\xe9\r\n[Interface]\nMTU=1400 # mine\n\n"),
        (b"[Interface]\n\n", b"[Interface]\n\n"),
        (b"[Interface]", b"[Interface]\n\n"),
    ],
)
def test_the_section_follows_an_empty_line_and_what_was_there_stays(
    tmp_path: Path, before: bytes, after: bytes
) -> None:
    path = write(tmp_path / "wg7.conf", before)
    add(path)
    assert path.read_bytes() == after + SECTION.encode()
    assert list(tmp_path.iterdir()) == [path]


@given(lines=st.lists(st.sampled_from(["[Interface]", "[Peer]", "MTU = 1", "# a", "", "Name = x", "\r"])))
def test_a_file_that_can_be_read_can_be_read_afterwards_and_has_one_section_more(lines: list[str]) -> None:
    known = {"Interface": ("MTU", "Name"), "Peer": ("Name", "MTU")}
    text = "\n".join(["[Interface]", *lines])
    before = parse(text, "wg7.conf", known)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "wg7.conf", text.encode())
        add(path)
        after = parse(path.read_bytes().decode(), "wg7.conf", known)
    assert after[:-1] == before
    assert [text for _, text in after[-1].values["Name"]] == ["handy"]


@pytest.mark.parametrize("failure", [ConfigurationError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_the_former_content_is_put_back_if_what_follows_fails(tmp_path: Path, failure: BaseException) -> None:
    path = write(tmp_path / "wg7.conf", b"[Interface]\n")
    path.chmod(0o640)

    def fail() -> None:
        with locked(path), appended(path, SECTION):
            assert path.read_bytes().endswith(SECTION.encode())
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert path.read_bytes() == b"[Interface]\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_what_somebody_else_has_written_meanwhile_is_left(tmp_path: Path) -> None:
    path = write(tmp_path / "wg7.conf", b"[Interface]\n")

    def change_and_fail() -> None:
        with appended(path, SECTION):
            path.write_bytes(b"[Interface]\nMTU = 1400\n")
            raise ConfigurationError("no")

    with pytest.raises(ConfigurationError):
        change_and_fail()
    assert path.read_bytes() == b"[Interface]\nMTU = 1400\n"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_mode_and_attributes_stay(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "wg7.conf", b"[Interface]\n")
    try:
        os.setxattr(path, "user.by", b"somebody")
    except OSError:
        pytest.skip("this file system has no attributes")
    path.chmod(mode)
    add(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert os.getxattr(path, "user.by") == b"somebody"


def test_an_access_control_list_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "wg7.conf", b"[Interface]\n")
    # Of each entry its kind, its rights and its user: owner rw, user 4711 r, group none, mask r, others none.
    entries = [(0x01, 6, -1), (0x02, 4, 4711), (0x04, 0, -1), (0x10, 4, -1), (0x20, 0, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("this file system has no access control lists")
    add(path)
    assert os.getxattr(path, "system.posix_acl_access") == acl


@needs_root
def test_the_owner_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "wg7.conf", b"[Interface]\n")
    os.chown(path, 4711, 4712)
    path.chmod(0o640)
    add(path)
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (4711, 4712, 0o640)


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = write(tmp_path / "elsewhere" / "real.conf", b"[Interface]\n")
    path = tmp_path / "wg7.conf"
    path.symlink_to("elsewhere/real.conf")
    add(path)
    assert path.readlink() == Path("elsewhere/real.conf")
    assert real.read_text().endswith(SECTION)


def test_a_user_who_may_not_change_the_folder_changes_nothing() -> None:
    with ordinary_user() as folder:
        path = write(folder / "wg7.conf", b"[Interface]\n")
        folder.chmod(0o500)
        with pytest.raises(PrivilegeError, match="as its owner, or as root"):
            add(path)
        folder.chmod(0o700)
        assert path.read_bytes() == b"[Interface]\n"
        assert list(folder.iterdir()) == [path]


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "wg7.conf", tmp_path / "none" / "wg7.conf"):
        with pytest.raises(ConfigurationError, match="cannot be changed: No such file"):
            add(path)


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "wg7.conf", b"[Interface]\n")

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(ConfigurationError, match="File too large"):
            add(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"[Interface]\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_somebody_else_has_locked_does_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "wg7.conf", b"[Interface]\n")
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    adding = threading.Thread(target=add, args=(path,), daemon=True)
    adding.start()
    adding.join(20)
    os.close(folder)
    assert path.read_bytes().count(b"[Peer]") == 1


def test_one_who_comes_after_the_file_was_replaced_waits_too(tmp_path: Path) -> None:
    path = write(tmp_path / "wg7.conf", b"[Interface]\n")
    second = threading.Thread(target=add, args=(path,))

    def fail() -> None:
        with locked(path), appended(path, SECTION):
            second.start()
            second.join(0.05)
            assert second.is_alive()
            raise ConfigurationError("no")

    with pytest.raises(ConfigurationError):
        fail()
    second.join(20)
    assert path.read_bytes() == b"[Interface]\n\n" + SECTION.encode(), "that of the second alone"


def test_two_at_once_wait_for_each_other(tmp_path: Path) -> None:
    path = write(tmp_path / "wg7.conf", b"[Interface]\n")
    second = threading.Thread(target=add, args=(path,))
    with locked(path):
        second.start()
        second.join(0.05)
        assert second.is_alive()
        assert path.read_bytes() == b"[Interface]\n"
    second.join(20)
    assert path.read_bytes().count(b"[Peer]") == 1
