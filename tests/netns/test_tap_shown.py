"""What other commands show of TAP tunnels in real namespaces: capture, show, doctor, speed, and wg.

a  tap11, 10.7.0.1  ===== tunnel =====  tap3 in br0, which has 10.7.0.2  b
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.lab import Lab
from tests.netns.taps import OURS, THEIRS, mac, start_taps
from tests.netns.test_capture import begin, end, fields
from tests.netns.test_doctor import examine
from vpntun.wire.ethernet.mac import mac_text

OUR_ADDRESS, THEIR_ADDRESS = "10.7.0.1", "10.7.0.2"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab in which a TAP tunnel is up, one end of which is in a bridge. Each test leaves it as it was."""
    lab = Lab(tmp_path_factory.mktemp("shown"))
    try:
        lab.b.run("ip", "link", "add", "br0", "type", "bridge")
        lab.b.run("ip", "address", "add", f"{THEIR_ADDRESS}/24", "dev", "br0")
        lab.b.run("ip", "link", "set", "br0", "up")
        start_taps(lab, server=["--bridge", "br0"], client=["--address", f"{OUR_ADDRESS}/24"])
        lab.ping(lab.a, THEIR_ADDRESS)
        yield lab
    finally:
        lab.close()


def test_a_capture_has_frames_that_tshark_reads_and_lines_say_what_is_in_them(pair: Lab, tmp_path: Path) -> None:
    path = tmp_path / "all.pcapng"
    capture = begin(pair.a, OURS, path, "--print")
    pair.a.run("ip", "neigh", "flush", "dev", OURS)
    pair.ping(pair.a, THEIR_ADDRESS)
    pair.transfer(2_000_000, THEIR_ADDRESS)
    end(capture)
    ours = mac_text(mac(pair.a, OURS))
    assert f"ARP {ours} > ff:ff:ff:ff:ff:ff who-has {THEIR_ADDRESS} tell {OUR_ADDRESS}" in capture.log
    assert f"ICMP {OUR_ADDRESS} > {THEIR_ADDRESS} echo request" in capture.log
    frames = fields(path, "eth.src", "arp.opcode", "frame.len", "tcp.checksum.status")
    assert {source for source, *_ in frames} == {ours, mac_text(mac(pair.b, "br0"))}
    assert {"1", "2"} <= {operation for _, operation, *_ in frames}
    assert max(int(length) for _, _, length, _ in frames) > 4000


def test_show_and_wg_say_where_the_macs_are(pair: Lab) -> None:
    ours, its, bridges = (mac_text(mac(*each)) for each in ((pair.a, OURS), (pair.b, THEIRS), (pair.b, "br0")))
    here, there = pair.a.status(OURS), pair.b.status(THEIRS)
    assert (here["device"], here["mac"], here["bridge"]) == ("tap", ours, None)
    assert (there["device"], there["mac"], there["bridge"], there["in_bridge"]) == ("tap", its, "br0", "br0")
    assert [each["address"] for each in here["peers"][0]["macs"]] == [bridges]
    assert [each["address"] for each in there["peers"][0]["macs"]] == [ours]
    assert {each["address"]: each["seconds"] for each in there["macs"]} == {its: 0, bridges: 0}, "they are kept for b"
    assert here["peers"][0]["device"] == there["peers"][0]["device"] == "tap"
    shown = pair.b.ask("show", THEIRS)[1]
    assert f"\n  device: tap\n  mac: {its}\n  bridge: br0\n" in shown
    assert f"\n  macs: {ours}\n" in shown
    assert "allowed ips" not in shown
    assert "allowed ips: (none)" in pair.b.run("wg", "show", THEIRS).stdout


@pytest.mark.long
def test_speed_measures_the_link(pair: Lab) -> None:
    code, said = pair.a.ask("speed", OURS, "--seconds", "1", "--json")
    assert code == 0, said
    assert json.loads(said[said.index("{") :])["down"]["bytes"] > 100_000


def test_doctor_finds_what_is_wrong_with_the_bridge_at_either_end(pair: Lab) -> None:
    pair.b.run("ip", "link", "add", "port0", "mtu", "1400", "type", "veth", "peer", "name", "port1")
    pair.b.run("ip", "link", "set", "port0", "master", "br0")
    seen_from_a = examine(pair.a, OURS, about=f"{OURS}: the other end")
    assert "port0 takes packets of 1400 bytes and tap3 of 1500" in seen_from_a.fault("bridge")
    pair.b.run("ip", "link", "delete", "port0")
    pair.b.run("ip", "link", "set", "br0", "down")
    found = examine(pair.b, THEIRS, about=THEIRS)
    assert "the bridge br0 is down" in found.fault("bridge")
    assert not {"forwarding", "rp_filter", "overlaps"} & {each["check"] for each in found.all}
    pair.b.run("ip", "link", "set", "br0", "up")
