"""`vpntun run` with a configuration file, and in a named network namespace."""

from __future__ import annotations

import sys

from tests.netns.lab import Lab, far, start_server
from tests.netns.users import User

OFFICE = """[Interface]
SharedKey = {key}
Role = client
Address = 10.44.0.2/24
DNS = 10.9.0.1, office.internal
PostUp = touch {home}/touched
Table = 7
FwMark = 3
[Peer]
Endpoint = {endpoint}
AllowedIPs = 10.8.0.0/16, fd08::/16
"""
SHOWING = "trap 'exit 3' TERM; while :; do ip -4 route; ip -6 route; cat /etc/resolv.conf; sleep 0.5; done"


def test_a_files_routes_follow_a_reload_and_its_hooks_are_not_carried_out(lab: Lab) -> None:
    start_server(lab)
    user = User(lab.a)
    key = user.own(lab.key)
    text = OFFICE.format(key=key, home=user.home, endpoint=f"{lab.b.four}:55555")
    file = user.write("office.conf", text)
    run = user.vpntun("run", file, "--", "sh", "-c", SHOWING)
    run.wait_for("nameserver 10.9.0.1", 60)
    assert "not carried out in a namespace: PostUp, Table, FwMark" in run.log
    assert "10.8.0.0/16 dev office" in run.log
    assert "fd08::" not in run.log  # the tunnel has no IPv6 address
    print(user.ask("doctor", "office"))
    print(user.ask("show", "office"))
    user.write("office.conf", f"{text}AllowedIPs = 10.12.0.0/16\n")
    socket = user.run_folder / "vpntun" / "office.sock"
    asked = ("curl", "-sS", "--unix-socket", socket, "-X", "POST", "http://vpntun/v1/reload")
    assert '"reloaded": true' in user.run(*asked).stdout
    run.wait_for("10.12.0.0/16 dev office", 60)
    assert run.stop(60) == 3
    assert not (user.home / "touched").exists()
    tap = user.write(
        "tap.conf", f"[Interface]\nSharedKey = {key}\nRole = client\nDevice = tap\n[Peer]\nEndpoint = x:1\n"
    )
    assert user.ask("run", tap, "--", "true")[0] == 3


def test_a_run_without_a_program_serves_a_named_namespace(lab: Lab) -> None:
    start_server(lab)
    named = lab.add("c", "10.7.0.1", "fd07::1")
    run = lab.a.vpntun("run", "-c", lab.b.four, "-k", lab.key, "--netns", named.name, "-v")
    run.wait_for("connected", 60)
    lab.ping(named, far(lab), within=20)
    assert not lab.a.has_device("run0")
    again = lab.a.run(
        sys.executable,
        "-m",
        "vpntun",
        "run",
        "-i",
        "run0x",
        "-c",
        lab.b.four,
        "-k",
        lab.key,
        "--netns",
        "none",
        "--",
        "true",
        check=False,
    )
    assert (again.returncode, again.stderr) == (
        3,
        "vpntun: there is no network namespace none: 'ip netns add none' makes it, 'ip netns' lists those there are\n",
    )
    assert run.stop(60) == 0
    assert not named.has_device("run0")


def test_the_last_data_of_a_program_arrives(lab: Lab) -> None:
    start_server(lab)
    reader = f"import socket, time; s = socket.create_server(('{far(lab)}', 9)); print('ready', flush=True); c, _ = s.accept()"
    reader += "; time.sleep(1); print(sum(map(len, iter(lambda: c.recv(65536), b''))), 'bytes')"
    sink = lab.b.popen(sys.executable, "-c", reader)
    sink.wait_for("ready", 60)
    sender = f"import socket; s = socket.create_connection(('{far(lab)}', 9)); s.setsockopt(1, 7, 4000000); s.sendall(bytes(1500000))"
    lab.a.run(
        sys.executable, "-m", "vpntun", "run", "-c", lab.b.four, "-k", lab.key, "--", sys.executable, "-c", sender
    )
    sink.wait_for("1500000 bytes", 60)
