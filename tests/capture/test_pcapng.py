"""pcapng as tshark reads it: names, directions, losses, and packets of every length."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.capture.test_describing_frames import ALL, IPV4, arp, frame
from tests.wire.packets import tcp_superpacket, udp
from vpntun.capture import pcapng

tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
AT = 1_700_000_000_123_456_789


def read(path: Path, *names: str) -> list[list[str]]:
    """Read these fields of each packet with tshark."""
    asked = [part for name in names for part in ("-e", name)]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *asked]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    return [line.split("\t") for line in shown.stdout.splitlines()]


@tshark
def test_tshark_reads_interfaces_times_directions_lengths_and_losses(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    packets = [udp(4, b"a" * size) for size in range(4)]
    path.write_bytes(
        pcapng.section("vpntun test")
        + pcapng.interface("büro", "tun3: peer A", 65535)
        + pcapng.packet(0, AT, packets[0], len(packets[0]), pcapng.INBOUND)
        + pcapng.packet(0, AT, packets[1], len(packets[1]), pcapng.OUTBOUND, lost=7)
        + pcapng.interface("", "tun3: peer B", 65535)
        + pcapng.packet(1, AT, packets[2][:20], len(packets[2]), pcapng.INBOUND)
        + pcapng.packet(1, AT, packets[3], len(packets[3]), pcapng.OUTBOUND)
        + pcapng.statistics(0, AT, AT + 1, 9, 7)
        + pcapng.statistics(1, AT, AT + 1, 2, 0)
    )
    names = ("frame.interface_name", "frame.packet_flags_direction", "frame.cap_len", "frame.len", "frame.time_epoch")
    lengths = [str(len(each)) for each in packets]
    when = "1700000000.123456789"
    assert read(path, *names) == [
        ["büro", "0x00000001", lengths[0], lengths[0], when],
        ["büro", "0x00000002", lengths[1], lengths[1], when],
        ["", "0x00000001", "20", lengths[2], when],
        ["", "0x00000002", lengths[3], lengths[3], when],
    ]
    assert [row[0] for row in read(path, "frame.drop_count")] == ["", "7", "", ""]
    about = subprocess.run(["capinfos", str(path)], check=True, capture_output=True, text=True).stdout
    assert "Number of packets:   4" in about
    assert "rawip" in about.lower() or "Raw IP" in about


@tshark
def test_tshark_reads_frames_with_their_mac_addresses_vlans_and_superpackets(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    frames = [
        frame(0x0806, arp(1, "10.0.0.1", "10.0.0.2"), to=ALL),
        frame(IPV4, tcp_superpacket(4, bytes(60_000)), 0x8100_0007),
    ]
    path.write_bytes(
        pcapng.section("vpntun test")
        + pcapng.interface("office", "tap3: peer A", 65535, pcapng.LINKTYPE_ETHERNET)
        + b"".join(pcapng.packet(0, AT, each, len(each), pcapng.INBOUND) for each in frames)
    )
    names = ("eth.src", "eth.dst", "arp.dst.proto_ipv4", "vlan.id", "tcp.len")
    assert read(path, *names) == [
        ["52:54:00:00:00:01", "ff:ff:ff:ff:ff:ff", "10.0.0.2", "", ""],
        ["52:54:00:00:00:01", "52:54:00:00:00:02", "", "7", "60000"],
    ]


def test_the_length_of_every_block_is_a_multiple_of_four_at_both_of_its_ends() -> None:
    blocks = [pcapng.section("x" * size) for size in range(5)]
    blocks += [pcapng.interface("é" * size, "", 100) for size in range(5)]
    blocks += [pcapng.packet(0, AT, bytes(size), 99, pcapng.INBOUND, lost) for size in range(5) for lost in (0, 1)]
    blocks.append(pcapng.statistics(0, AT, AT, 1, 0))
    for block in blocks:
        assert len(block) % 4 == 0
        assert block[4:8] == block[-4:] == len(block).to_bytes(4, "little")
    assert len(blocks[-1]) == pcapng.SIZE_OF_STATISTICS


def test_a_name_that_is_too_long_is_cut() -> None:
    assert len(pcapng.interface("x" * 100_000, "", 100)) < 2 * pcapng.LONGEST_TEXT
