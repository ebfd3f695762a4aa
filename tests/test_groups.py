"""The groups in which tests are handed out to workers: each test of one group runs in one worker, in order."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import GROUP_OF, GROUPS, group_of

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("netns/test_offloads.py", "moving"),
        ("netns/test_lab.py", "running"),
        ("boot/test_units.py", "installed"),
        ("test_examples.py", "installed"),
        ("core/records/test_model.py", "model"),
        ("carriers/test_tcp.py", "sockets"),
        ("wire/test_ip.py", None),
        ("test_floors.py", None),
    ],
)
def test_a_file_is_in_its_group(path: str, group: str | None) -> None:
    assert group_of(Path(path)) == group
    assert group is None or group in GROUPS


def test_every_file_that_is_listed_is_there() -> None:
    """A file that was renamed would go to another group without a word."""
    assert set(GROUP_OF) <= {path.stem for path in (HERE / "netns").glob("test_*.py")}


def test_one_worker_runs_all_of_a_group() -> None:
    """Told from a run: what schedules tests is neither ours nor pytest's, and has been silent about groups before."""
    files = [HERE / "tun" / "test_device.py", HERE / "carriers" / "test_fake.py", HERE / "wire" / "test_ip.py"]
    command = [sys.executable, "-m", "pytest", "-n", "2", "-v", "-p", "no:cacheprovider", *map(str, files)]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    workers: dict[str, set[str]] = {}
    for worker, room in re.findall(r"\[(gw\d)\].* tests/(\w+)/", done.stdout):
        workers.setdefault("sockets" if room in ("tun", "carriers") else room, set()).add(worker)
    assert len(workers["sockets"]) == 1
    assert "wire" in workers
