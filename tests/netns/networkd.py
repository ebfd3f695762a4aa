"""systemd-networkd on a machine of a lab, without systemd and D-Bus, neither of which it needs to configure devices.

networkd waits for udev to name each device, except where /sys is read-only, as in a container. It has a /run of its
own, and becomes the user systemd-network, whom the machine's passwd has to name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tests.netns.lab import Daemon, Machine

PROGRAM = Path("/lib/systemd/systemd-networkd")
NUMBER = 998
START = f"""
mount -o remount,bind,ro /sys
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R {NUMBER}:{NUMBER} /run/systemd/netif
SYSTEMD_LOG_TARGET=console exec {PROGRAM}
"""


def start_networkd(machine: Machine, etc: Path, files: Mapping[str, str]) -> Daemon:
    """Start networkd with these files of /etc/systemd/network. `etc`: the folder that is the machine's /etc."""
    folder = etc / "systemd" / "network"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")
    (etc / "machine-id").write_text(f"{os.urandom(16).hex()}\n")
    with (etc / "passwd").open("a") as passwd:
        passwd.write(f"systemd-network:x:{NUMBER}:{NUMBER}::/:/bin/false\n")
    return machine.popen("sh", "-ec", START, binds={"/etc": etc})
