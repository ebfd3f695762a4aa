"""Services by name, between the guide's three machines and between two: real ssh and curl, and every refusal."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.documents import blocks, steps
from tests.netns.daemons import configured
from tests.netns.guides_hub import GuidesHub
from tests.netns.lab import STARTED, Lab, Machine, until
from tests.netns.servers import SSHD, start_sshd
from tests.netns.users import User
from vpntun.crypto.keys import format_key, generate_secret, shortened

WIKI = """
import http.server, os, socketserver, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"welcome\\n")
    def address_string(self):
        return "visitor"
class Wiki(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 64
with Wiki(sys.argv[1], Page) as wiki:
    os.chmod(sys.argv[1], 0o666)
    print("ready", flush=True)
    wiki.serve_forever()
"""


class Office(GuidesHub):
    """The guide's hub, whose desk offers services. `login`: the words of ssh."""

    def __init__(self, lab: Lab) -> None:
        self.wiki_key = lab.folder / "wiki.key"
        self.wiki_key.touch(mode=0o600)
        self.wiki_key.write_text(format_key(generate_secret()))
        self.wiki_socket = lab.home(0) / "wiki.sock"
        [services] = blocks("services-of-the-desk")
        services = services.replace("/etc/vpntun/wiki.key", str(self.wiki_key))
        super().__init__(lab, of_desk=services.replace("/run/wiki.sock", str(self.wiki_socket)))
        self.login: tuple[str | Path, ...] = ()

    def change(self, machine: Machine, before: str, after: str) -> None:
        """Change a file, and have the tunnel read it again."""
        text = self.files[machine].read_text()
        assert before in text
        self.files[machine].write_text(text.replace(before, after))
        daemon = self.daemons[machine]
        count = daemon.log.count("read the configuration again")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("read the configuration again", count=count + 1)

    def type(self, command: str, folder: Path) -> str:
        """Type a line of the guide on the laptop, and return what it prints."""
        name, *words = command.split()
        words = [str(folder / word) if word == "wiki.key" else word for word in words]
        if name == "vpntun":
            done = self.laptop.run(sys.executable, "-m", "vpntun", *words)
        elif name == "ssh":
            done = self.laptop.run(*self.login, *words)
        else:
            done = self.laptop.run(name, "-sS", *words)
        return done.stdout


def visit(machine: Machine, port: int) -> str:
    """Fetch the wiki's page by a forward; return it, or "" if the connection is refused or reset."""
    return machine.run("curl", "-s", "-m", "40", f"http://127.0.0.1:{port}/", check=False, timeout=60).stdout


def last_failure(machine: Machine, port: int) -> str:
    found = machine.status("hub")["forwards"]
    return next(str(each["last_failure"]) for each in found if each["listen"] == f"127.0.0.1:{port}")


def expose(machine: Machine, *words: str | Path) -> None:
    assert machine.ask("expose", *words) == (0, "")


def refused(machine: Machine, port: int, reason: str) -> None:
    """Assert that visits are refused for this reason, once the answer to a former one is forgotten."""

    def is_refused() -> bool:
        assert visit(machine, port) == ""
        return reason in last_failure(machine, port)

    assert until(is_refused, 60), last_failure(machine, port)


@pytest.mark.skipif(not SSHD.exists(), reason="sshd is not installed")
def test_services_are_used_through_a_hub_by_those_who_may(lab: Lab) -> None:
    office = Office(lab)
    laptop, hub, desk = office.laptop, office.hub, office.desk
    folder = lab.home(0)
    shutil.copy(office.wiki_key, folder / "wiki.key")
    office.login = start_sshd(desk, folder, 22)
    desk.popen(sys.executable, "-c", WIKI, office.wiki_socket).wait_for("ready")

    # As the guide shows.
    shown = shortened(format_key(office.keys["HUB"].public))
    for step in steps(blocks("services-on-the-laptop")[0]):
        printed = office.type(step.command, folder)
        assert printed.splitlines() == [line.replace("HUB_PUBLIC", shown) for line in step.output], lab.logs()

    # Not for everybody, nor without the key or with another one. A peer of the desk itself is asked directly.
    expose(hub, "hub", "127.0.0.1:2222", "ssh@desk")
    refused(hub, 2222, " offers no service ssh to ")
    expose(hub, "hub", "127.0.0.1:8080", "wiki@desk")
    refused(hub, 8080, "it is for those who have its key: add 'ServiceKey = wiki@desk KEY'")
    wrong = format_key(generate_secret())
    office.change(hub, "[Interface]", f"[Interface]\nServiceKey = wiki@desk {wrong}")
    refused(hub, 8080, "the ServiceKey is not the other end's")
    office.daemons[desk].wait_for("the service wiki: the ServiceKey is not the other end's")
    office.change(hub, wrong, str(office.wiki_key))
    assert visit(hub, 8080) == "welcome\n"

    # Withdrawn, then ended, and there again. The laptop keeps a permission, which is of no use meanwhile.
    office.change(desk, "= wiki ", "= docs ")
    refused(laptop, 8080, "desk offers no service wiki to laptop")
    assert office.daemons[desk].stop() == 0
    office.files[desk].write_text(office.files[desk].read_text().replace("= docs ", "= wiki "))
    refused(laptop, 8080, "gets no answer from desk")
    office.start(desk)
    lab.ping(desk, "10.9.0.1", within=30)
    assert until(lambda: visit(laptop, 8080) == "welcome\n", 60), lab.logs()

    many = laptop.run("curl", "-sS", "-Z", "--parallel-max", "60", "http://127.0.0.1:8080/[1-60]", timeout=100)
    assert many.stdout == "welcome\n" * 60
    offered = json.loads(
        desk.run("curl", "-sS", "--unix-socket", "/run/vpntun/hub.sock", "http://x/v1/services").stdout
    )
    assert [each["service"] for each in offered["offered"]] == ["ssh", "wiki"]
    assert offered["offered"][1]["connections_total"] >= 61


def test_a_service_between_two_machines_needs_no_hub_and_no_privileges(lab: Lab) -> None:
    socket = lab.home() / "wiki.sock"
    lab.b.popen(sys.executable, "-c", WIKI, socket).wait_for("ready")
    lines = ("Address = 10.9.0.1/24", f"Service = wiki unix:{socket}", "AllowFrom = wiki *", "User = nobody")
    server = lab.b.vpntun("up", configured(lab, lab.b, "server", *lines))
    own = ("Address = 10.9.0.2/24", "Forward = 127.0.0.1:8080 wiki@")
    client = lab.a.vpntun("up", configured(lab, lab.a, "client", *own, peer=f"Endpoint = {lab.b.four}:55555"))
    for each in (server, client):
        each.wait_for(STARTED)
    lab.ping(lab.a, "10.9.0.1", within=30)
    status, listed = lab.a.ask("services", "office")
    assert (status, listed.splitlines()[1].split()) == (0, ["wiki@", "-", "-"])
    assert visit(lab.a, 8080) == "welcome\n"
    assert server.stop() == 0
    server = lab.b.vpntun("up", lab.folder / lab.b.name / "office.conf")
    server.wait_for(STARTED)
    lab.ping(lab.a, "10.9.0.1", within=30)
    assert until(lambda: visit(lab.a, 8080) == "welcome\n", 60), lab.logs()

    assert client.stop() == 0
    user = User(lab.a)
    text = (lab.folder / lab.a.name / "office.conf").read_text().replace(str(lab.key), str(user.own(lab.key)))
    user.vpntun("run", user.write("office.conf", text), "--expose", "127.0.0.1:8081 wiki@", "--", "sleep", "600")
    assert until(lambda: visit(lab.a, 8081) == "welcome\n", 60), lab.logs()
