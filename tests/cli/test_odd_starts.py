"""Odd ways to start the program: each ends with a status and one line that says what to do, never with a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Said, program
from vpntun.crypto.keys import format_key

ENTRANCE = Path(sys.executable).with_name("vpntun")
NOT_UTF8 = "t\udcfcn"
"""What Python makes of an argument in Latin-1."""
LEGACY = {"LC_ALL": "xx_YY.KOI8-R", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A locale that is not installed, so that Python would take all names for ASCII."""


def by_shell(line: str, *arguments: str | Path) -> Said:
    """Run a line of shell in which "$@" is the program with its arguments."""
    command = ["sh", "-c", line, "sh", ENTRANCE, *arguments]
    done = subprocess.run(command, capture_output=True, check=False, timeout=30, text=True)
    return Said(done.returncode, done.stdout, done.stderr)


def conf(path: Path, *lines: str) -> Path:
    path.touch(mode=0o600)
    path.write_text("\n".join(["[Interface]", f"PrivateKey = {format_key(bytes(range(32)))}", *lines, ""]))
    return path


# Hosts


@pytest.mark.parametrize("host", ["10.0.0.2:55555", "[fd01::1]:5", "https://vpn.example.org/", " 10.0.0.2", "a..b"])
def test_a_client_is_not_started_for_what_cannot_be_a_host(run: Run, key: Path, host: str) -> None:
    said = run("-c", host, "-i", "tun11", "-k", key)
    assert (said.status, said.err.count("\n")) == (3, 1)
    assert f"-c: {host!r} is not a host" in said.err
    assert "-p sets the port" in said.err


# Folders that are gone


@pytest.mark.parametrize("option", ["--pidfile", "--log-file", "-f"])
def test_a_relative_path_in_a_deleted_folder_is_an_error(tmp_path: Path, key: Path, option: str) -> None:
    role: list[str | Path] = [] if option == "-f" else ["-s", "-k", key]
    line = f'mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; exec "$@"'
    said = by_shell(line, "-i", "lo", *role, option, "here")
    assert (said.status, said.err.count("\n")) == (3, 1), said.err
    assert "here is relative to the current folder, which does not exist any more: give an absolute path" in said.err


# Names that are not UTF-8


@pytest.mark.parametrize("arguments", ["-s -i", "mktun", "rmtun"])
def test_an_interface_whose_name_is_not_utf8_is_refused(arguments: str) -> None:
    said = program(*arguments.split(), NOT_UTF8)
    assert said.status == 3
    assert "cannot be an interface's name: it is not UTF-8" in said.err


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["-s", "-i", "lo", "-k", NOT_UTF8], 4),
        (["-i", "lo", "-f", NOT_UTF8], 3),
        (["up", f"./{NOT_UTF8}.conf"], 3),
        (["check", NOT_UTF8], 3),
        (["show", NOT_UTF8], 1),
        (["signal", NOT_UTF8], 11),
        (["-s", "-i", "lo", "--up", NOT_UTF8, "-k", "none"], 3),
        (["-s", "-i", "lo", "--log-file", f"none/{NOT_UTF8}", "-k", "none"], 3),
        ([NOT_UTF8], 2),
    ],
)
def test_other_names_that_are_not_utf8_are_shown_escaped(arguments: list[str], status: int) -> None:
    said = program(*arguments)
    assert (said.status, "Traceback" in said.err) == (status, False)
    assert "udcfc" in said.err


def test_a_hook_in_a_file_and_the_files_own_name_may_be_anything(tmp_path: Path) -> None:
    folder = tmp_path / "b\udcfcro"
    folder.mkdir()
    file = conf(folder / "t0.conf")
    file.write_bytes(file.read_bytes() + b"PostUp = echo caf\xe9\n")
    said = program("check", file)
    assert (said.status, said.err) == (0, "")
    assert "after up: echo caf\\udce9" in said.out


def test_names_are_utf8_whatever_the_locale(tmp_path: Path) -> None:
    file = conf(tmp_path / "t0.conf", "PostUp = echo caf\u00e9")
    said = program("check", file, environment=LEGACY)
    assert (said.status, said.err) == (0, "")
    assert "after up: echo caf\u00e9" in said.out
    said = program("-i", "caf\u00e0", "-s", environment=LEGACY)
    assert said.status == 3
    assert "'caf\u00e0' cannot be an interface's name" in said.err


# Output that cannot be written

PRINTING = ["genkey", "genpsk", "pubkey", "check FILE", "show --json", "show -h", "-h", "-V"]
UNBUFFERED = "PYTHONUNBUFFERED=1; export PYTHONUNBUFFERED"


@pytest.mark.parametrize(
    ("command", "setting"), [*((each, "unset PYTHONUNBUFFERED") for each in PRINTING), ("genkey", UNBUFFERED)]
)
def test_output_to_a_full_disk_is_an_error(tmp_path: Path, command: str, setting: str) -> None:
    file = conf(tmp_path / "t0.conf")
    line = f'{setting}; echo {format_key(bytes(range(32)))} | "$@" >/dev/full'
    said = by_shell(line, *command.replace("FILE", str(file)).split())
    assert (said.status, said.err) == (1, "vpntun: the output cannot be written: No space left on device\n")


@pytest.mark.parametrize("command", ["genkey", "check FILE", "show --json"])
def test_a_reader_that_has_gone_ends_the_command_silently(tmp_path: Path, command: str) -> None:
    file = conf(tmp_path / "t0.conf")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [ENTRANCE, *command.replace("FILE", str(file)).split()], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_usage_error_keeps_its_status_where_stderr_is_full() -> None:
    assert by_shell('"$@" 2>/dev/full', "no-such-command").status == 2
    assert by_shell('"$@" 2>/dev/full', "check", "none.conf").status == 3


def test_an_input_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    said = by_shell(f'"$@" 0>{tmp_path}/write-only', "pubkey")
    assert (said.status, said.err.count("\n")) == (3, 1)
    assert "stdin cannot be read" in said.err


def test_a_key_file_whose_content_cannot_be_read_is_an_error(run: Run) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: the file would be refused for its owner")
    said = run("-s", "-i", "lo", "-k", "/proc/self/mem")
    assert said.status == 4
    assert "/proc/self/mem cannot be read" in said.err
