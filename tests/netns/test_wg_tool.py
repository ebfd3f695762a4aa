"""Hook lines that call wg(8) on the interface, as wg-quick's files have them; the machines are those of lab.py."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.documents import blocks
from tests.netns.lab import PORT, STARTED, Daemon, Lab, Machine, firewall, until
from vpntun.crypto.keys import KeyPair, format_key

pytestmark = pytest.mark.skipif(shutil.which("wg") is None, reason="wg is not installed")

SECONDS = 20.0
MARKED = "-m mark ! --mark $(wg show %i fwmark) -m addrtype ! --dst-type LOCAL -j REJECT"


class Ends:
    """The server srv in b, and what the client cli in a is given."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.a, self.b = lab, lab.a, lab.b
        self.own, self.server = KeyPair.generate(), KeyPair.generate()
        self.key = lab.folder / "own.key"
        self.key.touch(mode=0o600)
        self.key.write_text(format_key(self.own.private))

    def serve(self) -> None:
        """Start the server."""
        interface = f"PrivateKey = {format_key(self.server.private)}\nAddress = 10.9.0.1/24\nListenPort = {PORT}"
        peer = f"PublicKey = {format_key(self.own.public)}\nAllowedIPs = 10.9.0.2"
        self.start(self.b, "srv", f"[Interface]\n{interface}\n[Peer]\n{peer}\n").wait_for(STARTED, SECONDS)

    def start(self, machine: Machine, name: str, text: str) -> Daemon:
        file = self.write(name, text)
        return machine.vpntun("up", file)

    def write(self, name: str, text: str) -> Path:
        file = self.lab.folder / f"{name}.conf"
        file.touch(mode=0o600)
        file.write_text(text)
        return file

    def client(self, *lines: str, allowed: str = "10.9.0.0/24") -> Daemon:
        """Start the client with these lines in [Interface]."""
        return self.start(self.a, "cli", self.text(*lines, allowed=allowed))

    def text(self, *lines: str, allowed: str = "10.9.0.0/24") -> str:
        interface = "\n".join(("[Interface]", "Address = 10.9.0.2/24", *lines))
        peer = f"PublicKey = {format_key(self.server.public)}\nEndpoint = {self.b.four}:{PORT}\nAllowedIPs = {allowed}"
        return f"{interface}\n[Peer]\n{peer}\nPersistentKeepalive = 25\n"

    @property
    def private(self) -> str:
        return f"PrivateKey = {format_key(self.own.private)}"

    def wg(self, *words: str | Path) -> str:
        """Run wg, and return what it prints, errors included."""
        done = self.a.run("wg", *words, check=False)
        return done.stdout + done.stderr


@pytest.fixture
def ends(lab: Lab) -> Ends:
    return Ends(lab)


@pytest.fixture
def served(ends: Ends) -> Ends:
    ends.serve()
    return ends


def test_wg_quicks_kill_switch_works_unchanged_and_is_taken_away_again(served: Ends) -> None:
    [tool, _] = firewall()
    lines = f"PostUp = {tool} -I OUTPUT ! -o %i {MARKED}", f"PreDown = {tool} -D OUTPUT ! -o %i {MARKED}"
    carries = "PreDown = ping -c1 -W2 10.9.0.1 >/dev/null && echo it carries until PreDown has run"
    client = served.client(served.private, *lines, carries, allowed="0.0.0.0/0")
    client.wait_for(STARTED, SECONDS)
    served.lab.ping(served.a, "10.9.0.1", SECONDS)
    assert until(lambda: "REJECT" in served.a.run(tool, "-S", "OUTPUT").stdout, SECONDS)
    assert client.stop() == 0
    assert "PreDown: it carries until PreDown has run" in client.log
    assert "REJECT" not in served.a.run(tool, "-S", "OUTPUT").stdout
    assert served.wg("show") == ""


def test_a_pre_down_line_is_answered_although_the_device_is_gone(ends: Ends) -> None:
    client = ends.client(ends.private, "PreDown = wg show %i peers")
    client.wait_for(STARTED, SECONDS)
    ends.a.run("ip", "link", "delete", "cli")
    assert client.wait(SECONDS) == 5
    assert f"PreDown: {format_key(ends.server.public)}" in client.log


def test_the_guides_file_without_a_private_key_gets_it_by_post_up(served: Ends) -> None:
    [text] = blocks("key-by-post-up")
    replaced = {
        "/etc/vpntun/private.key": str(served.key),
        "REMOTE_PUBLIC": format_key(served.server.public),
        "remote.example.org:55555": f"{served.b.four}:{PORT}",
        "\n\n[Peer]": "\nPostUp = ping -c1 -W5 10.9.0.1 >/dev/null && echo it carries\n\n[Peer]",
    }
    for words, others in replaced.items():
        assert words in text
        text = text.replace(words, others)
    client = served.start(served.a, "cli", text)
    client.wait_for("PostUp: it carries", SECONDS)
    assert format_key(served.own.public) in served.a.run(sys.executable, "-m", "vpntun", "show", "cli").stdout
    assert served.wg("show", "cli", "private-key").strip() == format_key(served.own.private)
    served.write("cli", text.replace("10.9.0.0/24", "10.9.0.0/25"))
    served.a.run("kill", "-HUP", str(client.process.pid))
    client.wait_for("0 added, 0 removed, 1 changed")
    assert "restart" not in client.log
    assert client.stop() == 0
    for secret in (served.own.private, served.server.private):
        assert format_key(secret) not in client.log
        assert secret.hex() not in client.log


@pytest.mark.parametrize("user", ["", "User = nobody"])
def test_without_a_private_key_at_the_end_of_post_up_the_start_fails_and_says_what_is_missing(
    ends: Ends, user: str
) -> None:
    client = ends.client("PostUp = wg show %i public-key", user)
    assert client.wait(SECONDS) == 3
    assert "PostUp: (none)" in client.log
    assert "cli has no private key: put PrivateKey into [Interface], or let PostUp give it" in client.log
    assert not ends.a.has_device("cli")


@pytest.mark.long  # the look-ups take some seconds to fail
def test_a_name_that_nobody_finds_does_not_keep_post_up_from_giving_the_key(ends: Ends) -> None:
    text = ends.text(f"PostUp = wg set %i private-key {ends.key}", allowed="0.0.0.0/0")
    file = ends.write("cli", text.replace(ends.b.four, "vpn.example.org"))
    resolv, hosts = ends.lab.folder / "resolv.conf", ends.lab.folder / "hosts"
    resolv.touch()
    hosts.touch()
    ends.serve()
    client = ends.a.vpntun("up", file, "-v", binds={"/etc/resolv.conf": resolv, "/etc/hosts": hosts})
    client.wait_for("the public key of this end is", SECONDS)
    hosts.write_text(f"{ends.b.four} vpn.example.org\n")
    ends.lab.ping(ends.a, "10.9.0.1", SECONDS)
    assert client.stop() == 0


def test_post_up_can_give_the_key_although_privileges_are_given_up_then(served: Ends) -> None:
    client = served.client(f"PostUp = wg set %i private-key {served.key}", "User = nobody")
    client.wait_for(STARTED, SECONDS)
    served.lab.ping(served.a, "10.9.0.1", SECONDS)
    assert served.wg("show", "cli", "allowed-ips") == f"{format_key(served.server.public)}\t10.9.0.0/24\n"
    assert client.stop() == 0


def test_wg_shows_a_running_tunnel(served: Ends) -> None:
    client = served.client(served.private, "FwMark = 0x4d", f"ListenPort = {PORT + 1}")
    client.wait_for(STARTED, SECONDS)
    served.lab.ping(served.a, "10.9.0.1", SECONDS)
    before = served.wg("show", "cli")
    said = dict(line.strip().split(": ", 1) for line in before.splitlines() if line)
    assert {name: said[name] for name in ("public key", "listening port", "fwmark", "endpoint", "allowed ips")} == {
        "public key": format_key(served.own.public),
        "listening port": str(PORT + 1),
        "fwmark": "0x4d",
        "endpoint": f"{served.b.four}:{PORT}",
        "allowed ips": "10.9.0.0/24",
    }
    assert said["latest handshake"] in ("Now", *(f"{n} second{'s' * (n > 1)} ago" for n in range(1, 30)))
    assert said["persistent keepalive"] == "every 25 seconds"
    public = format_key(served.server.public)
    assert served.wg("show", "cli", "endpoints") == f"{public}\t{served.b.four}:{PORT}\n"
    assert client.stop() == 0


def test_a_name_that_another_process_has_is_left_to_it_and_the_tunnel_goes_on(ends: Ends) -> None:
    listen = "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('/run/wireguard/cli.sock'); s.listen(); "
    other = ends.a.popen(sys.executable, "-c", listen + "print('listens', flush=True); time.sleep(60)")
    other.wait_for("listens")
    client = ends.client(ends.private)
    client.wait_for(f"wg(8) will not find this tunnel: process {other.process.pid} answers at")
    client.wait_for(STARTED, SECONDS)
    assert "; --no-uapi leaves the socket out" in client.log
    assert client.stop() == 0
    assert other.running


def test_without_the_socket_a_tunnel_leaves_the_name_to_others_and_says_nothing(served: Ends) -> None:
    client = served.a.vpntun("up", served.write("cli", served.text(served.private)), "--no-uapi")
    client.wait_for(STARTED, SECONDS)
    served.lab.ping(served.a, "10.9.0.1", SECONDS)
    assert served.wg("show", "interfaces").strip() == ""
    assert "wg(8)" not in client.log
    assert client.stop() == 0


def test_a_key_that_only_wg_could_give_needs_the_socket(ends: Ends) -> None:
    client = ends.a.vpntun("up", ends.write("cli", ends.text("PostUp = true")), "--no-uapi")
    assert client.wait(SECONDS) == 3
    assert "PostUp can give the private key by wg(8) only" in client.log
