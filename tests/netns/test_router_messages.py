"""Router advertisements and redirects from the other end of a tunnel change nothing on this host, in either role."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from tests.netns.lab import Lab, Machine, far, start_client, start_server, until

INJECT = """
import socket, struct, sys
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
own, everybody = (socket.inet_pton(socket.AF_INET6, each) for each in ("fe80::bad", "ff02::1"))
prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 1800, 1800, 0) + socket.inet_pton(socket.AF_INET6, "2001:db8:bad::")
body = struct.pack("!BBHII", 64, 0, 1800, 0, 0) + prefix
message = bytes([134, 0, 0, 0]) + body
pseudo = own + everybody + struct.pack("!II", len(message), 58)
message = message[:2] + checksum(pseudo + message) + message[4:]
packet = struct.pack("!IHBB", 6 << 28, len(message), 58, 255) + own + everybody + message
with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD)) as raw:
    raw.sendto(packet, (sys.argv[1], 0x86DD))
"""


def obeys(machine: Machine, device: str) -> bool:
    """Whether the machine has a route or an address that it was given by an advertisement on this device."""
    routes = machine.run("ip", "-6", "route", "show", "proto", "ra", "dev", device).stdout
    return bool(routes) or any("2001:db8:bad:" in each for each in machine.addresses(device))


def advertise(machine: Machine, device: str) -> None:
    """Let a machine send a router advertisement into its tunnel."""
    machine.run(sys.executable, "-c", INJECT, device)


def has_dropped(machine: Machine, device: str) -> bool:
    """Whether the tunnel has counted an advertisement."""
    return "router message" in machine.status(device)["peers"][0]["drops"]


def listen_to_routers(machine: Machine, device: str) -> None:
    """Set a device as the kernel sets new ones by default."""
    settings = (f"net.ipv6.conf.{device}.{each}=1" for each in ("accept_ra", "autoconf", "accept_redirects"))
    machine.run("sysctl", "-qw", *settings)


@pytest.mark.parametrize("existed", [False, True], ids=["made here", "existed"])
def test_an_advertisement_from_the_other_end_changes_nothing(lab: Lab, existed: bool) -> None:
    if existed:
        for machine, device in ((lab.a, "tun11"), (lab.b, "tun3")):
            machine.run("ip", "tuntap", "add", "dev", device, "mode", "tun")
    own = [["--address", f"192.168.9.{number}/24"] for number in (1, 2)] if existed else [[], []]
    start_server(lab, *own[1])
    start_client(lab, *own[0])
    lab.ping(lab.a, "192.168.9.2" if existed else far(lab), within=10)
    for sender, through, hearer, device in ((lab.b, "tun3", lab.a, "tun11"), (lab.a, "tun11", lab.b, "tun3")):
        listen_to_routers(hearer, device)  # so that only the tunnel itself stands between the two
        advertise(sender, through)
        assert until(partial(has_dropped, hearer, device), 5), lab.logs()
        assert not obeys(hearer, device)
