"""Tests in network namespaces. They need root and a usable /dev/net/tun, and are skipped with the reason elsewhere.

With VPNTUN_REQUIRE_NETNS=1 in the environment, a skipped test counts as failed.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.netns.lab import Lab, state_folders, why_not
from tests.netns.leftovers import sweep
from tests.netns.place import Place
from tests.netns.wireguard import Keys, make_keys, missing_tool

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.netns)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected_failure = hasattr(report, "wasxfail")
    if report.skipped and not expected_failure and os.environ.get("VPNTUN_REQUIRE_NETNS") == "1":
        report.outcome = "failed"
        report.longrepr = f"skipped, but VPNTUN_REQUIRE_NETNS=1 forbids that: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _state_folders() -> Iterator[None]:
    """Skip the tests where no lab can be built. Otherwise remove the leftovers of killed runs and make the folders."""
    if reason := why_not():
        pytest.skip(reason)
    sweep()
    with state_folders():
        yield


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


@pytest.fixture
def place(lab: Lab) -> Place:
    return Place(lab)


@pytest.fixture
def keys(lab: Lab) -> Keys:
    """Keys of vpntun and of wireguard-go, which is installed if this does not skip the test."""
    if tool := missing_tool():
        pytest.skip(f"{tool} is not installed")
    return make_keys(lab)
