"""Each kind of failure has its own exit status and a line that says what to do, and leaves nothing set up.

2 usage   3 configuration   4 key file   5 device   6 permission   7 port in use   8 interface in use
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from tests.netns.lab import PORT, STARTED, Lab, start_server


def devices(lab: Lab) -> list[str]:
    """The names of a's devices; their states may still change when a lab is new."""
    return [line.split()[0] for line in lab.a.run("ip", "-brief", "link").stdout.splitlines()]


def fails(lab: Lab, status: int, line: str, says: str = "", **how: object) -> str:
    """Run a command line in a; assert its status, one line of reason that contains `says`, and no new device."""
    before = devices(lab)
    command = [sys.executable, "-m", "vpntun", *shlex.split(line.format(key=lab.key, folder=lab.folder))]
    done = lab.a.run(*command, check=False, **how)  # type: ignore[arg-type]
    assert done.returncode == status, f"{line}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    assert says.lower() in done.stderr.lower()
    if status != 2:
        assert len([text for text in done.stderr.splitlines() if "error" in text.lower()]) <= 1, done.stderr
        assert done.stderr.strip(), "the operator is not told what to do"
    assert devices(lab) == before
    return done.stderr


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", ""),
        ("-i tun11 -k {key}", ""),
        ("-s -k {key}", "-i"),
        ("-s -c 10.0.0.2 -i tun11 -k {key}", ""),
        ("-s -i tun11 -u -a -k {key}", "-a (TAP"),
        ("-s -i tun11 -k {key} --transport sctp", "transport"),
        ("-s -i tun11 -k {key} --nonsense", "--nonsense"),
        ("-s -i tun11 -k {key} --private-key {key}", ""),
        ("-s -i tun11 --private-key {key}", "peer"),
        ("-i tun11 genkey", ""),
    ],
)
def test_usage(lab: Lab, line: str, says: str) -> None:
    fails(lab, 2, line, says)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--port 0", "port"),
        ("--port 65536", "port"),
        ("--mtu 0", "mtu"),
        ("--mtu 1", "mtu"),
        ("--mtu 1000000", "mtu"),
        ("--address 192.168.0.300/24", "192.168.0.300"),
        ("--address nonsense", "nonsense"),
        ("--route 10.0.0.0/33", "10.0.0.0/33"),
        ("--route 10.0.0.0/24", "10.0.0.2"),
        ("--route 0.0.0.0/0", "10.0.0.2"),
    ],
)
def test_configuration(lab: Lab, options: str, says: str) -> None:
    # click exits with status 2 for a value that its own types refuse; either status tells the operator.
    line = f"-c 10.0.0.2 -i tun11 -k {{key}} {options}"
    command = [sys.executable, "-m", "vpntun", *shlex.split(line.format(key=lab.key))]
    status = lab.a.run(*command, check=False).returncode
    assert status in (2, 3)
    fails(lab, status, line, says)


def test_an_invalid_device_name(lab: Lab) -> None:
    for name in ("sixteen-letters-", "a/b", ""):
        command = [sys.executable, "-m", "vpntun", "-s", "-i", name, "-k", str(lab.key)]
        done = lab.a.run(*command, check=False)
        assert done.returncode in (2, 3), done
        assert "Traceback" not in done.stderr


def test_ones_own_key_as_the_peer(lab: Lab) -> None:
    private, public = lab.new_identity("private")
    fails(lab, 3, f"-s -i tun11 --private-key {private} --peer {public}", "own")
    fails(lab, 3, f"-s -i tun11 --private-key {private} --peer {public[:-3]}", "key")


def test_a_key_file_that_does_not_exist(lab: Lab) -> None:
    fails(lab, 4, "-c 10.0.0.2 -i tun11 -k {folder}/none", f"{lab.folder}/none")
    fails(lab, 4, "-s -i tun11 -k {folder}/none", f"{lab.folder}/none")
    assert not (lab.folder / "none").exists()


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"\xff\x00" * 40, b"x" * 100_000])
def test_a_key_file_that_holds_something_else(lab: Lab, content: bytes) -> None:
    path = lab.folder / "malformed"
    path.write_bytes(content)
    path.chmod(0o600)
    fails(lab, 4, f"-s -i tun11 -k {path}", str(path))


def test_a_key_file_that_others_can_read(lab: Lab) -> None:
    for mode in (0o640, 0o604):
        lab.key.chmod(mode)
        said = fails(lab, 4, "-s -i tun11 -k {key}", str(lab.key))
        assert "chmod" in said


def test_a_key_file_that_is_not_a_regular_file(lab: Lab) -> None:
    link, folder = lab.folder / "link", lab.folder / "folder"
    link.symlink_to(lab.key)
    folder.mkdir(mode=0o700)
    for path in (link, folder):
        fails(lab, 4, f"-s -i tun11 -k {path}", str(path))


def test_keygen_never_overwrites(lab: Lab) -> None:
    before = lab.key.read_bytes()
    assert lab.key.stat().st_mode & 0o777 == 0o600
    fails(lab, 4, "keygen {key}", str(lab.key))
    assert lab.key.read_bytes() == before


def test_a_name_taken_by_a_device_that_is_not_tun(lab: Lab) -> None:
    fails(lab, 5, "-s -i veth0 -k {key}", "veth0")
    lab.a.run("ip", "tuntap", "add", "dev", "tap5", "mode", "tap")
    fails(lab, 5, "-s -i tap5 -k {key}", "tap5")


def test_a_device_that_another_program_holds(lab: Lab) -> None:
    holder = lab.a.popen(sys.executable, "-c", HOLD_DEVICE, "tun11")
    holder.wait_for("holding")
    fails(lab, 5, "-s -i tun11 -k {key}", "tun11")
    assert holder.running


HOLD_DEVICE = """
import sys, time
from vpntun.tun.device import KernelDevice
held = KernelDevice(sys.argv[1])
print("holding", flush=True)
time.sleep(60)
"""


def test_an_interface_that_another_vpntun_runs(lab: Lab) -> None:
    server = lab.a.vpntun("-s", "-i", "tun11", "-k", lab.key)
    server.wait_for(STARTED)
    fails(lab, 8, "-s -i tun11 -p 4500 -k {key}", "'vpntun down tun11' ends it")
    assert server.running


def test_no_tun_in_this_kernel(lab: Lab) -> None:
    none = lab.folder / "none"
    none.mkdir()
    fails(lab, 5, "-s -i tun11 -k {key}", "modprobe", binds={"/dev/net": none})


def test_an_ordinary_user_may_not_make_a_device(lab: Lab) -> None:
    key = lab.home() / "key"
    lab.a.run(sys.executable, "-m", "vpntun", "keygen", key, user="nobody")
    said = fails(lab, 6, f"-s -i tun11 -k {key}", user="nobody")
    assert "CAP_NET_ADMIN" in said or "root" in said


def test_an_ordinary_user_may_not_take_somebody_elses_device(lab: Lab) -> None:
    key = lab.home() / "key"
    lab.a.run(sys.executable, "-m", "vpntun", "keygen", key, user="nobody")
    lab.a.run("ip", "tuntap", "add", "dev", "tun11", "mode", "tun", "user", "root")
    fails(lab, 6, f"-s -i tun11 -k {key}", "tun11", user="nobody")


def test_a_tun_node_that_the_user_may_not_open(lab: Lab, tmp_path: Path) -> None:
    node = tmp_path / "net"
    node.mkdir()
    os.mknod(node / "tun", 0o020600, os.makedev(10, 200))
    key = lab.home() / "key"
    lab.a.run(sys.executable, "-m", "vpntun", "keygen", key, user="nobody")
    fails(lab, 6, f"-s -i tun11 -k {key}", "/dev/net/tun", user="nobody", binds={"/dev/net": node})


HOLD_PORT = """
import socket, sys, time
held = socket.socket(type={"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}[sys.argv[1]])
held.bind(("", int(sys.argv[2])))
if sys.argv[1] == "tcp":
    held.listen()
print("holding", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("transport", "taken"), [("udp", "udp"), ("tcp", "tcp"), ("auto", "udp"), ("auto", "tcp")])
def test_a_port_that_is_taken(lab: Lab, transport: str, taken: str) -> None:
    holder = lab.a.popen(sys.executable, "-c", HOLD_PORT, taken, str(PORT))
    holder.wait_for("holding")
    assert holder.running
    fails(lab, 7, f"-s -i tun11 -k {{key}} --transport {transport}", str(PORT))


def test_a_second_server_on_the_port(lab: Lab) -> None:
    server = start_server(lab)
    second = lab.b.vpntun("-s", "-i", "tun4", "-k", lab.key)
    assert second.wait() == 7
    assert not lab.b.has_device("tun4")
    assert server.running
