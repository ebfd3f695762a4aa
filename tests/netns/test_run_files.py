"""`vpntun run` with a configuration file, in a named network namespace, and with data up to the last moment."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.netns.daemons import configured
from tests.netns.lab import PORT, STARTED, Lab, far, start_server
from tests.netns.servers import needs
from tests.netns.users import User, said_by

OFFICE = """[Interface]
SharedKey = {key}
Role = client
Address = 10.8.0.2/24
DNS = 10.8.0.1, office.internal
PostUp = touch {home}/touched
Table = 7
FwMark = 3
[Peer]
Endpoint = {endpoint}
AllowedIPs = 10.8.0.0/16, fd08::/16
"""
NAMES = ("Address = 10.8.0.1/24", "DnsServer = yes", "DnsDomain = office.internal", "DnsRecord = wiki 10.8.0.9")
SHOWING = """
trap 'exit 3' TERM
while :; do ip -4 route; ip -6 route; cat /etc/resolv.conf; getent hosts wiki; sleep 0.5; done
"""
NETWORK = """
ip -4 rule; ip -6 rule; ip -4 route show table all; ip -6 route show table all | grep -v -e fe80:: -e ff00::
ls /sys/class/net; cat /etc/resolv.conf
"""
"""Shows what a tunnel of the machine would change. The kernel's own addresses of IPv6 come and go meanwhile."""
LAST_WORDS = """
import socket
connected = socket.create_connection(("{far}", 9))
connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
connected.sendall(bytes(1_500_000))
"""
LISTENER = """
import socket, time
server = socket.create_server(("{far}", 9))
print("ready", flush=True)
connected, _ = server.accept()
time.sleep(1)  # meanwhile the sender ends, with most of its data still in its socket
print(sum(map(len, iter(lambda: connected.recv(65536), b""))), "bytes", flush=True)
"""


@needs("curl")
def test_a_files_routes_and_name_servers_are_the_programs_alone_and_its_hooks_are_not_carried_out(lab: Lab) -> None:
    lab.b.vpntun("up", configured(lab, lab.b, "server", *NAMES)).wait_for(STARTED, 60)
    before = lab.a.run("sh", "-c", NETWORK).stdout
    user = User(lab.a)
    text = OFFICE.format(key=user.own(lab.key), home=user.home, endpoint=f"{lab.b.four}:{PORT}")
    file = user.write("office.conf", text)
    run = user.vpntun("run", file, "--", "sh", "-c", SHOWING)
    run.wait_for("nameserver 10.8.0.1", 60)
    run.wait_for("10.8.0.9        wiki.office.internal", 60)
    assert lab.a.run("sh", "-c", NETWORK).stdout == before
    assert "not carried out in a namespace: PostUp, Table, FwMark" in run.log
    assert "10.8.0.0/16 dev office" in run.log
    assert "fd08::" not in run.log  # the tunnel has no IPv6 address
    assert "allowed ips: 10.8.0.0/16, fd08::/16" in user.ask("show", "office")[1]
    user.write("office.conf", f"{text}AllowedIPs = 10.12.0.0/16\n")
    control = user.run_folder / "vpntun" / "office.sock"
    reload = user.run("curl", "-sS", "--unix-socket", control, "-X", "POST", "http://vpntun/v1/reload")
    assert '"reloaded": true' in reload.stdout
    run.wait_for("10.12.0.0/16 dev office", 60)
    assert run.stop(60) == 3
    assert not (user.home / "touched").exists()


def test_root_runs_programs_too_and_serves_a_named_namespace_without_one(lab: Lab) -> None:
    start_server(lab)
    by = ("-c", lab.b.four, "-k", lab.key)
    listener = lab.b.popen(sys.executable, "-c", LISTENER.format(far=far(lab)))
    listener.wait_for("ready", 60)
    words = (sys.executable, "-c", LAST_WORDS.format(far=far(lab)))
    done = lab.a.run(sys.executable, "-m", "vpntun", "run", *by, "--", *words)
    assert (done.stdout, said_by(done)) == ("", "")
    listener.wait_for("1500000 bytes", 60)
    named = lab.add("c", "10.7.0.1", "fd07::1")
    run = lab.a.vpntun("run", *by, "--netns", named.name, "-v")
    run.wait_for("connected", 60)
    lab.ping(named, far(lab), within=20)
    assert not lab.a.has_device("run0")
    assert run.stop(60) == 0
    assert not named.has_device("run0")


def test_a_named_namespaces_own_name_servers_count_where_the_tunnel_has_none(lab: Lab, tmp_path: Path) -> None:
    start_server(lab)
    named = lab.add("c", "10.7.0.1", "fd07::1")
    folder = tmp_path / "netns" / named.name
    folder.mkdir(parents=True)
    (folder / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    # As "ip netns exec" does, the machine's folder is given a place without a change of the machine.
    shown = 'mount -t tmpfs tmpfs /mnt; cp -a /etc/. /mnt; cp -a {0} /mnt; mount --bind /mnt /etc; shift; exec "$@"'
    for dns, server in (((), "192.0.2.53"), (("--dns", "192.0.2.54"), "192.0.2.54")):
        words = ("run", "-c", lab.b.four, "-k", lab.key, *dns, "--netns", named.name, "--", "cat", "/etc/resolv.conf")
        script = ("sh", "-ec", shown.format(folder.parent), "sh", "sh")
        done = lab.a.run(*script, sys.executable, "-m", "vpntun", *words)
        assert f"nameserver {server}\n" in done.stdout
