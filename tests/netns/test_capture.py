"""`vpntun capture` in a real tunnel: directions, peers, bounds, and what becomes of a slow reader."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.netns.lab import Daemon, Lab, Machine, far, start_pair, until

IN, OUT = "0x00000001", "0x00000002"


def fields(path: Path, *names: str, only: str = "") -> list[list[str]]:
    """Read a capture with tshark, and return these fields of each packet."""
    asked = [part for name in names for part in ("-e", name)]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *asked, *(["-Y", only] if only else [])]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split("\t") for line in shown.splitlines()]


def begin(machine: Machine, interface: str, path: Path, *options: str) -> Daemon:
    """Start a capture into a file, and wait until it has begun."""
    capture = machine.vpntun("capture", interface, "-w", path, *options)
    assert until(lambda: (path.exists() and path.stat().st_size > 0) or not capture.running, 10), capture
    return capture


@pytest.fixture
def pair(lab: Lab) -> Lab:
    """A lab in which the tunnel of the README is up."""
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    return lab


def test_tshark_reads_the_packets_with_their_directions_and_the_name_of_the_peer(pair: Lab, tmp_path: Path) -> None:
    path = tmp_path / "ping.pcapng"
    capture = begin(pair.a, "tun11", path, "--packets", "4")
    pair.ping(pair.a, far(pair))
    pair.ping(pair.a, far(pair))
    assert capture.wait() == 0
    assert "4 packets captured" in capture.log
    assert path.stat().st_mode & 0o777 == 0o600
    [peer] = json.loads(pair.a.ask("show", "tun11", "--json")[1])["peers"]
    shown = fields(
        path, "frame.interface_name", "frame.interface_description", "frame.packet_flags_direction", "ip.dst"
    )
    ours, theirs = pair.a.address_of("tun11"), far(pair)
    name = f"peer {peer['public_key'][:8]}"
    description = f"tun11: peer {peer['public_key']}"
    assert shown == [[name, description, OUT, theirs], [name, description, IN, ours]] * 2
