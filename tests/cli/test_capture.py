"""`vpntun capture`: what it asks for, writes, prints and counts. A process answers in place of the tunnel."""

from __future__ import annotations

import json
import os
import pty
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from tests.capture.test_describing_frames import IPV4, frame
from tests.cli.child_tunnel import answering
from tests.machine import ordinary_user
from tests.netns.lab import until
from tests.wire.packets import tcp, udp
from vpntun.capture import pcapng
from vpntun.capture.reading import CapturedPacket, CaptureReader
from vpntun.cli import main
from vpntun.cli.capture import line_of
from vpntun.control.server import ControlServer
from vpntun.runtime.logform import escape
from vpntun.runtime.loop import Loop
from vpntun.serving.http import Answer, Route, StreamAnswer, refusal

AT = 1_700_000_000_123_456_789
FIELDS = ("packets", "bytes", "seconds", "snaplen")
START = pcapng.section("vpntun") + pcapng.interface("office\x1b[2J", "", 100)
PACKETS = pcapng.packet(0, AT, udp(4, b"x"), 33, pcapng.INBOUND) + pcapng.packet(0, AT, b"\x45", 1, pcapng.OUTBOUND, 2)
COUNT = "2 packets captured, 7 lost: they came faster than they were read\n"
ENDING = pcapng.statistics(0, AT, AT, 9, 7)


class Script:
    """A stream with these bytes, which ends at once or when it is asked to."""

    def __init__(self, data: bytes, *, ends: bool) -> None:
        self.ended = ends
        self._waiting = [data, ENDING] if ends else [data]
        self._on_more: Callable[[], None] = lambda: None

    def take(self) -> bytes:
        return self._waiting.pop(0) if self._waiting else b""

    def call_on_more(self, callback: Callable[[], None]) -> None:
        self._on_more = callback

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self._waiting.append(ENDING)
            self._on_more()


@contextmanager
def tunnel(data: bytes = START + PACKETS, *, ends: bool = True) -> Iterator[int]:
    """Run a process that answers like the tunnel of tun3. With a query, the name of the peer is that query."""

    def capture(**query: Any) -> Answer | StreamAnswer:
        if query.get("peer") == ["nobody"]:
            return refusal(HTTPStatus.NOT_FOUND, "no peer has this name")
        if query:
            named = pcapng.section("vpntun") + pcapng.interface(json.dumps(query), "", 9)
            return StreamAnswer("", Script(named + PACKETS, ends=ends))
        return StreamAnswer("application/x-pcapng", Script(data, ends=ends))

    def new_server(loop: Loop) -> ControlServer:
        route = Route("GET", capture, frozenset(FIELDS), frozenset({"peer", "net"}))
        return ControlServer(
            "tun3", loop, status=dict, stop=loop.stop, reload=loop.stop, reset=str, more={"/v1/capture": route}
        )

    with answering(new_server) as process:
        yield process


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run the test as an ordinary user; return a path for a capture."""
    escape("\n")  # loads a codec, now, since an ordinary user may not be able to read it
    with ordinary_user() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield folder / "a.pcapng"


class Run:
    """Runner of the command in this process. It keeps what was written to the descriptors themselves."""

    def __init__(self, captured: pytest.CaptureFixture[bytes]) -> None:
        self._captured = captured
        self.out, self.err = b"", ""

    def __call__(self, *arguments: str | Path) -> object:
        with pytest.raises(SystemExit) as caught:
            main(["capture", *(str(each) for each in arguments)])
        out, err = self._captured.readouterr()
        self.out, self.err = out, err.decode()
        return caught.value.code or 0


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    return Run(capfdbinary)


class Started:
    """The command in a process of its own, forked, since an ordinary user may not be able to run this interpreter.

    `stdout`: a descriptor for its output. `without`: a descriptor that it does not inherit.
    """

    def __init__(self, *arguments: str | Path, stdout: int = 1, without: int | None = None) -> None:
        self._err, err = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            status: object = 99
            try:
                sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
                os.dup2(stdout, 1)
                os.dup2(err, 2)
                for each in (self._err, without):
                    if each is not None:
                        os.close(each)
                main(["capture", *(str(each) for each in arguments)])
            except SystemExit as ended:
                status = ended.code or 0
            finally:
                sys.stderr.flush()
                os._exit(status if isinstance(status, int) else 99)
        os.close(err)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def has_ended(self, seconds: float) -> bool:
        """Whether it ends within this time; it remains to be waited for."""
        return until(lambda: os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None, seconds)

    def wait(self) -> tuple[int, str]:
        """Return its exit status and what it said."""
        ended = self.has_ended(20)
        if not ended:
            os.kill(self.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        with open(self._err) as said:
            text = said.read()
        assert ended, text
        return status, text


# Where the packets go


def test_pcapng_goes_to_a_pipe_as_it_is_and_the_count_to_stderr(run: Run) -> None:
    with tunnel():
        assert run("tun3") == 0
        assert run.out == START + PACKETS + ENDING
        assert run.err == COUNT
        assert run("tun3", "-w", "-") == 0
        assert run.out == START + PACKETS + ENDING


def test_a_file_is_replaced_and_a_new_one_is_the_owners_alone(run: Run, path: Path) -> None:
    former = os.umask(0)
    try:
        with tunnel():
            for _ in range(2):
                assert run("tun3", "-w", path) == 0
    finally:
        os.umask(former)
    assert path.read_bytes() == START + PACKETS + ENDING
    assert path.stat().st_mode & 0o777 == 0o600
    assert run.out == b""


def test_packets_are_printed_line_by_line_and_nothing_they_say_reaches_the_terminal(run: Run) -> None:
    with tunnel():
        assert run("tun3", "--print") == 0
    first, second = run.out.decode().splitlines()
    assert first[8:] == ".123456 <- office\\x1b[2J: UDP 100.64.0.1:" + first.rpartition("100.64.0.1:")[2]
    assert first.endswith(", 1 byte")
    assert second[8:] == ".123456 -> office\\x1b[2J: malformed, 1 byte"


def test_a_file_may_be_written_while_lines_are_printed(run: Run, path: Path) -> None:
    with tunnel():
        assert run("tun3", "--print", "-w", path) == 0
    assert path.read_bytes() == START + PACKETS + ENDING
    assert len(run.out.splitlines()) == 2


def test_a_terminal_gets_lines() -> None:
    ours, theirs = pty.openpty()
    with tunnel():
        process = Started("tun3", stdout=theirs)
        os.close(theirs)
        assert process.wait() == (0, COUNT)
    shown = os.read(ours, 4096)
    os.close(ours)
    assert b"<- office" in shown
    assert shown.endswith(b"malformed, 1 byte\r\n")


@pytest.mark.parametrize(
    "arguments", [("-w", "-", "--print"), ("--packets", "0"), ("--bytes", "9"), ("--snaplen", "70000")]
)
def test_options_that_make_no_sense_are_a_mistake_of_usage(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("tun3", *arguments) == 2


def test_pcapng_is_not_written_to_a_terminal() -> None:
    ours, theirs = pty.openpty()
    process = Started("tun3", "-w", "-", stdout=theirs)
    os.close(theirs)
    status, said = process.wait()
    assert status == 2
    assert "pcapng cannot go to a terminal" in said
    os.close(ours)


# What is asked


def test_the_options_are_the_query(run: Run) -> None:
    with tunnel():
        options = ("--peer", "caf\u00e9 & more", "--peer", "ab+c/d=", "--net", "10.0.0.0/8", "--net", "fd00::/8")
        bounds = ("--packets", "5", "--bytes", "5000", "--seconds", "1.5", "--snaplen", "96")
        assert run("tun3", *options, *bounds) == 0
    [packet, _] = CaptureReader().take(run.out)
    assert json.loads(packet.peer) == {
        "peer": ["caf\u00e9 & more", "ab+c/d="],
        "net": ["10.0.0.0/8", "fd00::/8"],
        "packets": "5",
        "bytes": "5000",
        "seconds": "1.5",
        "snaplen": "96",
    }


def test_a_refused_capture_says_why_and_leaves_the_file_alone(run: Run, path: Path) -> None:
    path.write_text("precious")
    with tunnel():
        assert run("tun3", "--peer", "nobody", "-w", path) == 1
    assert run.err == "vpntun: tun3 refuses: no peer has this name\n"
    assert path.read_text() == "precious"


# How it ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_capture_and_completes_the_file(path: Path, number: signal.Signals) -> None:
    with tunnel(ends=False):
        process = Started("tun3", "-w", path)
        assert until(lambda: path.exists() and path.read_bytes() == START + PACKETS, 20)
        process.send(number)
        assert process.wait() == (0, COUNT)
    assert path.read_bytes() == START + PACKETS + ENDING


def test_a_second_signal_ends_a_command_whose_tunnel_does_not_answer(path: Path) -> None:
    with tunnel(ends=False) as answering:
        process = Started("tun3", "-w", path)
        assert until(lambda: path.exists() and path.read_bytes() == START + PACKETS, 20)
        os.kill(answering, signal.SIGSTOP)
        process.send(signal.SIGTERM)
        assert not process.has_ended(0.5)
        process.send(signal.SIGTERM)
        assert process.wait()[0] == -signal.SIGTERM


def test_a_pipe_that_nobody_reads_ends_the_capture_without_a_complaint() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with tunnel(ends=False):
        process = Started("tun3", stdout=writer)
        os.close(writer)
        status, said = process.wait()
    assert status == 0
    assert said.endswith("captured\n")


def test_a_pipe_that_nobody_reads_any_more_ends_a_capture_without_packets() -> None:
    with tunnel(ends=False):
        reader, writer = os.pipe()
        process = Started("tun3", stdout=writer, without=reader)
        os.close(writer)
        assert os.read(reader, 4096) == START + PACKETS
        assert not process.has_ended(0.3)
        os.close(reader)
        status, said = process.wait()
    assert status == 0
    assert said.startswith("2 packets captured, 2 lost")


def test_a_capture_into_a_file_needs_nobody_who_reads_standard_output(path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with tunnel(ends=False):
        process = Started("tun3", "-w", path, stdout=writer)
        os.close(writer)
        assert until(lambda: path.exists() and path.read_bytes() == START + PACKETS, 20)
        assert not process.has_ended(0.3)
        process.send(signal.SIGINT)
        assert process.wait() == (0, COUNT)


def test_a_full_disk_is_an_error(run: Run) -> None:
    with tunnel():
        assert run("tun3", "-w", "/dev/full") == 1
        assert run.err == "vpntun: the capture cannot be written: No space left on device\n"
        assert run("tun3", "-w", "/nonexistent/a.pcapng") == 1
        assert "cannot be written: No such file or directory" in run.err


def test_a_tunnel_that_ends_in_the_middle_is_an_error(path: Path) -> None:
    with tunnel(ends=False) as answering:
        process = Started("tun3", "-w", path)
        assert until(lambda: path.exists() and path.read_bytes() == START + PACKETS, 20)
        os.kill(answering, signal.SIGKILL)
        status, said = process.wait()
    assert status == 1
    assert "tun3 ended before its answer did" in said


def test_an_answer_that_is_no_capture_is_an_error(run: Run) -> None:
    with tunnel(b"something else"):
        assert run("tun3", "--print") == 1
    assert "is it of another version?" in run.err


def test_a_line_has_local_time_direction_and_peer() -> None:
    packet = CapturedPacket("office", AT, True, tcp(6, b"x"), len(tcp(6, b"x")))
    assert line_of(packet)[8:].startswith(".123456 -> office: TCP [fd00::1]:")
    assert time.strftime("%H:%M:%S", time.localtime(AT // 10**9)) == line_of(packet)[:8]


def test_a_line_about_a_frame_describes_what_is_inside() -> None:
    inside = frame(IPV4, udp(4, b"x"), 0x8100_0007)
    packet = CapturedPacket("office", AT, False, inside, len(inside), is_frame=True)
    assert " <- office: VLAN 7, UDP 100.64.0.1:" in line_of(packet)
