"""Key files: unsafe ones are refused, existing ones are never overwritten, and no key is ever shown."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.machine import needs_root, ordinary_user
from vpntun.config.keyfile import TAG, check_free, create_shared, default_path, prepared_shared, read_bare, read_shared
from vpntun.crypto.keys import format_key
from vpntun.errors import KeyFileError, PrivilegeError

SECRET = bytes(range(100, 132))
TEXT = format_key(SECRET)
SHARED = f"{TAG}\n{TEXT}\n"


def write(path: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def refusal(read: Callable[[Path], bytes], path: Path) -> str:
    with pytest.raises(KeyFileError) as caught:
        read(path)
    return str(caught.value)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_shared_key_is_read_back_as_it_was_made(tmp_path: Path) -> None:
    made = create_shared(tmp_path / "key")
    assert read_shared(tmp_path / "key") == made
    assert len(made) == 32


def test_two_shared_keys_differ(tmp_path: Path) -> None:
    assert create_shared(tmp_path / "one") != create_shared(tmp_path / "two")


def test_a_created_key_file_is_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        create_shared(tmp_path / "new" / "key")
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "new" / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_created_key_file_starts_with_its_tag(tmp_path: Path) -> None:
    made = create_shared(tmp_path / "key")
    assert (tmp_path / "key").read_text() == f"vpntun shared key 1\n{format_key(made)}\n"


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_that_only_its_owner_can_read_is_accepted(tmp_path: Path, mode: int) -> None:
    assert read_shared(write(tmp_path / "key", SHARED, mode)) == SECRET
    assert read_bare(write(tmp_path / "bare", TEXT + "\n", mode)) == SECRET


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666, 0o777])
def test_a_key_that_is_open_to_others_in_any_way_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "key", SHARED, mode)
    message = refusal(read_shared, path)
    assert f"{mode:04o}" in message
    assert f"chmod 600 {path}" in message


@needs_root
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "key", SHARED)
    os.chown(path, 12345, 12345)
    assert "belongs to another user (uid 12345)" in refusal(read_shared, path)


def test_a_key_that_this_user_may_not_read_is_a_privilege_error() -> None:
    with ordinary_user() as folder:
        path = write(folder / "key", SHARED, 0)
        with pytest.raises(PrivilegeError, match="cannot be read by this user"):
            read_shared(path)


def test_a_missing_key_names_its_path_and_the_way_to_make_it(tmp_path: Path) -> None:
    message = refusal(read_shared, tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in message
    assert "vpntun keygen" in message


def test_a_symbolic_link_to_a_good_key_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "key", SHARED)
    (tmp_path / "link").symlink_to(tmp_path / "key")
    assert "symbolic links are not followed" in refusal(read_shared, tmp_path / "link")


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "not a regular file" in refusal(read_shared, tmp_path / "fifo")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    before = descriptors()
    assert f"{tmp_path} is a folder" in refusal(read_shared, tmp_path)
    assert descriptors() == before


def test_a_device_is_refused() -> None:
    assert "not a regular file" in refusal(read_shared, Path("/dev/zero"))


def test_a_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        refusal(read_shared, tmp_path / "socket")


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    assert "too large" in refusal(read_shared, write(tmp_path / "key", SHARED + " " * 5000))


@pytest.mark.parametrize(
    "content",
    [
        "",
        TEXT,
        f"{TAG}",
        f"{TAG}\n",
        f"{TAG}\n\n",
        f"{TAG}\n{TEXT[:-2]}",
        f"{TAG}\n{TEXT}{TEXT}",
        f"{TAG}\n{TEXT}\n{TEXT}",
        f"{TAG}\n{TEXT} # mine",
        f"{TAG}\n{TEXT[:-2]}!=",
        f"vpntun shared key 2\n{TEXT}",
        f"\n{TAG}\n{TEXT}",
        f"{TEXT}\n{TAG}\n",
        SHARED.encode("utf-16"),
        b"\xff\xfe\x00" * 40,
        bytes(100),
    ],
)
def test_a_malformed_shared_key_is_refused_and_nothing_of_it_is_shown(tmp_path: Path, content: str | bytes) -> None:
    path = write(tmp_path / "key", content)
    message = refusal(read_shared, path)
    assert str(path) in message
    assert TEXT[:8] not in message
    assert TEXT[8:20] not in message


def test_line_ends_of_another_system_do_no_harm(tmp_path: Path) -> None:
    assert read_shared(write(tmp_path / "key", SHARED.replace("\n", "\r\n"))) == SECRET


@pytest.mark.parametrize("content", ["", "\n", TEXT[:-1], TEXT + TEXT, SHARED, b"\xff" * 44, bytes(32)])
def test_a_malformed_wireguard_key_is_refused_and_nothing_of_it_is_shown(tmp_path: Path, content: str | bytes) -> None:
    message = refusal(read_bare, write(tmp_path / "key", content))
    assert str(tmp_path / "key") in message
    assert TEXT[:8] not in message


@pytest.mark.parametrize("there", ["file", "folder", "link", "dangling link"])
def test_an_existing_file_folder_or_link_is_not_overwritten(tmp_path: Path, there: str) -> None:
    path = tmp_path / "key"
    other = write(tmp_path / "other", "precious")
    if there == "file":
        write(path, "precious")
    elif there == "folder":
        path.mkdir()
    else:
        path.symlink_to(other if there == "link" else tmp_path / "nowhere")
    assert "never overwritten" in refusal(create_shared, path)
    assert other.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()
    assert there != "file" or path.read_text() == "precious"


@pytest.mark.parametrize("name", [".", ".."])
def test_a_folder_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert "never overwritten" in refusal(create_shared, Path(name))
    assert os.listdir(tmp_path) == []


def test_a_key_file_has_its_name_only_once_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    readable: list[bool] = []
    real = os.fsync

    def look_meanwhile(descriptor: int) -> None:
        readable.append(path.exists())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", look_meanwhile)
    made = create_shared(path)
    assert readable == [False]
    assert read_shared(path) == made
    assert os.listdir(tmp_path) == ["key"]


def test_a_key_that_another_process_makes_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    monkeypatch.setattr(os, "fsync", lambda _: write(path, SHARED))
    assert "never overwritten" in refusal(create_shared, path)
    assert read_shared(path) == SECRET
    assert os.listdir(tmp_path) == ["key"]


def test_a_key_that_cannot_be_written_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_the_disk(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fill_the_disk)
    assert "cannot be created: No space left on device" in refusal(create_shared, tmp_path / "key")
    assert os.listdir(tmp_path) == []


def test_the_error_for_a_key_that_cannot_be_created_gives_the_reason() -> None:
    with ordinary_user() as folder:
        (folder / "locked").mkdir(mode=0o500)
        message = refusal(create_shared, folder / "locked" / "key")
        assert f"{folder / 'locked' / 'key'} cannot be created: Permission denied" in message
        write(folder / "file", "")
        assert "cannot be created" in refusal(create_shared, folder / "file" / "key")


def test_an_ordinary_users_key_is_in_its_configuration_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with ordinary_user() as folder:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
        assert default_path() == folder / "vpntun" / "vpntun.key"
        monkeypatch.setenv("XDG_CONFIG_HOME", "")
        monkeypatch.setenv("HOME", "/home/somebody")
        assert default_path() == Path("/home/somebody/.config/vpntun/vpntun.key")


@needs_root
def test_roots_default_key_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/elsewhere")
    assert default_path() == Path("/etc/vpntun/vpntun.key")


def test_a_prepared_key_has_its_name_once_it_is_published_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    with prepared_shared(path, SECRET) as publish:
        assert not path.exists()
        publish()
        assert read_shared(path) == SECRET
    assert list(path.parent.iterdir()) == [path]


def test_a_prepared_key_that_is_not_published_leaves_no_file(tmp_path: Path) -> None:
    with prepared_shared(tmp_path / "key", SECRET):
        [temporary] = tmp_path.iterdir()
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
    with pytest.raises(KeyboardInterrupt), prepared_shared(tmp_path / "key", SECRET):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_prepared_key_never_replaces_one_that_came_meanwhile(tmp_path: Path) -> None:
    with prepared_shared(tmp_path / "key", SECRET) as publish:
        other = create_shared(tmp_path / "key")
        with pytest.raises(KeyFileError, match="never overwritten"):
            publish()
    assert read_shared(tmp_path / "key") == other
    assert len(list(tmp_path.iterdir())) == 1


def test_a_place_for_a_key_is_free_if_one_can_be_written_there(tmp_path: Path) -> None:
    check_free(tmp_path / "key")
    assert not list(tmp_path.iterdir())
    (tmp_path / "key").symlink_to(tmp_path / "nowhere")
    with pytest.raises(KeyFileError, match="has a key already"):
        check_free(tmp_path / "key")
    with pytest.raises(KeyFileError, match="cannot be created"):
        check_free(tmp_path / "key" / "below")
