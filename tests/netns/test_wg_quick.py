"""`vpntun INTERFACE`, as wg-quick runs it where the kernel has no WireGuard."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns.lab import Lab, Machine, until

pytestmark = pytest.mark.skipif(shutil.which("wg-quick") is None, reason="wg-quick is not installed")

SECONDS = 10.0
PROGRAM = str(Path(sys.executable).with_name("vpntun"))
BY_WG_QUICK = {"WG_QUICK_USERSPACE_IMPLEMENTATION": PROGRAM, "LOG_LEVEL": "verbose"}


def start(machine: Machine, interface: str = "wg0") -> subprocess.CompletedProcess[str]:
    return machine.run(PROGRAM, interface, env=BY_WG_QUICK, check=False)


def interfaces(machine: Machine) -> list[str]:
    """The interfaces that wg finds a socket of."""
    return machine.run("wg", "show", "interfaces").stdout.split()


def files(machine: Machine) -> list[str]:
    return machine.run("find", "/run/vpntun", "/run/wireguard", "-type", "s,f").stdout.split()


def test_the_command_returns_when_wg_and_ip_find_the_interface(lab: Lab) -> None:
    done = start(lab.a)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert lab.a.run("wg", "show", "wg0").stdout == "interface: wg0\n"
    shown = lab.a.run("ip", "address", "show", "dev", "wg0").stdout
    assert "mtu 1420" in shown
    assert "state DOWN" in shown
    assert "inet" not in shown
    assert lab.a.ask("show", "wg0")[1].startswith("interface: wg0\n")


@pytest.mark.parametrize("removal", ["ip link delete wg0", "rm /run/wireguard/wg0.sock", "vpntun down wg0"])
def test_it_ends_with_its_device_or_its_socket_and_leaves_nothing(lab: Lab, removal: str) -> None:
    start(lab.a)
    lab.a.run("sh", "-ec", removal.replace("vpntun", f"{sys.executable} -m vpntun"))
    assert until(lambda: not files(lab.a) and not lab.a.has_device("wg0"), SECONDS), files(lab.a)


def test_it_can_be_started_again_at_once(lab: Lab) -> None:
    start(lab.a)
    for _ in range(3):
        lab.a.run("ip", "link", "delete", "wg0")
        done = start(lab.a)
        assert (done.returncode, done.stderr) == (0, "")
        assert lab.a.has_device("wg0")
        assert interfaces(lab.a) == ["wg0"]


def test_a_second_one_is_refused_and_so_is_a_socket_that_another_process_has(lab: Lab) -> None:
    start(lab.a)
    done = start(lab.a)
    assert done.returncode == 8
    assert "another vpntun runs wg0 already" in done.stderr
    listen = "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('/run/wireguard/wg1.sock'); s.listen(); "
    other = lab.a.popen(sys.executable, "-c", listen + "print('listens', flush=True); time.sleep(60)")
    other.wait_for("listens")
    done = start(lab.a, "wg1")
    assert done.returncode == 8
    assert f"process {other.process.pid} answers at /var/run/wireguard/wg1.sock" in done.stderr
    assert not lab.a.has_device("wg1")


def test_a_name_is_no_command_without_wg_quicks_variable(lab: Lab) -> None:
    done = lab.a.run("env", "-u", "WG_QUICK_USERSPACE_IMPLEMENTATION", PROGRAM, "wg0", check=False)
    assert done.returncode == 2
    assert "No such command 'wg0'" in done.stderr
    assert not lab.a.has_device("wg0")
