"""The command line: what contradicts itself is a usage error, and every other refusal has its status and its line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vpntun
import vpntun.daemon  # now, since an ordinary user may not be able to read it later
from tests.cli.conftest import Run, Said, program
from tests.machine import ordinary_user
from vpntun import errors
from vpntun.crypto.keys import KeyPair, clamp, format_key

PEER = format_key(KeyPair.of(clamp(b"p" * 32)).public)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    path = tmp_path / "private"
    path.touch(mode=0o600)
    path.write_text(format_key(clamp(b"o" * 32)) + "\n")
    return path


OPTIONS_AND_COMMANDS = """
-i --interface  -s --server  -c --client  -p --port  -u --tun  -a --tap  -k --key  --pair  --private-key  --peer  --psk
--allowed  --address  --route  --mtu  --mac  --bridge  --transport  -v --verbose  -d --debug  -V --version  -h --help
genkey  pubkey  genpsk  keygen
"""


# Usage


@pytest.mark.parametrize(
    ("arguments", "explanation"),
    [
        ("", "Give its name with -i"),
        ("-s", "Give its name with -i"),
        ("-c host", "Give its name with -i"),
        ("-i tun3", "exactly one of -s"),
        ("-i tun3 -s -c host", "exactly one of -s"),
        ("-i tun3 -u -a -s", "either -u (TUN, for IP packets) or -a (TAP, for Ethernet frames)"),
        ("-a -s", "Give its name with -i"),
        (f"-i tap3 -a -s --private-key file --peer {PEER} --allowed 10.0.0.0/8", "--allowed has no meaning with -a"),
        (f"-i tun3 -s --peer {PEER}", "--peer requires --private-key"),
        ("-i tun3 -s --psk file", "--psk requires --private-key"),
        ("-i tun3 -s --allowed 10.0.0.0/8", "--allowed requires --private-key"),
        (f"-i tun3 -s -k file --private-key file --peer {PEER}", "either a shared key"),
        ("-i tun3 -s --private-key file", "requires --peer"),
        ("-i tap3 -s --mac 02:00:00:00:00:01", "--mac requires -a"),
        ("-i tap3 -s --bridge br0", "--bridge requires -a"),
        ("-i tap3 -s -a --bridge br0 --address 10.0.0.1/8", "--address cannot be combined with --bridge"),
        ("-i tap3 -s -a --bridge br0 --route 10.0.0.0/8", "--route cannot be combined with --bridge"),
        ("-i tun3 -s --transport sctp", "--transport"),
        ("-i tun3 -s -p http", "--port"),
        ("-i tun3 -s --mtu large", "--mtu"),
        ("-i tun3 -s --no-such-option", "--no-such-option"),
        ("-i", "requires an argument"),
        ("-i tun3 -c", "requires an argument"),
        ("no-such-command", "no-such-command"),
        ("-v genkey", "cannot be combined with 'genkey'"),
        ("-i tun3 genkey", "cannot be combined with 'genkey'"),
        ("-s pubkey", "cannot be combined with 'pubkey'"),
        ("-p 55555 genpsk", "cannot be combined with 'genpsk'"),
        ("-i tun3 -s --pair --private-key file --peer x", "cannot be combined with --private-key"),
        ("-i tun3 -f file --pair", "--pair cannot be combined with -f"),
        ("-i tun3 -s --pair genkey", "cannot be combined with 'genkey'"),
        ("-i tun3 -s -k file keygen other", "cannot be combined with 'keygen'"),
        ("keygen", "FILE"),
        ("keygen one two", "unexpected extra argument"),
        ("genkey file", "unexpected extra argument"),
    ],
)
def test_a_usage_error_has_status_2_and_says_what_is_wrong(run: Run, arguments: str, explanation: str) -> None:
    said = run(*arguments.split())
    assert said.status == 2
    assert explanation in said.err
    assert said.out == ""


def test_an_empty_host_is_no_host(run: Run) -> None:
    assert run("-i", "tun3", "-c", "").status == 2


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_option_and_command(run: Run, option: str) -> None:
    said = run(option)
    assert said.status == 0
    for name in OPTIONS_AND_COMMANDS.split():
        assert f"{name} " in said.out.replace(",", " ").replace("\n", " ")
    assert said.err == ""


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_printed(run: Run, option: str) -> None:
    said = run(option)
    assert said.status == 0
    assert vpntun.__version__ in said.out


def test_each_command_explains_itself(run: Run) -> None:
    for name in ("genkey", "pubkey", "genpsk", "keygen"):
        assert run(name, "-h").status == 0


@pytest.mark.parametrize(("options", "device"), [([], "tun"), (["-u"], "tun"), (["-a"], "tap"), (["--tap"], "tap")])
def test_the_options_choose_the_kind_of_device(
    run: Run, ran: list[Any], key: Path, options: list[str], device: str
) -> None:
    assert run("-i", "tap3", "-s", "-k", key, *options).status == 0
    assert ran[0].device == device


def test_a_tap_device_gets_its_mac_address_bridge_and_routes_from_the_options(
    run: Run, ran: list[Any], key: Path
) -> None:
    base: list[str | Path] = ["-i", "tap3", "-s", "-a", "-k", key]
    assert run(*base, "--mac", "02-00-00-00-00-01", "--bridge", "br0").status == 0
    assert (ran[0].mac, ran[0].bridge, ran[0].own_addresses) == (bytes([2, 0, 0, 0, 0, 1]), "br0", ())
    ran.clear()
    assert run(*base, "--route", "10.2.0.0/16", "--route", "10.3.0.0/16 via 100.64.0.9").status == 0
    assert {str(network): str(gateway) for network, gateway in ran[0].gateways.items()} == {
        "10.2.0.0/16": str(ran[0].derived_peer_addresses[0]),
        "10.3.0.0/16": "100.64.0.9",
    }
    assert list(ran[0].gateways) == list(ran[0].routes)


# Refusals


@pytest.mark.parametrize(
    ("options", "explanation"),
    [
        ("-p 0", "0 is not a port"),
        ("-p 65536", "65536 is not a port"),
        ("--mtu 0", "an MTU of 0"),
        ("--mtu 1", "an MTU of 1"),
        ("--mtu 65536", "an MTU of 65536"),
        ("--mtu 1000 --address fd00::1/64", "too small for IPv6"),
        ("--address 192.168.0.1", "prefix length"),
        ("--address nonsense/24", "prefix length"),
        ("--address fe80::1%eth0/64", "prefix length"),
        ("--route nonsense", "not a network"),
        ("--route fe80::%eth0/64", "not a network"),
        ("--route 192.0.2.0/24", "covers 192.0.2.1"),
        ("--route 0.0.0.0/0", "covers 192.0.2.1"),
        ("--address 192.0.2.9/24", "covers 192.0.2.1"),
        ("-a --mac 02:00:00", "--mac: '02:00:00' is not a MAC address"),
        ("-a --bridge br/0", "--bridge: 'br/0' cannot be a bridge's name"),
        ("-a --address 10.9.0.1/24 --route 10.2.0.0/16", "on a TAP device a route needs a gateway"),
    ],
)
def test_a_value_that_cannot_work_has_status_3_and_one_line(
    run: Run, key: Path, options: str, explanation: str
) -> None:
    said = run("-i", "tun3", "-c", "192.0.2.1", "-k", key, *options.split())
    assert said.status == 3
    assert explanation in said.err
    assert said.err.startswith("vpntun: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("name", ["with space", "sixteen-letters-", "with/slash", "tun%d", "colon:", ".", ".."])
def test_a_name_that_no_interface_can_have_has_status_3(run: Run, key: Path, name: str) -> None:
    said = run("-i", name, "-s", "-k", key)
    assert said.status == 3
    assert "cannot be an interface's name" in said.err


def test_the_values_of_the_wireguard_options_are_checked(run: Run, private: Path) -> None:
    base: list[str | Path] = ["-i", "tun3", "-s", "--private-key", private]
    own = format_key(KeyPair.of(clamp(b"o" * 32)).public)
    assert run(*base, "--peer", own).status == 3
    assert run(*base, "--peer", "nonsense").status == 3
    assert run(*base, "--peer", PEER, "--allowed", "nonsense").status == 3
    assert run(*base, "--peer", PEER, "--psk", "/nowhere/psk").status == 4
    private.chmod(0o644)
    assert run(*base, "--peer", PEER).status == 4


@pytest.mark.parametrize("role", [["-s"], ["-c", "192.0.2.1"]])
def test_a_key_readable_by_others_has_status_4(run: Run, key: Path, role: list[str]) -> None:
    key.chmod(0o644)
    said = run("-i", "tun3", *role, "-k", key)
    assert said.status == 4
    assert f"chmod 600 {key}" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("role", [["-s"], ["-c", "192.0.2.1"]])
def test_a_key_file_that_is_missing_has_status_4_and_is_not_made(run: Run, tmp_path: Path, role: list[str]) -> None:
    said = run("-i", "tun3", *role, "-k", tmp_path / "key")
    assert said.status == 4
    assert str(tmp_path / "key") in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_wireguard_key_as_the_shared_key_has_status_4_and_says_which_option_it_needs(run: Run, private: Path) -> None:
    said = run("-i", "tun3", "-s", "-k", private)
    assert said.status == 4
    assert "--private-key" in said.err


def test_a_client_without_a_key_has_status_4_and_names_where_it_is_expected(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ordinary_user() as folder:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
        said = run("-i", "tun3", "-c", "remote.example.org")
    assert said.status == 4
    assert f"{folder}/vpntun/vpntun.key" in said.err
    assert "scp -p root@remote.example.org:" in said.err


def test_an_ordinary_user_without_a_prepared_device_gets_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with ordinary_user() as folder:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        said = run("-i", "vpntun-test", "-s")
        secret = (folder / "vpntun" / "vpntun.key").read_text().split("\n")[1]
    first, second = said.err.splitlines()
    assert said.status == (errors.PrivilegeError.exit_status if Path("/dev/net/tun").exists() else 5)
    assert first.startswith("vpntun: vpntun-test: made a new shared key")
    assert second.startswith(("vpntun: no ", "vpntun: there is no /dev/net/tun"))
    assert secret not in said.err


def test_each_class_of_error_has_the_status_of_the_table() -> None:
    statuses = [
        each.exit_status
        for each in (
            errors.VpntunError,
            errors.ConfigurationError,
            errors.KeyFileError,
            errors.DeviceError,
            errors.PrivilegeError,
            errors.PortInUse,
            errors.InterfaceInUse,
        )
    ]
    assert statuses == [1, 3, 4, 5, 6, 7, 8]


def test_the_program_runs_as_a_module_and_ends_with_the_statuses(tmp_path: Path) -> None:
    assert program("-V").status == 0
    assert program("-i", "tun3").status == 2
    assert program("keygen", tmp_path / "key").status == 0
    assert program("keygen", tmp_path / "key").status == 4
    refused = program("-i", "tun3", "-s", "-k", tmp_path / "key", "-p", "0")
    assert refused.status == 3
    assert "Traceback" not in refused.err


@pytest.mark.parametrize(("closed", "status"), [("<&-", 3), (">&-", 2), ("2>&-", 2), ("<&- >&- 2>&-", 2)])
def test_closed_standard_streams_cause_no_traceback(closed: str, status: int) -> None:
    command = "pubkey" if closed == "<&-" else "no-such-command"
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -m vpntun {command} {closed}', sys.executable],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr


# Interrupts

ENTRANCES = [[sys.executable, "-m", "vpntun"], [str(Path(sys.executable).with_name("vpntun"))]]
SLOW_TO_LOAD = """
import sys
print("loading", flush=True)
sys.stdin.readline()
print("went on", flush=True)
sys.exit()
"""
IGNORING_INTERRUPTS = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
"""As a shell without job control starts a command in the background."""


@pytest.fixture
def slow(tmp_path: Path) -> dict[str, str]:
    """Environment in which the program waits for a line of input while it loads its modules."""
    (tmp_path / "click.py").write_text(SLOW_TO_LOAD)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def interrupt(command: list[str], environment: dict[str, str]) -> Said:
    """Send SIGINT once the program has begun to load, then give it a line of input."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "loading\n"
        started.send_signal(signal.SIGINT)
        out, err = started.communicate("\n", timeout=10)
    return Said(started.returncode, out, err)


@pytest.mark.parametrize("entrance", ENTRANCES, ids=["module", "script"])
def test_an_interrupt_while_the_program_loads_kills_it_silently(entrance: list[str], slow: dict[str, str]) -> None:
    said = interrupt(entrance, slow)
    assert (said.status, said.out, said.err) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("entrance", ENTRANCES, ids=["module", "script"])
def test_an_interrupt_that_was_ignored_at_the_start_stays_ignored(entrance: list[str], slow: dict[str, str]) -> None:
    said = interrupt([*IGNORING_INTERRUPTS, *entrance], slow)
    assert (said.status, said.out, said.err) == (0, "went on\n", "")


def test_an_interrupt_kills_a_waiting_command_silently() -> None:
    command = [sys.executable, "-c", INTERRUPTS_ITSELF, "show", "tun9", "--wait", "30"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


INTERRUPTS_ITSELF = """
import os, signal, time
from vpntun.__main__ import main
time.sleep = lambda seconds: os.kill(os.getpid(), signal.SIGINT)
main()
"""


def test_importing_the_program_leaves_the_handler_of_interrupts_alone() -> None:
    look = "import signal, vpntun.__main__, vpntun.cli; print(signal.getsignal(signal.SIGINT).__name__)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "default_int_handler\n"
