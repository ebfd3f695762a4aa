"""Forwards of `vpntun run`: each side reaches what it was given, for as long as that lasts."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from tests.netns.lab import Lab, Machine, far, start_server, until
from tests.netns.users import User

ECHO = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind(("", 5353))
    while True:
        server.sendto(*server.recvfrom(512))
"""
ASK = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(10)
    client.sendto(b"ping", ("127.0.0.1", 5354))
    print(client.recv(512).decode(), end="")
"""


def serve(machine: Machine, name: str, address: str) -> None:
    """Start a web server on port 8000 of a machine, whose file `name` has its own name in it."""
    folder = machine.lab.folder / f"web-{name}"
    folder.mkdir()
    (folder / "name").write_text(name)
    machine.popen(sys.executable, "-m", "http.server", "8000", "--bind", address, "--directory", folder)
    assert until(lambda: machine.listens(8000), 20)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_each_side_of_a_run_reaches_what_was_exposed_to_it_and_no_longer_than_that(lab: Lab) -> None:
    start_server(lab)
    serve(lab.b, "far", "0.0.0.0")
    serve(lab.a, "near", "127.0.0.1")
    lab.b.popen(sys.executable, "-c", ECHO)
    user, there = User(lab.a), far(lab)

    def fetch(machine: Machine, url: str, *options: str) -> str:
        return machine.run("curl", "-sm20", *options, url, check=False, user=str(user.uid)).stdout

    def ask(*arguments: str) -> None:
        assert user.ask(*arguments) == (0, "")

    inside = f"until curl -sf http://127.0.0.1:80/name >{user.home}/got; do sleep 0.2; done; exec sleep 600"
    exposed = ("--expose", f"127.0.0.1:8080 {there}:8000")
    run = user.vpntun("run", "-c", lab.b.four, "-k", user.own(lab.key), *exposed, "--", "sh", "-c", inside)
    assert until(lambda: fetch(lab.a, "http://127.0.0.1:8080/name") == "far", 20), str(run)

    ask("expose", "run0", "127.0.0.1:80", "127.0.0.1:8000", "--from", "inside")
    got = user.home / "got"
    assert until(lambda: got.exists() and got.read_text() == "near", 20), str(run)

    ask("expose", "run0", ":7000", "127.0.0.1:8000", "--from", "peer")
    [address, *_] = json.loads(user.ask("show", "run0", "--json")[1])["addresses"]
    assert fetch(lab.b, f"http://{address.partition('/')[0]}:7000/name") == "near"

    ask("expose", "run0", f"unix:{user.home}/web", f"{there}:8000")
    assert fetch(lab.a, "http://far/name", "--unix-socket", f"{user.home}/web") == "far"

    ask("expose", "run0", "127.0.0.1:5354", f"{there}:5353", "--udp")
    assert lab.a.run(sys.executable, "-c", ASK).stdout == "ping"

    counted = {
        (each["protocol"], each["from"], each["listen"]): each["connections_total"] >= 1
        for each in json.loads(user.ask("forwards", "run0", "--json")[1])
    }
    assert counted == {
        ("tcp", "here", "127.0.0.1:8080"): True,
        ("tcp", "inside", "127.0.0.1:80"): True,
        ("tcp", "peer", ":7000"): True,
        ("tcp", "here", f"unix:{user.home}/web"): True,
        ("udp", "here", "127.0.0.1:5354"): True,
    }

    ask("unexpose", "run0", ":7000", "--from", "peer")
    assert fetch(lab.b, f"http://{address.partition('/')[0]}:7000/name") == ""
    ask("unexpose", "run0", f"unix:{user.home}/web")
    assert not (user.home / "web").exists()
    status, said = user.ask("unexpose", "run0", "127.0.0.1:9")
    assert (status, said.count("\n")) == (1, 1)
    assert "there is no forward that listens on tcp 127.0.0.1:9" in said
    run.process.terminate()
    run.wait()
    assert fetch(lab.a, "http://127.0.0.1:8080/name") == ""
