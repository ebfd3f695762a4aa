"""wireguard-go in namespaces, and vpntun as its peer.

    a  tun11 of vpntun  192.168.7.1, fd66::1  ==========  192.168.7.2, fd66::2  wg0 of wireguard-go  b

A file that needs more ends uses `WireGuard` and `start_from_file`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.netns.lab import STARTED, Daemon, Lab, Machine, until

TOOLS = ("wireguard-go", "wg")
WG_PORT = 51820
DEVICE, OURS_DEVICE = "wg0", "tun11"
OURS, THEIRS = "192.168.7.1", "192.168.7.2"
OURS6, THEIRS6 = "fd66::1", "fd66::2"


@dataclass(frozen=True)
class Identity:
    """A file with a private key, and the public key that belongs to it."""

    file: Path
    public: str


@dataclass(frozen=True)
class Keys:
    """The keys of vpntun and wireguard-go, a preshared key, and another one."""

    ours: Identity
    theirs: Identity
    psk: Path
    wrong_psk: Path


def make_keys(lab: Lab) -> Keys:
    def preshared(name: str) -> Path:
        path = lab.folder / name
        path.touch(mode=0o600)
        path.write_text(lab.a.run("wg", "genpsk").stdout)
        return path

    ours, theirs = (Identity(*lab.new_identity(name)) for name in ("ours", "theirs"))
    return Keys(ours, theirs, preshared("psk"), preshared("wrong-psk"))


def missing_tool() -> str | None:
    """The name of a program that the tests need and this machine lacks, or None."""
    return next((tool for tool in TOOLS if shutil.which(tool) is None), None)


class WireGuard:
    """A device of wireguard-go, which is down until `up`."""

    def __init__(self, machine: Machine, key: Path, *, device: str = DEVICE, port: int = WG_PORT) -> None:
        self.machine, self.device = machine, device
        self._at = machine
        # Asking `wg show` whether it is up could end it: wg removes a socket that is bound, but not listening yet.
        self._daemon = machine.popen("wireguard-go", "-f", device, env={"LOG_LEVEL": "verbose"})
        self._daemon.wait_for("UAPI listener started")
        self.set("private-key", key, "listen-port", str(port))

    def set(self, *settings: str | Path) -> None:
        """Change settings as `wg set` does."""
        self.machine.run("wg", "set", self.device, *settings)

    def move_to(self, other: Machine) -> None:
        """Move the device to another machine. The sockets stay, and so does the socket by which `set` speaks."""
        self._at.run("ip", "link", "set", self.device, "netns", other.name)
        self._at = other

    def up(self, *addresses: str, mtu: int | None = None) -> None:
        """Give the device addresses with their prefix lengths, and set it up."""
        for address in addresses:
            self._at.run("ip", "address", "add", address, "dev", self.device)
        self._at.run("ip", "link", "set", self.device, *(("mtu", str(mtu)) if mtu else ()), "up")

    def shown(self, what: str, public: str) -> str:
        """What `wg show DEVICE WHAT` says about a peer."""
        lines = self.machine.run("wg", "show", self.device, what).stdout.splitlines()
        return next(line.partition("\t")[2] for line in lines if line.startswith(public))

    def stop(self) -> None:
        """End wireguard-go, and wait until its device has gone."""
        self._daemon.stop()
        assert until(lambda: not self._at.has_device(self.device), 10)


def start_wireguard(
    lab: Lab,
    keys: Keys,
    *peer: str,
    allowed: str = f"{OURS}/32,{OURS6}/128",
    psk: Path | None = None,
    mtu: int | None = None,
) -> WireGuard:
    """Start wireguard-go in b with vpntun as its only peer."""
    wireguard = WireGuard(lab.b, keys.theirs.file)
    secret = ("preshared-key", psk) if psk else ()
    wireguard.set("peer", keys.ours.public, *secret, "allowed-ips", allowed, *peer)
    wireguard.up(f"{THEIRS}/24", f"{THEIRS6}/64", mtu=mtu)
    return wireguard


def start_vpntun(
    lab: Lab,
    keys: Keys,
    *role: str,
    allowed: tuple[str, ...] = (),
    psk: Path | None = None,
    binds: Mapping[str, Path] | None = None,
) -> Daemon:
    """Start vpntun in a with wireguard-go as its only peer."""
    identity = ["--private-key", str(keys.ours.file), "--peer", keys.theirs.public]
    identity += ["--psk", str(psk)] if psk else []
    for network in allowed:
        identity += ["--allowed", network]
    addresses = ["--address", f"{OURS}/24", "--address", f"{OURS6}/64"]
    daemon = lab.a.vpntun(*role, "-i", OURS_DEVICE, *identity, *addresses, binds=binds)
    assert until(lambda: f"{OURS6}/64" in lab.a.addresses(OURS_DEVICE) or not daemon.running, 10), str(daemon)
    assert daemon.running, str(daemon)
    return daemon


def as_client(lab: Lab, version: int = 4) -> tuple[str, ...]:
    """vpntun's options to call wireguard-go over this IP version."""
    return ("-c", lab.b.six if version == 6 else lab.b.four, "-p", str(WG_PORT))


def endpoint_in_a(lab: Lab, version: int = 4) -> tuple[str, ...]:
    """wireguard-go's settings to call vpntun over this IP version."""
    return ("endpoint", f"[{lab.a.six}]:55555" if version == 6 else f"{lab.a.four}:55555")


def latest_handshake(lab: Lab) -> int:
    return int(lab.b.run("wg", "show", DEVICE, "latest-handshakes").stdout.split()[-1])


def start_from_file(machine: Machine, name: str, text: str, says: str = STARTED) -> Daemon:
    """Write vpntun's configuration file, start a tunnel named after it, and wait until it says that it is up."""
    file = machine.lab.folder / f"{name}.conf"
    file.touch(mode=0o600)
    file.write_text(text)
    daemon = machine.vpntun("up", file, "-v")
    daemon.wait_for(says)
    return daemon
