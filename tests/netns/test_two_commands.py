"""The README's two commands, followed by what a user would try: ping, TCP, UDP, routes, keys, Ctrl-C."""

from __future__ import annotations

import ipaddress
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.netns.lab import STARTED, Lab, far, start_client, start_client_and_ping, start_pair, start_server, until

UDP_ECHO = """
import socket
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind(("::", 7))
print("up", flush=True)
while True:
    server.sendto(*server.recvfrom(65535))
"""

# Sizes up to 8,000 bytes, so that the tunnel carries fragments. Datagrams are sent one at a time; a lost one fails.
UDP_CALLS = """
import os, random, socket, sys
family, _, _, _, address = socket.getaddrinfo(sys.argv[1], 7, type=socket.SOCK_DGRAM)[0]
client = socket.socket(family, socket.SOCK_DGRAM)
client.settimeout(3)
for size in [0, 1, 1372, 1392, 1393, 1400, 8000] + [random.randrange(8000) for _ in range(500)]:
    sent = os.urandom(size)
    client.sendto(sent, address)
    assert client.recv(65535) == sent, size
"""


def test_the_derived_addresses_answer_within_two_seconds(lab: Lab) -> None:
    start_server(lab)
    start_client_and_ping(lab, far(lab), within=2)
    lab.ping(lab.a, far(lab, 6))
    for version in (4, 6):
        lab.ping(lab.b, lab.a.address_of("tun11", version))


def test_the_addresses_are_derived_from_the_key_and_each_end_prints_both(lab: Lab) -> None:
    server, client = start_pair(lab)
    ends = {}
    for name, daemon, machine, device in (("server", server, lab.b, "tun3"), ("client", client, lab.a, "tun11")):
        line = r"vpntun: (\S+): this end (\S+) and (\S+), the other end (\S+) and (\S+)\n"
        found = re.search(line, daemon.log)
        assert found, daemon.log
        assert found[1] == device
        assert (found[2], found[3]) == (machine.address_of(device, 4), machine.address_of(device, 6))
        ends[name] = found.groups()[1:]
    assert ends["client"] == ends["server"][2:] + ends["server"][:2]

    four, six = (ipaddress.ip_address(text) for text in ends["server"][:2])
    assert four in ipaddress.ip_network("100.64.0.0/10")
    assert six in ipaddress.ip_network("fd00::/8")
    assert str(six).endswith("::1")
    assert ends["client"][1].endswith("::2")

    before = lab.b.addresses("tun3")
    assert server.stop() == 0
    start_server(lab)
    assert lab.b.addresses("tun3") == before


def test_addresses_chosen_by_the_user_answer_within_two_seconds(lab: Lab) -> None:
    start_server(lab, "--address", "192.168.0.2/24", "--address", "fd77::2/64")
    start_client_and_ping(lab, "192.168.0.2", "--address", "192.168.0.1/24", "--address", "fd77::1/64", within=2)
    assert lab.a.addresses("tun11") == ["192.168.0.1/24", "fd77::1/64"]
    lab.ping(lab.a, "fd77::2")
    lab.ping(lab.b, "192.168.0.1")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_an_ipv6_path_carries_both_versions(lab: Lab, transport: str) -> None:
    start_server(lab, "--transport", transport)
    start_client(lab, "--transport", transport, host=lab.b.six)
    for version in (4, 6):
        lab.ping(lab.a, far(lab, version), within=5)
    lab.transfer(20_000_000, far(lab, 6))


def test_the_client_may_start_first(lab: Lab) -> None:
    client = start_client(lab)
    lab.no_ping(lab.a, "100.64.0.1")
    start_server(lab)
    lab.ping(lab.a, far(lab), within=20)
    assert client.running


def test_packets_of_all_sizes_pass_whole_or_in_fragments(lab: Lab) -> None:
    start_pair(lab)
    for version in (4, 6):
        for size in (56, 1392, 1393, 8000):
            lab.ping(lab.a, far(lab, version), size=size)


def test_hundreds_of_megabytes_arrive_unchanged(lab: Lab) -> None:
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    lab.transfer(200_000_000, far(lab, 4))
    lab.transfer(60_000_000, lab.a.address_of("tun11", 6), source=lab.b)


def test_udp_in_the_tunnel_loses_nothing_and_changes_nothing(lab: Lab) -> None:
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    lab.b.popen(sys.executable, "-c", UDP_ECHO).wait_for("up")
    for version in (4, 6):
        lab.a.run(sys.executable, "-c", UDP_CALLS, far(lab, version))


def test_routes_lead_into_the_tunnel_and_are_removed_with_it(lab: Lab) -> None:
    for address in ("172.16.5.1/32", "fd88::1/128"):
        lab.b.run("ip", "address", "add", address, "dev", "lo")
    before = [lab.a.run("ip", f"-{version}", "route").stdout for version in (4, 6)]
    _, client = start_pair(lab, client=["--route", "172.16.5.0/24", "--route", "fd88::/64"])
    lab.ping(lab.a, "172.16.5.1")
    lab.ping(lab.a, "fd88::1")
    assert client.stop() == 0
    assert [lab.a.run("ip", f"-{version}", "route").stdout for version in (4, 6)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_tunnel_cleanly_and_removes_what_was_set_up(lab: Lab, number: signal.Signals) -> None:
    server, client = start_pair(lab)
    lab.ping(lab.a, far(lab))
    for daemon in (server, client):
        daemon.process.send_signal(number)
        assert daemon.wait(seconds=3) == 0
        assert "Traceback" not in daemon.log
    assert not lab.a.has_device("tun11")
    assert not lab.b.has_device("tun3")


def test_a_signal_ends_a_client_whose_server_does_not_resolve(lab: Lab) -> None:
    client = start_client(lab, host="nobody.invalid")
    assert client.stop(seconds=3) == 0


def test_the_default_key_is_made_by_the_server_and_copied_to_the_client(lab: Lab) -> None:
    etc = {}
    for machine in lab.machines:
        etc[machine] = lab.folder / f"etc-{machine.name}"
        etc[machine].mkdir()
        shutil.copy("/etc/passwd", etc[machine])
    key = Path("vpntun/vpntun.key")

    server = lab.b.vpntun("-s", "-i", "tun3", binds={"/etc": etc[lab.b]})
    server.wait_for(STARTED)
    made = etc[lab.b] / key
    assert made.stat().st_mode & 0o777 == 0o600
    assert re.search(r"scp -p /etc/vpntun/vpntun\.key \S+:/etc/vpntun", server.log), server.log
    secret = max(made.read_text().split(), key=len)
    assert secret not in server.log

    client = lab.a.vpntun("-c", lab.b.four, "-i", "tun11", binds={"/etc": etc[lab.a]})
    assert client.wait() == 4
    assert "/etc/vpntun/vpntun.key" in client.log

    (etc[lab.a] / key).parent.mkdir(exist_ok=True)
    shutil.copy(made, etc[lab.a] / key)
    lab.a.vpntun("-c", lab.b.four, "-i", "tun11", binds={"/etc": etc[lab.a]}).wait_for(STARTED)
    lab.ping(lab.a, far(lab))

    assert server.stop() == 0
    again = lab.b.vpntun("-s", "-i", "tun3", binds={"/etc": etc[lab.b]})
    again.wait_for(STARTED)
    assert secret in made.read_text(), "an existing key was replaced"


def test_a_second_client_with_the_same_key_takes_over_and_that_is_logged(lab: Lab) -> None:
    server, _ = start_pair(lab)
    lab.ping(lab.a, far(lab))
    known = server.log
    second = lab.a.vpntun("-c", lab.b.six, "-i", "tun12", "-k", lab.key)
    second.wait_for(STARTED)
    assert until(lambda: lab.a.run("ping", "-c1", "-W1", "-I", "tun12", far(lab), check=False).returncode == 0, 10)
    assert until(lambda: server.log != known, 5), "the take-over was not logged"


def test_another_key_is_not_answered(lab: Lab) -> None:
    server = start_server(lab)
    lab.a.vpntun("-c", lab.b.four, "-i", "tun11", "-k", lab.new_key("other.key")).wait_for(STARTED)
    lab.no_ping(lab.a, far(lab), seconds=3)
    assert server.running


def test_another_port(lab: Lab) -> None:
    start_pair(lab, "--port", "4500")
    lab.ping(lab.a, far(lab))
    assert lab.b.listens(4500)
    assert not lab.b.listens(55555)
