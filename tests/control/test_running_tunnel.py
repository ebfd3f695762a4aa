"""A running tunnel: what wg and a reload change of its settings, identity and links, and what a failure leaves."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import cast

import pytest

from tests.carriers.test_udp_socket import free_port
from tests.datapath.ends import ALICE, BOB, CAROL
from tests.forwards.sockets import Loopback
from tests.forwards.sockets import free_port as free_tcp_port
from tests.machine import HandLoop, logged
from vpntun.carriers.udp import UdpCarrier
from vpntun.config.forwards import Forward, spelled
from vpntun.config.keys import derived_keys
from vpntun.config.names import NameSettings
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import HookLines, Routing, Tunnel, to_one_peer
from vpntun.control.running_tunnel import RunningTunnel, change_sockets, changed_at_once
from vpntun.control.state import TunnelState
from vpntun.crypto.keys import format_key
from vpntun.datapath.engine import Engine
from vpntun.errors import BadPacket, CannotChange, ConfigurationError, PortInUse, VpntunError
from vpntun.forwards.forwards import Forwards
from vpntun.forwards.ways import Way
from vpntun.link.link import Link
from vpntun.netconf.host import HostNetwork
from vpntun.process.awaited_names import AwaitedNames
from vpntun.process.service import RunOptions, Service
from vpntun.process.start import Start
from vpntun.runtime.folders import named_here
from vpntun.runtime.resolver import Lookups
from vpntun.tun.fake import FakeDevice
from vpntun.uapi.request import PeerChange, SetRequest

PRESENT = Tunnel("tun3", ALICE, (PeerSettings(BOB.public, ()),), 55555, "udp", routing=Routing("auto", 7))
CALLING = replace(PRESENT, port=None, listen_on=None)
OVER_TCP = replace(PRESENT, listen_on="auto")


def test_keys_peers_port_and_mark_change_at_once() -> None:
    wanted = replace(
        PRESENT,
        identity=CAROL,
        peers=(PeerSettings(ALICE.public, ()),),
        port=9,
        routing=Routing("auto", 8),
        names=NameSettings("office.internal"),
    )
    assert changed_at_once(PRESENT, wanted) == wanted
    assert changed_at_once(PRESENT, CALLING) == CALLING
    assert changed_at_once(CALLING, PRESENT) == PRESENT
    assert changed_at_once(OVER_TCP, replace(OVER_TCP, port=9)) == replace(OVER_TCP, port=9)


@pytest.mark.parametrize(
    "wanted",
    [
        replace(PRESENT, relay=True),
        replace(PRESENT, mtu=1400),
        replace(PRESENT, device="tap", routing=Routing("off", 7)),
        replace(PRESENT, device="tap", routing=Routing("off", 7), mac=b"\x02abcde", bridge="br0"),
        replace(PRESENT, routing=Routing("off", 7)),
        replace(PRESENT, listen_on="auto"),
        replace(PRESENT, listen_on="auto", port=9),
    ],
)
def test_everything_else_takes_a_restart(wanted: Tunnel) -> None:
    assert changed_at_once(PRESENT, wanted) == PRESENT
    assert changed_at_once(wanted, PRESENT) == wanted


class Sockets:
    """An engine and a host that note what is asked of them. `refuses`: what fails."""

    def __init__(self, refuses: dict[str, VpntunError] | None = None) -> None:
        self.done: list[object] = []
        self._refuses = refuses or {}

    def change(self, former: Tunnel, wanted: Tunnel) -> None:
        change_sockets(former, wanted, cast(Engine, self), cast(HostNetwork, self))

    def change_mark(self, mark: int) -> None:
        if "mark" in self._refuses:
            raise self._refuses["mark"]
        self.done.append(("mark", mark))

    def change_port(self, port: int, *, can_be_called: bool) -> None:
        if "port" in self._refuses:
            raise self._refuses["port"]
        self.done.append(("port", port, can_be_called))

    def peers_connect_at(self, tcp_port: int | None) -> None:
        self.done.append(("tcp", tcp_port))


def test_only_what_differs_is_changed() -> None:
    sockets = Sockets()
    sockets.change(PRESENT, replace(PRESENT, identity=None, peers=()))
    assert sockets.done == []
    sockets.change(PRESENT, replace(PRESENT, port=9, routing=Routing("auto", 8)))
    assert sockets.done == [("mark", 8), ("port", 9, True), ("tcp", None)]
    sockets.done.clear()
    sockets.change(OVER_TCP, replace(OVER_TCP, port=9))
    assert sockets.done == [("port", 9, True), ("tcp", 9)]


def test_any_port_is_another_one_and_so_is_the_end_of_being_called() -> None:
    sockets = Sockets()
    sockets.change(PRESENT, CALLING)
    sockets.change(replace(PRESENT, port=None), CALLING)
    assert sockets.done == [("port", 0, False), ("tcp", None)] * 2


def test_another_mac_address_or_bridge_of_a_tap_device_takes_a_restart_and_peers_change_at_once() -> None:
    tap = replace(PRESENT, device="tap", routing=Routing("off", 7))
    limited = (PeerSettings(BOB.public, (), allowed_macs=(b"\x02abcde",)),)
    assert changed_at_once(tap, replace(tap, mac=b"\x02abcde", bridge="br0", peers=limited)) == replace(
        tap, peers=limited
    )


def test_after_a_failure_nothing_has_changed() -> None:
    sockets = Sockets(refuses={"mark": CannotChange("no")})
    with pytest.raises(CannotChange):
        sockets.change(PRESENT, replace(PRESENT, port=9, routing=Routing("auto", 8)))
    assert sockets.done == []
    sockets = Sockets(refuses={"port": PortInUse("no")})
    with pytest.raises(PortInUse):
        sockets.change(PRESENT, replace(PRESENT, port=9, routing=Routing("auto", 8)))
    assert sockets.done == [("mark", 8), ("mark", 7)]


# The whole tunnel

FIRST, SECOND = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
TO_BOB = PeerSettings(BOB.public, (ip_network("10.0.1.0/24"),), name="bob")
TO_CAROL = PeerSettings(CAROL.public, (ip_network("10.0.2.0/24"),), name="carol")
CALLED = replace(TO_CAROL, host="127.0.0.1", port=9)


class Host(HostNetwork):
    """A network in which nothing waits for names. `routed`: names of the peers that each `apply` has routed.

    `mark`: the mark of the operator's.
    """

    needs_its_mark = False

    def __init__(self) -> None:
        self.routed: list[list[str]] = []
        self.mark = 0

    def apply(self, peers: Collection[PeerSettings], is_found: Callable[[str, int], bool]) -> list[PeerSettings]:
        self.routed.append([peer.name for peer in peers])
        return []

    def when_set(self, callback: Callable[[], None]) -> None:
        callback()

    def change_mark(self, mark: int) -> None:
        self.mark = mark

    def peers_connect_at(self, tcp_port: int | None) -> None:
        return


class End:
    """A tunnel on a fake device and real UDP sockets, observed as by the daemon.

    `changes`: names of the peers whose links came up or went down. `proceeded`: how often the start could proceed.
    """

    def __init__(self, tunnel: Tunnel, loop: HandLoop, folder: Path, stack: ExitStack, *, has_udp: bool = True) -> None:
        self.changes: list[tuple[str, bool]] = []
        self.proceeded = 0
        start = Start(HookLines(), Service(RunOptions(), None, loop, stack), loop, lambda _: None)
        self.state = TunnelState(tunnel, start, loop, Counter())
        versions = [socket.AF_INET] if has_udp else []
        udp = UdpCarrier(loop, tunnel.port or 0, answers_from_where_asked=True, versions=versions)
        stack.callback(udp.close)
        self.state.carriers = {"udp": udp}
        device = FakeDevice(kind=tunnel.device)
        stack.callback(device.close)
        self.engine = Engine(tunnel.identity, device, self.state.carriers, loop, observer=self)
        self.host = Host()
        names = AwaitedNames(self.host, start, loop, self._proceed, lambda _: None)
        lookups = Lookups(loop)
        stack.callback(lookups.close)
        self.tunnel = RunningTunnel(self.state, self.engine, self.host, names, lookups, folder=folder)
        stack.callback(self.tunnel.close)
        self.engine.start()

    def link_moved(self, link: Link) -> None:
        self.tunnel.links.remember(link)

    def link_changed(self, link: Link, *, up: bool) -> None:
        self.changes.append((self.tunnel.links.settings_of(link).name, up))

    def states_changed(self, link: Link) -> None:
        """Not of interest here."""

    @property
    def present(self) -> Tunnel:
        return self.state.tunnel

    @property
    def linked(self) -> list[str]:
        """Names of the peers that have links, sorted."""
        return sorted(self.tunnel.links.settings_of(link).name for link in self.engine.links.values())

    def _proceed(self) -> None:
        self.proceeded += 1


@pytest.fixture
def new_end(loop: HandLoop, tmp_path: Path) -> Iterator[Callable[..., End]]:
    with ExitStack() as stack:
        yield lambda tunnel, has_udp=True: End(tunnel, loop, tmp_path, stack, has_udp=has_udp)


@pytest.fixture
def made_forwards(loop: HandLoop) -> Iterator[Callable[[TunnelState], Forwards]]:
    """Gives a tunnel a table of forwards from this machine to this machine."""
    with ExitStack() as stack:

        def make(state: TunnelState) -> Forwards:
            side = Loopback(loop)
            state.forwards = Forwards(loop, {"here": Way(side, side)})
            state.forwards.begin()
            stack.callback(state.forwards.close)
            return state.forwards

        yield make


@pytest.fixture
def listening() -> Tunnel:
    """A tunnel of Alice's, which Bob may call."""
    return Tunnel("tun3", ALICE, (TO_BOB,), free_port(socket.AF_INET), "udp")


def test_before_the_loop_runs_settings_change_and_links_follow_when_it_begins(
    new_end: Callable[..., End], listening: Tunnel
) -> None:
    end = new_end(listening)
    end.tunnel.set(SetRequest(mark=7, peers=[PeerChange(CAROL.public)]))
    assert [peer.public for peer in end.present.peers] == [BOB.public, CAROL.public]
    assert (end.host.mark, end.engine.links, end.state.links, end.state.is_running) == (7, {}, None, False)
    end.tunnel.begin()
    assert end.linked == ["", "bob"]
    assert end.state.links is end.tunnel.links
    assert end.state.is_running


def test_wg_adds_changes_and_removes_peers_and_routes_stay(new_end: Callable[..., End], listening: Tunnel) -> None:
    end = new_end(listening)
    end.tunnel.begin()
    with logged() as lines:
        end.tunnel.set(SetRequest(peers=[PeerChange(CAROL.public), PeerChange(BOB.public, keepalive=25)]))
        end.tunnel.set(SetRequest(peers=[PeerChange(BOB.public, remove=True)]))
        end.tunnel.set(SetRequest(peers=[PeerChange(BOB.public, remove=True)]))
    assert lines == [
        f"wg has changed peers: {counts}"
        for counts in ("1 added, 0 removed, 1 changed", "0 added, 1 removed, 0 changed")
    ]
    assert [peer.public for peer in end.present.peers] == [CAROL.public]
    assert [link.peer.public for link in end.engine.links.values()] == [CAROL.public]
    assert end.host.routed == []


def test_a_reload_changes_what_needs_no_restart_and_routes_follow(
    new_end: Callable[..., End], listening: Tunnel
) -> None:
    end = new_end(listening)
    end.tunnel.begin()
    with logged() as lines:
        end.tunnel.reload(replace(listening, peers=(TO_CAROL,), routing=Routing("off", 8), relay=True))
    assert lines == [
        "some changes in the [Interface] section need a restart; all others are applied now",
        "read the configuration again; peers: 1 added, 1 removed, 0 changed",
    ]
    assert end.present == replace(listening, peers=(TO_CAROL,), routing=Routing("off", 8))
    assert (end.linked, end.host.routed, end.host.mark, end.proceeded) == (["carol"], [["carol"]], 8, 1)


def test_a_mark_that_the_rules_need_stays_at_a_reload_and_the_peers_change(
    new_end: Callable[..., End], listening: Tunnel
) -> None:
    end = new_end(listening)
    end.host.needs_its_mark = True
    end.tunnel.begin()
    with logged() as lines:
        end.tunnel.reload(replace(listening, peers=(TO_BOB, TO_CAROL), routing=Routing("off", 8)))
    assert lines == [
        "some changes in the [Interface] section need a restart; all others are applied now",
        "read the configuration again; peers: 1 added, 0 removed, 0 changed",
    ]
    assert end.present == replace(listening, peers=(TO_BOB, TO_CAROL))
    assert (end.linked, end.host.mark) == (["bob", "carol"], 0)


def test_another_shared_key_takes_a_restart_since_the_addresses_follow_from_it() -> None:
    first, second = (
        to_one_peer("tun3", None, 9, "udp", derived_keys("server", bytes([number]) * 32)) for number in (1, 2)
    )
    assert changed_at_once(first, replace(second, port=8)) == replace(first, port=8)
    own_keys = replace(second, derived_addresses=(), derived_peer_addresses=())
    assert changed_at_once(first, own_keys) == first
    assert changed_at_once(own_keys, first) == own_keys


def test_a_reload_says_that_another_shared_key_takes_a_restart(new_end: Callable[..., End], listening: Tunnel) -> None:
    end = new_end(listening)
    end.tunnel.begin()
    with logged() as lines:
        end.tunnel.reload(to_one_peer("tun3", None, listening.port or 0, "udp", derived_keys("server", bytes(32))))
    assert lines == [
        "another SharedKey needs a restart: until then this end's keys and its peers stay as they are",
        "read the configuration again; peers: 0 added, 0 removed, 0 changed",
    ]
    assert end.present == listening


def test_a_reload_says_that_another_kind_of_device_takes_a_restart_and_keeps_the_peers_of_this_one(
    new_end: Callable[..., End], listening: Tunnel
) -> None:
    end = new_end(listening)
    end.tunnel.begin()
    limited = replace(TO_CAROL, allowed=(), allowed_macs=(b"\x02abcde",))
    with logged() as lines:
        end.tunnel.reload(replace(listening, device="tap", bridge="br0", peers=(limited,)))
    assert lines == [
        "another Device needs a restart: until then this end's peers stay as they are",
        "read the configuration again; peers: 0 added, 0 removed, 0 changed",
    ]
    assert end.present == listening


def test_a_reload_limits_a_peer_to_other_mac_addresses_and_its_link_stays(
    new_end: Callable[..., End], listening: Tunnel
) -> None:
    to_bob = PeerSettings(BOB.public, (), name="bob", allowed_macs=(FIRST,))
    tap = replace(listening, device="tap", peers=(to_bob,))
    end = new_end(tap)
    end.tunnel.begin()
    link, switch = end.tunnel.links.of(BOB.public), end.engine.switch
    assert switch is not None
    switch.claim(link, memoryview(bytes(6) + FIRST + bytes(8)))
    with pytest.raises(BadPacket, match="MAC address not allowed"):
        switch.claim(link, memoryview(bytes(6) + SECOND + bytes(8)))
    end.tunnel.reload(replace(tap, peers=(replace(to_bob, allowed_macs=(SECOND,)),)))
    assert end.tunnel.links.of(BOB.public) is link
    switch.claim(link, memoryview(bytes(6) + SECOND + bytes(8)))
    with pytest.raises(BadPacket, match="MAC address not allowed"):
        switch.claim(link, memoryview(bytes(6) + FIRST + bytes(8)))
    end.tunnel.reload(replace(tap, peers=(replace(to_bob, allowed_macs=()),)))
    switch.claim(link, memoryview(bytes(6) + FIRST + bytes(8)))


def test_a_reload_that_fails_changes_nothing_and_takes_its_routes_back(
    new_end: Callable[..., End], listening: Tunnel
) -> None:
    end = new_end(listening)
    end.tunnel.begin()
    end.tunnel.reload(replace(listening, peers=(TO_BOB, TO_CAROL)))
    end.tunnel.set(SetRequest(replace_peers=True))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        taken = free_port(socket.AF_INET)
        other.bind(("", taken))
        with pytest.raises(PortInUse):
            end.tunnel.reload(replace(listening, peers=(TO_CAROL,), port=taken, routing=Routing("off", 8)))
    assert end.present == replace(listening, peers=())
    assert (end.linked, end.host.mark, end.proceeded) == ([], 0, 1)
    assert end.host.routed[1:] == [["carol"], ["bob", "carol"]], "routes follow the file, not wg"


def test_forwards_follow_a_reload_that_succeeds(
    new_end: Callable[..., End], listening: Tunnel, loop: HandLoop, made_forwards: Callable[[TunnelState], Forwards]
) -> None:
    end = new_end(listening)
    forwards = made_forwards(end.state)
    end.tunnel.begin()
    first, second = (Forward("tcp", ("127.0.0.1", free_tcp_port()), ("127.0.0.1", 9)) for _ in range(2))
    end.tunnel.reload(replace(listening, forwards=(first,)))
    assert [each["listen"] for each in forwards.status()] == [spelled(first.listen)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        taken = free_port(socket.AF_INET)
        other.bind(("", taken))
        with pytest.raises(PortInUse):
            end.tunnel.reload(replace(listening, forwards=(second,), port=taken))
    assert [each["listen"] for each in forwards.status()] == [spelled(first.listen)]
    with socket.create_server(("127.0.0.1", second.listen[1])), pytest.raises(PortInUse):  # type: ignore[index]
        end.tunnel.reload(replace(listening, forwards=(second,), peers=(TO_BOB, TO_CAROL)))
    assert (end.present.forwards, end.linked) == ((first,), ["bob"])
    with logged() as lines:
        end.tunnel.reload(listening)
    assert forwards.status() == []
    assert not any("restart" in line for line in lines)


def test_a_tunnel_without_a_udp_socket_takes_no_peer_to_be_called(
    new_end: Callable[..., End], listening: Tunnel
) -> None:
    end = new_end(listening, has_udp=False)
    end.tunnel.begin()
    with pytest.raises(CannotChange, match="no UDP socket is open"):
        end.tunnel.set(SetRequest(peers=[PeerChange(BOB.public, endpoint=("127.0.0.1", 9))]))
    with pytest.raises(CannotChange, match="no UDP socket is open"):
        end.tunnel.reload(replace(listening, peers=(CALLED,)))
    assert (end.present, end.linked, end.host.routed) == (listening, ["bob"], [])


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        (("fd00::9", 9), "cannot send to fd00::9"),
        (("fe80::1%gone", 9), "cannot send to fe80::1%gone"),
        (("10.7.0.9", 9), "10.7.0.0/24 covers 10.7.0.9"),
    ],
)
@pytest.mark.parametrize("peer", [TO_BOB, replace(CALLED, public=BOB.public)])
def test_an_endpoint_that_cannot_be_reached_is_refused_and_nothing_changes(
    new_end: Callable[..., End], listening: Tunnel, peer: PeerSettings, endpoint: tuple[str, int], reason: str
) -> None:
    listening = replace(listening, addresses=(ip_interface("10.7.0.1/24"),), peers=(peer,))
    end = new_end(listening)
    end.tunnel.begin()
    with pytest.raises(ConfigurationError, match=reason):
        end.tunnel.set(SetRequest(mark=7, peers=[PeerChange(BOB.public, keepalive=25, endpoint=endpoint)]))
    assert (end.present, end.host.mark) == (listening, 0)


def test_links_are_made_when_wg_gives_the_private_key_and_a_reload_keeps_it(
    new_end: Callable[..., End], listening: Tunnel
) -> None:
    keyless = replace(listening, identity=None)
    end = new_end(keyless)
    end.tunnel.begin()
    end.tunnel.reload(replace(keyless, peers=(TO_BOB, TO_CAROL)))
    with pytest.raises(ConfigurationError, match="has no private key"):
        _ = end.tunnel.links
    assert (end.engine.links, end.state.links, end.tunnel.drops()) == ({}, None, Counter())
    with logged() as lines:
        end.tunnel.set(SetRequest(private=ALICE.private))
    assert lines[0] == f"the public key of this end is {format_key(ALICE.public)} now"
    assert end.state.links is end.tunnel.links
    assert (end.linked, end.engine.node.identity) == (["bob", "carol"], ALICE)
    end.tunnel.reload(keyless)
    assert (end.present, end.linked) == (listening, ["bob"])


def connected(new_end: Callable[..., End], tunnel: Tunnel, loop: HandLoop) -> End:
    """A tunnel of Alice's that Bob has called."""
    end = new_end(tunnel)
    end.tunnel.begin()
    to_alice = PeerSettings(ALICE.public, (), host="127.0.0.1", port=tunnel.port or 0)
    new_end(Tunnel("tun4", BOB, (to_alice,), None, None)).tunnel.begin()
    loop.until(lambda: end.changes)
    assert end.changes == [("bob", True)]
    return end


def test_another_private_key_ends_the_sessions_and_a_peer_that_has_it_goes(
    new_end: Callable[..., End], loop: HandLoop, listening: Tunnel
) -> None:
    end = connected(new_end, replace(listening, peers=(TO_BOB, TO_CAROL)), loop)
    with logged() as lines:
        end.tunnel.set(SetRequest(private=CAROL.private))
    assert f"the public key of this end is {format_key(CAROL.public)} now" in lines
    assert end.changes == [("bob", True), ("bob", False)]
    assert (end.linked, end.engine.node.identity, end.present.identity) == (["bob"], CAROL, CAROL)
    assert end.present.peers == (TO_BOB,)


def test_without_its_private_key_a_tunnel_has_no_links_and_the_links_go_down(
    new_end: Callable[..., End], loop: HandLoop, tmp_path: Path, listening: Tunnel
) -> None:
    end = connected(new_end, listening, loop)
    with logged() as lines:
        end.tunnel.set(SetRequest(private=bytes(32)))
    assert lines == ["this end has no private key any more"]
    assert end.changes == [("bob", True), ("bob", False)]
    assert (end.engine.links, end.state.links, end.engine.node.identity) == ({}, None, None)
    assert end.present == replace(listening, identity=None)
    assert BOB.public.hex() in (tmp_path / f"{named_here('tun3')}.endpoints.json").read_text(), (
        "Bob will be found there again"
    )
    links = end.tunnel._links
    end.tunnel.set(SetRequest(private=ALICE.private, peers=[PeerChange(CAROL.public)]))
    assert end.state.links is links, "with its files, which a process without privileges cannot open again"
    assert end.linked == ["", "bob"]
