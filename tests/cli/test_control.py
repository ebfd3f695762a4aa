"""`show`, `reset` and `down` on real control sockets, served by a process in place of the tunnel."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.child_tunnel import answering
from tests.cli.conftest import Run, full_queue
from tests.cli.sample_status import PEER, STATUS, TEXT
from tests.machine import needs_root, ordinary_user
from vpntun.cli.describe import FIELDS_OF_THE_STATES
from vpntun.control import client
from vpntun.control.server import ControlServer, socket_path
from vpntun.control.verify import verify_routes
from vpntun.errors import AmbiguousPeer, NoSuchPeer, VpntunError
from vpntun.runtime.loop import Loop

# Who is asked


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run the test as an ordinary user; yield the folder of its sockets."""
    with ordinary_user() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield folder / "vpntun"


@contextmanager
def running(status: dict[str, Any], *, lingers: float = 0.0, is_older: bool = False) -> Iterator[int]:
    """Run a process that answers like a tunnel, and ends `lingers` seconds after it has closed its socket.

    `is_older`: it knows no /v1/verify.
    """

    def new_server(loop: Loop) -> ControlServer:
        return ControlServer(
            status["interface"],
            loop,
            status=lambda: status,
            stop=loop.stop,
            reload=loop.stop,
            reset=reset,
            more={} if is_older else verify_routes(lambda peer: {"peers": [reset(peer)], "awaited": []}),
        )

    def linger(server: ControlServer) -> None:
        server.close()
        time.sleep(lingers)

    with answering(new_server, linger) as process:
        yield process


def reset(peer: str | None) -> str:
    """Return a key for the peers that this tunnel knows; the name attic is ambiguous."""
    if peer == "attic":
        raise AmbiguousPeer("several peers match; name one of them: attic (one), attic (two)")
    if peer not in (None, "office", "ab+c/d=", "the caf\u00e9 & more"):
        raise NoSuchPeer("no peer has this name or key; the peers are: office (abc)\x1b[2J")
    return f"the key of {peer}"


def has_ended(process: int) -> bool:
    return os.waitpid(process, os.WNOHANG)[0] == process


def test_one_tunnel_is_shown_as_text_and_as_json(run: Run, user: Path) -> None:
    with running(STATUS):
        said = run("show", "tun3")
        assert said.status == 0
        assert said.out.splitlines()[0] == "interface: tun3"
        assert [line.split(":")[0] for line in said.out.splitlines()] == [
            line.split(":")[0] for line in TEXT.splitlines()
        ]
        assert json.loads(run("show", "tun3", "--json").out) == STATUS


def test_all_tunnels_are_shown_by_name_except_dead_ones(run: Run, user: Path) -> None:
    other = {**STATUS, "interface": "office", "peers": []}
    with running(STATUS), running(other):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(socket_path("dead")))
        assert [line for line in run("show").out.splitlines() if line.startswith("interface")] == [
            "interface: office",
            "interface: tun3",
        ]
        assert json.loads(run("show", "--json").out) == [other, STATUS]


def test_a_tunnel_whose_queue_of_connections_is_full_runs_all_the_same(user: Path) -> None:
    with full_queue("tun3"):
        assert client.running_interfaces() == ["tun3"]
        with pytest.raises(VpntunError, match=r"tun3 has taken no connection within 0\.2 s: is its vpntun suspended\?"):
            client.ControlClient("tun3", 0.2)


def test_a_client_waits_for_room_in_a_tunnels_queue(user: Path) -> None:
    with full_queue("tun3") as listener, contextlib.ExitStack() as stack:
        accepting = threading.Timer(0.1, lambda: stack.enter_context(listener.accept()[0]))
        accepting.start()
        client.ControlClient("tun3", 5.0).__exit__()
        accepting.join()


def test_a_wait_for_a_peer_does_not_end_with_the_link_to_another(run: Run, user: Path) -> None:
    there, away = ({**PEER, "public_key": f"the key of {name}"} for name in ("office", "ab+c/d="))
    with running({**STATUS, "peers": [there, {**away, "state": "connecting"}]}):
        assert run("show", "tun3", "office", "--wait", "5").status == 0
        assert run("show", "tun3", "--wait", "5").status == 0
        said = run("show", "tun3", "ab+c/d=", "--wait", "0.3")
    assert (said.status, said.out) == (9, "")
    assert "tun3 has no link to ab+c/d= after 0.3 s" in said.err


OLDER_PEER = {name: value for name, value in PEER.items() if name not in FIELDS_OF_THE_STATES}


def test_a_tunnel_that_an_older_version_has_started_is_shown_by_its_plain_status(run: Run, user: Path) -> None:
    attic = {**OLDER_PEER, "name": "", "public_key": f"q{PEER['public_key'][1:]}"}
    older = {**STATUS, "peers": [OLDER_PEER, attic]}
    with running(older, is_older=True):
        assert json.loads(run("show", "tun3", "--json").out) == older
        for arguments in (["tun3"], []):
            shown = run("show", *arguments)
            assert shown.status == 0
            assert "  carrier: UDP\n  handshake: fresh\n  state: connected\n" in shown.out, "nobody knows of the data"
        assert run("show", "tun3", "office", "--wait", "5").status == 0
        for called in ("office", "qGVl", PEER["public_key"]):
            assert run("show", "tun3", called).out.count("peer: ") == 1
        said = run("show", "tun3", "loft")
        assert (said.status, said.out) == (1, "")
        assert "tun3 has no peers of this name or key" in said.err


def test_a_check_of_a_tunnel_of_an_older_version_goes_by_its_state(run: Run, user: Path) -> None:
    with running({**STATUS, "peers": [OLDER_PEER]}, is_older=True):
        said = run("show", "tun3", "--check")
        assert (said.status, said.out, said.err) == (0, "", "")
    for changes, status, words in (
        ({"state": "one-way"}, 13, "office: UDP; state one-way\n"),
        ({"state": "connecting", "latest_handshake_age": 180}, 14, "office: UDP; handshake not fresh\n"),
        ({"state": "waiting", "carrier": None}, 15, "office: no carrier\n"),
    ):
        with running({**STATUS, "peers": [{**OLDER_PEER, **changes}]}, is_older=True):
            said = run("show", "tun3", "--check")
            assert (said.status, said.out) == (status, words)


def test_without_tunnels_only_stderr_has_a_line(run: Run, user: Path) -> None:
    said = run("show")
    assert (said.status, said.out) == (0, "")
    assert "no tunnel of this user is running" in said.err
    said = run("show", "--json")
    assert (said.status, said.out, said.err) == (0, "[]\n", "")


def test_control_characters_in_a_name_are_escaped(run: Run, user: Path) -> None:
    named = {**PEER, "name": "a\x1b[2Jb\nc", "endpoint": "\x07"}
    with running({**STATUS, "peers": [named]}):
        said = run("show", "tun3")
    assert r"  name: a\x1b[2Jb\nc" in said.out.splitlines()
    assert "\x1b" not in said.out
    assert "\x07" not in said.out


@pytest.mark.parametrize("called", ["office", "ab+c/d=", "the caf\u00e9 & more"])
def test_a_reset_prints_the_key_of_the_peer_that_was_named(run: Run, user: Path, called: str) -> None:
    with running(STATUS):
        said = run("reset", "tun3", called)
    assert (said.status, said.out, said.err) == (0, f"the key of {called}\n", "")


def test_a_reset_of_the_only_peer_needs_no_name(run: Run, user: Path) -> None:
    with running(STATUS):
        said = run("reset", "tun3")
    assert (said.status, said.out, said.err) == (0, "the key of None\n", "")


@pytest.mark.parametrize(
    ("called", "why"),
    [
        ("cellar", "the peers are: office (abc)\\x1b[2J"),
        ("attic", "attic (one), attic (two)"),
        ("b\udcfcro", "the peers are"),
    ],
)
def test_a_reset_of_an_unknown_or_ambiguous_peer_lists_the_peers(run: Run, user: Path, called: str, why: str) -> None:
    with running(STATUS):
        said = run("reset", "tun3", called)
    assert (said.status, said.out) == (1, "")
    assert why in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("command", ["show", "reset", "down"])
def test_an_ordinary_user_gets_an_error_for_a_tunnel_that_is_not_running(run: Run, user: Path, command: str) -> None:
    said = run(command, "tun9")
    assert said.status in (1, 6), "6 where root has tunnels of its own, which may not be looked at"
    assert ("no vpntun runs tun9" if said.status == 1 else "only root may control root's") in said.err
    assert said.err.count("\n") == 1


@needs_root
@pytest.mark.parametrize("command", ["show", "reset", "down"])
def test_root_gets_an_error_for_a_tunnel_that_is_not_running(run: Run, command: str) -> None:
    said = run(command, "vpntun-test")
    assert said.status == 1
    assert "no vpntun runs vpntun-test: 'vpntun show' lists" in said.err


@needs_root
def test_an_ordinary_user_may_not_ask_the_tunnels_of_root(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vpntun").mkdir(mode=0o700)
    monkeypatch.setattr(client, "OF_THE_MACHINE", tmp_path / "vpntun")
    with ordinary_user() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        said = run("show", "tun3")
    assert said.status == 6
    assert "use sudo" in said.err


def test_the_tunnel_has_ended_when_down_returns(run: Run, user: Path) -> None:
    with running(STATUS, lingers=0.3) as process:
        said = run("down", "tun3")
        assert (said.status, said.out, said.err) == (0, "", "")
        assert has_ended(process)
    assert list(user.iterdir()) == []


@pytest.mark.parametrize("name", ["tun3.conf", "/nowhere/tun3.conf", "./tun3.conf"])
def test_down_takes_the_path_of_a_file_even_if_it_no_longer_exists(run: Run, user: Path, name: str) -> None:
    with running(STATUS) as process:
        assert run("down", name).status == 0
        assert has_ended(process)


def test_down_refuses_a_path_that_cannot_be_a_configuration_file(run: Run, user: Path) -> None:
    assert run("down", "/nowhere/tun3").status == 3


def test_the_error_for_a_tunnel_that_does_not_end_in_time_says_what_to_do(
    run: Run, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "SECONDS_TO_END", 0.2)
    with running(STATUS, lingers=30) as process:
        said = run("down", "tun3")
    assert said.status == 1
    assert f"'kill -KILL {process}'" in said.err


def test_a_client_whose_tunnel_has_ended_calls_nobody_else(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr("socket.create_connection", lambda where, *_: called.append(where))
    with running(STATUS) as process, client.ControlClient("tun3") as asked:
        os.kill(process, signal.SIGSTOP)
        killing = threading.Timer(0.2, os.kill, (process, signal.SIGKILL))
        killing.start()
        for _ in range(2):
            with pytest.raises(VpntunError, match="ended before it answered"):
                asked.ask("GET", "/v1/status")
        killing.join()
    assert called == []


def test_a_tunnel_that_does_not_answer_is_said(run: Run, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.ControlClient.__init__, "__defaults__", (0.2,))
    with running(STATUS) as process:
        os.kill(process, signal.SIGSTOP)
        said = run("show", "tun3")
    assert said.status == 1
    assert f"(process {process}) has not answered" in said.err
