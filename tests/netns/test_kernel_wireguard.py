"""The kernel's WireGuard as peer, in a guest (guest.py). All tests take minutes, because the guest is emulated.

The guest stays for all tests of this file; each makes wg0 in it, and vpntun's device tun11, from nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.guest import GUEST, GUEST6, HOST, HOST6, TAP, Guest, why_not
from tests.netns.lab import PORT, Daemon, Lab, until
from vpntun.core.records.hello import MOST_UNANSWERED
from vpntun.crypto.keys import KeyPair, format_key

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

WG_PORT = 51820
OURS, THEIRS = "192.168.7.1", "192.168.7.2"
ELSEWHERE, HOST_ELSEWHERE = "10.0.7.3", "10.0.7.9"
OURS6, THEIRS6 = "fd66::1", "fd66::2"


class Meeting:
    """vpntun on the machine, and WireGuard in the guest. `kernel_calls`: the guest knows vpntun's address."""

    def __init__(
        self, guest: Guest, folder: Path, *, kernel_calls: bool, ipv6: bool = False, psk: bool = False
    ) -> None:
        self.guest, self.machine = guest, guest.machine
        self.ours, self.theirs, self.secret = KeyPair.generate(), KeyPair.generate(), KeyPair.generate()
        self._psk = psk
        self._kernel_calls = kernel_calls
        self._host, self._other = (f"[{HOST6}]", f"[{GUEST6}]") if ipv6 else (HOST, GUEST)
        self.file = folder / "tun11.conf"
        self.file.touch(mode=0o600)
        self.file.write_text(self._text())

    def start(self) -> Daemon:
        """Start vpntun."""
        self.daemon = self.machine.vpntun("up", self.file)
        assert until(lambda: f"{OURS6}/64" in self.machine.addresses("tun11"), 20), str(self.daemon)
        return self.daemon

    def configure_guest(self) -> None:
        """Make wg0 in the guest."""
        lines = ["[Interface]", f"PrivateKey = {format_key(self.theirs.private)}", f"ListenPort = {WG_PORT}", "[Peer]"]
        lines += [f"PublicKey = {format_key(self.ours.public)}", f"AllowedIPs = {OURS}/32, {OURS6}/128"]
        lines += [f"PresharedKey = {format_key(self.secret.private)}"] if self._psk else []
        lines += [f"Endpoint = {self._host}:{PORT}"] if self._kernel_calls else []
        text = "\\n".join(lines)
        self.guest.run(f"ip link add wg0 type wireguard; printf '{text}\\n' >/tmp/wg0; wg setconf wg0 /tmp/wg0")
        self.guest.run(f"ip address add {THEIRS}/24 dev wg0; ip address add {THEIRS6}/64 dev wg0 nodad")
        self.guest.run("ip link set wg0 up")

    def close(self) -> None:
        """Remove both."""
        self.daemon.stop()
        self.guest.run("ip link delete wg0")

    def errors(self) -> int:
        """The number of received packets that the guest's WireGuard has counted as errors."""
        return int(self.guest.run("cat /sys/class/net/wg0/statistics/rx_errors"))

    def handshake(self) -> int:
        """The time of the guest's last handshake, on its own clock."""
        return int(self.guest.run("wg show wg0 latest-handshakes").split()[-1])

    def assert_pings(self) -> None:
        """Assert that packets of all sizes pass in both directions, by both versions of IP."""
        for size in (56, 1352, 1372, 5000):
            for address in (OURS, OURS6):
                self.guest.ping(address, size=size)
            for address in (THEIRS, THEIRS6):
                self.machine.lab.ping(self.machine, address, size=size)

    def _text(self) -> str:
        lines = ["[Interface]", f"PrivateKey = {format_key(self.ours.private)}"]
        lines += [f"Address = {OURS}/24, {OURS6}/64"]
        lines += [f"ListenPort = {PORT}"] if self._kernel_calls else []
        lines += ["[Peer]", f"PublicKey = {format_key(self.theirs.public)}", f"AllowedIPs = {THEIRS}/32, {THEIRS6}/128"]
        lines += [f"PresharedKey = {format_key(self.secret.private)}"] if self._psk else []
        lines += [] if self._kernel_calls else [f"Endpoint = {self._other}:{WG_PORT}"]
        return "\n".join([*lines, ""])


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    if reason := why_not():
        pytest.skip(reason)
    lab = Lab(tmp_path_factory.mktemp("guest"))
    with ExitStack() as stack:
        stack.callback(lab.close)
        guest = Guest(lab.a)
        stack.callback(guest.close)
        yield guest


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def meeting(
    guest: Guest, tmp_path: Path, stack: ExitStack, *, kernel_calls: bool, ipv6: bool = False, psk: bool = False
) -> Meeting:
    """Start both ends, and return them once they have exchanged a packet."""
    met = Meeting(guest, tmp_path, kernel_calls=kernel_calls, ipv6=ipv6, psk=psk)
    if kernel_calls:
        met.start()
        met.configure_guest()
    else:
        met.configure_guest()
        met.start()
    stack.callback(met.close)
    guest.ping(OURS, within=10) if kernel_calls else guest.machine.lab.ping(guest.machine, THEIRS, within=10)
    return met


both_roles = pytest.mark.parametrize("kernel_calls", [True, False], ids=["the kernel calls", "vpntun calls"])


@both_roles
@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("psk", [False, True], ids=["plain", "psk"])
def test_packets_of_all_sizes_pass_both_ways(
    guest: Guest, tmp_path: Path, stack: ExitStack, kernel_calls: bool, ipv6: bool, psk: bool
) -> None:
    meeting(guest, tmp_path, stack, kernel_calls=kernel_calls, ipv6=ipv6, psk=psk).assert_pings()


@both_roles
def test_rekeys_lose_nothing_and_the_kernel_counts_next_to_no_errors(
    guest: Guest, tmp_path: Path, stack: ExitStack, kernel_calls: bool
) -> None:
    met = meeting(guest, tmp_path, stack, kernel_calls=kernel_calls)
    first = met.handshake()
    command = f"ping -q -n -i0.5 -c280 {OURS}"
    said = guest.run(command, timeout=200)
    assert " 0% packet loss" in said, said
    assert met.handshake() >= first + 115
    assert met.errors() <= MOST_UNANSWERED


@both_roles
def test_each_end_follows_the_other_to_another_address(
    guest: Guest, tmp_path: Path, stack: ExitStack, kernel_calls: bool
) -> None:
    meeting(guest, tmp_path, stack, kernel_calls=kernel_calls)
    machine = guest.machine

    def move_guest(former: str, address: str) -> None:
        guest.run(f"ip address del {former}/24 dev eth0; ip address add {address}/24 dev eth0")

    def move_machine(former: str, address: str) -> None:
        machine.run("ip", "address", "del", f"{former}/24", "dev", TAP)
        machine.run("ip", "address", "add", f"{address}/24", "dev", TAP)

    move_guest(GUEST, ELSEWHERE)
    stack.callback(move_guest, ELSEWHERE, GUEST)
    guest.ping(OURS, within=3)
    machine.lab.ping(machine, THEIRS, within=3)
    move_machine(HOST, HOST_ELSEWHERE)
    stack.callback(move_machine, HOST_ELSEWHERE, HOST)
    machine.lab.ping(machine, THEIRS, within=3)
    guest.ping(OURS, within=3)


def test_the_device_itself_sends_nothing_into_the_tunnel(guest: Guest, tmp_path: Path, stack: ExitStack) -> None:
    met = meeting(guest, tmp_path, stack, kernel_calls=True)
    guest.run("sleep 10")  # router solicitations would be sent when the device comes up, 4 s apart
    counted = dict(map(str.split, guest.machine.run("cat", "/proc/net/dev_snmp6/tun11").stdout.splitlines()))
    assert counted["Icmp6OutMsgs"] == "0"
    assert met.errors() <= MOST_UNANSWERED


def test_a_kernel_whose_clock_starts_in_1970_gets_in(guest: Guest, tmp_path: Path, stack: ExitStack) -> None:
    met = meeting(guest, tmp_path, stack, kernel_calls=True)
    stack.callback(lambda: guest.run(f"date -s @{int(time.time())}"))
    guest.run("ip link delete wg0; date -s @1000")
    met.configure_guest()
    guest.ping(OURS, within=25)
    met.assert_pings()


def test_a_restarted_vpntun_asks_the_kernel_at_once(guest: Guest, tmp_path: Path, stack: ExitStack) -> None:
    met = meeting(guest, tmp_path, stack, kernel_calls=True)
    met.daemon.kill()
    assert until(lambda: not guest.machine.has_device("tun11"), 3)
    met.start()
    guest.ping(OURS, within=3)
