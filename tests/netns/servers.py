"""Servers that tests reach through a tunnel: sshd, with keys of its own, and a web server."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.netns.lab import Machine, until

SSHD = Path("/usr/sbin/sshd")


def start_sshd(machine: Machine, folder: Path, port: int) -> tuple[str | Path, ...]:
    """Serve ssh on the machine's loopback device, for root alone and with the host name desk.

    `folder`: where both ends' keys are put. Returns the words of a client that may log in.
    """
    for name in ("host", "user"):
        machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    own_folder = folder / "sshd"
    own_folder.mkdir(mode=0o755)
    options = ["StrictModes=no", "UsePAM=no", f"AuthorizedKeysFile={folder}/authorized_keys", "PidFile=none"]
    options += [f"ListenAddress=127.0.0.1:{port}", f"HostKey={folder}/host", "PermitRootLogin=prohibit-password"]
    words = [str(SSHD), "-D", "-e", "-f", "/dev/null", *(word for each in options for word in ("-o", each))]
    script = 'hostname desk && exec "$@"'
    machine.popen("unshare", "--uts", "sh", "-c", script, "sh", *words, binds={"/run/sshd": own_folder})
    assert until(lambda: machine.listens(port), 60)
    known = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
    return ("ssh", "-F", "/dev/null", *(word for each in known for word in ("-o", each)), "-i", folder / "user")


def start_web(machine: Machine, port: int, *addresses: str, **files: str) -> None:
    """Serve files on these addresses of the machine: name=content; `index` is the page of the root."""
    folder = machine.lab.folder / f"web-{machine.name}-{port}"
    folder.mkdir()
    for name, content in files.items():
        (folder / ("index.html" if name == "index" else name)).write_text(content)
    for address in addresses:
        machine.popen(sys.executable, "-m", "http.server", str(port), "--directory", folder, "--bind", address)
    assert until(lambda: machine.run("ss", "-Htln", f"sport = :{port}").stdout.count("\n") == len(addresses), 60)
