"""Commands for configuration files: the output of check, and how up and -f run a tunnel."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from tests.cli.conftest import Run, Said
from vpntun.cli.command import NOT_BESIDE_A_FILE
from vpntun.cli.command import vpntun as program
from vpntun.config import finding
from vpntun.config.file import read_file, read_peers
from vpntun.config.keyfile import create_shared
from vpntun.config.keys import derived_keys
from vpntun.config.tunnel import DEFAULT_MTU, Tunnel
from vpntun.crypto.keys import KeyPair, clamp, format_key
from vpntun.wire.ethernet.mac import derived_mac, mac_text

OWN = KeyPair.of(clamp(b"o" * 32))
LAPTOP = KeyPair.of(clamp(b"l" * 32)).public
OFFICE = KeyPair.of(clamp(b"f" * 32)).public
PSK = bytes(range(32))

HUB = f"""
[Interface]
PrivateKey = {format_key(OWN.private)}
ListenPort = 51820
Transport = auto
Address = 10.9.0.1/24, fd09::1/64
DNS = 10.9.0.1, example.org
Relay = yes
DSCP = inherit
Metrics = [::1]:9586
Forward = :6443 10.9.0.2:6443
Forward = udp 127.0.0.1:53 10.9.0.1:53 from peer
Service = ssh 127.0.0.1:22
AllowFrom = ssh laptop
PreUp = true
PostUp = echo %i is up
PreDown = echo caf\u00e9 \t bell
PostDown = false

[Peer]
Name = laptop
PublicKey = {format_key(LAPTOP)}
PresharedKey = {format_key(PSK)}
AllowedIPs = 10.9.0.2, fd09::2, 192.168.3.0/24

[Peer]
PublicKey = {format_key(OFFICE)}
AllowedIPs = 10.20.0.0/16, 192.168.3.0/24
Endpoint = [2001:db8::1]:51820
PersistentKeepalive = 25
Transport = tcp
"""

CHECKED = f"""\
interface: hub
  public key: {format_key(OWN.public)}
  listening: on UDP and TCP port 51820
  addresses: 10.9.0.1/24, fd09::1/64
  mtu: 1420
  routes: 192.168.3.0/24, 10.20.0.0/16
  dns: 10.9.0.1, example.org
  relay: yes, from peer to peer
  metrics: [::1]:9586
  forward: tcp :6443 10.9.0.2:6443
  forward: udp 127.0.0.1:53 10.9.0.1:53 from peer
  service: ssh at 127.0.0.1:22, for laptop
  dscp: copied to the outer packets
  before up: true
  after up: echo hub is up
  before down: echo caf\u00e9 \\t bell
  after down: false

peer: laptop
  public key: {format_key(LAPTOP)}
  preshared key: given
  endpoint: unknown until it calls
  allowed ips: 10.9.0.2/32, fd09::2/128, 192.168.3.0/24

peer: {format_key(OFFICE)}
  endpoint: [2001:db8::1]:51820, over TCP
  allowed ips: 10.20.0.0/16, 192.168.3.0/24
  persistent keepalive: every 25 seconds
"""


def write(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return write(tmp_path / "hub.conf", HUB)


@pytest.fixture
def check(run: Run, tmp_path: Path) -> Callable[[str], Said]:
    """Function that runs `check` on a text as the file of the interface t0."""
    return lambda text: run("check", write(tmp_path / "t0.conf", text))


def key_pairs(*interface: str) -> str:
    return "\n".join(["[Interface]", f"PrivateKey = {format_key(OWN.private)}", *interface]) + "\n"


def peer(*lines: str) -> str:
    return "\n".join(["[Peer]", f"PublicKey = {format_key(LAPTOP)}", *lines]) + "\n"


# check


def test_check_prints_what_would_be_done_and_no_secret(run: Run, hub: Path) -> None:
    said = run("check", hub)
    assert (said.status, said.out, said.err) == (0, CHECKED, "")
    for secret in (OWN.private, PSK):
        assert format_key(secret) not in said.out


def test_check_says_that_the_private_key_is_left_to_post_up(check: Callable[[str], Said]) -> None:
    said = check("[Interface]\nPostUp = wg set %i private-key /etc/wireguard/t0.key\n" + peer())
    assert said.status == 0
    assert "t0.conf has no PrivateKey: PostUp has to give one, as in 'wg set %i private-key FILE'" in said.err
    assert "public key: unknown until PostUp gives the private key\n" in said.out
    assert "after up: wg set t0 private-key /etc/wireguard/t0.key\n" in said.out


def test_check_and_up_find_a_file_by_its_name_in_the_usual_folders(
    run: Run, hub: Path, ran: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "FOLDERS", (hub.parent / "none", hub.parent))
    assert run("check", "hub").out == CHECKED
    assert run("up", "hub").status == 0
    assert ran[0].interface == "hub"
    said = run("check", "hug")
    assert said.status == 3
    assert f"{hub.parent}/none/hug.conf or {hub.parent}/hug.conf" in said.err


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (key_pairs(), ["listening: no, this end calls", "addresses: none", "mtu: 1420", "routes: none"]),
        (key_pairs("Transport = tcp", "ListenPort = 443", "MTU = 1300"), ["listening: on TCP port 443", "mtu: 1300"]),
        (
            key_pairs("Address = 10.0.0.1/24") + peer("AllowedIPs = 0.0.0.0/0, ::/0, 10.0.0.2, 10.1.0.0/16"),
            ["routes: 10.1.0.0/16", "full tunnel: IPv4 and IPv6", "fwmark: the first free one from 0xca6c"],
        ),
        (
            key_pairs("FwMark = 77") + peer("AllowedIPs = ::/0"),
            ["routes: none", "full tunnel: IPv6", "fwmark: 0x4d"],
        ),
        (
            key_pairs() + peer("AllowedIPs = 0.0.0.0/1, 128.0.0.0/1"),
            ["routes: 0.0.0.0/1, 128.0.0.0/1", "full tunnel: IPv4", "fwmark: the first free one from 0xca6c"],
        ),
        (
            key_pairs() + peer("AllowedIPs = 192.0.0.0/3"),
            ["routes: 192.0.0.0/3", "fwmark: the first free one from 0xca6c"],
        ),
        (
            key_pairs("Table = 77", "Address = 10.0.0.1/24") + peer("AllowedIPs = 10.0.0.0/24, 0.0.0.0/0"),
            ["routes: 10.0.0.0/24, 0.0.0.0/0, in table 77"],
        ),
        (key_pairs("Table = off") + peer("AllowedIPs = 0.0.0.0/0"), ["routes: none"]),
        (
            key_pairs("DnsServer = yes", "DnsRecord = *.apps.example 10.0.0.8", "DnsForward = corp.example fd00::53")
            + peer("Name = Anna's desk"),
            [
                "name server: for t0.internal, with anna-s-desk",
                "record: *.apps.example 10.0.0.8",
                "asked elsewhere: corp.example fd00::53",
            ],
        ),
        (key_pairs("DnsServer = yes") + peer("Name = ..."), ["without a name: ..."]),
        (key_pairs() + peer("Endpoint = host:5", "Transport = auto"), ["endpoint: host:5, over UDP or TCP"]),
    ],
)
def test_check_prints_the_values_derived_from_others(check: Callable[[str], Said], text: str, lines: list[str]) -> None:
    said = check(text)
    assert said.status == 0
    for line in lines:
        assert f"  {line}\n" in said.out
    assert ("full tunnel" in said.out) == any("full tunnel" in line for line in lines)


def test_check_prints_a_tap_device_and_the_mac_addresses_in_place_of_allowed_ips(
    check: Callable[[str], Said],
) -> None:
    limited = peer("AllowedMACs = 02-00-00-00-00-02, 02:00:00:00:00:03")
    said = check(key_pairs("Device = tap", "MAC = 02:00:00:00:00:01", "Bridge = br0") + limited)
    assert (
        "  device: tap\n  mac: 02:00:00:00:00:01\n  bridge: br0\n  addresses: none\n  mtu: 1500\n  routes: none\n"
        in said.out
    )
    assert said.out.endswith("  allowed macs: 02:00:00:00:00:02, 02:00:00:00:00:03\n")
    assert "allowed ips" not in said.out
    said = check(key_pairs("Device = tap", "Address = 10.9.0.1/24") + peer())
    mac = mac_text(derived_mac(OWN.public))
    assert f"  device: tap\n  mac: {mac}, derived from the key\n  addresses: 10.9.0.1/24\n" in said.out
    assert "allowed" not in said.out


def test_check_prints_the_addresses_derived_from_a_shared_key(run: Run, tmp_path: Path) -> None:
    secret = create_shared(tmp_path / "office.key")
    keys = derived_keys("client", secret)
    interface = f"[Interface]\nRole = client\nSharedKey = {tmp_path}/office.key\nListenPort = 9\n"
    said = run("check", write(tmp_path / "t0.conf", interface + "[Peer]\nEndpoint = vpn.example.org:55555\n"))
    assert (
        f"  addresses: {keys.derived_addresses[0]}, {keys.derived_addresses[1]}\n  mtu: {DEFAULT_MTU}\n  routes: none\n"
        in said.out
    )
    assert "  listening: no, this end calls from port 9\n" in said.out
    assert "  persistent keepalive: every 25 seconds\n" in said.out
    assert format_key(secret) not in said.out


def test_check_of_a_bad_file_has_status_3_and_names_file_and_line(check: Callable[[str], Said]) -> None:
    said = check(key_pairs("Adress = 10.0.0.1/24"))
    assert (said.status, said.out) == (3, "")
    assert said.err.endswith("t0.conf:3: there is no key Adress in [Interface]; did you mean Address?\n")
    assert said.err.startswith("vpntun: /")
    assert said.err.count("\n") == 1


def test_check_prints_the_readers_notices(check: Callable[[str], Said]) -> None:
    said = check(key_pairs("SaveConfig = true"))
    assert said.status == 0
    assert said.err.startswith("vpntun: t0: ")
    assert "SaveConfig has no effect" in said.err


# up, and -f


def test_up_runs_the_tunnel_of_a_file_and_reads_it_again_from_any_folder(
    run: Run, hub: Path, ran: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hub.parent)
    assert run("up", "./hub.conf").status == 0
    tunnel, run_options, reread = ran
    assert run_options.file == hub
    assert tunnel == read_file(hub, "hub")
    monkeypatch.chdir("/")
    hub.write_text(HUB.replace("51820", "51821"))
    assert reread().port == 51821


@pytest.mark.parametrize(
    ("options", "level"),
    [([], logging.WARNING), (["-v"], logging.INFO), (["-vv"], logging.DEBUG), (["-d"], logging.DEBUG)],
)
def test_up_logs_as_much_as_requested(run: Run, hub: Path, ran: list[Any], options: list[str], level: int) -> None:
    assert run("up", *options, hub).status == 0
    assert logging.getLogger("vpntun").level == level


def test_f_reads_only_keys_and_peers_of_a_file(run: Run, hub: Path, ran: list[Any]) -> None:
    assert run("-i", "tun7", "-f", hub).status == 0
    tunnel, run_options, reread = ran
    assert run_options.file == hub
    assert isinstance(tunnel, Tunnel)
    assert tunnel == read_peers(hub, "tun7") == reread()
    assert (tunnel.interface, tunnel.addresses, tunnel.routing.table, tunnel.port) == ("tun7", (), "off", 51820)


def test_a_bad_file_starts_nothing(run: Run, hub: Path, ran: list[Any]) -> None:
    hub.write_text(HUB.replace("ListenPort", "ListenPortal"))
    assert run("up", hub).status == 3
    assert run("-i", "tun7", "-f", hub).status == 3
    assert ran == []


@pytest.mark.parametrize(
    "option",
    [
        *(
            "-s",
            "-c host",
            "-p 55555",
            "--transport udp",
            "-k key",
            "--private-key key",
            f"--peer {format_key(LAPTOP)}",
            "-u",
            "-a",
            "--mac 02:00:00:00:00:01",
            "--bridge br0",
        ),
        *("--psk key", "--allowed 10.0.0.0/8", "--address 10.0.0.1/8", "--route 10.0.0.0/8", "--mtu 1400"),
    ],
)
def test_options_for_what_a_file_contains_are_refused_with_f(run: Run, hub: Path, ran: list[Any], option: str) -> None:
    said = run("-i", "tun7", "-f", hub, *option.split())
    assert said.status == 2
    assert "cannot be combined with -f" in said.err
    assert ran == []


def test_the_options_refused_with_f_exist() -> None:
    assert {parameter.name for parameter in program.params} >= NOT_BESIDE_A_FILE


@pytest.mark.parametrize(
    ("arguments", "explanation"),
    [
        ("-f hub.conf", "Give its name with -i"),
        ("-i tun7", "-f FILE"),
        ("-i tun7 -f hub.conf -a", "--tap cannot be combined with -f"),
        ("-f hub.conf up hub", "cannot be combined with 'up'"),
        ("up", "FILE|NAME"),
        ("check", "FILE|NAME"),
        ("up one two", "unexpected extra argument"),
    ],
)
def test_a_usage_error_has_status_2(run: Run, arguments: str, explanation: str) -> None:
    said = run(*arguments.split())
    assert said.status == click.UsageError.exit_code
    assert explanation in said.err
