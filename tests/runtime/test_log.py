"""Log handlers: one line per event, limited in rate, and no failure that stops the program."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine import Clock, logged, ordinary_user
from vpntun.errors import ConfigurationError, DeviceError, PrivilegeError
from vpntun.runtime.log import (
    NOTICE,
    Limited,
    ToFile,
    ToSyslog,
    complain,
    leads_to_journal,
    log,
    notice,
    open_log,
    reopen_log,
    tell,
)


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    former = log.handlers, log.level, log.propagate
    yield
    log.handlers, log.propagate = former[0], former[2]
    log.setLevel(former[1])


Captured = pytest.CaptureFixture[str]


def test_a_line_names_the_interface(capsys: Captured) -> None:
    open_log("tun3", 0)
    notice("waiting on port %d", 55555)
    assert capsys.readouterr() == ("", "vpntun: tun3: waiting on port 55555\n")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("two\nlines", r"two\nlines"),
        ("back\rover", r"back\rover"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("bell\x07\x00", r"bell\x07\x00"),
        ("right\u202eleft", r"right\u202eleft"),
        ("line\u2028end", r"line\u2028end"),
        ("broken \udc80", r"broken \udc80"),
        ("plain é 漢", "plain é 漢"),
        ("100 % of %s", "100 % of %s"),
    ],
)
def test_control_characters_are_escaped(capsys: Captured, said: str, shown: str) -> None:
    open_log("tun3", 0)
    log.warning("peer says %s", said)
    assert capsys.readouterr().err == f"vpntun: tun3: peer says {shown}\n"


@pytest.mark.parametrize("name", ["tun%d", "%(message)s", "%(nothing)s", "%", "a\x1b[2Jb"])
def test_any_interface_name_makes_a_good_line(capsys: Captured, name: str) -> None:
    open_log(name, 0)
    notice("up")
    assert capsys.readouterr().err == f"vpntun: {name}: up\n".replace("\x1b", r"\x1b")


def test_an_exceptions_lines_stay_one_line(capsys: Captured) -> None:
    open_log("tun3", 0)
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        log.exception("failed")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [
        (0, ["notice", "warning"]),
        (1, ["notice", "warning", "info"]),
        (2, ["notice", "warning", "info", "debug"]),
        (7, ["notice", "warning", "info", "debug"]),
    ],
)
def test_each_v_logs_more_levels(capsys: Captured, verbosity: int, shown: list[str]) -> None:
    open_log("tun3", verbosity)
    notice("notice")
    log.warning("warning")
    log.info("info")
    log.debug("debug")
    assert capsys.readouterr().err.split("\n") == [*(f"vpntun: tun3: {each}" for each in shown), ""]


def test_opening_the_log_again_does_not_double_the_lines(capsys: Captured) -> None:
    open_log("tun3", 0)
    open_log("tun4", 0)
    notice("once")
    assert capsys.readouterr().err == "vpntun: tun4: once\n"


def test_a_limited_line_comes_once_in_ten_seconds_and_says_how_many_were_suppressed() -> None:
    clock = Clock()
    tell = Limited(NOTICE, "refused %s", clock)
    with logged() as lines:
        for _ in range(1000):
            tell("somebody")
        clock.now += 9.9
        tell("somebody")
        clock.now += 0.2
        tell("somebody else")
        clock.now += 20
        tell("a third")
    assert lines == [
        "refused somebody",
        "refused somebody else (1000 more since the last such line)",
        "refused a third",
    ]


def test_a_limit_of_three_logs_three_lines_in_ten_seconds() -> None:
    clock = Clock()
    tell = Limited(NOTICE, "%d", clock, most=3)
    with logged() as lines:
        for number in range(10):
            tell(number)
        clock.now += 10
        for number in range(10, 15):
            tell(number)
    assert lines == ["0", "1", "2", "10 (7 more since the last such line)", "11", "12"]


def test_each_kind_of_line_has_a_limit_of_its_own() -> None:
    clock = Clock()
    one, other = Limited(logging.INFO, "one", clock), Limited(logging.INFO, "other", clock)
    with logged() as lines:
        one()
        other()
        one()
    assert lines == ["one", "other"]


def test_a_percent_sign_in_an_argument_is_only_text() -> None:
    with logged() as lines:
        Limited(NOTICE, "%s", time.monotonic)("50 %d")
    assert lines == ["50 %d"]


def test_open_log_takes_the_name_of_a_structured_form(capsys: Captured) -> None:
    open_log("tun3", 0, "json")
    log.warning("connected to %s", "there", extra={"fields": {"peer": "office"}})
    said = json.loads(capsys.readouterr().err)
    assert (said["message"], said["peer"], said["level"]) == ("connected to there", "office", "warning")


def test_a_file_is_appended_to_and_is_for_its_owner_alone(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "log"
    for name in ("tun3", "tun4"):
        open_log(name, 0, file=path)
        notice("up\n")
    lines = path.read_text().splitlines()
    assert [line.partition(" ")[2] for line in lines] == [r"vpntun: tun3: up\n", r"vpntun: tun4: up\n"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert capsys.readouterr().err == ""


def test_a_rotated_file_is_reopened_on_request(tmp_path: Path) -> None:
    path = tmp_path / "log"
    open_log("tun3", 0, file=path)
    notice("first")
    path.rename(tmp_path / "log.1")
    notice("second")
    reopen_log()
    notice("third")
    assert [line.rsplit(" ", 1)[1] for line in (tmp_path / "log.1").read_text().splitlines()] == ["first", "second"]
    assert path.read_text().endswith(" third\n")


def test_the_old_file_stays_in_use_if_the_file_cannot_be_reopened(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    open_log("tun3", 0, file=folder / "log")
    folder.rename(tmp_path / "moved")
    reopen_log()
    notice("still here")
    [warning, line] = (tmp_path / "moved" / "log").read_text().splitlines()
    assert "stays in the old file" in warning
    assert line.endswith("still here")


def test_a_file_with_a_relative_name_is_found_again_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_log("tun3", 0, file=Path("log"))
    monkeypatch.chdir("/")
    reopen_log()
    notice("up")
    assert (tmp_path / "log").read_text().endswith("up\n")


def test_a_log_file_that_is_not_a_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", ".", "none/log"):
        with pytest.raises(ConfigurationError, match="log file"):
            open_log("tun3", 0, file=tmp_path / name)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        open_log("tun3", 0, file=Path("/dev/null"))


def test_a_folder_that_this_user_may_not_write_is_a_privilege_error() -> None:
    with ordinary_user() as folder:
        (folder / "closed").mkdir(mode=0o500)
        with pytest.raises(PrivilegeError, match="log file"):
            open_log("tun3", 0, file=folder / "closed" / "log")


def test_a_full_disk_loses_lines_and_stops_nothing(tmp_path: Path) -> None:
    handler = ToFile(tmp_path / "log")
    full, disk = os.open("/dev/full", os.O_WRONLY), os.dup(handler.fileno())
    for target, text in ((full, "lost"), (disk, "kept")):
        os.dup2(target, handler.fileno())
        handler.emit(logging.LogRecord("vpntun", NOTICE, "", 0, text, (), None))
        os.close(target)
    handler.close()
    assert (tmp_path / "log").read_text() == "kept\n"


def test_a_daemon_without_a_file_writes_to_syslog(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as syslog:
        syslog.bind(str(tmp_path / "log"))
        handler = ToSyslog(str(tmp_path / "log"))
        handler.setFormatter(logging.Formatter("vpntun: %(message)s"))
        handler.emit(logging.LogRecord("vpntun", NOTICE, "", 0, "up", (), None))
        assert syslog.recv(1000) == b"<29>vpntun: up"
    handler.emit(logging.LogRecord("vpntun", NOTICE, "", 0, "nobody listens", (), None))
    handler.close()


def test_a_daemon_also_logs_to_stderr_while_it_has_one(tmp_path: Path, capsys: Captured) -> None:
    open_log("tun3", 0, file=tmp_path / "log", detached=True)
    notice("up")
    assert capsys.readouterr().err == "vpntun: tun3: up\n"
    assert (tmp_path / "log").read_text().endswith(" vpntun: tun3: up\n")


def test_what_is_told_is_on_stderr_exactly_once_wherever_the_log_is(tmp_path: Path, capsys: Captured) -> None:
    for file, name in ((None, "tun3: "), (tmp_path / "log", "")):
        open_log("tun3", 0, file=file)
        tell("paired with %s", "a\nb")
        assert capsys.readouterr().err == f"vpntun: {name}paired with a\\nb\n"
    assert (tmp_path / "log").read_text().endswith(" vpntun: tun3: paired with a\\nb\n")


def test_the_final_error_is_on_stderr_exactly_once_wherever_the_log_is(tmp_path: Path, capsys: Captured) -> None:
    for file in (None, tmp_path / "log"):
        open_log("tun3", 0, file=file)
        complain(DeviceError("the device tun3 has gone"))
        assert capsys.readouterr().err == "vpntun: the device tun3 has gone\n"
    assert (tmp_path / "log").read_text().endswith(" vpntun: the device tun3 has gone\n")


def test_the_final_error_of_a_command_without_a_log_is_on_stderr(capsys: Captured) -> None:
    log.handlers = []
    complain(DeviceError("no\tdevice"))
    assert capsys.readouterr().err == "vpntun: no\\tdevice\n"


NOBODY_READS = """
import signal
from vpntun.runtime.log import log, open_log
signal.alarm(20)
open_log("tun3", 0)
for _ in range(20000):
    log.error("x" * 100)
"""


def test_a_full_pipe_stops_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", NOBODY_READS], stderr=subprocess.PIPE) as program:
        assert program.wait(timeout=30) == 0
        assert program.stderr is not None
        lines = program.stderr.read().splitlines()
    assert 100 < len(lines) < 20000
    assert set(lines) == {b"vpntun: tun3: " + b"x" * 100}


WITHOUT_STDERR = """
import sys
from vpntun.runtime.log import notice, open_log
open_log("tun3", 0)
notice("lost")
print("keeps running", sys.stderr)
"""


def test_a_program_whose_stderr_is_closed_keeps_running() -> None:
    command = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, WITHOUT_STDERR]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "keeps running None\n")


JOURNAL = """
import os, sys
status = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino + int(sys.argv[1])}"
from vpntun.runtime.log import log, notice, open_log
open_log("tun3", 2)
notice("notice")
log.warning("warning")
log.debug("debug")
"""


def test_lines_for_the_journal_begin_with_their_priority() -> None:
    for offset, expected in (("0", ["<5>", "<4>", "<7>"]), ("1", ["", "", ""])):
        done = subprocess.run([sys.executable, "-c", JOURNAL, offset], capture_output=True, text=True, check=True)
        words = ["notice", "warning", "debug"]
        assert done.stderr.splitlines() == [f"{n}vpntun: tun3: {word}" for n, word in zip(expected, words, strict=True)]


@pytest.mark.parametrize("stated", ["", "nonsense", "1:2:3"])
def test_a_malformed_journal_stream_is_not_the_journal(stated: str) -> None:
    assert not leads_to_journal(2, {"JOURNAL_STREAM": stated})
    assert not leads_to_journal(-1, {"JOURNAL_STREAM": "1:2"})
