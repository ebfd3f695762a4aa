"""The pseudo-terminal of the tests: keys arrive, the screen is read, and the end of a program is noticed."""

from __future__ import annotations

import signal

import pytest

from tests.terminal import COLOUR, CTRL_C, Terminal

ASK = 'printf "code? "; read code; printf "\\033[2J\\033[3;5Hyou said %s" "$code"; exit 7'


def test_typed_keys_arrive_and_the_screen_shows_the_answer_where_it_was_put() -> None:
    with Terminal(["sh", "-c", ASK], columns=60, rows=10) as terminal:
        terminal.wait_for("code?")
        terminal.type("abc-123\n")
        assert terminal.wait() == 7
        assert terminal.lines[2] == "    you said abc-123"
        assert len(terminal.lines) == 10


def test_a_text_that_never_comes_fails_the_test_with_the_screen() -> None:
    with (
        Terminal(["sh", "-c", "echo something else; sleep 60"]) as terminal,
        pytest.raises(AssertionError, match=r"(?s)in vain for 'code'.*something else"),
    ):
        terminal.wait_for("code", seconds=0.5)


def test_ctrl_c_and_the_end_of_the_terminal_are_signals() -> None:
    with Terminal(["sh", "-c", "echo ready; exec sleep 60"]) as terminal:
        terminal.wait_for("ready")
        terminal.type(CTRL_C)
        assert terminal.wait() == -signal.SIGINT
    with Terminal(["sh", "-c", "echo ready; exec sleep 60"]) as terminal:
        terminal.wait_for("ready")
        terminal.hang_up()
        assert terminal.wait() == -signal.SIGHUP


def test_a_program_learns_of_the_size_and_of_a_new_one() -> None:
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done"
    with Terminal(["sh", "-c", script], columns=60, rows=20) as terminal:
        terminal.wait_for("20 60")
        terminal.resize(100, 30)
        terminal.wait_for("30 100")


def test_colours_are_told_from_other_attributes() -> None:
    coloured = (b"\x1b[31m", b"\x1b[1;92m", b"\x1b[38;5;16;48;5;231m", b"\x1b[0;44m", b"\x1b[2;38;2;1;2;3m")
    assert all(COLOUR.search(text) for text in coloured)
    assert not any(COLOUR.search(text) for text in (b"\x1b[0m", b"\x1b[1m", b"\x1b[2;3m", b"\x1b[31A", b"\x1b[?25l"))
