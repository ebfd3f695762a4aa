"""Configuration files for the tests' daemons, and the privileges of a daemon."""

from __future__ import annotations

from pathlib import Path

from tests.netns.lab import NOBODY, Daemon, Lab, Machine

NET_ADMIN = 1 << 12


def privileges(pid: int) -> dict[str, list[str]]:
    """The kernel's status of a process, with its users, groups and capabilities."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def runs_as_nobody(daemon: Daemon, capabilities: int) -> bool:
    """Whether the process has the user and groups of nobody, and exactly these capabilities."""
    status = privileges(daemon.process.pid)
    ours = [status["Uid"], status["Gid"], status["NoNewPrivs"]] == [[str(NOBODY)] * 4, [str(NOBODY)] * 4, ["1"]]
    held = [int(status[name][0], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")]
    return ours and held == [0, capabilities, capabilities, 0] and "0" not in status["Groups"]


def configured(lab: Lab, machine: Machine, role: str, *lines: str, peer: str = "") -> Path:
    """Write the configuration file of a tunnel named office that uses the lab's shared key."""
    folder = lab.folder / machine.name
    folder.mkdir()
    path = folder / "office.conf"
    path.touch(mode=0o600)
    secret = f"SharedKey = {lab.key}"
    path.write_text("\n".join(["[Interface]", secret, f"Role = {role}", *lines, "[Peer]", peer]) + "\n")
    return path
