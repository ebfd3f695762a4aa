"""`expose`, `unexpose` and `forwards` on a real control socket, served by a process in place of the tunnel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.reaching.tunnel import tunnel_of_a_user
from tests.forwards.fake_forwards import FakeForwards
from vpntun.forwards.requests import forward_routes

TABLE = """\
protocol  from  listen             target               open  total  refused  failed      sent  received
tcp       here  127.0.0.1:6443     192.168.127.2:6443      2  1,234        0       1  3.00 KiB  1.24 MiB
udp       here  [::1]:53           10.9.0.1:53             2  1,234        0       1  3.00 KiB  1.24 MiB
tcp       peer  :22                127.0.0.1:22            2  1,234        0       1  3.00 KiB  1.24 MiB
tcp       here  unix:/run/db.sock  db.example.org:5432     2  1,234        0       1  3.00 KiB  1.24 MiB
tcp       here  :2222              ssh@desk                2  1,234        0       1  3.00 KiB  1.24 MiB
last failure of tcp 127.0.0.1:6443: Connection refused
last failure of udp [::1]:53: Connection refused
last failure of tcp :22: Connection refused
last failure of tcp unix:/run/db.sock: Connection refused
last failure of tcp :2222: Connection refused
"""


@pytest.fixture
def _tunnel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tunnel of an ordinary user, tun3, with a table of forwards."""
    forwards = FakeForwards()
    with tunnel_of_a_user(monkeypatch, forward_routes("tun3", lambda: forwards)):
        yield


@pytest.mark.usefixtures("_tunnel")
def test_forwards_are_exposed_listed_and_ended(run: Run) -> None:
    assert run("forwards", "tun3").err == "tun3 has no forwards\n"
    for arguments in (
        ("127.0.0.1:6443", "192.168.127.2:6443"),
        ("[::1]:53", "10.9.0.1:53", "--udp"),
        (":22", "127.0.0.1:22", "--from", "peer"),
        ("unix:/run/db.sock", "db.example.org:5432"),
        (":2222", "ssh@desk"),
    ):
        said = run("expose", "tun3", *arguments)
        assert (said.status, said.out, said.err) == (0, "", "")
    assert run("forwards", "tun3").out == TABLE
    assert run("unexpose", "tun3", "[::1]:53", "--udp").status == 0
    assert run("unexpose", "tun3", ":22", "--from", "peer").status == 0
    assert run("unexpose", "tun3", "unix:/run/db.sock").status == 0
    assert [each["listen"] for each in json.loads(run("forwards", "tun3", "--json").out)] == ["127.0.0.1:6443", ":2222"]


@pytest.mark.usefixtures("_tunnel")
def test_what_cannot_be_exposed_is_an_error_on_one_line(run: Run) -> None:
    run("expose", "tun3", ":6443", "10.9.0.7:6443")
    for arguments, status, reason in (
        (("expose", "tun3", ":6443", "10.9.0.8:6443"), 1, "tun3 refuses: :6443 is exposed already"),
        (("expose", "tun3", ":1", "10.9.0.8:6443"), 1, "tun3 refuses: :1 is in use: choose another port"),
        (("unexpose", "tun3", ":6443", "--udp"), 1, "tun3 refuses: no forward listens on :6443"),
        (("expose", "tun3", "6443", "10.9.0.8:6443"), 3, "nothing can listen on '6443'"),
        (("expose", "tun3", ":6443", "10.9.0.8"), 3, "nothing can be reached at '10.9.0.8': give HOST:PORT"),
        (("expose", "tun3", "unix:/a", "10.9.0.8:1", "--udp"), 3, "a unix socket carries connections"),
        (("expose", "tun3", ":1", "ssh@desk", "--from", "peer"), 3, "ssh@desk is a service of a peer"),
        (("unexpose", "tun3", "unix:a"), 3, "'unix:a' is not a unix socket"),
        (("expose", "nothing0", ":1", "10.9.0.8:1"), 1, "no vpntun runs nothing0"),
        (("expose", "tun3", ":1", "10.9.0.8:1", "--from", "afar"), 2, "Invalid value for '--from'"),
    ):
        said = run(*arguments)
        assert (said.status, said.out) == (status, "")
        assert reason in said.err
        assert status == 2 or said.err.count("\n") == 1


def test_a_run_with_a_bad_forward_does_not_begin(run: Run, key: Path) -> None:
    said = run("run", "-c", "127.0.0.1", "-k", key, "--expose", "6443 10.9.0.8:6443", "--", "true")
    assert (said.status, said.err.count("\n")) == (3, 1)
    assert "nothing can listen on '6443'" in said.err
