"""A virtual machine whose kernel has WireGuard, attached to a machine of the lab. scripts/guest makes what it boots.

    machine  10.0.7.1/24  fd07::1/64  guest0 ======== eth0  10.0.7.2/24  fd07::2/64  guest

qemu emulates the processor, because nested virtualisation is rarely available: it boots in some 10 s. Commands reach
the guest by a serial port (scripts/guest-init), so its network may be changed at will.
"""

from __future__ import annotations

import base64
import os
import platform
import shutil
import socket
import subprocess
from pathlib import Path

from tests.netns.lab import CHECKOUT, Machine, until

HOST, HOST6 = "10.0.7.1", "fd07::1"
GUEST, GUEST6 = "10.0.7.2", "fd07::2"
TAP = "guest0"
QEMU = "qemu-system-x86_64"
FILES = CHECKOUT / "build" / "guest"
SECONDS_TO_BOOT = 120.0
CHUNK = 256


def why_not() -> str | None:
    """Return the reason why no guest can be booted here, or None. Makes its files if they are missing."""
    if platform.machine() != "x86_64":
        return "the guest is made of Debian's packages for amd64"
    for tool in (QEMU, "busybox", "cpio", "depmod", "wg"):
        if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            return f"{tool} is not installed (see scripts/packages)"
    made = subprocess.run([CHECKOUT / "scripts" / "guest", FILES], capture_output=True, text=True, check=False)
    return None if made.returncode == 0 else made.stderr.strip()


class Guest:
    """The running guest. It ends with the lab."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.run("ip", "tuntap", "add", TAP, "mode", "tap")
        for address in (f"{HOST}/24", f"{HOST6}/64"):
            machine.run("ip", "address", "add", address, "dev", TAP, *(["nodad"] if ":" in address else []))
        machine.run("ip", "link", "set", TAP, "up")
        path = Path(machine.lab.folder / "guest.socket")
        command = [QEMU, "-accel", "tcg", "-cpu", "max", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot"]
        command += ["-kernel", str(FILES / "kernel"), "-initrd", str(FILES / "initramfs")]
        command += ["-append", "console=ttyS0 quiet panic=-1"]
        command += ["-netdev", f"tap,id=net,ifname={TAP},script=no,downscript=no"]
        command += ["-device", "virtio-net-pci,netdev=net,romfile="]
        command += ["-serial", "stdio", "-serial", f"unix:{path},server=on,wait=off"]
        self._daemon = machine.popen(*command)
        assert until(path.exists, 10), str(self._daemon)
        self._control = socket.socket(socket.AF_UNIX)
        self._answers = b""
        try:
            self._control.connect(str(path))
            assert self._line(SECONDS_TO_BOOT) == b"ready"
            self.run(f"ip address add {GUEST}/24 dev eth0; ip address add {GUEST6}/64 dev eth0 nodad")
        except BaseException:
            self.close()
            raise

    def run(self, command: str, *, check: bool = True, timeout: float = 30) -> str:
        """Run a shell command in the guest; return what it prints."""
        line = base64.b64encode(command.encode()) + b"\n"
        for at in range(0, len(line), CHUNK):  # no more at a time than a serial port takes
            self._control.sendall(line[at : at + CHUNK])
        status, _, output = self._line(timeout).partition(b" ")
        text = base64.b64decode(output).decode(errors="replace")
        assert not check or status == b"0", f"{command}: status {status.decode()}\n{text}\n{self._daemon}"
        return text

    def ping(self, address: str, *, within: float = 5, size: int = 56) -> None:
        """Ping from the guest until the first answer."""
        self.run(f"ping -n -c1 -i0.2 -w{within:.0f} -s{size} {address}", timeout=within + 10)

    def close(self) -> None:
        """End the guest."""
        self._control.close()
        self._daemon.kill()

    def _line(self, seconds: float) -> bytes:
        """Return the guest's next line on the second serial port."""
        self._control.settimeout(seconds)
        while b"\n" not in self._answers:
            try:
                received = self._control.recv(65536)
            except TimeoutError:
                received = b""
            assert received, f"no answer from the guest within {seconds} s\n{self._daemon}"
            self._answers += received
        line, _, self._answers = self._answers.partition(b"\n")
        return line.strip()
