"""Network of a namespace as the daemon sees it, with a holder that notes what it is asked."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any, cast

import pytest

from tests.machine import logged
from vpntun.config.file import read_file
from vpntun.config.names import NameSettings
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import HookLines, Routing, Tunnel
from vpntun.crypto.keys import KeyPair, format_key
from vpntun.errors import ConfigurationError, DeviceError
from vpntun.namespace.holder import Holder
from vpntun.namespace.network import NamespaceNetwork, for_namespace

OWN = KeyPair.generate()


@dataclass
class NotingHolder:
    """A holder whose namespace carries IPv4 alone, if `without_ipv6`."""

    without_ipv6: bool = False
    fails: bool = False
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def ask(self, what: str, seconds: float, **fields: Any) -> tuple[dict[str, Any], list[int]]:
        if self.fails:
            raise OSError(errno.ETIMEDOUT, "it does not answer")
        self.asked.append((what, fields))
        if what != "set_up":
            return {}, []
        addresses = [each for each in fields["addresses"] if ":" not in each or not self.without_ipv6]
        return {"addresses": addresses, "offloads": 0}, [os.open("/dev/null", os.O_RDWR)]

    def routes(self) -> list[tuple[list[str], list[str]]]:
        """What was added and removed, request by request, since the last call."""
        found = [(fields["add"], fields["remove"]) for what, fields in self.asked if what == "change_routes"]
        self.asked.clear()
        return found


def peer(*allowed: str) -> PeerSettings:
    networks = tuple(map(ip_network, allowed))
    return PeerSettings(KeyPair.generate().public, networks, bytes(32), "192.0.2.1", 51820, 0.0, "udp")


def tunnel(**changed: Any) -> Tunnel:
    addresses = (ip_interface("10.44.0.2/24"), ip_interface("fd44::2/64"))
    return replace(Tunnel("office", OWN, (peer("0.0.0.0/0", "::/0"),), None, None, addresses=addresses), **changed)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def network(tunnel: Tunnel, holder: NotingHolder, stack: ExitStack) -> NamespaceNetwork:
    return NamespaceNetwork(tunnel, cast(Holder, holder), stack)


def found(host: str, port: int) -> bool:
    return True


def test_the_device_has_what_the_tunnel_says_and_is_not_asked_for_by_name(stack: ExitStack) -> None:
    holder = NotingHolder()
    made = network(tunnel(interface="lo", dns=("10.44.0.1", "office.internal")), holder, stack)
    assert holder.asked == [
        (
            "set_up",
            {
                "interface": "lo",
                "mtu": 1420,
                "addresses": ["10.44.0.2/24", "fd44::2/64"],
                "dns": ["10.44.0.1", "office.internal"],
            },
        )
    ]
    assert (made.device.name, made.device.mtu, made.device_here) == ("lo", 1420, None)
    assert made.set_up_device() == [ip_interface("10.44.0.2/24"), ip_interface("fd44::2/64")]


def test_routes_follow_the_peers(stack: ExitStack) -> None:
    holder = NotingHolder()
    made = network(tunnel(), holder, stack)
    made.apply([peer("10.7.0.0/16"), peer("10.8.0.0/16", "fd08::/16")], found)
    assert holder.routes() == [(["10.7.0.0/16", "10.8.0.0/16", "fd08::/16"], [])]
    made.apply([peer("10.8.0.0/16", "10.9.0.0/16")], found)
    assert holder.routes() == [(["10.9.0.0/16"], []), ([], ["10.7.0.0/16", "fd08::/16"])]
    made.apply([peer("10.8.0.0/16", "10.9.0.0/16")], found)
    assert holder.routes() == []


def test_there_are_no_routes_of_an_ip_version_without_an_address(stack: ExitStack) -> None:
    holder = NotingHolder(without_ipv6=True)
    made = network(tunnel(), holder, stack)
    made.apply([peer("0.0.0.0/0", "::/0")], found)
    assert holder.routes() == [(["0.0.0.0/0"], [])]


def test_routes_that_are_asked_for_take_the_place_of_the_allowed_ips(stack: ExitStack) -> None:
    holder = NotingHolder()
    made = network(tunnel(routes=(ip_network("10.7.0.0/16"),)), holder, stack)
    made.apply([peer("0.0.0.0/0", "::/0")], found)
    assert holder.routes() == [(["10.7.0.0/16"], [])]


def test_many_routes_are_asked_for_in_pieces(stack: ExitStack) -> None:
    holder = NotingHolder()
    made = network(tunnel(), holder, stack)
    made.apply([peer(*(f"10.{each // 256}.{each % 256}.0/24" for each in range(450)))], found)
    assert [len(add) for add, _ in holder.routes()] == [200, 200, 50]


def test_a_holder_that_does_not_answer_is_an_error_of_the_device(stack: ExitStack) -> None:
    holder = NotingHolder()
    made = network(tunnel(), holder, stack)
    holder.fails = True
    with pytest.raises(DeviceError, match="it does not answer"):
        made.apply([peer("10.7.0.0/16")], found)
    with pytest.raises(DeviceError, match="it does not answer"):
        network(tunnel(), holder, stack)


def test_what_concerns_the_machine_alone_is_left_out_and_named() -> None:
    hooks = HookLines(post_up=("iptables -A ...",), pre_down=("true",))
    with logged() as lines:
        given = tunnel(hooks=hooks, user="nobody", routing=Routing(51820, 7), names=NameSettings("office.internal"))
        left = for_namespace(given)
    assert lines == ["not carried out in a namespace: PostUp, PreDown, Table, FwMark, User, DnsServer"]
    assert (left.hooks, left.user, left.routing, left.names) == (HookLines(), None, Routing(), None)
    with logged() as lines:
        for_namespace(tunnel(routing=Routing("auto")))
    assert lines == []


def test_a_tunnel_of_ethernet_frames_or_without_a_key_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Device = tap"):
        for_namespace(Tunnel("office", OWN, (), None, None, device="tap"))
    with pytest.raises(ConfigurationError, match="has no private key"):
        for_namespace(tunnel(identity=None))


def test_networks_of_the_tunnel_may_cover_its_endpoint_in_a_namespace_alone(tmp_path: Path) -> None:
    file = tmp_path / "office.conf"
    file.touch(mode=0o600)
    own, its = format_key(OWN.private), format_key(KeyPair.generate().public)
    file.write_text(
        f"[Interface]\nPrivateKey = {own}\nAddress = 192.0.2.7/24\n[Peer]\nPublicKey = {its}\nEndpoint = 192.0.2.1:1\n"
    )
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.0/24 covers 192\.0\.2\.1"):
        read_file(file, "office")
    assert read_file(file, "office", in_namespace=True).in_namespace
