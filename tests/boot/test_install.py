"""`make install` and `make uninstall`: files in their places, without the paths of the build."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.boot.installed import PREFIX, Host, install, make, places
from tests.netns.lab import STARTED, Lab


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def test_everything_is_in_its_place(installed: Path) -> None:
    for mode, file, place in places():
        there = installed / place.lstrip("/")
        assert there.is_file(), place
        assert there.stat().st_mode & 0o777 == mode, place
        assert "@PREFIX@" not in there.read_text(), file


def test_there_is_nothing_else_beside_the_program(installed: Path) -> None:
    program = f"{PREFIX}/lib/vpntun/".lstrip("/")
    beside = {path for path in files_below(installed) if not path.startswith(program)}
    assert beside == {f"{PREFIX}/bin/vpntun".lstrip("/"), *(place.lstrip("/") for _, _, place in places())}


def test_no_file_contains_the_path_of_destdir(installed: Path) -> None:
    search = ["grep", "-rlF", str(installed), str(installed)]
    found = subprocess.run(search, capture_output=True, text=True, check=False)
    assert found.stdout == ""


def test_the_environment_holds_the_program_and_no_installer(installed: Path) -> None:
    environment = installed / PREFIX.lstrip("/") / "lib" / "vpntun"
    [packages] = environment.glob("lib/python*/site-packages")
    there = {path.name.partition("-")[0] for path in packages.iterdir()}
    assert {"vpntun", "click", "pyroute2", "cryptography", "segno"} <= there
    assert not there & {"pip", "setuptools", "wheel", "pkg_resources"}
    assert {path.name for path in (environment / "bin").iterdir() if not path.name.startswith("python")} == {"vpntun"}


def test_uninstall_keeps_the_files_of_the_operator(installed: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(installed, root, symlinks=True)
    kept = {"etc/vpntun/vpntun.key", "etc/default/vpntun", "var/lib/vpntun/0011.timestamp", "usr/local/bin/other"}
    for name in kept:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("mine\n")
    make("uninstall", root)
    assert files_below(root) == kept


def test_a_second_uninstall_does_no_harm(tmp_path: Path) -> None:
    make("uninstall", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_another_prefix(tmp_path: Path) -> None:
    install(tmp_path, tmp_path / "root", "/opt/vpn")
    for _, _, place in places("/opt/vpn"):
        assert (tmp_path / "root" / place.lstrip("/")).is_file()
    unit = tmp_path / "root/opt/vpn/lib/systemd/system/vpntun@.service"
    assert "ExecStart=/opt/vpn/bin/vpntun up %i" in unit.read_text()
    make("uninstall", tmp_path / "root", "/opt/vpn")
    assert files_below(tmp_path / "root") == set()


@pytest.mark.netns
def test_the_installed_program_links_two_machines(lab: Lab, a: Host, b: Host) -> None:
    b.popen("vpntun", "-s", "-i", "tun3", "-k", lab.key).wait_for(STARTED)
    a.popen("vpntun", "-c", lab.b.four, "-i", "tun11", "-k", lab.key).wait_for("connected to")
    lab.ping(lab.a, lab.b.address_of("tun3"))
