"""ECN and DSCP on real kernels: what the network sees of the packets inside, and what its marks do to them."""

from __future__ import annotations

import shutil
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from namespaces import inside
from tests.netns.lab import PORT, Daemon, Lab, Machine, far, start_client, start_pair, start_server, until
from vpntun.config.keyfile import read_shared
from vpntun.core.wireguard.admission import MANY
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.noise import Initiator
from vpntun.crypto.shared import SharedIdentity
from vpntun.wire.ip import CE, ECN, ECT_0, ECT_1, NOT_ECT, tos_of
from vpntun.wire.message import COOKIE_REPLY, DATA, INITIATION, RESPONSE

EXPEDITED = 0xB8
HANDSHAKES = 0x88
SIZE = 600
"""Bytes in a ping: more than any message without packets has, but for PROBEs, which have twice as many."""
LONGEST = 800
ETH_P_ALL = 3

needs_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")


class Watch:
    """The IP packets that arrive at a device, as they are before any firewall."""

    def __init__(self, sniffer: socket.socket) -> None:
        self._sniffer = sniffer
        self._kinds: dict[int, set[int]] = {}

    def look(self) -> Iterator[bytes]:
        """Yield the packets that have arrived since the last look."""
        with suppress(BlockingIOError):
            while True:
                packet, (_, _, kind, *_) = self._sniffer.recvfrom(65535)
                if kind != socket.PACKET_OUTGOING and packet[0] >> 4 in (4, 6):
                    yield packet

    def pings(self) -> list[int]:
        """Return the TOS bytes of the pings, or of the messages with one."""
        return [tos_of(packet) for packet in self.look() if SIZE < len(packet) < LONGEST]

    def kinds(self) -> dict[int, set[int]]:
        """Return the types of all messages that have arrived over UDP and IPv4, each with its TOS bytes."""
        for packet in self.look():
            if packet[0] == 0x45 and packet[9] == socket.IPPROTO_UDP:
                self._kinds.setdefault(packet[28], set()).add(tos_of(packet))
        return self._kinds


@contextmanager
def watching(machine: Machine, device: str) -> Iterator[Watch]:
    with inside(machine.name):
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    with sniffer:
        sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sniffer.setblocking(False)
        sniffer.bind((device, ETH_P_ALL))
        yield Watch(sniffer)


def load(lab: Lab, server: Daemon) -> None:
    """Let so many initiations wait at the server's socket that it is under load while it reads them."""
    server_keys = SharedIdentity.of(read_shared(lab.key)).server
    message = Initiator(KeyPair.generate(), server_keys.public, bytes(32)).initiation(1, bytes(12))
    with inside(lab.a.name):
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.process.send_signal(signal.SIGSTOP)
    with stranger:
        for _ in range(2 * MANY):
            stranger.sendto(message, (lab.b.four, PORT))
    server.process.send_signal(signal.SIGCONT)


def ping(lab: Lab, address: str, tos: int) -> None:
    command = ["ping", "-n", "-c1", "-W5", f"-s{SIZE}", f"-Q{tos:#x}", address]
    done = lab.a.run(*command, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{lab.logs()}"


def mark(machine: Machine, which: str, port: int = PORT) -> None:
    """Let a router before this machine set CE on the tunnel's datagrams that match an expression of nft."""
    rules = "".join(
        f"add rule inet marks in udp dport {port} {which.format(ip=ip)} {ip} ecn set ce\n" for ip in ("ip", "ip6")
    )
    chain = "add table inet marks\nadd chain inet marks in { type filter hook prerouting priority -300; }\n"
    machine.run("nft", "-f", "-", input=chain + rules)


ECT = "{ip} ecn {{ ect0, ect1 }}"
ALL = "{ip} version 0-15"


@pytest.mark.parametrize("version", [4, 6])
def test_the_network_sees_the_ecn_field_of_each_packet_and_no_dscp(lab: Lab, version: int) -> None:
    start_server(lab)
    start_client(lab, host=lab.b.four if version == 4 else lab.b.six)
    for inner in (4, 6):
        lab.ping(lab.a, far(lab, inner))
        with watching(lab.b, "veth0") as outside:
            for tos in (NOT_ECT, ECT_0, ECT_1, CE, EXPEDITED, EXPEDITED | ECT_0):
                ping(lab, far(lab, inner), tos)
            assert outside.pings() == [NOT_ECT, ECT_0, ECT_1, CE, NOT_ECT, ECT_0]


def test_handshakes_have_the_dscp_that_wireguard_gives_them(lab: Lab) -> None:
    server = start_server(lab)
    with watching(lab.a, "veth0") as at_client, watching(lab.b, "veth0") as at_server:
        start_client(lab)
        lab.ping(lab.a, far(lab))
        seen_by_server = at_server.kinds()
        load(lab, server)
        assert until(lambda: COOKIE_REPLY in at_client.kinds(), 5), lab.logs()
        seen_by_client = at_client.kinds()
    assert seen_by_server == {INITIATION: {HANDSHAKES}, DATA: {NOT_ECT}}
    assert seen_by_client == {RESPONSE: {HANDSHAKES}, COOKIE_REPLY: {HANDSHAKES}, DATA: {NOT_ECT}}


def test_the_dscp_is_copied_if_that_was_asked_for(lab: Lab) -> None:
    start_pair(lab, "--dscp", "inherit")
    lab.ping(lab.a, far(lab))
    with watching(lab.b, "veth0") as outside, watching(lab.b, "tun3") as within:
        for tos in (EXPEDITED, EXPEDITED | ECT_0, 0):
            ping(lab, far(lab), tos)
        assert outside.pings() == within.pings() == [EXPEDITED, EXPEDITED | ECT_0, 0]


@needs_nft
@pytest.mark.parametrize("version", [4, 6])
def test_a_mark_of_a_router_reaches_the_packet(lab: Lab, version: int) -> None:
    start_server(lab)
    start_client(lab, host=lab.b.four if version == 4 else lab.b.six)
    mark(lab.b, ECT)
    for inner in (4, 6):
        lab.ping(lab.a, far(lab, inner))
        with watching(lab.b, "tun3") as within:
            for tos in (NOT_ECT, ECT_0, ECT_1, CE, EXPEDITED, EXPEDITED | ECT_0):
                ping(lab, far(lab, inner), tos)
            assert within.pings() == [NOT_ECT, CE, CE, CE, EXPEDITED, EXPEDITED | CE]


@needs_nft
def test_a_packet_that_cannot_be_marked_passes_a_network_that_marks_everything(lab: Lab) -> None:
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    mark(lab.b, ALL)
    with watching(lab.b, "tun3") as within:
        ping(lab, far(lab), NOT_ECT)
        ping(lab, far(lab), ECT_0)
        assert within.pings() == [NOT_ECT, CE]


def test_a_flow_with_ecn_stays_in_large_records_and_its_acknowledgements_are_not_ect(lab: Lab) -> None:
    for machine in lab.machines:
        machine.run("sysctl", "-qw", "net.ipv4.tcp_ecn=1")
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    sizes: dict[int, list[int]] = {}
    lab.transfer(20_000_000, far(lab))  # records become long
    with watching(lab.b, "veth0") as outside, watching(lab.a, "veth0") as back:
        lab.transfer(20_000_000, far(lab))
        for packet in outside.look():
            sizes.setdefault(tos_of(packet) & ECN, []).append(len(packet))
        answers = Counter(tos_of(packet) & ECN for packet in back.look())
    assert set(sizes) <= {NOT_ECT, ECT_0}
    assert sum(sizes[ECT_0]) > 5 * sum(sizes[NOT_ECT])
    assert sum(sizes[ECT_0]) / len(sizes[ECT_0]) > 5_000
    assert set(answers) == {NOT_ECT}


@needs_nft
def test_a_flow_whose_datagrams_are_marked_now_and_then_slows_down_and_arrives(lab: Lab) -> None:
    for machine in lab.machines:
        machine.run("sysctl", "-qw", "net.ipv4.tcp_ecn=1")
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    mark(lab.b, "{ip} ecn ect0 numgen inc mod 50 0")
    with watching(lab.b, "tun3") as within, watching(lab.a, "tun11") as back:
        lab.transfer(10_000_000, far(lab))
        marked = sum(tos_of(packet) == CE for packet in within.look())
        echoes = sum(bool(packet[33] & 0x40) for packet in back.look() if packet[0] == 0x45 and packet[9] == 6)
    assert marked > 0
    assert echoes > 0, "TCP inside has not seen the marks"
