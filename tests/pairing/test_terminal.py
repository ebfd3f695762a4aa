"""The code on a terminal and nowhere else, and the question for it."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path

import pytest

from tests.terminal import Terminal
from vpntun.errors import ConfigurationError, PairingFailed
from vpntun.pairing.terminal import ask_code, check_terminal

ASK = """
from vpntun.errors import PairingFailed
from vpntun.pairing.interrupts import ended_by_signals
from vpntun.pairing.terminal import ask_code
with ended_by_signals():
    try:
        ask_code()
    except PairingFailed:
        raise SystemExit(7)
"""
SHOW = "from vpntun.pairing.terminal import show_code; show_code('7KQ2-M9XD', {port}, {transport!r})"


def typed(line: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(line), "utf-8")


def test_the_code_goes_to_the_terminal_even_if_one_output_leads_elsewhere() -> None:
    for elsewhere in ("", ">/dev/null", "2>/dev/null"):
        command = [
            "sh",
            "-c",
            f'exec "$0" -c "$1" {elsewhere}',
            sys.executable,
            SHOW.format(port=55555, transport=None),
        ]
        with Terminal(command) as terminal:
            assert terminal.wait() == 0
            assert terminal.lines[:2] == [
                "code: 7KQ2-M9XD (good once, for ten minutes)",
                "type it at the other machine: vpntun -c THIS-HOST -i NAME --pair",
            ]


@pytest.mark.parametrize(
    ("port", "transport", "options"),
    [
        (55555, "auto", ""),
        (443, None, " -p 443"),
        (443, "tcp", " -p 443 --transport tcp"),
        (55555, "udp", " --transport udp"),
    ],
)
def test_the_command_for_the_other_machine_repeats_what_both_ends_must_share(
    port: int, transport: str | None, options: str
) -> None:
    with Terminal([sys.executable, "-c", SHOW.format(port=port, transport=transport)], columns=120) as terminal:
        assert terminal.wait() == 0
        assert terminal.lines[1] == f"type it at the other machine: vpntun -c THIS-HOST -i NAME{options} --pair"


def test_without_a_terminal_nothing_is_shown_and_the_operator_is_told_what_to_do(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ConfigurationError, match="over ssh with -t"):
        check_terminal()
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_a_code_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", typed(b"what?\n 7kq2 m9xd\n"))
    assert ask_code() == "7KQ2M9XD"
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("code that the other end shows: ") == 2
    assert "a code has 8 letters and digits" in said.err


def test_the_end_of_the_input_ends_the_pairing_on_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", typed(b""))
    with pytest.raises(PairingFailed, match="no code was given"):
        ask_code()
    assert capsys.readouterr().err == "code that the other end shows: \n"


def test_input_that_is_no_text_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", typed(b"7kq2\xfcm9xd\n7kq2m9xd\n"))
    assert ask_code() == "7KQ2M9XD"
    assert "a code has 8 letters and digits" in capsys.readouterr().err


def test_an_endless_line_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/zero", encoding="utf-8") as zeros:
        monkeypatch.setattr(sys, "stdin", zeros)
        with pytest.raises(PairingFailed, match="no code was given"):
            ask_code()


@pytest.mark.parametrize("ignored", ["", "trap '' HUP; "])
def test_a_terminal_that_is_closed_at_the_question_ends_the_program_without_a_traceback(
    tmp_path: Path, ignored: str
) -> None:
    said = tmp_path / "said"
    with Terminal(["sh", "-c", f'{ignored}exec "$0" -c "$1" 2>"$2"', sys.executable, ASK, said]) as terminal:
        terminal.until(lambda: said.exists() and "code that" in said.read_text())
        terminal.hang_up()
        status = terminal.wait()
    assert status == (7 if ignored else -signal.SIGHUP)
    assert "Traceback" not in said.read_text()
