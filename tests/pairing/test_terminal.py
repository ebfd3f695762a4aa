"""The code on a terminal and nowhere else, and the question for it."""

from __future__ import annotations

import io
import sys

import pytest

from tests.terminal import Terminal
from vpntun.errors import ConfigurationError, PairingFailed
from vpntun.pairing.terminal import ask_code, check_terminal

SHOW = "from vpntun.pairing.terminal import show_code; show_code('7KQ2-M9XD', {port})"


def test_the_code_goes_to_the_terminal_even_if_one_output_leads_elsewhere() -> None:
    for elsewhere in ("", ">/dev/null", "2>/dev/null"):
        command = ["sh", "-c", f'exec "$0" -c "$1" {elsewhere}', sys.executable, SHOW.format(port=55555)]
        with Terminal(command) as terminal:
            assert terminal.wait() == 0
            assert terminal.lines[:2] == [
                "code: 7KQ2-M9XD (good once, for ten minutes)",
                "type it at the other machine: vpntun -c THIS-HOST -i NAME --pair",
            ]


def test_without_a_terminal_nothing_is_shown_and_the_operator_is_told_what_to_do(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ConfigurationError, match="over ssh with -t"):
        check_terminal()
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_a_code_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("what?\n 7kq2 m9xd\n"))
    assert ask_code() == "7KQ2M9XD"
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("code that the other end shows: ") == 2
    assert "a code has 8 letters and digits" in said.err


def test_the_end_of_the_input_ends_the_pairing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(PairingFailed, match="no code was given"):
        ask_code()
