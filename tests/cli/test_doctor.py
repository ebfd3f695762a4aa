"""`vpntun doctor` on this machine and on a configuration file: its output, its options and its exit status."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.terminal import COLOUR, Terminal
from vpntun.config.keyfile import create_shared
from vpntun.crypto.keys import format_key, generate_private
from vpntun.doctor.examination import Check
from vpntun.doctor.finding import VERDICTS, ok

FILE = """\
[Interface]
PrivateKey = {key}
Address = 198.18.0.1/24
"""


@pytest.fixture
def key(tmp_path: Path) -> Path:
    create_shared(tmp_path / "key")
    return tmp_path / "key"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "vt-office.conf"
    path.touch(mode=0o600)
    path.write_text(FILE.format(key=format_key(generate_private())))
    return path


def test_each_line_begins_with_a_verdict_and_the_last_one_counts(run: Run, key: Path, file: Path) -> None:
    said = run("doctor", file, "-k", key)
    assert said.status == 0, said.out
    machine, tunnel, last = said.out.split("\n\n")
    assert machine.startswith("this machine\n")
    assert tunnel.startswith("vt-office\n")
    for line in [*machine.splitlines()[1:], *tunnel.splitlines()[1:]]:
        assert re.match(rf"  ({'|'.join(VERDICTS)}) |           -> ", line), said.out
    assert re.search(r"^  ok +key file +", machine, re.MULTILINE)
    assert re.search(r"^  ok +configuration +", tunnel, re.MULTILINE)
    assert re.fullmatch(r"\d+ ok(, \d+ \w+)*\n", last)
    assert "\x1b" not in said.out
    assert said.err == ""


def test_a_failed_check_has_an_exit_status_of_its_own(run: Run, key: Path, file: Path) -> None:
    key.chmod(0o644)
    said = run("doctor", file, "-k", key)
    assert said.status == 12
    assert re.search(r"^  failed +key file +.*\n +-> chmod 600 ", said.out, re.MULTILINE), said.out
    assert "1 check has failed" in said.err


@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_quietly_only_what_is_not_ok_is_printed_and_counted_all_the_same(
    run: Run, key: Path, file: Path, option: str
) -> None:
    key.chmod(0o644)
    loud, quiet = run("doctor", file, "-k", key), run("doctor", option, file, "-k", key)
    assert quiet.status == 12
    assert re.search(r"^  failed +key file +.*\n +-> chmod 600 ", quiet.out, re.MULTILINE), quiet.out
    assert not re.search(r"^  ok ", quiet.out, re.MULTILINE), quiet.out
    assert "vt-office" not in quiet.out  # everything about it is ok
    *_, counted = loud.out.splitlines()
    assert quiet.out.endswith(f"\n\n{counted}\n")


def test_quietly_nothing_but_the_numbers_is_printed_if_all_is_ok(
    run: Run, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "vpntun.cli.doctor.checks_of_machine", lambda _: [Check("sky", lambda: [ok("sky", "it is up")])]
    )
    monkeypatch.setattr("vpntun.cli.doctor.checks_of_tunnels", list)
    assert run("doctor", "-q").out == "1 ok\n"


def test_quiet_json_is_refused(run: Run) -> None:
    said = run("doctor", "--quiet", "--json")
    assert said.status == 2
    assert "exclude each other" in said.err


def test_json_has_all_findings_and_the_exit_status_is_the_same(run: Run, tmp_path: Path, file: Path) -> None:
    said = run("doctor", "--json", file, "-k", tmp_path / "missing")
    assert said.status == 12
    found = json.loads(said.out)
    (failed,) = [each for each in found["findings"] if each["verdict"] == "failed"]
    assert (failed["check"], failed["about"]) == ("key file", "")
    assert {each["about"] for each in found["findings"]} == {"", "vt-office"}
    assert sum(found["summary"].values()) == len(found["findings"])


def test_an_error_in_a_file_is_a_finding_and_the_machine_is_examined_all_the_same(
    run: Run, key: Path, file: Path
) -> None:
    with file.open("a") as more:
        more.write("Adress = 198.18.0.2/24\n")
    said = run("doctor", file, "-k", key)
    assert said.status == 12
    assert re.search(r"^  failed +configuration +.*Adress", said.out, re.MULTILINE), said.out
    assert re.search(r"^  ok +TUN device", said.out, re.MULTILINE), said.out


def test_what_is_logged_about_a_file_is_a_warning(run: Run, key: Path, file: Path) -> None:
    with file.open("a") as more:
        more.write("SaveConfig = true\n")
    said = run("doctor", file, "-k", key)
    assert re.search(r"^  warning +configuration +.*SaveConfig has no effect", said.out, re.MULTILINE), said.out
    assert (said.status, said.err) == (0, "")


def screen(file: Path, key: Path, env: dict[str, str], columns: int = 80) -> Terminal:
    """Return a terminal in which doctor has run."""
    command: list[str | Path] = [sys.executable, "-m", "vpntun", "doctor", file, "-k", key]
    with Terminal(command, columns=columns, rows=60, env=env) as terminal:
        assert terminal.wait(60) == 0
    return terminal


def test_in_a_terminal_verdicts_have_colours_and_lines_fit(file: Path, key: Path) -> None:
    terminal = screen(file, key, {})
    row = next(number for number, line in enumerate(terminal.lines) if "TUN device" in line)
    assert terminal.screen.buffer[row][2].fg == "green"
    assert terminal.screen.buffer[row][20].fg == "default"
    longer = next(line for line in terminal.lines if "addresses and routes" in line)
    assert longer.startswith(" " * 26)


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colours_gets_none(file: Path, key: Path, env: dict[str, str]) -> None:
    assert not COLOUR.search(screen(file, key, env).output)


def test_a_name_that_is_no_tunnel_is_an_error(run: Run) -> None:
    said = run("doctor", "vt-nobody")
    assert said.status == 3
    assert "no tunnel vt-nobody runs here, and there is no configuration file /etc/vpntun/vt-nobody.conf" in said.err
    assert "to call a machine of this name, give -k or -p as well" in said.err
