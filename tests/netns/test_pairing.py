"""Two machines paired by a code: each test reads it from one terminal and types it at the other.

A file of each test's folder is the key file of each machine, since they have one /etc.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.lab import PORT, STARTED, Lab, Machine, start_server, until
from tests.terminal import CTRL_C, Terminal
from vpntun.config.keyfile import create_shared

CODE = re.compile(r"code: (\w{4}-\w{4})")
PROMPT = "code that the other end shows:"
FLOOD = """
import socket, sys, time
to, held = (sys.argv[1], int(sys.argv[2])), []
end = time.monotonic() + 60
while time.monotonic() < end:
    try:
        held.append(socket.create_connection(to, timeout=5, source_address=("10.0.0.9", 0)))
        held[-1].sendall((b"", b"GET / HTTP/1.1\\r\\n", b"\\0\\x24\\xa0\\1\\1\\0" + b"\\2" + bytes(31))[len(held) % 3])
    except OSError:
        pass
    if len(held) == 20:
        print("began", flush=True)
    if len(held) > 100:
        held.pop(0).close()
    time.sleep(0.005)
"""
"""Open connections for a minute at most, 200 a second, that say nothing, rubbish, or open an exchange."""


class Pairing:
    """The two commands, each in a terminal of its own."""

    def __init__(self, lab: Lab, stack: ExitStack) -> None:
        self.lab, self._stack = lab, stack
        self.keys = {machine.name: lab.folder / f"{machine.name}.key" for machine in lab.machines}

    def start(self, machine: Machine, *options: str | Path, before: tuple[str, ...] = ()) -> Terminal:
        command = machine.enter([*before, sys.executable, "-m", "vpntun", *options])
        return self._stack.enter_context(Terminal(command, columns=120, rows=30))

    def server(self, *options: str | Path) -> Terminal:
        return self.start(self.lab.b, "-s", "-i", "tun3", "--pair", "-k", self.key(self.lab.b), *options)

    def client(self, host: str | None = None) -> Terminal:
        to = host or self.lab.b.four
        client = self.start(self.lab.a, "-c", to, "-i", "tun11", "--pair", "-k", self.key(self.lab.a))
        client.wait_for(PROMPT)
        return client

    def key(self, machine: Machine) -> Path:
        return self.keys[machine.name]

    def ping(self) -> None:
        assert until(lambda: bool(self.lab.b.addresses("tun3")), 20), "the server's tunnel has not started"
        self.lab.ping(self.lab.a, self.lab.b.address_of("tun3"), within=20)


@pytest.fixture
def pairing(lab: Lab) -> Iterator[Pairing]:
    with ExitStack() as stack:
        yield Pairing(lab, stack)


def code_of(server: Terminal) -> str:
    server.wait_for("code: ")
    found = CODE.search(server.text)
    assert found is not None, server.text
    return found[1]


def test_a_code_read_from_one_terminal_and_typed_at_the_other_brings_the_link_up(pairing: Pairing) -> None:
    server = pairing.server()
    code = code_of(server)
    client = pairing.client()
    client.type(f"{code.lower().replace('-', ' ')}\n")
    for terminal in (server, client):
        terminal.wait_for("paired with")
        terminal.wait_for(STARTED)
    pairing.ping()

    keys = [pairing.key(machine) for machine in pairing.lab.machines]
    assert keys[0].read_text() == keys[1].read_text()
    assert [path.stat().st_mode & 0o777 for path in keys] == [0o600, 0o600]
    shown = [
        re.search(r"this end (100\.\S+) and .*, the other end (100\.\S+) and ", each.text) for each in (server, client)
    ]
    assert shown[0] is not None
    assert shown[1] is not None
    assert shown[0].groups() == shown[1].groups()[::-1], "by these people can compare the keys"


def test_the_code_is_on_the_terminal_and_not_in_the_log_and_pairing_ends_before_the_background(
    pairing: Pairing,
) -> None:
    log = pairing.lab.folder / "server.log"
    server = pairing.server("--daemon", "--log-file", log)
    code = code_of(server)
    client = pairing.client()
    client.type(f"{code}\n")
    assert server.wait() == 0
    pairing.ping()
    assert "paired with" in server.text
    assert "paired with" in log.read_text()
    assert code not in log.read_text()
    status, _ = pairing.lab.b.ask("down", "tun3")
    assert status == 0


@pytest.mark.parametrize("protocol", ["udp", "ipv6"])
def test_pairing_takes_no_udp_and_either_ip_version(pairing: Pairing, protocol: str) -> None:
    if protocol == "udp":
        pairing.lab.block("udp")
    server = pairing.server()
    code = code_of(server)
    client = pairing.client(host=pairing.lab.b.six if protocol == "ipv6" else None)
    client.type(f"{code}\n")
    client.wait_for(STARTED)
    pairing.ping()


def test_a_wrong_code_is_asked_for_again_and_the_right_one_then_works(pairing: Pairing) -> None:
    server = pairing.server()
    code = code_of(server)
    client = pairing.client()
    client.type("0000-0000\n")
    client.wait_for("wrong code: 2 tries are left")
    server.wait_for(f"wrong code from {pairing.lab.a.four}: 2 tries are left")
    client.type("0000-000\n")
    client.wait_for("a code has 8 letters and digits")
    client.type(f"{code}\n")
    client.wait_for(STARTED)
    pairing.ping()


def test_three_wrong_codes_end_both_ends_with_status_16_and_no_file(pairing: Pairing) -> None:
    server = pairing.server()
    code_of(server)
    client = pairing.client()
    for left in ("2 tries are left", "one try is left", "no try is left"):
        client.type("0000-0000\n")
        client.wait_for(left)
    assert (client.wait(), server.wait()) == (16, 16)
    assert "this code is void now" in server.text
    assert not any(pairing.key(machine).exists() for machine in pairing.lab.machines)


def test_an_existing_key_is_refused_at_either_end_and_stays_as_it_is(pairing: Pairing) -> None:
    lab = pairing.lab
    for machine, options in ((lab.b, ("-s", "-i", "tun3")), (lab.a, ("-c", lab.b.four, "-i", "tun11"))):
        key = pairing.key(machine)
        create_shared(key)
        before = key.read_text()
        terminal = pairing.start(machine, *options, "--pair", "-k", key)
        assert terminal.wait() == 4
        assert "has a key already" in " ".join(terminal.lines)
        assert not CODE.search(terminal.text)
        assert PROMPT not in terminal.text
        assert key.read_text() == before


def test_a_server_that_runs_its_tunnel_answers_no_client_that_pairs(pairing: Pairing) -> None:
    server = start_server(pairing.lab)
    client = pairing.client()
    client.type("0000-0000\n")
    assert client.wait() == 16
    assert "no pairing is open" in client.text
    assert server.running


@pytest.mark.parametrize("end", ["server", "client"])
def test_ctrl_c_ends_a_pairing_without_a_file(pairing: Pairing, end: str) -> None:
    server = pairing.server()
    code_of(server)
    terminal = pairing.client() if end == "client" else server
    terminal.type(CTRL_C)
    assert terminal.wait() == -signal.SIGINT
    assert "Traceback" not in terminal.text
    assert not list(pairing.lab.folder.glob("*.key"))
    assert not list(pairing.lab.folder.glob(".vpntun*"))


def test_strangers_that_flood_the_port_do_not_keep_the_client_out(pairing: Pairing) -> None:
    server = pairing.server()
    code = code_of(server)
    pairing.lab.a.run("ip", "address", "add", "10.0.0.9/24", "dev", "veth0")
    flood = pairing.lab.a.popen(sys.executable, "-c", FLOOD, pairing.lab.b.four, str(PORT))
    flood.wait_for("began")
    client = pairing.client()
    client.type(f"{code}\n")
    client.wait_for(STARTED)
    assert flood.running
    flood.kill()
    pairing.ping()


def test_without_a_terminal_no_code_is_made(pairing: Pairing) -> None:
    status, said = pairing.lab.b.ask("-s", "-i", "tun3", "--pair", "-k", pairing.key(pairing.lab.b))
    assert status == 3
    assert "there is no terminal to show it on" in said
    assert not CODE.search(said)


def test_a_code_can_come_from_standard_input(pairing: Pairing) -> None:
    server = pairing.server()
    code = code_of(server)
    lab = pairing.lab
    command = ("-c", lab.b.four, "-i", "tun11", "--pair", "-k", str(pairing.key(lab.a)))
    client = lab.a.popen("sh", "-c", f'echo {code} | exec "$0" -m vpntun "$@"', sys.executable, *command)
    client.wait_for(STARTED)
    pairing.ping()


WITHOUT_NET_ADMIN = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")


@pytest.mark.parametrize("end", ["server", "client"])
def test_a_user_who_may_not_make_the_device_is_told_so_before_a_key_is_made(pairing: Pairing, end: str) -> None:
    lab = pairing.lab
    machine, options = (lab.b, ("-s",)) if end == "server" else (lab.a, ("-c", lab.b.four))
    terminal = pairing.start(
        machine, *options, "-i", "tun3", "--pair", "-k", pairing.key(machine), before=WITHOUT_NET_ADMIN
    )
    assert terminal.wait() == 6
    assert "no right to create or attach the device tun3" in " ".join(terminal.lines)
    assert not CODE.search(terminal.text)
    assert PROMPT not in terminal.text


def test_a_device_that_another_tunnel_uses_is_refused_before_a_key_is_made(pairing: Pairing) -> None:
    start_server(pairing.lab)
    terminal = pairing.start(
        pairing.lab.b, "-c", pairing.lab.a.four, "-i", "tun3", "--pair", "-k", pairing.key(pairing.lab.b)
    )
    assert terminal.wait() == 5
    assert "another program has it open" in " ".join(terminal.lines)


def test_wrong_options_are_refused_before_a_key_is_made(pairing: Pairing) -> None:
    server = pairing.start(pairing.lab.b, "-s", "-i", "tun3", "--pair", "-k", pairing.key(pairing.lab.b), "--mtu", "9")
    assert server.wait() == 3
    assert not CODE.search(server.text)
