"""One tunnel: which checks are made of a running one and of a file, and what an older tunnel leaves out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.cli.sample_status import STATUS
from tests.doctor.fake_host import FakeHost
from vpntun import __version__
from vpntun.crypto.keys import format_key, generate_private
from vpntun.doctor.examination import examine
from vpntun.doctor.finding import Finding
from vpntun.doctor.program import program_facts
from vpntun.doctor.tunnel import check_of_file, check_of_running
from vpntun.errors import VpntunError


def running(answers: dict[str, Any]) -> dict[str, Finding]:
    def ask(target: str) -> Any:
        if target not in answers:
            raise VpntunError("tun3 refuses: there is no such path")
        return answers[target]

    return {each.check: each for each in examine([check_of_running("tun3", ask, FakeHost())])}


def test_a_running_tunnel_is_examined_by_its_own_answers() -> None:
    facts = {"program": program_facts()._asdict(), "offloads": {"tcp": True, "udp": True}, "table": "auto"}
    found = running({"/v1/status": STATUS, "/v1/doctor": facts})
    assert {each.about for each in found.values()} == {"tun3"}
    assert {"version", "offloads", "drops", "route to peer", "overlaps", "MTU", "forwarding"} <= found.keys()
    assert found["version"].verdict == "ok"
    assert found["offloads"].verdict == "ok"


def test_a_tunnel_of_an_older_version_is_to_be_restarted() -> None:
    found = running({"/v1/status": {**STATUS, "version": "0.0.9"}})
    assert found["version"].text == f"the tunnel runs vpntun 0.0.9, and {__version__} is installed"
    assert "offloads" not in found


def test_a_thousand_peers_with_one_fault_take_a_few_lines() -> None:
    peers = [{**STATUS["peers"][0], "name": f"peer {number}", "drops": {"no session": 1}} for number in range(1000)]
    answers: dict[str, Any] = {"/v1/status": {**STATUS, "peers": peers}, "/v1/doctor": {}}
    found = list(examine([check_of_running("tun3", answers.__getitem__, FakeHost(leads={}))]))
    assert len(found) < 50
    assert [each.text for each in found if each.text.endswith("more like these")] == [
        "993 more like these",  # one drop is nobody's
        "992 more like these",
    ]


def test_a_tunnel_that_does_not_answer_has_failed() -> None:
    found = running({})
    assert found["tunnel"].verdict == "failed"


def write(path: Path, more: str = "") -> Path:
    path.touch(mode=0o600)
    path.write_text(f"[Interface]\nPrivateKey = {format_key(generate_private())}\nAddress = 10.9.0.1/24\n{more}")
    return path


def test_a_file_is_examined_as_if_it_ran_unless_it_does(tmp_path: Path) -> None:
    path = write(tmp_path / "office.conf")
    found = list(examine([check_of_file(path, "office", FakeHost(has={"eth0": ("10.9.0.7/24",)}))]))
    assert [each.check for each in found if each.verdict == "failed"] == ["overlaps"]
    assert "0 peers and no errors" in next(each.text for each in found if each.check == "configuration")
    found = list(examine([check_of_file(path, "office", FakeHost(), is_running=True)]))
    assert [each.check for each in found] == ["file's mode", "configuration"]


def test_a_file_that_others_may_read_is_named_once(tmp_path: Path) -> None:
    path = write(tmp_path / "office.conf")
    path.chmod(0o644)
    found = [
        each for each in examine([check_of_file(path, "office", FakeHost())]) if "chmod" in each.text + each.remedy
    ]
    assert [each.check for each in found] == ["file's mode"]


def test_a_file_that_cannot_be_read_to_its_end_does_not_hold_doctor_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "office.conf", 0o600)
    found = list(examine([check_of_file(tmp_path / "office.conf", "office", FakeHost())]))
    assert found[-1].text.startswith("not checked: it has not ended within")
    with (tmp_path / "office.conf").open("wb"):  # its thread may end now
        pass
