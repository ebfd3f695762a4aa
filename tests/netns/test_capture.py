"""`vpntun capture` in real tunnels: directions, peers, bounds, and what becomes of a slow reader."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns.lab import Daemon, Lab, Machine, far, start_client, start_pair, start_server, until
from tests.netns.test_relay import Hub
from vpntun.capture.pcapng import SIZE_OF_STATISTICS
from vpntun.capture.reading import CapturedPacket, CaptureReader
from vpntun.capture.recording import MOST_WAITING
from vpntun.crypto.keys import shortened
from vpntun.errors import PrivilegeError

IN, OUT = "0x00000001", "0x00000002"


def fields(path: Path, *names: str) -> list[list[str]]:
    """Read a capture with tshark, and return these fields of each packet."""
    asked = [part for name in names for part in ("-e", name)]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *asked]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split("\t") for line in shown.splitlines()]


def read(path: Path) -> tuple[list[CapturedPacket], CaptureReader]:
    """Read a whole capture."""
    reader = CaptureReader()
    return list(reader.take(path.read_bytes())), reader


def begin(machine: Machine, interface: str, path: Path, *options: str) -> Daemon:
    """Start a capture into a file, and wait until it has begun."""
    capture = machine.vpntun("capture", interface, "-w", path, *options)
    assert until(lambda: (path.exists() and path.stat().st_size > 0) or not capture.running, 10), capture
    return capture


def end(capture: Daemon, number: signal.Signals = signal.SIGINT) -> None:
    """End a capture as Ctrl-C does."""
    capture.process.send_signal(number)
    assert capture.wait() == 0, capture


@pytest.fixture
def pair(lab: Lab) -> Lab:
    """A lab in which the tunnel of the README is up."""
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    return lab


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.pcapng"


def test_tshark_reads_the_packets_with_their_directions_and_the_name_of_the_peer(pair: Lab, path: Path) -> None:
    capture = begin(pair.a, "tun11", path, "--packets", "4")
    pair.ping(pair.a, far(pair))
    pair.ping(pair.a, far(pair))
    assert capture.wait() == 0
    assert "4 packets captured" in capture.log
    assert path.stat().st_mode & 0o777 == 0o600
    [peer] = pair.a.status("tun11")["peers"]
    names = ("frame.interface_name", "frame.interface_description", "frame.packet_flags_direction", "ip.dst")
    ours, theirs = pair.a.address_of("tun11"), far(pair)
    name = f"peer {shortened(peer['public_key'])}"
    description = f"tun11: peer {peer['public_key']}"
    assert fields(path, *names) == [[name, description, OUT, theirs], [name, description, IN, ours]] * 2


def test_packets_are_printed_while_they_pass_and_control_c_ends_that(pair: Lab) -> None:
    capture = pair.a.vpntun("capture", "tun11", "--print")
    ours, theirs = pair.a.address_of("tun11", 6), far(pair, 6)
    ping = pair.a.popen("ping", "-n", "-i0.1", theirs)
    capture.wait_for(f"ICMPv6 {ours} > {theirs} echo request, id ")
    capture.wait_for(f"ICMPv6 {theirs} > {ours} echo reply, id ")
    assert capture.running
    end(capture)
    assert "packets captured" in capture.log
    ping.stop()


def test_another_program_reads_the_packets_from_a_pipe_while_they_pass(pair: Lab) -> None:
    shell = f"'{sys.executable}' -m vpntun capture tun11 -w - | tshark -l -n -i - -T fields -e ip.dst -c 4"
    pipe = pair.a.popen("sh", "-c", shell)
    ping = pair.a.popen("ping", "-n", "-i0.1", far(pair))
    pipe.wait_for(f"\n{far(pair)}\n", 30)
    ping.stop()
    assert pipe.wait(30) == 0
    assert "packets captured" in pipe.log


def test_a_hub_shows_all_peers_or_one_and_both_sides_of_what_it_relays(lab: Lab, tmp_path: Path) -> None:
    hub = Hub(lab)
    everything, laptops, one_network, theirs = (tmp_path / name for name in ("all", "laptop", "net", "laptop's"))
    first, second = begin(hub.hub, "hub", everything), begin(hub.hub, "hub", laptops, "--peer", "laptop")
    own = begin(hub.a, "hub", theirs)
    third = hub.hub.ask("capture", "hub", "--seconds", "1")
    assert third[0] == 1
    assert "2 captures of hub are running" in third[1]
    lab.ping(hub.a, "10.9.0.3")
    lab.ping(hub.c, "10.9.0.1")
    end(second, signal.SIGTERM)
    third_capture = begin(hub.hub, "hub", one_network, "--net", "10.9.0.1/32", "--packets", "2")
    lab.ping(hub.a, "10.9.0.3")
    lab.ping(hub.c, "10.9.0.1")
    assert third_capture.wait() == 0
    for capture in (first, own):
        end(capture)
    names = ("frame.interface_name", "frame.packet_flags_direction", "ip.src", "ip.dst")
    relayed = [
        ["laptop", IN, "10.9.0.2", "10.9.0.3"],
        ["desk", OUT, "10.9.0.2", "10.9.0.3"],
        ["desk", IN, "10.9.0.3", "10.9.0.2"],
        ["laptop", OUT, "10.9.0.3", "10.9.0.2"],
    ]
    to_the_hub = [["desk", IN, "10.9.0.3", "10.9.0.1"], ["desk", OUT, "10.9.0.1", "10.9.0.3"]]
    assert fields(everything, *names) == [*relayed, *to_the_hub] * 2
    assert [row[0] for row in fields(everything, "ip.ttl")][:4] == ["64", "63", "64", "63"]
    assert fields(laptops, *names) == [relayed[0], relayed[3]]
    assert fields(one_network, *names) == to_the_hub
    assert [row[0] for row in fields(theirs, "frame.packet_flags_direction")] == [OUT, IN] * 2


def test_a_transfer_is_captured_whole_with_superpackets_of_both_directions(pair: Lab, path: Path) -> None:
    size = 3_000_000
    capture = begin(pair.a, "tun11", path, "--net", f"{far(pair)}/32", "--snaplen", "100")
    pair.transfer(size, far(pair))
    end(capture)
    packets, reader = read(path)
    assert reader.lost == 0
    sent = sum(packet.length - 52 for packet in packets if packet.outbound)
    assert size <= sent <= 1.1 * size
    assert max(packet.length for packet in packets) > 10_000
    assert {packet.outbound for packet in packets} == {True, False}
    assert max(len(packet.data) for packet in packets) == 100
    assert fields(path, "tcp.dstport")[0] == ["5000"]


def test_a_reader_that_stops_loses_packets_and_neither_delays_nor_fills_the_tunnel(lab: Lab, path: Path) -> None:
    start_server(lab)
    client = start_client(lab)
    lab.ping(lab.a, far(lab))
    capture = begin(lab.a, "tun11", path)
    capture.process.send_signal(signal.SIGSTOP)
    before = memory_of(client)
    lab.transfer(40_000_000, far(lab))
    assert memory_of(client) - before < 4 * MOST_WAITING
    capture.process.send_signal(signal.SIGCONT)
    lab.ping(lab.a, far(lab))
    end(capture)
    packets, reader = read(path)
    assert reader.lost > 0
    assert sum(packet.length for packet in packets) < 40_000_000
    assert f"{reader.packets:,} packets captured, {reader.lost:,} lost" in capture.log
    echoes = [packet for packet in packets[-4:] if packet.data[9] == 1]
    assert len(echoes) >= 2
    assert sum(int(row[0] or 0) for row in fields(path, "frame.drop_count")) == reader.lost


def memory_of(daemon: Daemon) -> int:
    """Return the resident memory of a daemon in bytes."""
    return int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("bound", [("--packets", "5"), ("--bytes", "4096"), ("--seconds", "1")])
def test_a_capture_ends_at_its_bound_and_the_tunnel_goes_on(pair: Lab, path: Path, bound: tuple[str, str]) -> None:
    capture = begin(pair.a, "tun11", path, *bound)
    ping = pair.a.popen("ping", "-n", "-i0.05", far(pair))
    assert capture.wait(20) == 0
    ping.stop()
    packets, reader = read(path)
    assert packets
    assert reader.lost == 0
    assert bound[0] != "--packets" or len(packets) == 5
    assert bound[0] != "--bytes" or 4096 - 200 - SIZE_OF_STATISTICS < path.stat().st_size <= 4096
    pair.ping(pair.a, far(pair))


def test_the_end_of_the_tunnel_completes_the_capture(lab: Lab, path: Path) -> None:
    start_server(lab)
    client = start_client(lab)
    lab.ping(lab.a, far(lab))
    capture = begin(lab.a, "tun11", path)
    lab.ping(lab.a, far(lab))
    assert client.stop() == 0
    assert capture.wait() == 0
    packets, reader = read(path)
    assert len(packets) == 2
    assert path.read_bytes()[-SIZE_OF_STATISTICS:][:4] == b"\5\0\0\0"
    assert (reader.packets, reader.lost) == (2, 0)


def test_a_killed_reader_leaves_no_capture_behind(pair: Lab, tmp_path: Path) -> None:
    for number in range(5):
        capture = begin(pair.a, "tun11", tmp_path / f"{number}.pcapng")
        capture.kill()
    assert until(lambda: pair.a.ask("capture", "tun11", "-w", tmp_path / "last", "--seconds", "0")[0] == 0, 10)


def test_only_root_and_the_user_of_the_tunnel_may_capture(pair: Lab) -> None:
    done = pair.a.run(sys.executable, "-m", "vpntun", "capture", "tun11", "--seconds", "0", user="65534", check=False)
    assert (done.returncode, done.stdout) == (PrivilegeError.exit_status, "")
    assert "only root may control root's" in done.stderr
