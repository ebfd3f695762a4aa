"""`phone` adds a peer to a file and to the running tunnel, prints the phone's configuration, or changes nothing."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import pty
import re
import secrets
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_interface
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Said, full_queue
from vpntun.cli.qrcode import draw
from vpntun.config import finding
from vpntun.config.file import read_file
from vpntun.config.tunnel import Tunnel
from vpntun.control.client import ControlClient
from vpntun.control.server import ControlServer
from vpntun.crypto.keys import KeyPair, clamp, format_key
from vpntun.errors import ConfigurationError
from vpntun.runtime.loop import Loop

OWN = KeyPair.of(clamp(b"o" * 32))
LAPTOP = KeyPair.of(clamp(b"l" * 32)).public
HUB = f"""\
[Interface]   # the hub
PrivateKey = {format_key(OWN.private)}
ListenPort = 51820
Address = 10.9.0.1/24, fd09::1/64

[Peer]
Name = laptop
PublicKey = {format_key(LAPTOP)}
AllowedIPs = 10.9.0.2, fd09::2
"""
HOST = ("--endpoint", "vpn.example.org")


@pytest.fixture(autouse=True)
def _sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the control sockets a folder of their own."""
    monkeypatch.setattr("vpntun.control.server.run_folder", lambda: tmp_path / "run")
    monkeypatch.setattr("vpntun.control.client.run_folder", lambda: tmp_path / "run")


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    path = tmp_path / "hub.conf"
    path.touch(mode=0o600)
    path.write_text(HUB)
    return path


def app(text: str, folder: Path) -> Tunnel:
    """Read the phone's configuration as a WireGuard app would."""
    path = folder / "app.conf"
    path.touch(mode=0o600)
    path.write_text(text)
    return read_file(path, "app")


@contextmanager
def running(file: Path, *, refuses: bool = False, reads: Path | None = None) -> Iterator[int]:
    """Run a process that answers like the tunnel of a file; it `refuses` to reload, or `reads` another file."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        try:
            serve(file, writer, refuses=refuses, reads=reads or file)
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 5) == b"ready"
    try:
        yield reader
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(reader)


def serve(file: Path, writer: int, *, refuses: bool, reads: Path) -> None:
    """Answer on the control socket. Write "ready" to the pipe, and then the number of peers at each reload."""
    loop = Loop()
    tunnel = read_file(reads, "hub")

    def reload() -> None:
        nonlocal tunnel
        if refuses:
            raise ConfigurationError("this tunnel reads nothing")
        tunnel = read_file(reads, "hub")
        os.write(writer, f"{len(tunnel.peers)}".encode())

    ControlServer(
        "hub",
        loop,
        status=lambda: {"peers": [{"public_key": format_key(peer.public)} for peer in tunnel.peers]},
        stop=loop.stop,
        reload=reload,
        reset=lambda _: "",
    )
    os.write(writer, b"ready")
    loop.run(lambda _: float("inf"), lambda _: None)


def test_the_file_gets_a_peer_and_the_configuration_is_printed(run: Run, hub: Path, tmp_path: Path) -> None:
    said = run("phone", "handy", "-f", hub, *HOST)
    assert said.status == 0
    assert said.err.splitlines() == [
        "vpntun: hub: handy has 10.9.0.3 and fd09::3, and calls vpn.example.org:51820",
        "vpntun: hub: it sends 10.9.0.0/24, fd09::/64 into the tunnel; --allowed adds to that",
        "vpntun: hub: its private key is only in this output, and is not shown again",
        f"vpntun: hub: no running vpntun is called hub: it can connect once the tunnel has read {hub}",
    ]
    phone, server = app(said.out, tmp_path), read_file(hub, "hub")
    assert hub.read_text().startswith(f"{HUB}\n[Peer]\nName = handy\n")
    assert [peer.name for peer in server.peers] == ["laptop", "handy"]
    assert server.peers[1].public == phone.keys.public
    assert server.peers[1].psk == phone.peers[0].psk
    assert phone.addresses == (ip_interface("10.9.0.3/32"), ip_interface("fd09::3/128"))
    assert phone.peers[0].public == OWN.public
    for text in (hub.read_text(), said.err):
        assert format_key(phone.keys.private) not in text


def test_options_name_networks_and_name_servers(run: Run, hub: Path, tmp_path: Path) -> None:
    said = run(
        *("phone", "handy", "-f", hub, *HOST),
        *("--allowed", "0.0.0.0/0", "--allowed", "::/0, 10.20.0.0/16", "--dns", "10.9.0.1", "--dns", "example.org"),
    )
    assert "\nDNS = 10.9.0.1, example.org\n" in said.out
    assert "\nAllowedIPs = 0.0.0.0/0, ::/0\n" in said.out


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("vpn.example.org", "vpn.example.org:51820"),
        ("vpn.example.org:4500", "vpn.example.org:4500"),
        ("203.0.113.2", "203.0.113.2:51820"),
        ("203.0.113.2:4500", "203.0.113.2:4500"),
        ("2001:db8::1", "[2001:db8::1]:51820"),
        ("[2001:db8::1]", "[2001:db8::1]:51820"),
        ("[2001:db8::1]:4500", "[2001:db8::1]:4500"),
    ],
)
def test_an_endpoint_may_leave_out_the_port(run: Run, hub: Path, given: str, written: str) -> None:
    assert f"\nEndpoint = {written}\n" in run("phone", "handy", "-f", hub, "--endpoint", given).out


# the running tunnel


def test_a_running_tunnel_lets_the_phone_in_at_once(run: Run, hub: Path) -> None:
    with running(hub) as reloads:
        said = run("phone", "handy", "-f", hub, *HOST)
        assert said.status == 0
        assert "vpntun: hub: it can connect now\n" in said.err
        assert os.read(reloads, 9) == b"2"


def test_a_tunnel_that_runs_with_another_file_takes_a_restart(run: Run, hub: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.conf"
    other.touch(mode=0o600)
    other.write_text(HUB)
    with running(hub, reads=other):
        said = run("phone", "handy", "-f", hub, *HOST)
    assert said.status == 0
    assert f"hub runs, but has not read {hub} again: it can connect after a restart with that file" in said.err


def test_a_tunnel_that_refuses_to_reload_leaves_the_file_as_it_was(run: Run, hub: Path) -> None:
    with running(hub, refuses=True):
        said = run("phone", "handy", "-f", hub, *HOST)
    assert (said.status, said.out) == (1, "")
    assert "hub refuses: this tunnel reads nothing" in said.err
    assert hub.read_text() == HUB


def test_a_tunnel_that_takes_no_connections_leaves_the_file_as_it_was(
    run: Run, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("vpntun.cli.phone")  # the attribute of this name is the command
    monkeypatch.setattr(module, "ControlClient", partial(ControlClient, patience=0.1))
    with full_queue("hub"):
        said = run("phone", "handy", "-f", hub, *HOST)
    assert (said.status, said.out) == (1, "")
    assert "hub has taken no connection within 0.1 s" in said.err
    assert hub.read_text() == HUB


def test_a_running_tunnel_does_not_reload_if_the_file_cannot_be_changed(
    run: Run, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError

    monkeypatch.setattr("vpntun.config.appending._replace", refuse)
    with running(hub) as reloads:
        said = run("phone", "handy", "-f", hub, *HOST)
        os.set_blocking(reloads, False)
        with pytest.raises(BlockingIOError):
            os.read(reloads, 1)
    assert said.status == 6
    assert hub.read_text() == HUB


def test_if_the_configuration_cannot_be_printed_the_peer_is_removed_again(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = (
        "from pathlib import Path; import vpntun.control.client as client; from vpntun.cli import main; "
        f"client.run_folder = lambda: Path({str(tmp_path / 'run')!r}); main()"
    )
    with running(hub) as reloads, open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", start, "phone", "handy", "-f", hub, *HOST],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "the output cannot be written" in done.stderr
        assert os.read(reloads, 1) + os.read(reloads, 1) == b"21"
    assert hub.read_text() == HUB


# the code


def shown_in(columns: int, rows: int, run: Run, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> Said:
    """Run the program in a terminal of this size; `out` is what the terminal gets."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with os.fdopen(slave, "w") as screen, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        said = run(*arguments)
    shown = b""
    with contextlib.suppress(OSError):  # the end
        while data := os.read(master, 65536):
            shown += data
    os.close(master)
    return Said(said.status, shown.decode().replace("\r\n", "\n"), said.err)


def test_a_terminal_shows_the_code_of_the_same_text(run: Run, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_bytes", bytes)
    text = run("phone", "handy", "-f", hub, *HOST).out
    hub.write_text(HUB)
    said = shown_in(80, 40, run, monkeypatch, "phone", "handy", "-f", hub, *HOST)
    assert (said.status, said.out) == (0, draw(text, 80, 40))
    lines = re.sub(r"\x1b\[[\d;]*m", "", said.out).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 40
    assert read_file(hub, "hub").peers[1].name == "handy"


@pytest.mark.parametrize(("columns", "rows"), [(60, 50), (80, 24)])
def test_a_terminal_that_is_too_small_is_refused_before_anything_is_changed(
    run: Run, hub: Path, monkeypatch: pytest.MonkeyPatch, columns: int, rows: int
) -> None:
    said = shown_in(columns, rows, run, monkeypatch, "phone", "handy", "-f", hub, *HOST)
    assert (said.status, said.out) == (1, "")
    assert f"this terminal has {columns} and {rows}: enlarge it" in said.err
    assert hub.read_text() == HUB


def test_a_terminal_of_unknown_size_is_taken_for_one_of_80_columns(
    run: Run, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown_in(0, 0, run, monkeypatch, "phone", "handy", "-f", hub, *HOST).status == 0


def test_without_segno_nothing_is_changed_but_the_text_can_be_had(
    run: Run, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "segno", None)
    said = shown_in(80, 40, run, monkeypatch, "phone", "handy", "-f", hub, *HOST)
    assert (said.status, said.out) == (1, "")
    assert "pip install segno" in said.err
    assert hub.read_text() == HUB
    assert run("phone", "handy", "-f", hub, *HOST).status == 0


# what is refused


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("laptop", *HOST), 3, "hub has a peer called laptop already"),
        (("a#b", *HOST), 3, "without #"),
        (("handy", "--endpoint", "vpn.example.org:0"), 3, "--endpoint: port 0"),
        (("handy", "--endpoint", "10.9.0.1:9"), 3, "--endpoint: 10.9.0.1 is inside the tunnel"),
        (("handy", "--endpoint", "a b"), 3, "--endpoint: 'a b' is not a host"),
        (("handy", *HOST, "--allowed", "10.0.0.0/33"), 3, "--allowed: '10.0.0.0/33' is not a network"),
        (("handy", *HOST, "--dns", "10.9.0.1:53"), 3, "--dns: '10.9.0.1:53' is not a host"),
        ((), 2, "Missing argument 'NAME'"),
    ],
)
def test_a_mistake_changes_nothing(run: Run, hub: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    done = run("phone", "-f", hub, *arguments)
    assert (done.status, done.out) == (status, "")
    assert said in done.err
    assert hub.read_text() == HUB


def test_a_file_with_an_error_is_left_alone(run: Run, hub: Path) -> None:
    hub.write_text(f"{HUB}Nam = x\n")
    done = run("phone", "handy", "-f", hub, *HOST)
    assert done.status == 3
    assert "hub.conf:10: there is no key Nam in [Peer]; did you mean Name?" in done.err
    assert hub.read_text() == f"{HUB}Nam = x\n"


# which file


def test_the_only_file_need_not_be_named(run: Run, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "FOLDERS", (hub.parent / "none", hub.parent))
    assert run("phone", "handy", *HOST).status == 0
    assert run("phone", "handy", "-f", "hub", *HOST).status == 3  # it has that name already
    (hub.parent / "office.conf").touch()
    said = run("phone", "other", *HOST)
    assert (said.status, said.out) == (3, "")
    assert "there are files of several tunnels, hub, office: name one with -f" in said.err


def test_a_file_of_wg_quick_has_the_name_in_a_comment(run: Run, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "FOLDERS", (hub.parent / "none", hub.parent))
    assert run("phone", "handy", "-f", hub, *HOST).status == 0
    assert "\n[Peer]\n# Name = handy\nPublicKey = " in hub.read_text()
    assert "hub has a peer called handy already" in run("phone", "handy", "-f", hub, *HOST).err
