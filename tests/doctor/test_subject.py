"""A file and a running tunnel are described by the same facts."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from tests.cli.sample_status import PEER, STATUS
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Routing, Tunnel
from vpntun.crypto.keys import KeyPair, format_key
from vpntun.doctor.subject import of_file, of_running

FACTS: dict[str, Any] = {
    "offloads": {"tcp": True, "udp": False},
    "table": "auto",
    "routes": ["10.7.0.0/16"],
    "mark": 0xCA6C,
    "peers": [{"public_key": PEER["public_key"], "endpoint": None}],
}


def test_a_running_tunnel() -> None:
    subject = of_running({**STATUS, "addresses": ["10.0.0.1/24", "fd00::1/64"]}, FACTS)
    assert (subject.interface, subject.is_running, subject.mtu, subject.relay) == ("tun3", True, 1500, True)
    assert (subject.table, subject.mark, subject.port, subject.carriers) == ("auto", 0xCA6C, 55555, ("udp", "tcp"))
    assert (subject.takes_tcp, subject.takes_udp) == (True, False)
    assert subject.routed == [*map(ip_network, ("10.0.0.0/24", "fd00::/64", "10.7.0.0/16"))]
    (peer,) = subject.peers
    assert (peer.name, peer.address, peer.endpoint) == ("office", ip_address("203.0.113.2"), "203.0.113.2:55555")
    assert (peer.calls, peer.is_vpntun, peer.path_mtu) == (True, True, 1500)
    assert peer.drops["queue full"] == 12


def test_a_running_tunnel_with_a_tap_and_one_of_a_version_that_has_none() -> None:
    status = {**STATUS, "device": "tap", "bridge": "br0", "peers": [{**PEER, "device": "tun"}]}
    subject = of_running(status, FACTS)
    assert (subject.device, subject.bridge, subject.peers[0].device) == ("tap", "br0", "tun")
    older = {name: value for name, value in STATUS.items() if name not in ("device", "bridge")}
    subject = of_running({**older, "peers": [{k: v for k, v in PEER.items() if k != "device"}]}, FACTS)
    assert (subject.device, subject.bridge, subject.peers[0].device) == ("tun", None, None)


def test_a_running_tunnel_that_says_little() -> None:
    quiet = {**PEER, "name": "", "endpoint": "[fe80::1%eth0]:55555"}
    subject = of_running({**STATUS, "waits": None, "peers": [quiet]}, {})
    assert (subject.table, subject.mark, subject.port, subject.takes_tcp) == ("off", 0, None, None)
    assert (subject.peers[0].name, subject.peers[0].address) == (PEER["public_key"], None)


def test_a_running_tunnel_whose_peer_is_not_reached_yet() -> None:
    status = {**STATUS, "peers": [{**PEER, "endpoint": None}]}
    known = {"public_key": PEER["public_key"], "endpoint": "[2001:db8::2]:51820"}
    (peer,) = of_running(status, {"peers": [known]}).peers
    assert (peer.endpoint, peer.address, peer.calls) == ("[2001:db8::2]:51820", ip_address("2001:db8::2"), False)
    (peer,) = of_running(status, {"peers": [{**known, "endpoint": "office.example:51820"}]}).peers
    assert (peer.endpoint, peer.address) == ("office.example:51820", None)


def test_an_endpoint_of_ipv6() -> None:
    subject = of_running({**STATUS, "peers": [{**PEER, "endpoint": "[2001:db8::2]:55555"}]}, {})
    assert subject.peers[0].address == ip_address("2001:db8::2")


def test_a_file() -> None:
    own, other, third = KeyPair.generate(), KeyPair.generate(), KeyPair.generate()
    tunnel = Tunnel(
        "office",
        own,
        (
            PeerSettings(other.public, (ip_network("10.9.0.2/32"),), host="203.0.113.2", port=51820, name="hub"),
            PeerSettings(third.public, (ip_network("0.0.0.0/1"), ip_network("128.0.0.0/1"))),
        ),
        port=55555,
        listen_on="udp",
        addresses=(ip_interface("10.9.0.1/24"), ip_interface("10.9.0.9/32")),
        routing=Routing("auto", 7),
    )
    subject = of_file(tunnel)
    assert (subject.interface, subject.is_running, subject.port, subject.carriers) == ("office", False, 55555, ("udp",))
    assert (subject.mtu, subject.table, subject.mark) == (1420, "auto", 7)
    assert [(each.name, each.endpoint, each.calls) for each in subject.peers] == [
        ("hub", "203.0.113.2:51820", False),
        (format_key(third.public), None, True),
    ]
    assert subject.full == [4]
    assert subject.routed[0] == ip_network("10.9.0.0/24")


def test_a_file_of_a_tap() -> None:
    subject = of_file(Tunnel("tap3", KeyPair.generate(), (), None, None, device="tap", bridge="br0"))
    assert (subject.device, subject.bridge, subject.mtu) == ("tap", "br0", 1500)
