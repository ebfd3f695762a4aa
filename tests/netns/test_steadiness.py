"""Tunnels that are idle or overloaded do not spin, grow, flood the log, or hang at their end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.netns.lab import STARTED, Daemon, Lab, far, start_client, start_pair, start_server, until

BLAST = """
import socket, sys, time
s = socket.socket(type=socket.SOCK_DGRAM)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    for _ in range(100):
        try:
            s.sendto(bytes(1300), (sys.argv[1], 9))
        except OSError:
            pass
"""


def cpu_seconds(daemon: Daemon) -> float:
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(daemon: Daemon) -> int:
    return int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def at_rest(*daemons: Daemon) -> None:
    """Assert that each daemon uses less than a fiftieth of a processor over three seconds, hence the fixed sleep."""
    before = [cpu_seconds(daemon) for daemon in daemons]
    time.sleep(3)
    for daemon, used in zip(daemons, before, strict=True):
        assert daemon.running, str(daemon)
        assert cpu_seconds(daemon) - used < 0.06, str(daemon)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_an_idle_pair_and_a_client_without_its_server_use_hardly_any_processor_time(lab: Lab, transport: str) -> None:
    server, client = start_pair(lab, "--transport", transport)
    lab.ping(lab.a, far(lab))
    at_rest(server, client)
    server.kill()
    at_rest(client)
    assert len(client.log.splitlines()) < 20, client.log


def test_a_pair_with_a_device_down_uses_hardly_any_processor_time(lab: Lab) -> None:
    server, client = start_pair(lab)
    lab.ping(lab.a, far(lab))
    lab.a.run("ip", "link", "set", "tun11", "down")
    lab.b.run("ping", "-c3", "-i0.2", "-W1", lab.a.address_of("tun11"), check=False)
    at_rest(server, client)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_flood_into_a_blocked_link_takes_no_memory(lab: Lab, transport: str) -> None:
    server, client = start_pair(lab, "--transport", transport)
    lab.ping(lab.a, far(lab))
    before = memory(client)
    lab.block(transport)
    lab.a.run(sys.executable, "-c", BLAST, far(lab), "4")
    assert memory(client) < before + 16_000_000
    at_rest(client)
    lab.unblock(transport)
    lab.ping(lab.a, far(lab), within=25)
    assert server.running


def test_a_flood_through_the_tunnel_leaves_room_for_a_ping(lab: Lab) -> None:
    _, client = start_pair(lab)
    lab.ping(lab.a, far(lab))
    before = memory(client)
    blast = lab.a.popen(sys.executable, "-c", BLAST, far(lab), "4")
    lab.ping(lab.b, lab.a.address_of("tun11"), within=3)
    assert blast.wait() == 0
    lab.ping(lab.a, far(lab), within=5)
    assert memory(client) < before + 16_000_000


def test_a_name_server_that_does_not_answer_holds_up_neither_start_nor_end(lab: Lab) -> None:
    resolv = lab.folder / "resolv.conf"
    resolv.write_text("nameserver 10.0.0.2\n")
    hosts = lab.folder / "hosts"
    hosts.write_text("")
    lab.block("udp", 53)
    binds = {"/etc/resolv.conf": resolv, "/etc/hosts": hosts}
    client = lab.a.vpntun("-c", "remote.example.org", "-i", "tun11", "-k", lab.key, binds=binds)
    client.wait_for(STARTED, 8)  # the system's resolver would give up after 10 s
    time.sleep(0.5)
    assert client.stop(seconds=5) == 0
    assert not lab.a.has_device("tun11")


def test_a_path_of_a_smaller_mtu_carries_packets_of_every_size(lab: Lab) -> None:
    for machine in lab.machines:
        machine.run("ip", "link", "set", "veth0", "mtu", "1280")
    start_pair(lab)
    for size in (56, 1200, 1392, 3000):
        lab.ping(lab.a, far(lab), size=size)
        lab.ping(lab.a, far(lab, 6), size=size)
    lab.transfer(10_000_000, far(lab))


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_machine_without_ipv6(lab: Lab, transport: str) -> None:
    for machine in lab.machines:
        for scope in ("all", "default"):
            machine.run("sysctl", "-qw", f"net.ipv6.conf.{scope}.disable_ipv6=1")
    start_pair(lab, "--transport", transport)
    lab.ping(lab.a, far(lab), within=3)


def test_an_auto_client_reaches_a_server_that_has_only_tcp(lab: Lab) -> None:
    start_server(lab, "--transport", "tcp")
    start_client(lab)
    lab.ping(lab.a, far(lab), within=6)


@pytest.mark.parametrize("transport", ["udp", "tcp", "auto"])
def test_two_vpntuns_with_wireguard_keys(lab: Lab, transport: str) -> None:
    program = (sys.executable, "-m", "vpntun")
    private, public = {}, {}
    for machine in lab.machines:
        private[machine] = lab.folder / f"{machine.name}.private"
        private[machine].write_text(machine.run(*program, "genkey").stdout)
        private[machine].chmod(0o600)
        public[machine] = machine.run(*program, "pubkey", input=private[machine].read_text()).stdout.strip()
    psk = lab.folder / "psk"
    psk.write_text(lab.a.run(*program, "genpsk").stdout)
    psk.chmod(0o600)
    both = ("--psk", psk, "--transport", transport)
    lab.b.vpntun(
        "-s",
        "-i",
        "tun3",
        "--private-key",
        private[lab.b],
        "--peer",
        public[lab.a],
        "--address",
        "192.168.0.2/24",
        *both,
    )
    lab.a.vpntun(
        *("-c", lab.b.four, "-i", "tun11", "--private-key", private[lab.a], "--peer", public[lab.b]),
        *("--address", "192.168.0.1/24", *both),
    )
    lab.ping(lab.a, "192.168.0.2", within=8)
    lab.transfer(5_000_000, "192.168.0.2")


def test_an_interrupt_of_both_at_once_by_the_terminal(lab: Lab) -> None:
    """Ctrl-C reaches the whole process group, twice if the user is impatient. Both end at once, without a traceback."""
    server, client = start_pair(lab)
    for daemon in (server, client):
        daemon.process.send_signal(2)
        daemon.process.send_signal(2)
    for daemon in (server, client):
        daemon.wait(3)
        assert "Traceback" not in daemon.log
    assert until(lambda: not lab.a.has_device("tun11") and not lab.b.has_device("tun3"), 2)


def test_a_tunnel_carries_again_after_sigstop_and_sigcont(lab: Lab) -> None:
    server, _ = start_pair(lab)
    lab.ping(lab.a, far(lab))
    subprocess.run(["kill", "-STOP", str(server.process.pid)], check=True)
    lab.no_ping(lab.a, far(lab), seconds=4)
    subprocess.run(["kill", "-CONT", str(server.process.pid)], check=True)
    lab.ping(lab.a, far(lab), within=3)
