"""Malformed and hostile input at the ports of a running pair: it gets no reply, ends no daemon and no link.

These are the cases that need a machine: descriptors, deadlines, silence on the wire, replays by a third party. The
parsers and the peer are tested without root in the other folders of tests/.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.netns.lab import PORT, Daemon, Lab, Machine, far, memory, start_client, start_pair, start_server, until

CROWD = Path(__file__).with_name("crowd.py")
DEADLINE = 15  # seconds after which a connection that has not authenticated is closed

# Case 1: every length by every type, with clean and dirty reserved bytes, from one socket; then it listens.
JUNK_DATAGRAMS = """
import os, socket, sys
family, _, _, _, address = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), type=socket.SOCK_DGRAM)[0]
s = socket.socket(family, socket.SOCK_DGRAM)
for length in [*range(201), 1420, 1500, 9000, 65000]:
    for kind in (0, 1, 2, 3, 4, 5, 255):
        for reserved in (bytes(3), os.urandom(3)):
            s.sendto((bytes([kind]) + reserved + os.urandom(length))[:length], address)
s.settimeout(1)
try:
    sys.exit(f"an answer: {s.recv(65535)!r}")
except TimeoutError:
    pass
"""

# Cases 2 and 4: sends some bytes, and prints after how many seconds the other end closes without having sent anything.
STREAM = """
import socket, sys, time
host, port, sent, patience = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3]), float(sys.argv[4])
s = socket.create_connection((host, port))
started = time.monotonic()
s.sendall(sent)
s.settimeout(patience)
try:
    answer = s.recv(65535)
except ConnectionResetError:
    answer = b""
except TimeoutError:
    sys.exit("the connection is still open")
if answer:
    sys.exit(f"an answer: {answer!r}")
print(time.monotonic() - started)
"""

# Case 4: one byte every 0.2 s never completes a message, but would keep resetting an idle timer.
TRICKLE = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.settimeout(0.2)
end = time.monotonic() + float(sys.argv[3])
s.sendall(bytes([0, 148]))
while time.monotonic() < end:
    try:
        s.sendall(b"\\x01")
        if s.recv(1) == b"":
            sys.exit(0)
    except TimeoutError:
        continue
    except OSError:
        sys.exit(0)
sys.exit("the connection is still open")
"""

HOLD = """
import socket, sys, time
held = []
for _ in range(int(sys.argv[3])):
    try:
        held.append(socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1))
    except OSError:
        break
print("holding", flush=True)
time.sleep(60)
"""

# A third party on the wire: it records the datagrams that pass, and sends them again from its own address.
CAPTURE = """
import pickle, socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
s.bind(("veth0", 0))
s.settimeout(0.5)
print("up", flush=True)
seen, end = [], time.monotonic() + float(sys.argv[3])
while len(seen) < int(sys.argv[2]) and time.monotonic() < end:
    try:
        packet = s.recv(65535)
    except TimeoutError:
        continue
    if packet[9] == 17:
        seen.append((packet[16:20], packet[28:]))
pickle.dump(seen, open(sys.argv[1], "wb"))
"""
REPLAY = """
import pickle, socket, sys, time
target = socket.inet_aton(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[4], 0))
sent = 0
for _ in range(2):
    for destination, payload in pickle.load(open(sys.argv[1], "rb")):
        if destination == target:
            forged = payload[:-1] + bytes([payload[-1] ^ 1])
            for each in (payload, forged):
                s.sendto(each, (sys.argv[2], int(sys.argv[3])))
                sent += 1
s.settimeout(1)
try:
    sys.exit(f"an answer: {s.recv(65535)!r}")
except TimeoutError:
    print(sent)
"""


def run(machine: Machine, script: str, *arguments: object, timeout: float = 60) -> str:
    return machine.run(sys.executable, "-c", script, *map(str, arguments), timeout=timeout).stdout


def sockets(daemon: Daemon) -> int:
    """Count the daemon's open sockets. Descriptors may close while they are listed."""
    found = 0
    for descriptor in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found += os.readlink(descriptor).startswith("socket:")
    return found


def unharmed(lab: Lab, *daemons: Daemon) -> None:
    """Assert that the tunnel carries and that the daemons run without a traceback."""
    lab.ping(lab.a, far(lab), within=5)
    for daemon in daemons:
        assert daemon.running
        assert "Traceback" not in daemon.log


def test_junk_datagrams_are_not_answered(lab: Lab) -> None:
    server, client = start_pair(lab)
    lab.ping(lab.a, far(lab))
    before = memory(server)
    for address in (lab.b.four, lab.b.six):
        run(lab.a, JUNK_DATAGRAMS, address, PORT)
    unharmed(lab, server, client)
    assert memory(server) < before + 8_000_000
    assert len(server.log) < 100_000, "the log is not rate limited"


def test_an_invalid_frame_length_closes_the_connection(lab: Lab) -> None:
    server, client = start_pair(lab)
    lab.ping(lab.a, far(lab))
    before = sockets(server)
    of_no_session = "0101" + "04000000" + "00" * 12  # such a frame is judged by its header
    for prefix in ("0000", "0001", "001f", of_no_session, "2401", "ffff"):
        seconds = float(run(lab.a, STREAM, lab.b.four, PORT, prefix, 10))
        assert seconds < 8, prefix
        assert until(lambda: sockets(server) == before, 5), prefix
    unharmed(lab, server, client)


def test_junk_in_good_frames_is_not_answered(lab: Lab) -> None:
    server, client = start_pair(lab)
    frames = b""
    for kind, length in ((1, 148), (2, 92), (3, 64), (4, 32), (9, 100)):
        frames += length.to_bytes(2, "big") + bytes([kind, 0, 0, 0]) + os.urandom(length - 4)
    run(lab.a, STREAM, lab.b.four, PORT, frames.hex(), DEADLINE)
    unharmed(lab, server, client)


def test_a_silent_connection_and_a_trickling_one_are_closed_at_the_deadline(lab: Lab) -> None:
    server, client = start_pair(lab)
    lab.ping(lab.a, far(lab))
    before = sockets(server)
    strangers = [
        lab.a.popen(sys.executable, "-c", STREAM, lab.b.four, str(PORT), "", str(DEADLINE)),
        lab.a.popen(sys.executable, "-c", TRICKLE, lab.b.four, str(PORT), str(DEADLINE)),
    ]
    for stranger in strangers:
        assert stranger.wait(DEADLINE + 5) == 0, str(stranger)
    assert until(lambda: sockets(server) == before, 5)
    unharmed(lab, server, client)


def test_a_thousand_connections_do_not_exhaust_the_server(lab: Lab) -> None:
    server, client = start_pair(lab, "--transport", "tcp")
    lab.ping(lab.a, far(lab))
    lab.a.popen(sys.executable, "-c", HOLD, lab.b.four, str(PORT), "1000").wait_for("holding", 30)
    assert sockets(server) < 300
    unharmed(lab, server, client)


@pytest.mark.parametrize("version", [4, 6])
def test_a_peer_connects_over_tcp_while_strangers_from_64_networks_hold_connections(lab: Lab, version: int) -> None:
    host = lab.b.four if version == 4 else lab.b.six
    addresses = [f"10.7.0.{number}" if version == 4 else f"fd07:0:0:{number:x}::1" for number in range(1, 65)]
    lab.b.run("ip", "route", "add", "10.7.0.0/24" if version == 4 else "fd07::/32", "dev", "veth0")
    added = "".join(f"address add {each} dev veth0{'' if version == 4 else ' nodad'}\n" for each in addresses)
    lab.a.run("ip", "-batch", "-", input=added)
    server = start_server(lab)
    crowd = lab.a.popen(sys.executable, CROWD, host, str(PORT), *addresses)
    crowd.wait_for("crowding")
    assert until(lambda: sockets(server) > 256, 10)
    client = start_client(lab, "--transport", "tcp", host=host)
    unharmed(lab, server, client)
    assert crowd.running
    assert sockets(server) < 300


def test_replayed_and_forged_messages_from_elsewhere_change_nothing(lab: Lab) -> None:
    lab.a.run("ip", "address", "add", "10.0.0.66/24", "dev", "veth0")
    captured = lab.folder / "captured"
    capture = lab.b.popen(sys.executable, "-c", CAPTURE, captured, "45", "20")
    capture.wait_for("up")
    server, client = start_pair(lab)
    lab.ping(lab.a, far(lab))
    lab.a.run("ping", "-q", "-c20", "-i0.05", far(lab))
    assert capture.wait() == 0

    assert int(run(lab.a, REPLAY, captured, lab.b.four, PORT, "10.0.0.66")) > 40
    # If the endpoint had moved, this ping would go to a socket that is closed.
    lab.ping(lab.b, lab.a.address_of("tun11"), within=3)
    unharmed(lab, server, client)


def test_messages_replayed_to_a_restarted_server_do_not_keep_the_client_out(lab: Lab) -> None:
    lab.a.run("ip", "address", "add", "10.0.0.66/24", "dev", "veth0")
    captured = lab.folder / "captured"
    capture = lab.b.popen(sys.executable, "-c", CAPTURE, captured, "1000", "3")
    capture.wait_for("up")
    server, _ = start_pair(lab)
    lab.ping(lab.a, far(lab))
    assert capture.wait() == 0

    server.kill()
    assert until(lambda: not lab.b.has_device("tun3"), 3)
    again = lab.b.vpntun("-s", "-i", "tun3", "-k", lab.key)
    again.wait_for("this end ")
    lab.a.run(sys.executable, "-c", REPLAY, captured, lab.b.four, str(PORT), "10.0.0.66", check=False)
    lab.ping(lab.a, far(lab), within=20)
