"""Run options: what the daemon gets of them, with a tunnel from options and with one from a file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from vpntun.config.keyfile import create_shared
from vpntun.process.service import RunOptions


@pytest.fixture(params=["options", "file"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Command line without run options."""
    key = tmp_path / "key"
    create_shared(key)
    if request.param == "options":
        return ["-s", "-i", "tun3", "-k", str(key)]
    file = tmp_path / "tun3.conf"
    file.touch(mode=0o600)
    file.write_text(f"[Interface]\nSharedKey = {key}\nRole = server\n")
    return ["up", str(file)]


def test_without_options_the_daemon_gets_the_defaults(run: Run, ran: list[Any], start: list[str]) -> None:
    assert run(*start).status == 0
    run_options = ran[1]
    assert (run_options.user, dict(run_options.commands), run_options.pidfile, run_options.background) == (
        None,
        {},
        None,
        None,
    )


def test_the_daemon_gets_the_user_the_hooks_and_the_pidfile(
    run: Run, ran: list[Any], start: list[str], tmp_path: Path
) -> None:
    pidfile = tmp_path / "pid"
    hooks = ["--up", "sh -c true", "--link-down", "/bin/sh 'a b'"]
    assert run(*start, "--user", "alice", *hooks, "--pidfile", str(pidfile)).status == 0
    run_options: RunOptions = ran[1]
    assert (run_options.user, run_options.pidfile) == ("alice", pidfile)
    up, down = run_options.commands["up"].words, run_options.commands["link-down"].words
    assert (Path(up[0]).name, up[1:], down) == ("sh", ("-c", "true"), ("/bin/sh", "a b"))
    assert set(run_options.commands) == {"up", "link-down"}


def test_the_daemon_gets_the_place_of_the_metrics_and_a_bad_one_starts_nothing(
    run: Run, ran: list[Any], start: list[str]
) -> None:
    said = run(*start, "--metrics", "9586")
    assert (said.status, ran) == (3, [])
    assert "--metrics: '9586' is no place for metrics" in said.err
    assert run(*start, "--metrics", "unix:/run/metrics/tun3.sock").status == 0
    assert ran[1].metrics == Path("/run/metrics/tun3.sock")


def test_the_log_is_written_to_the_given_file_in_the_given_format(
    run: Run, ran: list[Any], start: list[str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    said = run(*start, "--log-file", str(log), "--log-format", "logfmt", "-v")
    assert (said.status, said.err) == (0, "")
    logging.getLogger("vpntun").info("hello %s", "there")
    assert 'level=info interface=tun3 message="hello there"' in log.read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--wait", "3"], "--wait requires --daemon"),
        (["--daemon", "--wait", "-1"], "-1 is not a time to wait"),
        (["--daemon", "--wait", "inf"], "inf is not a time to wait"),
        (["--daemon", "--wait", "nan"], "nan is not a time to wait"),
        (["--daemon", "--wait", "1e10"], "1e10 is not a time to wait"),
        (["--daemon", "--wait", "soon"], "soon"),
        (["--log-format", "xml"], "xml"),
    ],
)
def test_invalid_options_are_a_usage_error(
    run: Run, ran: list[Any], start: list[str], options: list[str], says: str
) -> None:
    said = run(*start, *options)
    assert (said.status, says in said.err, ran) == (2, True, [])


@pytest.mark.parametrize("line", ["", "'", "no-such-command-anywhere", "bin/relative"])
def test_a_hook_that_is_not_a_command_is_refused(run: Run, ran: list[Any], start: list[str], line: str) -> None:
    said = run(*start, "--up", line)
    assert (said.status, said.err.count("\n"), ran) == (3, 1, [])


@pytest.mark.parametrize("place", ["1080", "localhost:1080", "unix:proxy.sock", "127.0.0.1:0"])
def test_a_place_of_a_proxy_that_cannot_be_is_refused_before_anything_begins(run: Run, place: str) -> None:
    said = run("run", "-c", "203.0.113.2", "--socks5", place)
    assert said.status == 3
    assert said.err.startswith("vpntun: --socks5: ")
    assert repr(place) in said.err
