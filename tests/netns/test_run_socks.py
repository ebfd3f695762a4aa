"""`vpntun run --socks5`: real curl, and datagrams, by a proxy of an ordinary user."""

from __future__ import annotations

import shutil
import sys

import pytest

from tests.documents import blocks, steps
from tests.netns.lab import PORT, Lab, far, start_server, until
from tests.netns.servers import start_web
from tests.netns.users import User

FILE = """
[Interface]
SharedKey = {key}
Role = client
DNS = {server}, office.internal

[Peer]
Endpoint = {endpoint}
"""
PAGE, PROXY = "<h1>Welcome to the office</h1>\n", 1080


def test_a_browser_reaches_hosts_and_names_of_the_far_side_by_a_proxy(lab: Lab) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    start_server(lab)
    there, there6 = far(lab), far(lab, 6)
    start_web(lab.b, 80, there, there6, index=PAGE)
    names = (f"www.office.internal={there}", f"www.office.internal={there6}", f"ns.office.internal={there}")
    responder = lab.b.popen(sys.executable, "-m", "tests.netns.responder", there, *names)
    responder.wait_for("answering", 30)

    user = User(lab.a)
    text = FILE.format(key=user.own(lab.key), server=there, endpoint=f"{lab.b.four}:{PORT}")
    user.write(".config/vpntun/provider.conf", text)
    starting, asking = steps(blocks("browser-by-socks5")[0])
    run = user.popen(sys.executable, "-m", *starting.command.split())
    assert until(lambda: lab.a.listens(PROXY), 60), run
    assert user.run(*asking.command.split()).stdout.splitlines() == asking.output

    def curl(url: str) -> tuple[int, str]:
        command = ("curl", "--silent", "--show-error", "--max-time", "60", "--socks5-hostname", f"127.0.0.1:{PROXY}")
        done = user.run(*command, url, check=False, timeout=90)
        return done.returncode, done.stdout + done.stderr

    for url in ("http://www.office.internal/", "http://www/", f"http://{there}/", f"http://[{there6}]/"):
        assert curl(url) == (0, PAGE), run
    for url, code in ((f"http://{there}:81/", 5), ("http://nobody.office.internal/", 4)):
        status, said = curl(url)
        assert (status, f"({code})" in said) == (97, True), said
    for server in (there, "ns.office.internal"):
        asked = user.run(sys.executable, "-m", "tests.netns.associate", str(PROXY), server, "53", "www.office.internal")
        assert asked.stdout == f"www.office.internal. 60 IN A {there} from {there}\n"

    status, shown = user.ask("show", "provider")
    assert f"  socks5: 127.0.0.1:{PROXY}, 0 of 9 connections open, 2 failed, " in shown, shown
    assert not lab.a.has_device("provider")
    assert run.stop(30) == 0
    assert not lab.a.listens(PROXY)
