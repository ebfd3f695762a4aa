"""Fixtures: vpntun installed once into a folder, and two lab machines that use it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.installed import Host, install
from tests.netns.lab import Lab, state_folders, why_not
from tests.netns.leftovers import sweep


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that `make install DESTDIR=...` has filled."""
    folder = tmp_path_factory.mktemp("install")
    install(folder, folder / "root")
    return folder / "root"


@pytest.fixture(scope="session")
def _machine_lets_us() -> Iterator[None]:
    if reason := why_not():
        (pytest.fail if os.environ.get("VPNTUN_REQUIRE_NETNS") == "1" else pytest.skip)(reason)
    lay = ["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", "lowerdir=/etc:/usr/local", "/etc"]
    laid = subprocess.run(lay, capture_output=True, text=True, check=False)
    if laid.returncode != 0:
        pytest.skip(f"nothing can be installed in a namespace here, without overlays: {laid.stderr.strip()}")
    sweep()
    with state_folders():
        yield


@pytest.fixture
def lab(_machine_lets_us: None, tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


@pytest.fixture
def a(lab: Lab, installed: Path) -> Host:
    """Machine that calls the other one."""
    return Host(lab.a, installed)


@pytest.fixture
def b(lab: Lab, installed: Path) -> Host:
    """Machine that waits to be called."""
    return Host(lab.b, installed)
