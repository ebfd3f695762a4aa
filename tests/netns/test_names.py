"""Names in Endpoint that are not found at the start: what waits for them, and what does not.

The name server is behind the tunnel: nobody can ask it through a full tunnel whose peer has a name that is not found.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from tests.netns.daemons import NET_ADMIN, configured, runs_as_nobody
from tests.netns.lab import PORT, STARTED, Daemon, Lab, until
from tests.netns.test_routing import SECONDS, SERVER, WORLD, World, lend
from vpntun.crypto.keys import KeyPair, format_key

NAME_SERVER = """
import socket
serves = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
serves.bind(("198.51.100.53", 53))
print("serves", flush=True)
while True:
    asked, who = serves.recvfrom(512)
    end = asked.index(0, 12) + 5
    known = asked[13:19] != b"nobody"
    of_four = known and asked[end - 4 : end - 2] == bytes((0, 1))
    answer = bytes((0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 1)) if of_four else b""
    head = asked[:2] + bytes((0x81, 0x80 if known else 0x83, 0, 1, 0, of_four, 0, 0, 0, 0))
    serves.sendto(head + asked[12:end] + answer, who)
"""


class Names(World):
    """A world whose name server does not run yet. To it, every name is the server's, but nobody.example.org is none."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        resolv = lab.folder / "resolv.conf"
        resolv.write_text("nameserver 198.51.100.53\noptions timeout:1 attempts:1\n")
        self.binds = {"/etc/resolv.conf": resolv}

    def run(self, file: Path) -> Daemon:
        return self.a.vpntun("up", file, "-v", binds=self.binds)

    def beside_it(self, file: Path, endpoint: str, allowed: str) -> Path:
        """Add a peer whose key nobody has to a client's file."""
        public = format_key(KeyPair.generate().public)
        peer = f"[Peer]\nPublicKey = {public}\nEndpoint = {endpoint}:{PORT}\nAllowedIPs = {allowed}\n"
        file.write_text(file.read_text() + peer)
        return file

    def start_name_server(self) -> None:
        lend(self.b, "198.51.100.53")
        self.b.popen(sys.executable, "-c", NAME_SERVER).wait_for("serves")

    def show(self) -> str:
        status, said = self.a.ask("show", "cli")
        assert status == 0, said
        return said


@pytest.fixture
def names(lab: Lab) -> Names:
    return Names(lab)


def test_the_servers_name_is_found_though_the_name_server_is_behind_the_tunnel(names: Names) -> None:
    client = names.run(names.write(endpoint="vpn.example.org"))
    client.wait_for("waiting for the name vpn.example.org: until then", SECONDS)
    names.beside(WORLD)
    names.start_name_server()
    names.lab.ping(names.a, "10.9.0.1", SECONDS)
    names.through(WORLD)
    assert client.stop() == 0
    assert names.state() == names.before


def test_a_dead_name_keeps_no_other_peer_down(names: Names) -> None:
    names.start_name_server()
    client = names.run(names.beside_it(names.write(), "nobody.example.org", "10.44.0.0/16"))
    client.wait_for(STARTED, SECONDS)
    names.lab.ping(names.a, "10.9.0.1", SECONDS)
    names.through(WORLD)
    assert "state: connecting, waiting for the name nobody.example.org" in names.show()
    assert "starting" not in names.show()


def test_a_full_tunnel_waits_for_the_name_of_its_peer_and_the_other_peers_do_not(names: Names) -> None:
    book = names.lab.folder / "book"
    file = names.write("10.9.0.0/24", f"PostUp = echo it runs >{book}", "DNS = example.net")
    client = names.run(names.beside_it(file, "vpn.example.org", "0.0.0.0/0"))
    client.wait_for("waiting for the name vpn.example.org: until then", SECONDS)
    names.lab.ping(names.a, "10.9.0.1", SECONDS)
    names.beside(WORLD)
    assert not book.exists()
    assert "starting: waiting for the name vpn.example.org" in names.show()
    names.start_name_server()
    assert until(book.exists, SECONDS), client
    names.nowhere(WORLD)
    names.lab.ping(names.a, "10.9.0.1", SECONDS)
    assert until(lambda: "starting" not in names.show(), SECONDS)
    assert client.stop() == 0
    assert names.state() == names.before


@pytest.mark.long
def test_a_user_without_privileges_waits_for_the_name_too(names: Names) -> None:
    client = names.run(names.write("0.0.0.0/0, ::/0", "User = nobody", endpoint="vpn.example.org"))
    client.wait_for("waiting for the name vpn.example.org: until then", SECONDS)
    assert runs_as_nobody(client, NET_ADMIN), client
    names.beside(WORLD)
    names.start_name_server()
    names.lab.ping(names.a, "10.9.0.1", SECONDS)
    names.through(WORLD)
    assert client.stop() == 0
    assert names.state() == names.before


@pytest.mark.long
def test_a_name_that_a_reload_replaces_is_waited_for_no_more(names: Names) -> None:
    client = names.run(names.write(endpoint="vpn.example.org"))
    client.wait_for("waiting for the name vpn.example.org: until then", SECONDS)
    names.write(endpoint=SERVER)
    client.process.send_signal(signal.SIGHUP)
    names.lab.ping(names.a, "10.9.0.1", SECONDS)
    names.through(WORLD)


def test_the_control_socket_answers_in_each_phase_of_the_start(lab: Lab) -> None:
    go = lab.folder / "go"
    wait = f"echo waits; until test -e {go}; do sleep 0.1; done"
    peer = "Endpoint = nobody.invalid:1\nAllowedIPs = 0.0.0.0/0"
    client = lab.a.vpntun("up", configured(lab, lab.a, "client", f"PreUp = {wait}", peer=peer))
    client.wait_for("waits")
    status, said = lab.a.ask("show", "office")
    assert (status, "starting: waiting for PreUp" in said, "state: connecting, waiting for" in said) == (0, True, True)
    client.process.send_signal(signal.SIGHUP)
    client.wait_for("still being set up: reload it later; nothing has changed")
    assert lab.a.ask("reset", "office") == (1, "vpntun: office refuses: office is still being set up\n")
    go.touch()
    client.wait_for("waiting for the name nobody.invalid: until then", SECONDS)
    [shown] = json.loads(lab.a.ask("show", "office", "--json")[1])["peers"]
    assert (shown["state"], shown["unresolved"], shown["endpoint"]) == ("connecting", "nobody.invalid", None)
    assert lab.a.ask("show", "office", "--wait", "0.3")[0] == 9
    client.process.send_signal(signal.SIGHUP)
    client.wait_for("read the configuration again")
    assert lab.a.ask("down", "office") == (0, "")
    assert client.wait() == 0
