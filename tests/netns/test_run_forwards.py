"""Forwards of `vpntun run`: each side reaches what it was given, for as long as that lasts."""

from __future__ import annotations

import json
import os
import socket
import sys
from http.client import HTTPConnection
from typing import Any

from tests.netns.lab import Lab, Machine, far, start_server, until
from tests.netns.servers import needs, start_web
from tests.netns.talkers import CROWD
from tests.netns.users import User

SHORT = 2000
TALKERS = (sys.executable, "-m", "tests.netns.talkers")


def request(user: User, method: str, path: str, **members: str) -> tuple[int, Any]:
    """Ask the user's run; "from" is spelled `origin`."""
    if "origin" in members:
        members["from"] = members.pop("origin")
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(30)
        connected.connect(f"{user.run_folder}/vpntun/run0.sock")
        http = HTTPConnection("vpntun")
        http.sock = connected
        http.request(method, path, json.dumps(members))
        answer = http.getresponse()
        return answer.status, json.loads(answer.read() or b"null")


@needs("curl")
def test_each_side_of_a_run_reaches_what_was_exposed_to_it_and_no_longer_than_that(lab: Lab) -> None:
    start_server(lab)
    start_web(lab.b, 8000, "0.0.0.0", name="far")
    start_web(lab.a, 8000, "127.0.0.1", name="near")
    user, there = User(lab.a), far(lab)
    lab.b.popen(*TALKERS, "serve", there, "7000").wait_for("ready", 30)

    def fetch(machine: Machine, url: str, *options: str) -> str:
        return machine.run("curl", "-sm20", *options, url, check=False, user=str(user.uid)).stdout

    def expose(**members: str) -> None:
        assert request(user, "POST", "/services/forwarder/expose", **members) == (200, None)

    inside = f"""
        until curl -sf http://127.0.0.1:80/name >{user.home}/got; do sleep 0.2; done
        read address <{user.home}/ask
        curl -sm3 http://$address:7000/name; echo "ended with $?"; curl -sf 'http://[::1]:7001/name'; exec sleep 600
    """
    os.mkfifo(user.home / "ask", 0o666)
    os.chown(user.home / "ask", user.uid, user.uid)
    exposed = ("--expose", f"127.0.0.1:8080 {there}:8000")
    run = user.vpntun("run", "-c", lab.b.four, "-k", user.own(lab.key), *exposed, "--", "sh", "-c", inside)
    assert until(lambda: fetch(lab.a, "http://127.0.0.1:8080/name") == "far", 60), str(run)

    expose(local="127.0.0.1:80", remote="127.0.0.1:8000", origin="inside")
    got = user.home / "got"
    assert until(lambda: got.exists() and got.read_text() == "near", 60), str(run)

    expose(local=":7000", remote="127.0.0.1:8000", origin="peer")
    address = request(user, "GET", "/v1/status")[1]["addresses"][0].partition("/")[0]
    assert fetch(lab.b, f"http://{address}:7000/name") == "near"
    expose(local=":7001", remote="127.0.0.1:8000", origin="inside")
    assert fetch(lab.b, f"http://{address}:7001/name") == "", "what is for the program itself is not for the peer"
    (user.home / "ask").write_text(f"{address}\n")
    run.wait_for("near", 60)
    assert run.log.index("ended with") < run.log.index("near"), "what the peer reaches is not for the program itself"

    expose(local=f"{user.home}/web", remote=f"tcp://{there}:8000", protocol="unix")
    assert fetch(lab.a, "http://far/name", "--unix-socket", f"{user.home}/web") == "far"

    expose(local="127.0.0.1:5354", remote=f"{there}:7000", protocol="udp")
    assert lab.a.run(*TALKERS, "udp", "127.0.0.1", "5354", timeout=100).stdout == "datagrams answered\n"

    assert all(each["connections_total"] for each in request(user, "GET", "/v1/forwards")[1]["forwards"])
    assert request(user, "GET", "/services/forwarder/all")[1] == [
        {"local": f"{user.home}/web", "remote": f"tcp://{there}:8000", "protocol": "unix"},
        {"local": "127.0.0.1:5354", "remote": f"{there}:7000", "protocol": "udp"},
        {"local": "127.0.0.1:80", "remote": "127.0.0.1:8000", "protocol": "tcp", "from": "inside"},
        {"local": "127.0.0.1:8080", "remote": f"{there}:8000", "protocol": "tcp"},
        {"local": ":7000", "remote": "127.0.0.1:8000", "protocol": "tcp", "from": "peer"},
        {"local": ":7001", "remote": "127.0.0.1:8000", "protocol": "tcp", "from": "inside"},
    ]

    unexpose = "/v1/services/forwarder/unexpose"
    assert request(user, "POST", unexpose, local=":7000", origin="peer") == (200, {"unexposed": True})
    assert fetch(lab.b, f"http://{address}:7000/name") == ""
    assert request(user, "POST", unexpose, local=f"unix:{user.home}/web")[0] == 200
    assert not (user.home / "web").exists()
    assert request(user, "POST", unexpose, local=f"unix:{user.home}/web")[0] == 404
    run.process.terminate()
    run.wait()
    assert fetch(lab.a, "http://127.0.0.1:8080/name") == ""


def test_a_run_of_an_ordinary_user_has_two_hundred_forwards_and_serves_a_crowd(lab: Lab) -> None:
    start_server(lab)
    user, there = User(lab.a), far(lab)
    lab.b.popen(*TALKERS, "serve", there, "7000").wait_for("ready", 30)
    run = user.vpntun("run", "-c", lab.b.four, "-k", user.own(lab.key), "--", "sh", "-c", "echo began; exec sleep 600")
    run.wait_for("began", 60)
    for number in range(CROWD):
        local = f"127.0.0.1:{9000 + number}"
        assert request(user, "POST", "/services/forwarder/expose", local=local, remote=f"{there}:7000")[0] == 200
    assert user.run(*TALKERS, "each", "127.0.0.1", "9000", timeout=100).stdout == "each served\n"
    assert user.run(*TALKERS, "crowd", "127.0.0.1", "9000", str(SHORT), timeout=100).stdout == "crowd served\n"
    forwards = request(user, "GET", "/v1/forwards")[1]["forwards"]
    assert sum(each["connections_total"] for each in forwards) == CROWD + 1 + CROWD + SHORT
    assert not any(each["connections_refused"] or each["connections_failed"] for each in forwards)
