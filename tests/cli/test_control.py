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

from tests.cli.conftest import Run, full_queue
from tests.machine import needs_root, ordinary_user
from vpntun.cli.control import describe
from vpntun.control import client
from vpntun.control.server import ControlServer, socket_path
from vpntun.errors import AmbiguousPeer, NoSuchPeer, VpntunError
from vpntun.runtime.loop import Loop

NOW = 1_700_000_000.0
PEER: dict[str, Any] = {
    "public_key": "cGVlcnBlZXJwZWVycGVlcnBlZXJwZWVycGVlcnBlZXI=",
    "name": "office",
    "preshared_key": True,
    "endpoint": "203.0.113.2:55555",
    "unresolved": None,
    "carrier": "udp",
    "state": "connected",
    "allowed_ips": ["10.0.0.0/24", "fd00::/64"],
    "latest_handshake": NOW - 63,
    "latest_handshake_age": 63,
    "latest_received": NOW - 1,
    "latest_received_age": 1,
    "received_bytes": 1_300_000,
    "sent_bytes": 3072,
    "persistent_keepalive": 25.0,
    "vpntun": True,
    "round_trip": 0.01234,
    "loss": 0.00125,
    "span": 44,
    "protected": True,
    "record_bytes": 63_800,
    "path_mtu": 1500,
    "delivered_rate": 29_312_500,
    "datagrams_sent": 1_234_567,
    "datagrams_lost": 1543,
    "records_restored": 1,
    "records_unfinished": 2,
    "queue": {"packets": 1, "bytes": 1400},
    "drops": {"source not allowed": 3, "queue full": 12},
}
STATUS: dict[str, Any] = {
    "interface": "tun3",
    "version": "0.1.0",
    "pid": 4242,
    "started": NOW - 2 * 86400 - 3602,
    "uptime": 2 * 86400 + 3602,
    "starting": None,
    "public_key": "b3Vyc291cnNvdXJzb3Vyc291cnNvdXJzb3Vyc291cnM=",
    "listen_port": 55555,
    "waits": "auto",
    "mtu": 1500,
    "addresses": ["10.0.0.1/24"],
    "relay": True,
    "drops": {"unknown peer": 2},
    "peers": [PEER],
}
TEXT = """\
interface: tun3
  public key: b3Vyc291cnNvdXJzb3Vyc291cnNvdXJzb3Vyc291cnM=
  listening port: 55555
  mtu: 1500
  addresses: 10.0.0.1/24
  relay: from peer to peer
  up for: 2 days, 1 hour, 2 seconds
  dropped: 2 unknown peer

peer: cGVlcnBlZXJwZWVycGVlcnBlZXJwZWVycGVlcnBlZXI=
  name: office
  preshared key: (hidden)
  endpoint: 203.0.113.2:55555
  carrier: UDP
  state: connected
  allowed ips: 10.0.0.0/24, fd00::/64
  latest handshake: 1 minute, 3 seconds ago
  latest received: 1 second ago
  transfer: 1.24 MiB received, 3.00 KiB sent
  persistent keepalive: every 25 seconds
  round trip: 12.34 ms
  loss: 0.12%, protected
  records: up to 44 datagrams, 62.30 KiB
  path mtu: 1500
  delivered: 234.50 Mbit/s
  lost on the way: 1,543 of 1,234,567 datagrams
  restored: 1 record
  unfinished: 2 records
  queue: 1 packet, 1.37 KiB
  dropped: 12 queue full, 3 source not allowed"""
UNKNOWN = dict.fromkeys(
    (
        "endpoint",
        "carrier",
        "latest_handshake",
        "latest_handshake_age",
        "latest_received",
        "latest_received_age",
        "persistent_keepalive",
        "round_trip",
        "loss",
        "span",
        "protected",
        "record_bytes",
        "path_mtu",
        "delivered_rate",
        "datagrams_sent",
        "datagrams_lost",
        "records_restored",
        "records_unfinished",
    )
)


def lines(**peer: Any) -> dict[str, str]:
    """Return the lines of a peer by their titles."""
    text = list(describe({**STATUS, "peers": [{**PEER, **peer}]}))
    return dict(line.strip().split(": ", 1) for line in text[text.index("") + 1 :])


# What is said


def test_show_prints_everything_that_is_known() -> None:
    assert "\n".join(describe(STATUS)) == TEXT


def test_show_says_that_there_is_no_private_key() -> None:
    assert list(describe({**STATUS, "public_key": None}))[1] == "  public key: (none: there is no private key)"


def test_an_unknown_value_has_no_line() -> None:
    fresh = {**PEER, **UNKNOWN, "name": "", "preshared_key": False, "received_bytes": 0, "sent_bytes": 0}
    fresh |= {"allowed_ips": [], "queue": {"packets": 0, "bytes": 0}, "drops": {}, "state": "waiting"}
    assert lines(**fresh) == {"peer": PEER["public_key"], "state": "waiting", "allowed ips": "(none)"}
    quiet = {**STATUS, "listen_port": None, "addresses": [], "relay": False, "drops": {}, "peers": []}
    assert [line.split(":")[0].strip() for line in describe(quiet)] == [
        "interface",
        "public key",
        "mtu",
        "up for",
    ]


def test_the_name_that_a_peer_or_the_start_waits_for_is_printed() -> None:
    waiting = {**STATUS, "starting": "the name nx.invalid", "peers": []}
    assert "  starting: waiting for the name nx.invalid" in describe(waiting)
    assert lines(state="connecting", unresolved="nx.invalid")["state"] == "connecting, waiting for the name nx.invalid"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 seconds ago"),
        (1, "1 second ago"),
        (60, "1 minute ago"),
        (3661, "1 hour, 1 minute, 1 second ago"),
        (366 * 86400, "1 year, 1 day ago"),
    ],
)
def test_an_age_is_printed_as_a_duration(seconds: int, said: str) -> None:
    assert lines(latest_handshake_age=seconds)["latest handshake"] == said


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1 << 20, "1.00 MiB"),
        (3 << 29, "1.50 GiB"),
        (1 << 50, "1024.00 TiB"),
    ],
)
def test_a_size_is_printed_in_binary_units(size: int, said: str) -> None:
    assert lines(received_bytes=size)["transfer"] == f"{said} received, 3.00 KiB sent"


def test_a_rate_is_printed_in_bits() -> None:
    assert lines(delivered_rate=153_402_641)["delivered"] == "1.23 Gbit/s"
    assert lines(delivered_rate=1000)["delivered"] == "0.01 Mbit/s"


def test_over_tcp_a_record_is_one_frame() -> None:
    assert lines(carrier="tcp", span=None)["records"] == "up to 62.30 KiB"


def test_a_loss_of_zero_is_printed_and_an_unknown_loss_is_not() -> None:
    assert lines(loss=0.0, protected=False)["loss"] == "0.00%"
    assert "loss" not in lines(loss=None)


# Who is asked


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run the test as an ordinary user; yield the folder of its sockets."""
    with ordinary_user() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield folder / "vpntun"


@contextmanager
def running(status: dict[str, Any], *, lingers: float = 0.0) -> Iterator[int]:
    """Run a process that answers like a tunnel, and ends `lingers` seconds after it has closed its socket."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        try:
            loop = Loop()
            control = ControlServer(
                status["interface"], loop, status=lambda: status, stop=loop.stop, reload=loop.stop, reset=reset
            )
            os.write(writer, b"ready")
            loop.run(lambda _: float("inf"), lambda _: None)
            control.close()
            time.sleep(lingers)
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 5) == b"ready"
    os.close(reader)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process, 0)


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


def test_a_tunnel_that_does_not_answer_is_said(run: Run, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.ControlClient.__init__, "__defaults__", (0.2,))
    with running(STATUS) as process:
        os.kill(process, signal.SIGSTOP)
        said = run("show", "tun3")
    assert said.status == 1
    assert f"(process {process}) has not answered" in said.err
