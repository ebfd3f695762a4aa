"""Folders of root, of an ordinary user, and of a user without a home."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.machine import needs_root, ordinary_user
from tests.netconf.kernel import in_own_network
from vpntun.config.keyfile import default_path
from vpntun.errors import ConfigurationError
from vpntun.runtime.folders import lasting_folder, make_folder, own_namespace, run_folder
from vpntun.runtime.state import TimestampFile

OWN_NAMESPACE = own_namespace()


def test_an_ordinary_user_has_folders_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with ordinary_user() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "run"))
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        assert run_folder() == folder / "run" / "vpntun"
        assert lasting_folder() == folder / "state" / "vpntun"


@needs_root
def test_root_has_the_machines_folders() -> None:
    assert (run_folder(), lasting_folder()) == (Path("/run/vpntun"), Path("/var/lib/vpntun"))


def test_folders_are_private_whatever_the_umask(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        make_folder(tmp_path / "one" / "two")
        TimestampFile(bytes(32), tmp_path / "one" / "three").next()
    finally:
        os.umask(former)
    made = list((tmp_path / "one").rglob("*"))
    assert len(made) == 3
    assert all(each.stat().st_mode & 0o077 == 0 for each in (tmp_path / "one", *made))
    make_folder(tmp_path / "one" / "two")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("getuid", "geteuid"):
        monkeypatch.setattr(os, name, lambda: 4_000_000_000)
    for ask, variable in (
        (run_folder, "XDG_RUNTIME_DIR"),
        (lasting_folder, "XDG_STATE_HOME"),
        (default_path, "XDG_CONFIG_HOME"),
    ):
        with pytest.raises(ConfigurationError, match=f"set HOME, or {variable}"):
            ask()


def test_the_number_stays_the_same() -> None:
    assert own_namespace() == OWN_NAMESPACE > 0


@in_own_network
def test_another_namespace_has_another_number() -> None:
    assert own_namespace() not in (OWN_NAMESPACE, 0)
