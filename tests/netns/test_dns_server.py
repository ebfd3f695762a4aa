"""The name server of a hub (DnsServer), asked by dig through the tunnel, and by others, who get nothing.

    a  laptop  10.0.0.1 ==veth0== 10.0.0.2  hub  b
       10.9.0.2, fd09::2               10.9.0.1, fd09::1

The outside's name server (name_server.py) is at 10.0.0.1, and in the hub's resolv.conf.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.documents import blocks, steps
from tests.netns.lab import PORT, STARTED, Daemon, Lab, Machine, until
from vpntun.crypto.keys import KeyPair, format_key

pytestmark = pytest.mark.skipif(shutil.which("dig") is None, reason="dig is not installed")

SECONDS = 20.0
HUB, LAPTOP = "10.9.0.1", "10.9.0.2"
SERVER = Path(__file__).with_name("name_server.py")
RECORDS = f"""
{blocks("names-of-the-hub")[0]}
DnsRecord = big fd09::a:1 fd09::a:2 fd09::a:3 fd09::a:4 fd09::a:5 fd09::a:6 fd09::a:7 fd09::a:8 fd09::a:9 fd09::a:10
DnsRecord = big fd09::b:1 fd09::b:2 fd09::b:3 fd09::b:4 fd09::b:5 fd09::b:6 fd09::b:7 fd09::b:8 fd09::b:9 fd09::b:10
"""
"""The guide's, and a name whose addresses have no room in a datagram of 512 bytes."""
FLOOD = """
import socket, time
question = bytes.fromhex("0001010000010000000000000" "66c6170746f70066f666669636508696e7465726e616c0000010001")
with socket.socket(type=socket.SOCK_DGRAM) as sends:
    sends.connect(("10.9.0.1", 53))
    print("floods", flush=True)
    end = time.monotonic() + 100
    while time.monotonic() < end:
        try:
            sends.send(question)
        except OSError:
            pass
"""


class Names:
    """The hub in b and the laptop in a, whose peers they are. `records`: lines of the hub's file."""

    def __init__(self, lab: Lab, records: str = RECORDS, of_laptop: str = "") -> None:
        self.lab, self.a, self.b = lab, lab.a, lab.b
        self.keys = {name: KeyPair.generate() for name in ("hub", "laptop", "desk", "phone")}
        self.resolv_conf = lab.folder / "resolv.conf"
        self.resolv_conf.write_text(f"nameserver {HUB}\nnameserver 10.9.0.77\nnameserver {lab.a.four}\n")
        self.file = self._write("hub", "")
        self.write_hub(records)
        self.hub = self.b.vpntun("up", self.file, "-v", binds={"/etc/resolv.conf": self.resolv_conf})
        self.hub.wait_for(STARTED, SECONDS)
        laptop = (
            f"[Interface]\nPrivateKey = {format_key(self.keys['laptop'].private)}\nAddress = {LAPTOP}/24, fd09::2/64\n"
            f"{of_laptop}[Peer]\nPublicKey = {format_key(self.keys['hub'].public)}\nName = the hub\n"
            f"AllowedIPs = 10.9.0.0/24, fd09::/64\nEndpoint = {lab.b.four}:{PORT}\nPersistentKeepalive = 5\n"
        )
        self.laptop = self.a.vpntun("up", self._write("laptop", laptop), "-v")
        self.laptop.wait_for(STARTED, SECONDS)
        lab.ping(self.a, HUB, SECONDS)
        lab.ping(self.a, "fd09::1", SECONDS)

    def write_hub(self, records: str, peers: dict[str, tuple[str, str]] | None = None) -> None:
        """Write the hub's file. `peers`: the name and the allowed IPs of each."""
        known = {
            "laptop": ("laptop", f"{LAPTOP}, fd09::2"),
            "desk": ("desk", "10.9.0.3, fd09::3, 192.168.9.0/24"),
            "phone": ("Änne's Phone", "10.9.0.4"),
        }
        text = f"[Interface]\nPrivateKey = {format_key(self.keys['hub'].private)}\nListenPort = {PORT}\n"
        text += f"Address = {HUB}/24, fd09::1/64\n{records}\n"
        for key, (name, allowed) in (known if peers is None else peers).items():
            text += f"[Peer]\nPublicKey = {format_key(self.keys[key].public)}\nName = {name}\nAllowedIPs = {allowed}\n"
        self.file.write_text(text)

    def start_outside(self) -> Daemon:
        """Start the name server of the outside."""
        outside = self.a.popen(sys.executable, SERVER, self.a.four)
        outside.wait_for("serves", SECONDS)
        return outside

    def dig(self, *words: str, at: str = HUB, machine: Machine | None = None) -> str:
        """Ask, and return everything that dig prints."""
        return (machine or self.a).run("dig", f"@{at}", "+time=5", "+tries=3", *words, check=False).stdout

    def short(self, *words: str, at: str = HUB) -> list[str]:
        return sorted(self.dig("+short", *words, at=at).split("\n")[:-1])

    def names(self, machine: Machine | None = None) -> Any:
        """What the status says of the name server."""
        return (machine or self.b).status("hub" if machine in (None, self.b) else "laptop")["names"]

    def request(self, path: str, body: object = None) -> tuple[str, Any]:
        """Make a request of the hub's control socket by curl; return the HTTP status and the content."""
        given = [] if body is None else ["-d", json.dumps(body)]
        script = 'exec curl -s -w "\\n%{http_code}" --unix-socket /run/vpntun/hub.sock "$@"'
        said = self.b.run("sh", "-c", script, "sh", *given, f"http://vpntun{path}").stdout
        content, _, status = said.rpartition("\n")
        return status, json.loads(content)

    def _write(self, name: str, text: str) -> Path:
        path = self.lab.folder / f"{name}.conf"
        path.touch(mode=0o600)
        path.write_text(text)
        return path


def test_dig_finds_each_kind_of_name(lab: Lab) -> None:
    names = Names(lab)
    outside = names.start_outside()
    assert names.short("laptop.office.internal") == [LAPTOP]
    assert names.short("LapTop.Office.Internal", "AAAA") == ["fd09::2"]
    assert names.short("anne-s-phone.office.internal", at="fd09::1") == ["10.9.0.4"]
    assert names.short("-x", LAPTOP) == names.short("-x", "fd09::2") == ["laptop.office.internal."]
    assert names.short("a.b.apps.example") == ["10.9.0.8"]
    for step in steps(blocks("asking-the-hub")[0]):
        assert names.a.run(*step.command.split()).stdout.splitlines() == step.output, step.command

    said = names.dig("nobody.office.internal")
    assert "status: NXDOMAIN" in said
    assert "flags: qr aa rd ra;" in said
    assert "SOA" in said
    said = names.dig("anne-s-phone.office.internal", "AAAA")
    assert "status: NOERROR" in said
    assert "ANSWER: 0, AUTHORITY: 1" in said
    assert "status: NXDOMAIN" in names.dig("-x", "10.9.0.200")
    assert "status: NXDOMAIN" in names.dig("laptop")
    assert "status: BADVERS" in names.dig("+edns=1", "+noednsneg", "laptop.office.internal")
    assert "status: REFUSED" in names.dig("version.bind", "TXT", "CH")
    assert "udp: 1232" in names.dig("laptop.office.internal")
    assert "OPT PSEUDOSECTION" not in names.dig("+noedns", "laptop.office.internal")
    assert "flags: qr aa tc rd ra;" in names.dig("+noedns", "+ignore", "big.office.internal", "AAAA")
    assert len(names.short("+noedns", "big.office.internal", "AAAA")) == 20  # it comes back over TCP
    assert names.short("+tcp", "laptop.office.internal") == [LAPTOP]
    assert names.short("+tcp", "+keepopen", "nas.office.internal", "nas.office.internal", "AAAA", at="fd09::1")

    assert outside.log.split() == ["serves"]
    assert names.short("www.example.org") == ["203.0.113.7"]
    assert names.short("+tcp", "WWW.example.org") == ["203.0.113.7"]
    assert len(names.short("long.example.org", "TXT")) == 20
    assert "status: SERVFAIL" in names.dig("fails.example.org")
    assert "status: NXDOMAIN" in names.dig("example.com")
    counts = names.names()
    assert counts["forwarded"] >= 6
    assert (counts["failed"], counts["limited"]) == (0, 0)
    status, shown = names.b.ask("show", "hub")
    assert f"names: {counts['names']} names, office.internal" in shown
    assert status == 0


def test_names_come_and_go_by_reload_and_by_wg_and_on_request(lab: Lab) -> None:
    names = Names(lab)
    names.write_hub("DnsServer = yes\nDnsForward = example.org 10.0.0.1", {"laptop": ("Traveller", f"{LAPTOP}/32")})
    assert names.request("/v1/reload", {})[0] == "200"
    assert names.short("traveller.hub.internal") == [LAPTOP]
    assert names.short("laptop.office.internal") == []
    laptop, desk = (format_key(names.keys[each].public) for each in ("laptop", "desk"))
    names.b.run("wg", "set", "hub", "peer", laptop, "allowed-ips", f"{LAPTOP}/32,fd09::9/128")
    assert names.short("traveller.hub.internal", "AAAA") == ["fd09::9"]
    names.b.run("wg", "set", "hub", "peer", desk, "allowed-ips", "10.9.0.3/32")
    assert "status: NXDOMAIN" in names.dig("-x", "10.9.0.3")

    zone = {
        "name": "containers.internal.",
        "records": [{"name": "gateway", "ip": "10.9.0.1"}, {"regexp": "^web-[0-9]+$", "ip": "10.9.0.9"}],
    }
    assert names.request("/v1/services/dns/add", zone) == ("200", {"added": "containers.internal"})
    assert names.short("gateway.containers.internal") == ["10.9.0.1"]
    assert names.short("Web-12.containers.internal") == ["10.9.0.9"]
    assert "status: NXDOMAIN" in names.dig("web.containers.internal")
    assert names.request("/v1/services/dns/add", {"name": "containers.internal.", "defaultIP": "10.9.0.8"})[0] == "200"
    assert names.request("/v1/reload", {})[0] == "200"
    assert names.short("web.containers.internal") == ["10.9.0.8"]
    assert names.short("gateway.containers.internal") == ["10.9.0.1"]
    status, [listed] = names.request("/services/dns/all")
    assert (status, listed["Name"], listed["DefaultIP"]) == ("200", "containers.internal.", "10.9.0.8")
    assert listed["Records"][1] == {"Name": "", "IP": "10.9.0.9", "Regexp": "^web-[0-9]+$"}
    status, refused = names.request(
        "/v1/services/dns/add", {"name": "x.", "records": [{"regexp": "(", "ip": "10.9.0.9"}]}
    )
    assert (status, refused["error"]) == ("400", "this regular expression cannot be used: missing ) at position 1")

    outside = names.start_outside()
    names.resolv_conf.write_text(f"nameserver {HUB}\nnameserver 10.9.0.77\n")
    assert names.short("www.example.org") == ["203.0.113.7"]  # DnsForward
    assert until(lambda: "status: SERVFAIL" in names.dig("www.example.com"), SECONDS)
    assert "no name server to ask" in names.hub.log
    names.resolv_conf.write_text("nameserver 10.0.0.1\n")
    assert until(lambda: "status: NXDOMAIN" in names.dig("www.example.com"), SECONDS)
    assert outside.log.count("example.com") >= 1

    names.write_hub("DnsServer = no")
    assert names.request("/v1/reload", {})[0] == "200"
    assert "connection refused" in names.dig("+tries=1", "traveller.hub.internal")
    assert names.names() is None
    assert names.request("/v1/services/dns/add", zone)[0] == "409"
    names.write_hub(RECORDS)
    assert names.request("/v1/reload", {})[0] == "200"
    assert names.short("laptop.office.internal") == [LAPTOP]
    assert names.request("/services/dns/all") == ("200", [])


def test_only_peers_get_answers_and_no_more_than_their_share(lab: Lab) -> None:
    names = Names(lab)
    assert names.short("laptop.office.internal") == [LAPTOP]
    asked = names.names()["asked"]
    for machine, how in ((names.b, ()), (names.b, ("+tcp",))):
        assert "ANSWER" not in names.dig("+time=1", "+tries=1", *how, "laptop.office.internal", machine=machine)
    lab.a.run("ip", "route", "add", f"{HUB}/32", "via", lab.b.four, "dev", "veth0")
    for how in ((), ("+tcp",)):
        assert "ANSWER" not in names.dig("+time=1", "+tries=1", *how, "laptop.office.internal")
    lab.a.run("ip", "route", "del", f"{HUB}/32")
    assert names.names()["asked"] == asked

    flood = lab.a.popen(sys.executable, "-c", FLOOD)
    flood.wait_for("floods", SECONDS)
    assert until(lambda: names.names()["limited"] > 100, 60)
    for _ in range(5):
        lab.ping(lab.a, HUB, SECONDS)
    assert flood.running
    flood.stop()
    assert until(lambda: names.short("laptop.office.internal") == [LAPTOP], SECONDS)


def test_two_name_servers_that_forward_to_each_other_ask_once_each(lab: Lab) -> None:
    other = f"DnsServer = yes\nDnsForward = loop.example {HUB}\n"
    names = Names(lab, f"DnsServer = yes\nDnsForward = loop.example {LAPTOP}", other)
    assert "status: SERVFAIL" in names.dig("+time=20", "+tries=1", "www.loop.example")
    assert until(lambda: names.names(names.a)["failed"] + names.names(names.b)["failed"] > 0, SECONDS)
    for machine in (names.a, names.b):
        assert names.names(machine)["asked"] <= 10
