"""The kernel splits our superpackets correctly, and we split the kernel's. device_check.py runs in the namespace."""

from __future__ import annotations

import json
import sys

import pytest

from tests.netns.lab import Lab


def test_a_real_device_accepts_our_superpackets_and_its_own_are_split_with_correct_checksums(lab: Lab) -> None:
    said = json.loads(lab.a.run(sys.executable, "-m", "tests.netns.device_check").stdout)
    if "too old" in said:
        pytest.skip("this kernel has no USO")
    assert len(said["written"]) == 8
    assert not any(said["written"].values()), said
    assert said["received 4"]
    assert said["received 6"]
    for version in (4, 6):
        mine = [each for each in said["cut"] if each["version"] == version]
        assert sorted(each["count"] for each in mine) == [1, 25], said
        assert all(each["right"] and each["whole"] for each in mine), said
        assert {each["gso type"] for each in mine} == {0, 5}
