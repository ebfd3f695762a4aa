"""The documents' examples with two machines. Each runs in a lab, line by line, and must print what the document shows.

tests/documents.py describes how an example is written. The other checks of the documents are in test_documents.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import Step, blocks, steps
from tests.netns.lab import NOBODY, STARTED, Lab, far, state_folders, until, why_not
from tests.netns.leftovers import sweep
from tests.netns.servers import start_web
from tests.netns.test_ecn import watching
from tests.reader import WIREGUARD, Reader
from tests.shells import Shells, labels
from tests.terminal import Terminal
from vpntun.capture.reading import CaptureReader
from vpntun.wire.ip import tos_of


@pytest.fixture(scope="module")
def _state_folders() -> Iterator[None]:
    if reason := why_not():
        (pytest.fail if os.environ.get("VPNTUN_REQUIRE_NETNS") == "1" else pytest.skip)(reason)
    sweep()
    with state_folders():
        made = not WIREGUARD.exists()
        WIREGUARD.mkdir(exist_ok=True)
        yield
        if made:
            with contextlib.suppress(OSError):
                WIREGUARD.rmdir()


@pytest.fixture
def reader(_state_folders: None, tmp_path: Path) -> Iterator[Reader]:
    lab = Lab(tmp_path)
    yield Reader(lab)
    lab.close()


@pytest.fixture
def _wireguard() -> None:
    for tool in ("wireguard-go", "wg"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


@pytest.mark.netns
def test_the_two_commands(reader: Reader) -> None:
    reader.follow("two-commands")


@pytest.mark.netns
def test_a_key_of_its_own(reader: Reader) -> None:
    (reader.roots["remote"] / "etc/vpntun").mkdir(mode=0o700)
    reader.follow("key-of-its-own")
    reader.lab.ping(reader.lab.a, reader.lab.b.address_of("tun4"))


@pytest.mark.netns
def test_the_tour_of_daily_use(reader: Reader) -> None:
    for tool in ("curl", "nft", "tshark"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    with Shells(reader) as shells:
        for block in blocks("tour"):
            shells.type(block)


@pytest.mark.netns
def test_pairing(reader: Reader) -> None:
    server, client = steps(blocks("pairing")[0])
    with reader.terminal(server) as remote:
        remote.wait_for("code: ")
        [shown] = re.findall(r"code: (\S+)", remote.text)
        assert remote.text.startswith("\n".join(server.output).replace("7KQ2-M9XD", shown))
        with reader.terminal(client) as local:
            prompt, typed = client.output[0].split(": ")
            assert typed.upper() == "7KQ2 M9XD"
            local.wait_for(prompt)
            local.type(shown.lower().replace("-", " ") + "\n")
            local.wait_for(STARTED)
            assert reader.translated(client.output[1]) in local.text
            remote.wait_for(STARTED)
            reader.lab.ping(reader.lab.a, far(reader.lab), within=20)


@pytest.mark.netns
def test_addresses_and_routes(reader: Reader) -> None:
    reader.share_a_key()
    reader.lab.b.run("ip", "address", "add", "10.20.0.1/16", "dev", "lo")
    reader.follow("addresses-and-routes")


@pytest.mark.netns
def test_copied_dscp(reader: Reader) -> None:
    reader.share_a_key()
    with watching(reader.lab.b, "veth0") as outside:
        reader.follow("copied-dscp")
        assert [tos_of(packet) for packet in outside.look()].count(0xB8) == 3


@pytest.mark.netns
def test_transport_tcp(reader: Reader) -> None:
    reader.share_a_key()
    reader.lab.block("udp", 443)
    reader.follow("transport-tcp")


@pytest.mark.netns
@pytest.mark.usefixtures("_wireguard")
def test_wireguard_answers(reader: Reader) -> None:
    reader.follow("wireguard-answers")


@pytest.mark.netns
@pytest.mark.usefixtures("_wireguard")
def test_wireguard_calls(reader: Reader) -> None:
    other = {"remote": "local", "local": "remote"}
    for step in steps(blocks("wireguard-answers")[0]):
        swapped = re.sub(r"\b(remote|local)(?=[#.])", lambda found: other[found[0]], f"{step.prompt} {step.command}")
        prompt, _, command = swapped.partition(" ")
        reader.take(Step(prompt, command))
    reader.follow("wireguard-calls")


@pytest.mark.netns
def test_configuration_files(reader: Reader) -> None:
    making_keys, using_files = blocks("configuration-files")
    reader.type(making_keys)
    reader.put_offices_files()
    reader.type(using_files)


@pytest.mark.netns
@pytest.mark.usefixtures("_wireguard")
def test_using_wg(reader: Reader) -> None:
    reader.type(blocks("configuration-files")[0])
    reader.put_offices_files()
    reader.follow("using-wg")


@pytest.mark.netns
def test_a_file_of_a_shared_key(reader: Reader) -> None:
    reader.share_a_key()
    reader.put("local", "/etc/vpntun/tun11.conf", "shared-key-file")
    reader.take(Step("remote#", "vpntun -s -i tun3"))
    reader.take(Step("local#", "vpntun up tun11"))


@pytest.fixture
def _wg_quick(reader: Reader) -> None:
    if shutil.which("wg-quick") is None:
        pytest.skip("wg-quick is not installed")
    if reader.lab.a.run("ip", "link", "add", "probe", "type", "wireguard", check=False).returncode == 0:
        pytest.skip("this kernel has WireGuard, which wg-quick prefers")


@pytest.mark.netns
@pytest.mark.usefixtures("_wg_quick")
def test_wg_quick(reader: Reader) -> None:
    reader.type(blocks("configuration-files")[0])
    reader.put("remote", "/etc/vpntun/office.conf", "office-remote")
    reader.put("local", "/etc/wireguard/office.conf", "file-for-wg-quick")
    reader.take(Step("remote#", "vpntun up office", ["waiting for the peer"]))
    reader.follow("wg-quick")
    assert not reader.lab.a.has_device("office")


@pytest.mark.netns
def test_peers_alone(reader: Reader) -> None:
    reader.type(blocks("configuration-files")[0])
    reader.put_offices_files()
    reader.follow("peers-alone")


@pytest.mark.netns
def test_a_phone(reader: Reader) -> None:
    reader.type(blocks("configuration-files")[0])
    reader.put_offices_files()
    up, phone = steps(blocks("phone")[0])
    reader.take(up)
    said = reader.run(reader.lab.b, "remote", f"{phone.command} 2>&1 >/dev/null")
    assert said.splitlines() == phone.output
    reader.follow("phone-as-text")


SOMETIMES = ("loss", "delivered", "queue", "dropped")
CHANGING = (
    "public key",
    "peer",
    "up for",
    "carrier",
    "handshake",
    "data",
    "latest",
    "transfer",
    "round trip",
    "records",
    "path mtu",
)


@pytest.mark.netns
def test_what_a_tunnel_is_doing(reader: Reader) -> None:
    reader.share_a_key()
    shown: list[str] = []
    for block in blocks("what-it-is-doing"):
        for step in steps(block):
            if step.command.startswith("vpntun show"):
                shown = reader.run(reader.lab.a, "local", step.command).splitlines()
                said = [line for line in shown if not line.strip().startswith(SOMETIMES)]
                expected = reader._translate("\n".join(step.output)).splitlines()
                assert list(map(_without_changing_part, said)) == list(map(_without_changing_part, expected))
            else:
                reader.take(step)
    assert shown
    assert not reader.lab.a.has_device("tun11")


@pytest.mark.netns
def test_the_check_of_a_link(reader: Reader) -> None:
    reader.share_a_key()
    reader.follow("check-of-a-link")


def _without_changing_part(line: str) -> str:
    """Return a line of `show` without the part that changes from run to run."""
    title, colon, _ = line.partition(":")
    return title + colon if title.strip().startswith(CHANGING) else line


@pytest.mark.netns
def test_watching(reader: Reader) -> None:
    """The screen shows each line of the guide, with other values; a pipe gets a table once an interval."""
    reader.share_a_key()
    first, second = blocks("watching")
    *before, live = steps(first)
    for step in before:
        reader.take(step)
    wanted = [labels(line) for line in live.output if line and not line.strip().startswith(SOMETIMES)]
    command = reader.lab.a.enter(["sh", "-ec", live.command], binds=reader._binds("local"))
    with Terminal(command, env=reader._environment()) as terminal:
        terminal.until(lambda: all(each in map(labels, terminal.lines) for each in wanted), f"for {wanted}")
        terminal.type("q")
        assert terminal.wait() == 0
    [log] = steps(second)
    shorter = log.command.replace("--watch 5", "--watch 0.5")
    twice = reader.run(reader.lab.a, "local", f"export COLUMNS=100; cd ~; {shorter} | head -n 10")
    assert twice.count("handshake") == 2
    assert (reader.home / "tun11.log").read_text().startswith(twice)


@pytest.mark.netns
def test_doctor(reader: Reader) -> None:
    """Every line must be the document's, except what this machine's clock, interpreter and version make of it."""
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    reader.share_a_key()
    *first, last = steps(blocks("doctor")[0])
    for step in first:
        reader.take(step)
    said = reader.run(reader.lab.b, "remote", f"{last.command} || test $? = 12").splitlines()
    own = re.compile(r"  \w+ +(clock|interpreter|version) |\d+ ok, | +-> (have it kept right|use your distribution)")
    assert [line for line in said if not own.match(line)] == [line for line in last.output if not own.match(line)]


@pytest.mark.netns
def test_doctor_calls_a_host(reader: Reader) -> None:
    """Every line must be the document's, but for the address and the times."""
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    reader.share_a_key()
    *first, last = steps(blocks("doctor-host")[0])
    for step in first:
        reader.take(step)

    def plain(text: str) -> str:
        return re.sub(r"\d+ ms", "N ms", text.replace(reader.lab.b.four, "ADDRESS"))

    said = reader.run(reader.lab.a, "local", last.command).splitlines()
    assert [plain(line) for line in said[: len(last.output)]] == [plain(line) for line in last.output]


@pytest.mark.netns
def test_doctor_tries_the_other_carrier(reader: Reader) -> None:
    """Both lines must be the document's, but for the address."""
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    reader.share_a_key()
    *first, last = steps(blocks("doctor-other-carrier")[0])
    for step in first:
        reader.take(step)
    reader.lab.ping(reader.lab.a, far(reader.lab))
    said = reader.run(reader.lab.a, "local", last.command).splitlines()
    assert said == [line.replace("10.0.0.2", reader.lab.b.four) for line in last.output]


@pytest.mark.netns
def test_forwards(reader: Reader) -> None:
    for tool in ("curl", "dig"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    reader.share_a_key()
    (reader.home / ".curlrc").write_text("silent\nfail-with-body\n")
    reader.put("local", "/etc/vpntun/tun11.conf", "forwards-of-a-file")
    reader.write("local", "/etc/resolv.conf", "nameserver 127.0.0.1\n")
    checked = reader.run(reader.lab.a, "local", "vpntun check tun11")
    assert re.findall(r"forward: (\S+ \S+)", checked) == ["tcp 127.0.0.1:8080", "udp 127.0.0.1:5353", "tcp :8000"]
    for where, address in (("remote", "0.0.0.0"), ("local", "127.0.0.1")):
        start_web(reader.machines[where], 8000, address, motd=f"welcome to the {where} machine\n")
    names = (sys.executable, "-m", "tests.netns.responder", "0.0.0.0", "intranet.example.org=192.0.2.80")
    reader.lab.b.popen(*names).wait_for("answering", 60)
    with Shells(reader) as shells:
        for block in blocks("forwards"):
            shells.type(block.replace("/root/web.sock", f"{reader.home}/web.sock"))


SERVER_WITH_A_NAMED_PEER = """
[Interface]
SharedKey = /etc/vpntun/vpntun.key
Role = server
DnsServer = yes

[Peer]
Name = laptop
"""


@pytest.mark.netns
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_control_socket_by_curl(reader: Reader) -> None:
    """Every request of docs/control.rst succeeds on a tunnel with a link and some traffic, that to stop it last.

    The tunnel is the server's, or the client's where the prompt says so.
    """
    reader.share_a_key()
    reader.write("remote", "/etc/vpntun/tun3.conf", SERVER_WITH_A_NAMED_PEER)
    (reader.home / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")
    server = reader.take(Step("remote#", "vpntun up tun3", ["waiting for the peer"]))
    reader.take(Step("local#", "vpntun -c remote.example.org -i tun11"))
    reader.lab.ping(reader.lab.a, far(reader.lab))
    reader.lab.a.popen("ping", "-n", "-i0.2", "-c600", far(reader.lab))
    written = [*blocks("control-socket"), *blocks("forwards-of-gvproxy")]
    typed = [step for block in written for step in steps(block)]
    for step in sorted(typed, key=lambda step: "/v1/stop" in step.command):
        machine, role = (reader.lab.a, "local") if step.prompt == "local#" else (reader.lab.b, "remote")
        said = reader.run(machine, role, f"cd ~; {step.command}")
        if step.output:
            _check_fields(json.loads(said), json.loads("\n".join(step.output)), step.command)
    assert server is not None
    assert server.wait() == 0


def _check_fields(said: object, shown: object, where: str) -> None:
    """Check that an answer has at least the fields that the document shows, each with a value of the same type."""
    assert type(said) is type(shown), f"{where}: {said!r}, and the document shows {shown!r}"
    if isinstance(said, dict) and isinstance(shown, dict):
        assert said.keys() >= shown.keys(), where
        for field, value in shown.items():
            _check_fields(said[field], value, f"{where}: {field}")
    elif isinstance(said, list) and isinstance(shown, list) and shown:
        assert said, where
        for each in said:
            _check_fields(each, shown[0], where)


@pytest.mark.netns
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_metrics(reader: Reader) -> None:
    reader.share_a_key()
    start, scrape = steps(blocks("metrics")[0])
    reader.take(start)
    assert until(lambda: reader.run(reader.lab.b, "remote", scrape.command).splitlines() == scrape.output, 10)


@pytest.mark.netns
def test_the_speed_of_a_link(reader: Reader) -> None:
    reader.share_a_key()
    server, client, speed = steps(blocks("how-fast")[0])
    reader.take(server)
    reader.take(client)
    said = reader.run(reader.lab.a, "local", speed.command).splitlines()
    assert [_form(line) for line in said[-len(speed.output) :]] == [_form(line) for line in speed.output]


def _form(line: str) -> str:
    """Return a line without its blanks and with every number, key and unit of a rate alike."""
    line = re.sub(r"to \S+ over", "to KEY over", line)
    return re.sub("[kMG]bit/s", "bit/s", re.sub(r"[\d.]+", "N", re.sub(r"\s+", " ", line)))


@pytest.mark.netns
def test_looking_at_the_packets(reader: Reader) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    reader.share_a_key()
    [first, *captures] = [step for block in blocks("looking-at-the-packets") for step in steps(block)][1:]
    reader.take(Step("remote#", "vpntun -s -i tun3"))
    reader.take(first)
    ping = reader.lab.a.popen("ping", "-i", "0.1", far(reader.lab))
    said = [reader.run(reader.lab.a, "local", f"cd {reader.home}; {step.command}") for step in captures]
    ping.process.send_signal(signal.SIGINT)
    ping.wait()
    printed, expected = said[0].splitlines(), reader._translate("\n".join(captures[0].output)).splitlines()
    assert [_shape(line) for line in printed] in ([_shape(line) for line in expected][::step] for step in (1, -1))
    assert said[1] == ""
    assert len(list(CaptureReader().take((reader.home / "tunnel.pcapng").read_bytes()))) == 2
    assert "Echo (ping) request" in said[2]


def _shape(line: str) -> str:
    """Return a printed packet without its time, the peer's key, and the numbers of the echo."""
    return re.sub(r"^\S+|(?<=peer )[^:]+|(?<=id )\d+|(?<=seq )\d+", "", line)


@pytest.mark.netns
def test_an_ordinary_user(reader: Reader) -> None:
    reader.follow("ordinary-user")


@pytest.mark.netns
def test_one_program_in_the_tunnel(reader: Reader) -> None:
    server, run = steps(blocks("one-program")[0])
    reader.take(server)
    key = reader.home / ".config/vpntun/vpntun.key"
    key.parent.mkdir(parents=True)
    shutil.copy(reader.roots["remote"] / "etc/vpntun/vpntun.key", key)
    for path in (key.parents[1], key.parent, key):
        os.chown(path, NOBODY, NOBODY)
    said = reader.run(reader.lab.a, "local", reader.translated(run.command), "alice")
    assert "3 packets transmitted, 3 received, 0% packet loss" in said
    assert run.output[1].startswith("3 packets transmitted, 3 received, 0% packet loss")
    assert not reader.lab.a.has_device("run0")


@pytest.mark.netns
def test_least_privilege(reader: Reader) -> None:
    reader.share_a_key()
    for root in reader.roots.values():
        with (root / "etc/passwd").open("a") as file:
            file.write("vpntun:x:990:990::/:/bin/false\n")
    reader.follow("least-privilege")
    reader.lab.ping(reader.lab.a, far(reader.lab))


@pytest.mark.netns
def test_a_daemon_with_wait(reader: Reader) -> None:
    assert "  state: connected\n" in reader.run_beside_a_server("daemon")


@pytest.mark.netns
def test_hooks(reader: Reader) -> None:
    reader.share_a_key()
    hook = reader.roots["local"] / "etc/vpntun/say"
    hook.write_text("#!/bin/sh\necho said $VPNTUN_EVENT of $VPNTUN_INTERFACE\n")
    hook.chmod(0o755)
    server = reader.lab.b.vpntun("-s", "-i", "tun3", "-k", reader.lab.key)
    server.wait_for(STARTED)
    [step] = steps(blocks("hooks")[0])
    reader.take(Step(step.prompt, step.command, ["said link-up of tun11"]))


@pytest.mark.netns
def test_the_script(reader: Reader) -> None:
    assert reader.run_beside_a_server("script") == "the tunnel carries\n"
