"""`vpntun show --watch` in a pseudo-terminal: what the screen shows, and every way in which the view ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.terminal import COLOUR, CTRL_C, CTRL_Z, Terminal
from tests.watch.fake_tunnel import FakeTunnel
from vpntun.watch.poller import ENDED

INTERVAL = 0.2
SHOW = (sys.executable, "-m", "vpntun", "show", "--watch", str(INTERVAL))
SHOW_CURSOR, LEAVE_SCREEN = b"\x1b[?25h", b"\x1b[?1049l"


@pytest.fixture
def tunnel() -> Iterator[FakeTunnel]:
    with FakeTunnel() as tunnel:
        yield tunnel


@pytest.fixture
def terminal(tunnel: FakeTunnel) -> Iterator[Terminal]:
    """Yield a terminal of the usual size, in which the view of the tunnel is shown."""
    with Terminal([*SHOW, tunnel.interface]) as terminal:
        terminal.wait_for("Mbit/s")
        yield terminal


def is_restored(terminal: Terminal) -> bool:
    """Whether the terminal has its modes, its screen and its cursor back."""
    output = bytes(terminal.output)
    return (
        terminal.modes() == terminal.modes_before
        and not terminal.screen.cursor.hidden
        and output.rindex(LEAVE_SCREEN) > output.rindex(b"\x1b[?1049h")
        and output.rindex(SHOW_CURSOR) > output.rindex(b"\x1b[?25l")
    )


# What is shown


def test_80_columns_show_the_link_with_rates_round_trip_loss_and_histories(
    terminal: Terminal, tunnel: FakeTunnel
) -> None:
    terminal.until(lambda: re.search("[▁-▇]{5} round trip", terminal.text), "for a history")
    lines = terminal.lines
    assert len(lines) == 24
    assert re.fullmatch(rf"{tunnel.interface} 10\.0\.0\.1/24, port 55555, MTU 1500 ─+ up \d+ s", lines[0])
    assert re.fullmatch("● office  connected, data verified +UDP 203.0.113.2:55555", lines[2])
    assert re.fullmatch(r"  down +[78]\.\d\d Mbit/s +[▁-▇]+ round trip 12\.3 ms +[▁-▇]+", lines[3])
    assert re.fullmatch(r"  up +0 bit/s +▁+ handshake +63 s loss 0\.12%", lines[4])
    assert lines[5] == "  carrier UDP for 2 h (it answered first)"
    assert re.fullmatch(r"q quit +every 0\.2 s, \d\d:\d\d:\d\d", lines[-1])
    assert terminal.screen.cursor.hidden
    assert COLOUR.search(terminal.output)


@pytest.mark.parametrize(("columns", "rows"), [(60, 20), (120, 40)])
def test_other_sizes_are_used_as_they_are(tunnel: FakeTunnel, columns: int, rows: int) -> None:
    with Terminal([*SHOW, tunnel.interface], columns=columns, rows=rows) as terminal:
        terminal.wait_for("Mbit/s")
        assert len(terminal.lines[0]) == columns
        assert terminal.lines[rows - 1].startswith("q quit")
        assert re.search("round trip 12.3 ms", terminal.text)


def test_a_tiny_terminal_is_no_reason_to_fail(tunnel: FakeTunnel) -> None:
    with Terminal([*SHOW, tunnel.interface], columns=9, rows=2) as terminal:
        terminal.wait_for("q quit")
        terminal.type("q")
        assert terminal.wait() == 0


def test_a_new_size_of_the_terminal_is_used_at_once(terminal: Terminal) -> None:
    terminal.resize(100, 30)
    terminal.until(lambda: len(terminal.lines[0]) == 100 and terminal.lines[29].startswith("q quit"))
    terminal.resize(50, 10)
    terminal.until(lambda: len(terminal.lines[0]) == 50 and terminal.lines[9].startswith("q quit"))


def test_of_many_peers_the_busiest_are_shown_and_the_others_counted() -> None:
    with FakeTunnel(peers=40) as tunnel, Terminal([*SHOW, tunnel.interface]) as terminal:
        terminal.wait_for("more peers with less traffic not shown")
        terminal.until(lambda: re.search(r"● peer17 .* \d+ kbit/s", terminal.text), "for the rates")
        shown = re.findall("^● (\\w+)", terminal.text, re.MULTILINE)
        assert shown == ["office", *(f"peer{number}" for number in range(1, len(shown)))]
        assert f"{40 - len(shown)} more peers" in terminal.text


def test_no_color_is_respected(tunnel: FakeTunnel) -> None:
    with Terminal([*SHOW, tunnel.interface], env={"NO_COLOR": "1"}) as terminal:
        terminal.wait_for("Mbit/s")
        assert not COLOUR.search(terminal.output)


# How it ends


@pytest.mark.parametrize("key", ["q", "Q", CTRL_C])
def test_q_and_ctrl_c_end_the_view_with_status_0(terminal: Terminal, key: str) -> None:
    terminal.type(key)
    assert terminal.wait() == 0
    assert is_restored(terminal)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_view_after_the_terminal_is_restored(terminal: Terminal, number: signal.Signals) -> None:
    terminal.send(number)
    assert terminal.wait() == -number
    assert is_restored(terminal)


def test_a_closed_terminal_ends_the_view(terminal: Terminal) -> None:
    terminal.hang_up()
    assert terminal.wait() == -signal.SIGHUP


def test_a_closed_terminal_ends_the_view_that_ignores_hangups(tunnel: FakeTunnel, tmp_path: Path) -> None:
    ignoring = ["sh", "-c", f'trap "" HUP; exec "$@" 2>{tmp_path}/errors', "sh"]
    with Terminal([*ignoring, *SHOW, tunnel.interface]) as terminal:
        terminal.wait_for("Mbit/s")
        terminal.hang_up()
        assert terminal.wait() == 1
    assert re.fullmatch("vpntun: the view cannot be shown any longer: .*\n", (tmp_path / "errors").read_text())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)])
def test_a_terminal_that_takes_no_more_output_does_not_hold_up_the_end(
    terminal: Terminal, number: signal.Signals, status: int
) -> None:
    terminal.stop_output()
    end = time.monotonic() + 3 * INTERVAL
    terminal.until(lambda: time.monotonic() > end, "for a write that waits")
    terminal.send(number)
    assert terminal.wait() == status
    assert is_restored(terminal)


def test_a_view_that_ends_before_its_first_picture_restores_the_terminal(tunnel: FakeTunnel) -> None:
    with Terminal([*SHOW, tunnel.interface]) as terminal:
        terminal.stop_output()
        terminal.until(lambda: terminal.modes() != terminal.modes_before, "for a write that waits")
        terminal.send(signal.SIGTERM)
        assert terminal.wait() == -signal.SIGTERM
        assert terminal.modes() == terminal.modes_before


def test_the_end_of_the_tunnel_is_said_and_its_return_is_shown(terminal: Terminal, tunnel: FakeTunnel) -> None:
    tunnel.stop()
    terminal.wait_for(ENDED)
    assert "○ office  unknown" in terminal.text
    tunnel.start()
    terminal.until(lambda: ENDED not in terminal.text and "up 0 s" in terminal.text, "for the new tunnel")
    terminal.type("q")
    assert terminal.wait() == 0


def test_a_suspended_tunnel_is_said_and_q_still_works(terminal: Terminal, tunnel: FakeTunnel) -> None:
    os.kill(tunnel.process, signal.SIGSTOP)
    terminal.wait_for("s: is it suspended?")
    terminal.type("q")
    assert terminal.wait(5) == 0


def test_ctrl_z_gives_the_terminal_back_until_the_program_continues(tunnel: FakeTunnel) -> None:
    shell = f"{' '.join(SHOW)} {tunnel.interface}; echo stopped; read line; fg; echo over"
    with Terminal(["bash", "--norc", "-ic", f"set -m; {shell}"]) as terminal:
        terminal.wait_for("Mbit/s")
        terminal.type(CTRL_Z)
        terminal.until(lambda: b"stopped\r\n" in terminal.output, "for the shell")
        assert is_restored(terminal)
        seen = len(terminal.output)
        terminal.type("\n")
        terminal.until(lambda: b"\x1b[?1049h" in terminal.output[seen:], "for the view")
        terminal.type("q")
        terminal.until(lambda: b"over\r\n" in terminal.output, "for the shell")
        assert is_restored(terminal)


# Without a terminal that can be drawn on


def test_a_pipe_gets_a_table_once_an_interval_and_its_end_ends_the_view(tunnel: FakeTunnel) -> None:
    with subprocess.Popen(
        [*SHOW, tunnel.interface], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline().decode()]
        while lines[-1] and "Mbit/s" not in lines[-1]:
            lines.append(process.stdout.readline().decode())
        process.stdout.close()
        assert process.wait(20) == 0
        assert process.stderr.read() == b""
    assert not any("\x1b" in line for line in lines)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n", lines[0])
    peers = [line.split() for line in lines if line.startswith("● office")]
    assert peers[0][4:6] == ["-", "-"], "the first status tells no rate"
    assert peers[-1][5] == "Mbit/s"


def test_tables_go_on_after_a_pause_of_the_program(tunnel: FakeTunnel) -> None:
    with subprocess.Popen([*SHOW, tunnel.interface], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        time.sleep(4 * INTERVAL)
        process.send_signal(signal.SIGCONT)
        for _ in range(20):
            assert process.stdout.readline()
        process.terminate()


def test_ctrl_z_stops_the_tables_too(tunnel: FakeTunnel) -> None:
    shell = f"{' '.join(SHOW)} {tunnel.interface} | cat; echo stopped; read line; fg"
    with Terminal(["bash", "--norc", "-ic", f"set -m; {shell}"]) as terminal:
        terminal.wait_for("Mbit/s")
        terminal.type(CTRL_Z)
        terminal.until(lambda: b"stopped\r\n" in terminal.output, "for the shell")
        terminal.type("\n")
        seen = len(terminal.output)
        terminal.until(lambda: b"Mbit/s" in terminal.output[seen:], "for the next table")
        terminal.type(CTRL_C)
        terminal.wait()


def test_a_dumb_terminal_gets_tables(tunnel: FakeTunnel) -> None:
    with Terminal([*SHOW, tunnel.interface], env={"TERM": "dumb"}) as terminal:
        terminal.wait_for("Mbit/s")
        assert b"\x1b" not in terminal.output
        terminal.type(CTRL_C)
        assert terminal.wait() == 0


def test_a_tunnel_that_does_not_run_is_an_error() -> None:
    done = subprocess.run([*SHOW, "vpntun-test"], capture_output=True, check=False, timeout=60)
    assert done.returncode in (1, 6), "6 where root has tunnels of its own, which may not be looked at"
    assert done.stdout == b""
