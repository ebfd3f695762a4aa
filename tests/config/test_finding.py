"""Where a configuration file is found, and which interface it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.examples import write
from tests.machine import needs_root, ordinary_user
from vpntun.config import finding
from vpntun.config.finding import find_file, interface_of, is_for_wg_quick, only_file
from vpntun.errors import ConfigurationError, PrivilegeError


def test_a_name_is_looked_for_in_vpntuns_folder_and_then_in_wireguards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = (tmp_path / "vpntun", tmp_path / "wireguard")
    monkeypatch.setattr(finding, "FOLDERS", folders)
    with pytest.raises(ConfigurationError) as caught:
        find_file("hub")
    assert str(caught.value) == (f"there is no configuration file {folders[0]}/hub.conf or {folders[1]}/hub.conf")
    for folder in reversed(folders):
        folder.mkdir()
        write(folder / "hub.conf", b"")
        assert find_file("hub") == folder / "hub.conf"
    assert interface_of(find_file("hub")) == "hub"


def test_an_ordinary_users_own_file_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with ordinary_user() as folder:
        for own in (folder / "etc", folder / "vpntun"):
            own.mkdir()
        write(folder / "etc" / "office.conf", b"")
        monkeypatch.setattr(finding, "FOLDERS", (folder / "etc",))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
        assert find_file("office") == folder / "etc" / "office.conf"
        write(folder / "vpntun" / "office.conf", b"")
        assert find_file("office") == folder / "vpntun" / "office.conf"


def test_an_ordinary_user_learns_of_its_own_folder_where_the_machines_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ordinary_user() as folder:
        (folder / "etc").mkdir(mode=0)
        monkeypatch.setattr(finding, "FOLDERS", (folder / "etc",))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
        with pytest.raises(PrivilegeError) as caught:
            find_file("office")
        assert str(caught.value) == (
            f"there is no {folder}/vpntun/office.conf, and this user may not look for {folder}/etc/office.conf: run as "
            "its owner, or as root"
        )


@needs_root
def test_root_has_no_files_but_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vpntun").mkdir()
    write(tmp_path / "vpntun" / "office.conf", b"")
    monkeypatch.setattr(finding, "FOLDERS", (tmp_path / "etc",))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError):
        find_file("office")


def test_the_only_file_of_both_folders_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = (tmp_path / "vpntun", tmp_path / "wireguard")
    monkeypatch.setattr(finding, "FOLDERS", folders)
    with pytest.raises(ConfigurationError, match=r"there is no configuration file in .*/vpntun or .*/wireguard: write"):
        only_file()
    for folder in reversed(folders):
        folder.mkdir()
        write(folder / "hub.conf", b"")
        write(folder / "vpntun.key", b"")
        assert only_file() == folder / "hub.conf"
    write(folders[1] / "office.conf", b"")
    with pytest.raises(ConfigurationError, match="files of several tunnels, hub, office: name one with -f"):
        only_file()


def test_a_folder_that_this_user_may_not_look_into_is_not_taken_for_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    with ordinary_user() as folder:
        (folder / "closed").mkdir(mode=0)
        monkeypatch.setattr(finding, "FOLDERS", (folder / "closed", folder))
        with pytest.raises(PrivilegeError, match="may not look into"):
            only_file()


def test_a_file_in_wireguards_folder_is_for_wg_quick_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = (tmp_path / "vpntun", tmp_path / "wireguard")
    monkeypatch.setattr(finding, "FOLDERS", folders)
    for folder in folders:
        folder.mkdir()
        write(folder / "hub.conf", b"")
    (folders[0] / "link.conf").symlink_to(folders[1] / "hub.conf")
    (folders[1] / "link.conf").symlink_to(folders[0] / "hub.conf")
    found = [is_for_wg_quick(folder / name) for folder in folders for name in ("hub.conf", "link.conf")]
    assert found == [False, True, True, True]


def test_a_path_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "hub.conf", b"")
    assert find_file("hub.conf") == Path("hub.conf")
    assert find_file("./hub.conf") == Path("hub.conf")
    assert find_file(str(tmp_path / "hub.conf")) == tmp_path / "hub.conf"
    for name in ("other.conf", "./hub", f"{tmp_path}/hub", "hub.conf/x", "a\0.conf"):
        with pytest.raises(ConfigurationError, match="there is no configuration file"):
            find_file(name)


def test_a_folder_that_this_user_may_not_enter_is_a_privilege_error() -> None:
    with ordinary_user() as folder:
        (folder / "closed").mkdir(mode=0)
        with pytest.raises(PrivilegeError, match="as its owner, or as root"):
            find_file(f"{folder}/closed/hub.conf")


@pytest.mark.parametrize("name", ["wg0", "wg-quick_=+.", "a" * 15])
def test_a_files_name_is_the_interfaces(name: str) -> None:
    assert interface_of(Path(f"/etc/vpntun/{name}.conf")) == name


@pytest.mark.parametrize(
    "name", ["wg0", "wg0.conf.bak", ".conf", "..conf", "...conf", "a" * 16 + ".conf", "a b.conf", "$(x).conf"]
)
def test_a_files_name_that_no_interface_should_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name an interface"):
        interface_of(Path("/etc/vpntun") / name)
