"""A reader who types the examples of the documents on the two machines of a lab."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.documents import Step, blocks, steps
from tests.netns.lab import NOBODY, Daemon, Lab, Machine, until
from tests.terminal import Terminal
from vpntun.config.keyfile import read_shared
from vpntun.crypto.keys import KeyPair, format_key, parse_key
from vpntun.crypto.shared import SharedIdentity

VECTOR = SharedIdentity.of(bytes(range(32)))  # the addresses in the documents are those of docs/protocol.rst
ENDPOINT = "203.0.113.2"  # the remote machine's address in the documents
KEY = Path("etc/vpntun/vpntun.key")
WIREGUARD = Path("/run/wireguard")  # where wireguard-go has its control sockets; here each machine has its own


class Reader:
    """A reader who follows an example on two machines: the remote one is the lab's b, the local one is a."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.home = lab.home()
        self.machines = {"remote": lab.b, "local": lab.a}
        self.roots = {name: lab.folder / name for name in self.machines}
        for root in self.roots.values():
            self._furnish(root / "etc")
            (root / "wireguard").mkdir()
        shim = self.home / "vpntun"
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m vpntun "$@"\n')
        shim.chmod(0o755)

    def _furnish(self, etc: Path) -> None:
        (etc / "wireguard").mkdir(parents=True)
        (etc / "passwd").write_text(f"root:x:0:0::/root:/bin/sh\nalice:x:{NOBODY}:{NOBODY}::{self.home}:/bin/sh\n")
        (etc / "nsswitch.conf").write_text("hosts: files\n")
        (etc / "hosts").write_text(f"{self.lab.b.four} remote.example.org\n{self.lab.a.four} local.example.org\n")
        for name in ("ld.so.cache", "ld.so.conf"):
            if Path("/etc", name).exists():
                shutil.copy(Path("/etc", name), etc)

    def share_a_key(self) -> None:
        """Put the same key in the default place of both machines, as at the end of the first example."""
        key = self.lab.key
        for root in self.roots.values():
            (root / KEY).parent.mkdir(mode=0o700)
            shutil.copy(key, root / KEY)

    def put(self, where: str, path: str, name: str) -> None:
        """Write the one block of this name to a file of that machine, with this lab's keys in it."""
        [block] = blocks(name)
        self.write(where, path, self._translate(block))

    def write(self, where: str, path: str, text: str) -> None:
        """Write a file of that machine, for its owner only."""
        file = self.roots[where] / path.lstrip("/")
        file.touch(mode=0o600)
        file.write_text(text)

    def put_offices_files(self) -> None:
        for where in self.roots:
            self.put(where, "/etc/vpntun/office.conf", f"office-{where}")

    def follow(self, name: str) -> None:
        for block in blocks(name):
            self.type(block)

    def type(self, block: str) -> None:
        for step in steps(block):
            self.take(step)

    def take(self, step: Step) -> Daemon | None:
        """Type one command, and check that it prints what the example says. Return the tunnel that it started."""
        where, user = step.prompt[:-1], "alice" if step.prompt.endswith("$") else None
        machine, command = self.machines[where], self._translate(step.command)
        if command.startswith("scp "):
            self._copy(where, command)
        elif command.startswith("vpntun check "):
            said = self.run(machine, where, command)
            assert said.splitlines() == self._translate("\n".join(step.output)).splitlines(), said
        elif re.match(r"vpntun (up|.*-[scf])\b", command):
            daemon = machine.vpntun(
                *shlex.split(command)[1:], user=user, env=self._environment(), binds=self._binds(where)
            )
            self._hear(daemon, step.output or ["waiting for the peer" if " -s" in command else "connected to "])
            return daemon
        elif command.startswith("ip link add wg"):  # the kernel may have none
            binds, device = self._binds(where), command.split()[3]
            daemon = machine.popen("wireguard-go", "-f", device, binds=binds)
            shown = ("wg", "show", device)
            assert until(lambda: machine.run(*shown, check=False, binds=binds).returncode == 0, 5), str(daemon)
        else:
            self.run(machine, where, command, user)
        return None

    def terminal(self, step: Step) -> Terminal:
        """Type one command in a terminal of its own, for use in a `with` statement."""
        machine, where = self.machines[step.prompt[:-1]], step.prompt[:-1]
        command = [sys.executable, "-m", *shlex.split(step.command)]
        return Terminal(machine.enter(command, binds=self._binds(where)), columns=200, env=self._environment())

    def shell(self, where: str, command: Sequence[str]) -> Terminal:
        """Open a terminal on a machine with a shell in it, whose prompt is that of the documents."""
        env = {**self._environment(), "PS1": f"{where}# "}
        return Terminal(self.machines[where].enter(command, binds=self._binds(where)), env=env, cwd=self.home)

    def translated(self, text: str) -> str:
        """Return a text of the documents with this lab's addresses and keys."""
        return self._translate(text)

    def run_beside_a_server(self, name: str) -> str:
        """Run the one script of this name on the local machine, and return its output; it leaves no device."""
        self.share_a_key()
        self.take(Step("remote#", "vpntun -s -i tun3"))
        [script] = blocks(name)
        said = self.run(self.lab.a, "local", self._translate(script))
        assert not self.lab.a.has_device("tun11")
        return said

    def run(self, machine: Machine, where: str, script: str, user: str | None = None) -> str:
        done = machine.run(
            "sh", "-ec", script, check=False, user=user, env=self._environment(), binds=self._binds(where)
        )
        assert done.returncode == 0, f"{where}: {script}\n{done.stdout}{done.stderr}\n{self.lab.logs()}"
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return {"PATH": f"{self.home}:{os.environ['PATH']}", "HOME": str(self.home), "XDG_CONFIG_HOME": ""}

    def _binds(self, where: str) -> dict[str, Path]:
        return {"/etc": self.roots[where] / "etc", str(WIREGUARD): self.roots[where] / "wireguard"}

    def _hear(self, daemon: Daemon, lines: list[str]) -> None:
        for line in lines:
            until(lambda line=line: self._translate(line) in daemon.log or not daemon.running, 10)  # type: ignore[misc]
            assert self._translate(line) in daemon.log, f"not said: {self._translate(line)}\n{daemon}"

    def _copy(self, where: str, command: str) -> None:
        named = re.fullmatch(r"scp -p (\S+) root@(\w+)\.example\.org:(/etc/\S+)", command)
        assert named, command
        source = Path(named[1].replace("~", str(self.home)))
        if source.is_relative_to("/etc"):
            source = self.roots[where] / source.relative_to("/")
        shutil.copy(source, self.roots[named[2]] / named[3].lstrip("/"))

    def _translate(self, text: str) -> str:
        """Replace the document's addresses and keys by this lab's."""
        text = text.replace(ENDPOINT, self.lab.b.four)
        text = text.replace("ping -c", "ping -i 0.1 -w 5 -c")  # a bridge takes up to a second to take in a port
        for where in self.roots:
            for name, of in (("PUBLIC", self._public_key), ("PRIVATE", self._private_key)):
                if f"{where.upper()}_{name}" in text:
                    text = text.replace(f"{where.upper()}_{name}", of(where))
        key = self.roots["remote"] / KEY
        if key.exists():
            ours = SharedIdentity.of(read_shared(key))
            for end, longer in (("server4", r"\w"), ("client4", r"\w"), ("server6", r"[\w:]"), ("client6", r"[\w:]")):
                text = re.sub(rf"{getattr(VECTOR, end)}(?!{longer})", str(getattr(ours, end)), text)
        return text

    def _private_key(self, where: str) -> str:
        [private] = self.roots[where].glob("etc/*/private.key")
        return private.read_text().strip()

    def _public_key(self, where: str) -> str:
        return format_key(KeyPair.of(parse_key(self._private_key(where))).public)
