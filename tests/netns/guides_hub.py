"""The guide's hub with two peers, each on a machine of its own.

a, the laptop  10.0.0.1 ==veth0== 10.0.0.2  b, the hub  10.0.1.2 ==veth1== 10.0.1.3  c, the desk
"""

from __future__ import annotations

from pathlib import Path

from tests.documents import blocks
from tests.netns.lab import STARTED, Daemon, Lab, Machine
from vpntun.crypto.keys import KeyPair, format_key


class GuidesHub:
    """The three machines with the guide's files, once the hub answers both peers.

    `of_laptop`, `of_desk`: more lines for the section [Interface]. `desk_transport`: the desk's, "auto" in the guide.
    """

    def __init__(self, lab: Lab, of_laptop: str = "", of_desk: str = "", desk_transport: str = "auto") -> None:
        self.lab, self.laptop, self.hub = lab, lab.a, lab.b
        self.desk = lab.add("c", "10.0.1.3", "fd02::3")
        lab.cable(self.hub, "veth1", self.desk, "veth0")
        self.hub.run("ip", "address", "add", "10.0.1.2/24", "dev", "veth1")
        self.desk.run("ip", "address", "add", "10.0.1.3/24", "dev", "veth0")
        self.keys = {name: KeyPair.generate() for name in ("HUB", "LAPTOP", "DESK")}
        self.files: dict[Machine, Path] = {}
        self.daemons: dict[Machine, Daemon] = {}
        [hub], [laptop] = blocks("hub"), blocks("laptop-of-the-hub")
        desk = laptop.replace("LAPTOP", "DESK").replace("10.9.0.2/", "10.9.0.3/").replace("fd09::2/", "fd09::3/")
        desk = desk.replace(", 192.168.9.0/24", "").replace("auto", desk_transport)
        self._up(self.hub, hub)
        self._up(self.laptop, laptop.replace("hub.example.org", "10.0.0.2"), of_laptop)
        self._up(self.desk, desk.replace("hub.example.org", "10.0.1.2"), of_desk)
        for machine in (self.laptop, self.desk):
            lab.ping(machine, "10.9.0.1", within=30)

    def start(self, machine: Machine) -> None:
        """Start the tunnel of a machine's file."""
        self.daemons[machine] = machine.vpntun("up", self.files[machine])
        self.daemons[machine].wait_for(STARTED)

    def _up(self, machine: Machine, text: str, more: str = "") -> None:
        text = text.replace("[Interface]", f"[Interface]\n{more}")
        for name, keys in self.keys.items():
            text = text.replace(f"{name}_PRIVATE", format_key(keys.private))
            text = text.replace(f"{name}_PUBLIC", format_key(keys.public))
        folder = self.lab.folder / f"files-{machine.name}"
        folder.mkdir()
        file = self.files[machine] = folder / "hub.conf"
        file.touch(mode=0o600)
        file.write_text(text)
        self.start(machine)
