"""Two network namespaces that share /run, as those of `ip netns` do, with an interface of the same name in each."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.netns.lab import PORT, STARTED, Daemon, Lab, Machine, until
from vpntun.crypto.keys import KeyPair, format_key


class Shared:
    """The lab, whose machines have one folder for the state of vpntun, and one for the sockets of wg(8)."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.a, self.b = lab, lab.a, lab.b
        self.run, self.sockets = lab.folder / "run", lab.folder / "sockets"
        self.binds = {"/run/vpntun": self.run, "/run/wireguard": self.sockets}
        for folder in self.binds.values():
            folder.mkdir(mode=0o700)

    def start(self, machine: Machine, *words: str | Path) -> Daemon:
        return machine.vpntun(*words, binds=self.binds)

    def server(self) -> Daemon:
        server = self.start(self.b, "-s", "-i", "tun0", "-k", self.lab.key)
        server.wait_for(STARTED)
        return server

    def client(self) -> Daemon:
        client = self.start(self.a, "-c", self.b.four, "-i", "tun0", "-k", self.lab.key)
        client.wait_for(STARTED)
        return client

    def ask(self, machine: Machine, *words: str) -> tuple[int, str]:
        done = machine.run(sys.executable, "-m", "vpntun", *words, check=False, binds=self.binds)
        return done.returncode, done.stdout + done.stderr

    def files(self, ending: str) -> list[str]:
        return sorted(each.name for each in self.run.glob(f"*{ending}"))


@pytest.fixture
def shared(lab: Lab) -> Shared:
    return Shared(lab)


def test_each_namespace_has_its_own_tunnel_of_the_same_name_and_finds_and_ends_that_one(shared: Shared) -> None:
    server, client = shared.server(), shared.client()
    shared.lab.ping(shared.a, shared.b.address_of("tun0"), within=10)
    [plain, named_by_namespace] = shared.files(".sock")
    assert plain == "tun0.sock"
    assert named_by_namespace.startswith("tun0:")
    client.wait_for(
        f"process {server.process.pid} of another network namespace answers at /var/run/wireguard/tun0.sock"
    )
    for machine, other in ((shared.a, shared.b), (shared.b, shared.a)):
        for words in (("show",), ("show", "tun0")):
            status, said = shared.ask(machine, *words)
            assert status == 0
            assert f"addresses: {machine.address_of('tun0')}/" in said
            assert other.address_of("tun0") not in said.partition("peer:")[0]
        status, said = shared.ask(machine, "-s", "-i", "tun0", "-k", str(shared.lab.key), "-p", "4500")
        assert status == 8
        assert "another vpntun runs tun0 already, process " in said
    assert shared.ask(shared.a, "down", "tun0") == (0, "")
    assert client.wait() == 0
    assert server.running
    status, said = shared.ask(shared.a, "down", "tun0")
    assert status == 1
    assert f"no vpntun runs tun0 in this network namespace, but process {server.process.pid} does in another" in said
    assert server.stop() == 0
    assert shared.files(".sock") == []


def test_a_tunnel_that_was_killed_is_replaced_under_either_name(shared: Shared) -> None:
    shared.server().kill()
    client, server = shared.client(), shared.server()
    client.kill()
    shared.client()
    shared.lab.ping(shared.a, shared.b.address_of("tun0"), within=10)
    assert server.running
    [_, beside] = shared.files(".sock")
    assert until(lambda: bool(shared.files(".endpoints.json")), 5)
    assert shared.files(".endpoints.json") == [beside.replace(".sock", ".endpoints.json")]


def test_nobody_takes_back_what_was_changed_in_another_namespace(shared: Shared) -> None:
    file = shared.lab.folder / "tun0.conf"
    file.touch(mode=0o600)
    own, other = KeyPair.generate(), KeyPair.generate()
    file.write_text(
        f"[Interface]\nPrivateKey = {format_key(own.private)}\nAddress = 10.9.0.1/24\n"
        f"[Peer]\nPublicKey = {format_key(other.public)}\nEndpoint = {shared.b.four}:{PORT}\nAllowedIPs = 0.0.0.0/0\n"
    )
    before = shared.a.run("ip", "rule").stdout
    full = shared.start(shared.a, "up", file)
    full.wait_for(STARTED)
    full.kill()
    left = shared.a.run("ip", "rule").stdout
    assert left != before
    [journal] = shared.files(".journal")
    for _ in range(2):
        assert shared.server().stop() == 0
    assert shared.ask(shared.b, "down", "tun0")[0] == 1
    assert shared.files(".journal") == [journal]
    assert shared.a.run("ip", "rule").stdout == left
    status, said = shared.ask(shared.a, "down", "tun0")
    assert (status, "took back what a killed vpntun had left" in said) == (0, True)
    assert shared.a.run("ip", "rule").stdout == before
    assert shared.files(".journal") == []
