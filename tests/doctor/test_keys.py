"""Files with keys: who can read or replace them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.machine import needs_root, ordinary_user
from vpntun.config.keyfile import create_shared
from vpntun.doctor.finding import Finding
from vpntun.doctor.keys import examine_file, examine_key


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "vpntun.key"
    create_shared(path)
    return path


def only(path: Path | None) -> Finding:
    (finding,) = examine_key(path)
    return finding


def test_a_good_key_file(key: Path) -> None:
    assert only(key).verdict == "ok"


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda key: key.chmod(0o640), "open to others"),
        (lambda key: key.write_text("something else\n"), "not a shared key file"),
        (lambda key: key.write_text("vpntun shared key 1\nAAAA\n"), "key"),
        (lambda key: key.unlink(), "does not exist"),
        (lambda key: (key.unlink(), key.symlink_to("/etc/passwd")), "cannot be opened"),
    ],
)
def test_a_bad_key_file_has_failed(key: Path, spoil: object, word: str) -> None:
    spoil(key)  # type: ignore[operator]
    finding = only(key)
    assert finding.verdict == "failed"
    assert word in finding.text
    assert finding.remedy


@needs_root
def test_a_key_file_of_another_user_has_failed(key: Path) -> None:
    os.chown(key, 1, 1)
    assert (only(key).verdict, "belongs to another user" in only(key).text) == ("failed", True)


@needs_root
def test_a_folder_that_another_user_may_write_has_failed(key: Path) -> None:
    os.chown(key.parent, 1, 1)
    good, bad = examine_key(key)
    assert (good.verdict, bad.verdict) == ("ok", "failed")
    assert "belongs to another user" in bad.text
    assert bad.remedy.startswith("chown root") or "chown root" in bad.remedy


@needs_root
def test_a_key_file_that_this_user_may_not_read_is_skipped(key: Path) -> None:
    for folder in (key.parent, *key.parent.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    with ordinary_user():
        finding = only(key)
    assert finding.verdict == "skipped"
    assert "root" in finding.remedy


def test_the_usual_key_file_need_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    finding = only(None)
    assert finding.verdict == "skipped"
    assert str(tmp_path) in finding.text


def test_a_configuration_file_that_is_closed_to_others(key: Path) -> None:
    assert [each.verdict for each in examine_file(key)] == ["ok"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_configuration_file_that_others_may_read_is_a_warning(key: Path, mode: int) -> None:
    key.chmod(mode)
    (finding,) = examine_file(key)
    assert (finding.verdict, finding.remedy) == ("warning", f"chmod 600 {key}")


def test_a_configuration_file_that_others_may_write_has_failed(key: Path) -> None:
    key.chmod(0o666)
    assert [each.verdict for each in examine_file(key)] == ["warning", "failed"]
