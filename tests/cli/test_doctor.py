"""`vpntun doctor` on this machine: its output, its options and its exit status."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.cli.conftest import Run
from vpntun.config.keyfile import create_shared
from vpntun.doctor.finding import VERDICTS


def test_each_line_begins_with_a_verdict_and_the_last_one_counts(run: Run, tmp_path: Path) -> None:
    create_shared(tmp_path / "key")
    said = run("doctor", "-k", tmp_path / "key")
    assert said.status == 0, said.out
    head, *lines = said.out.splitlines()
    assert head == "this machine"
    *findings, blank, last = lines
    assert blank == ""
    assert all(re.match(rf"  ({'|'.join(VERDICTS)}) |           -> ", line) for line in findings), said.out
    assert re.search(r"^  ok +key file +", said.out, re.MULTILINE)
    assert re.fullmatch(r"\d+ ok(, \d+ \w+)*", last)
    assert "\x1b" not in said.out
    assert said.err == ""


def test_a_failed_check_has_an_exit_status_of_its_own(run: Run, tmp_path: Path) -> None:
    create_shared(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    said = run("doctor", "-k", tmp_path / "key")
    assert said.status == 12
    assert re.search(r"^  failed +key file +.*\n +-> chmod 600 ", said.out, re.MULTILINE), said.out
    assert "1 check has failed" in said.err


def test_json_has_all_findings_and_the_exit_status_is_the_same(run: Run, tmp_path: Path) -> None:
    said = run("doctor", "--json", "-k", tmp_path / "missing")
    assert said.status == 12
    found = json.loads(said.out)
    assert found["summary"]["failed"] == 1
    (failed,) = [each for each in found["findings"] if each["verdict"] == "failed"]
    assert failed["check"] == "key file"
    assert sum(found["summary"].values()) == len(found["findings"])
