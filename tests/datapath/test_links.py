"""Links of many peers: they are added, changed and removed, and the others are not affected."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_network
from pathlib import Path

import pytest

from tests.carriers.test_udp_socket import free_port
from tests.datapath.ends import ipv4
from tests.machine import HandLoop, logged, needs_root, ordinary_user
from tests.many import Crowd, Member, Server, key_of, network_of, settings_of
from vpntun.config.peer import PeerSettings
from vpntun.crypto.keys import format_key, shortened
from vpntun.errors import ConfigurationError
from vpntun.link.client_link import ClientLink
from vpntun.link.link import Link
from vpntun.runtime.state import Endpoints

HELLO = b"hello"


class Town:
    """A server, a few clients, and the clock."""

    def __init__(self, loop: HandLoop, state: Path, count: int, *, tcp: bool = False) -> None:
        self.loop = loop
        self.state = state
        self.port = free_port(socket.AF_INET)
        self.server = Server(loop, self.port, map(settings_of, range(count)), state, tcp=tcp)
        self.crowd = Crowd(loop, self.port, count)
        self.server.start()

    def __getitem__(self, number: int) -> Member:
        return self.crowd.members[number]

    @property
    def table(self) -> dict[int, PeerSettings]:
        """The peers as configured, to be changed and passed to `reload`."""
        return dict(enumerate(self.server.peers))

    def reload(self, peers: dict[int, PeerSettings]) -> tuple[int, int, int]:
        return self.server.links.change(peers.values())

    def connect(self) -> None:
        """Make a session with every member."""
        for member in self.crowd.members:
            member.start()
        self.loop.until(lambda: self.server.connected() == len(self.crowd.members))
        self.loop.settle()

    def gets_through(self, number: int) -> bool:
        """Return whether a packet of a member comes out of the server's device."""
        before = len(self.server.device.packets)
        self.crowd.send([self[number]], HELLO)
        self.loop.settle()
        return len(self.server.device.packets) > before

    def reaches(self, number: int) -> bool:
        """Return whether a packet to a member's network reaches the member."""
        before = self[number].got
        self.server.send([number], HELLO)
        self.loop.settle()
        return self[number].got > before

    def owner(self, address: str) -> Link | None:
        return self.server.engine.routes.find(ip_address(address).packed)

    def close(self) -> None:
        self.crowd.close()
        self.server.close()


@pytest.fixture
def new_town(loop: HandLoop, tmp_path: Path) -> Iterator[Callable[..., Town]]:
    towns: list[Town] = []

    def new(count: int, *, tcp: bool = False) -> Town:
        towns.append(Town(loop, tmp_path, count, tcp=tcp))
        return towns[-1]

    yield new
    for town in towns:
        town.close()


def without(peers: dict[int, PeerSettings], *numbers: int) -> dict[int, PeerSettings]:
    return {number: settings for number, settings in peers.items() if number not in numbers}


def with_networks(settings: PeerSettings, *networks: str) -> PeerSettings:
    return replace(settings, allowed=tuple(IPv4Network(network) for network in networks))


# Added peers


def test_each_peer_has_a_session_and_its_own_networks(new_town: Callable[..., Town]) -> None:
    town = new_town(4)
    town.connect()
    for number in range(4):
        assert town.gets_through(number)
        assert town.reaches(number)
    assert not town.server.all_drops()


def test_a_peer_is_added_while_the_sessions_of_others_continue(new_town: Callable[..., Town]) -> None:
    town = new_town(3)
    everybody = town.table
    assert town.reload(without(everybody, 2)) == (0, 1, 0)
    for member in town.crowd.members:
        member.start()
    town.loop.until(lambda: town.server.connected() == 2)
    sessions = [town.server.link(number).peer.keys.current for number in (0, 1)]
    assert not town.gets_through(2)
    assert town.reload(everybody) == (1, 0, 0)
    town[2].peer.forget_handshake("udp")
    town[2].act(town[2].peer.initiate(town[2].to_server, town.loop.now))
    town.loop.until(lambda: town.server.connected() == 3)
    assert town.gets_through(2)
    assert [town.server.link(number).peer.keys.current for number in (0, 1)] == sessions


def test_a_peer_with_this_ends_own_key_is_refused(new_town: Callable[..., Town]) -> None:
    town = new_town(1)
    with pytest.raises(ConfigurationError):
        town.reload({**town.table, 1: PeerSettings(key_of(-1).public, (network_of(1),))})


def test_the_same_configuration_again_touches_nothing(new_town: Callable[..., Town]) -> None:
    town = new_town(3)
    town.connect()
    links = [town.server.link(number) for number in range(3)]
    sessions = [link.peer.keys.current for link in links]
    assert town.reload(town.table) == (0, 0, 0)
    assert [town.server.link(number) for number in range(3)] == links
    assert [link.peer.keys.current for link in links] == sessions


# Removed peers: attack case 20


def test_messages_of_a_removed_peer_are_dropped(new_town: Callable[..., Town]) -> None:
    town = new_town(2)
    town.connect()
    before = len(town.server.device.packets)
    assert town.reload(without(town.table, 1)) == (0, 1, 0)
    assert not town.gets_through(1)
    assert town.server.drops["unknown index"] == 1
    town[1].act(town[1].peer.initiate(town[1].to_server, town.loop.now + 60))
    town.loop.settle()
    assert town.server.drops["unknown peer"] == 1
    assert len(town.server.device.packets) == before
    assert town.gets_through(0)


def test_a_peer_that_was_replaced_has_a_new_link_and_its_old_session_is_dropped(new_town: Callable[..., Town]) -> None:
    town = new_town(2)
    town.connect()
    former = town.server.link(1)
    peers = town.table
    peers[1] = replace(peers[1], is_vpntun=True)
    assert town.reload(peers) == (0, 0, 1)
    assert town.server.link(1) is not former
    assert not town.gets_through(1)
    assert town.server.drops["unknown index"] == 1


def test_the_indices_and_keys_of_a_removed_peer_are_gone(new_town: Callable[..., Town]) -> None:
    town = new_town(2)
    town.connect()
    link = town.server.link(1)
    town.server.engine.node.indices.reserve(next(iter(link.peer._initiations.on.values())))  # of nobody's session
    before = len(town.server.engine.node.indices)
    session = link.peer.keys.current
    assert session is not None
    link.peer.forget_handshake("udp")
    link.act(
        link.peer.initiate(link.peer.endpoint or town[1].to_server, town.loop.now + 60)
    )  # one handshake is under way
    assert len(town.server.engine.node.indices) == before + 1
    town.reload(without(town.table, 1))
    assert len(town.server.engine.node.indices) == before - 1
    assert not session.may_receive(town.loop.now)
    assert not session.may_send(town.loop.now)


def test_packets_to_a_removed_peer_have_no_route(new_town: Callable[..., Town]) -> None:
    town = new_town(2)
    town.connect()
    assert town.owner("10.0.1.1") is town.server.link(1)
    town.reload(without(town.table, 1))
    assert town.owner("10.0.1.1") is None
    assert not town.reaches(1)
    assert town.server.drops["no route"] == 1


def test_a_removed_peer_sends_nothing_more(new_town: Callable[..., Town]) -> None:
    town = new_town(2)
    town.connect()
    former = town.server.link(1)
    town.server.send([1], HELLO)
    town.reload(without(town.table, 1))
    town.loop.settle()
    sent = former.peer.sent_bytes
    schedule = town.server.schedule
    for _ in range(600):
        town.loop.pass_time(1.0)
        schedule.handle(town.loop.now)
    assert schedule.deadline() < float("inf"), "the other one still has"
    assert former.peer.sent_bytes == sent
    assert former not in town.server.engine.links.values()


def test_the_endpoint_of_a_removed_peer_is_forgotten_and_that_of_a_changed_one_is_not(
    new_town: Callable[..., Town],
) -> None:
    town = new_town(3)
    town.connect()
    peers = town.table
    peers[2] = replace(peers[2], is_vpntun=True)
    town.reload(without(peers, 1))
    town.loop.pass_time(1.0)
    town.loop.pass_time(1.0)
    remembered = Endpoints("many0", town.loop, town.state)
    places = [remembered.recall(key_of(number).public) for number in range(3)]
    assert [place is not None for place in places] == [True, False, True]
    assert town.server.link(2).peer.endpoint == town.server.udp.candidate(places[2] or ("", 0))


# Changes in place


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "the office"},
        {"keepalive": 5.0},
        {"psk": b"k" * 32},
        {"endpoint": ("192.0.2.9", 9)},
        {"allowed": (network_of(1), ip_network("10.9.0.0/16"))},
        {"allowed": (network_of(1),), "keepalive": 7.0, "name": "x"},
    ],
)
def test_a_change_that_needs_no_new_session_keeps_it(new_town: Callable[..., Town], changes: dict[str, object]) -> None:
    town = new_town(2)
    town.connect()
    link = town.server.link(1)
    session = link.peer.keys.current
    peers = town.table
    peers[1] = replace(peers[1], **changes)  # type: ignore[arg-type]
    assert town.reload(peers) == (0, 0, 1)
    assert town.server.link(1) is link
    assert link.peer.keys.current is session
    assert town.server.links.settings_of(link) == peers[1]
    assert town.gets_through(1)
    assert town.reaches(1)


def test_a_keepalive_begins_and_ends_with_the_configuration(new_town: Callable[..., Town]) -> None:
    town = new_town(1)
    town.connect()
    link = town.server.link(0)
    peers = town.table
    assert link.peer.timers.persistent == float("inf")
    town.reload({0: replace(peers[0], keepalive=5.0)})
    assert link.deadline <= town.loop.now + 5.0
    assert town.server.schedule.deadline() <= town.loop.now + 5.0
    town.reload(peers)
    assert link.peer.timers.persistent == float("inf")


def test_removed_networks_have_no_route_and_new_ones_lead_to_the_peer(new_town: Callable[..., Town]) -> None:
    town = new_town(2)
    peers = town.table
    peers[1] = with_networks(peers[1], "10.0.1.0/25", "172.16.0.0/12")
    town.reload(peers)
    assert town.owner("10.0.1.1") is town.server.link(1)
    assert town.owner("172.31.255.255") is town.server.link(1)
    assert town.owner("10.0.1.200") is None
    assert town.owner("10.0.0.1") is town.server.link(0)


@pytest.mark.parametrize(("loses", "gains"), [(0, 1), (1, 0)])
def test_a_prefix_moves_from_one_peer_to_another_in_one_reload(
    new_town: Callable[..., Town], loses: int, gains: int
) -> None:
    town = new_town(3)
    town.connect()
    sessions = [town.server.link(number).peer.keys.current for number in range(3)]
    peers = town.table
    moving = str(network_of(loses))
    peers[loses] = with_networks(peers[loses], "10.77.0.0/16")
    peers[gains] = with_networks(peers[gains], str(network_of(gains)), moving)
    assert town.reload(peers) == (0, 0, 2)
    assert town.owner(str(IPv4Network(moving)[1])) is town.server.link(gains)
    assert not town.gets_through(loses), "its source is another's now"
    assert town.server.link(loses).drops["source not allowed"] == 1
    assert [town.server.link(number).peer.keys.current for number in range(3)] == sessions


def test_a_prefix_moves_from_a_removed_peer_to_an_added_one(new_town: Callable[..., Town]) -> None:
    town = new_town(2)
    peers = without(town.table, 1)
    peers[7] = replace(settings_of(7), allowed=(network_of(1),))
    assert town.reload(peers) == (1, 1, 0)
    assert town.owner("10.0.1.1") is town.server.link(7)


def owners_after(town: Town, *configurations: dict[int, PeerSettings]) -> list[str]:
    """Return the prefixes, each with its owner's name, after these configurations were read one after the other."""
    for peers in configurations:
        town.reload(peers)
    engine = town.server.engine
    return sorted(
        f"{network} {link.name}" for link in engine.links.values() for network in engine.routes.networks_of(link)
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_reload_has_the_result_of_a_restart_if_several_peers_have_one_prefix(
    new_town: Callable[..., Town], order: tuple[int, ...]
) -> None:
    def named(number: int, *networks: str) -> PeerSettings:
        return replace(with_networks(settings_of(number), *networks), name=f"n{number}")

    first = {number: named(number, "10.5.0.0/16", f"10.{number}.0.0/24") for number in order}
    seconds = [
        without(first, order[-1]),
        {**first, order[-1]: named(order[-1], "10.9.0.0/24")},
        {**first, order[0]: replace(first[order[0]], keepalive=9.0)},
        {number: first[number] for number in reversed(order)},
        {**first, order[1]: replace(first[order[1]], psk=b"k" * 32)},
    ]
    for second in seconds:
        assert owners_after(new_town(0), first, second) == owners_after(new_town(0), second)


def test_the_only_peer_needs_no_name_in_the_log_and_one_of_several_does(new_town: Callable[..., Town]) -> None:
    town = new_town(2)
    peers = town.table
    short = [f"peer {shortened(format_key(key_of(number).public))}" for number in range(2)]
    assert [town.server.link(number).name for number in range(2)] == short
    town.reload(without(peers, 1))
    assert town.server.link(0).name == ""
    town.reload({0: peers[0], 1: replace(peers[1], name="office")})
    assert [town.server.link(number).name for number in range(2)] == [short[0], "office"]


# Routes that lead into the tunnel


LOCALHOST_NETWORK = IPv4Network("127.0.0.0/8")


def own_datagram(town: Town, number: int) -> bytes:
    """Return a datagram to a member with the ports of the server's own datagrams."""
    there, port = town.server.link(number).endpoint.flow[3:5]  # type: ignore[union-attr]
    body = struct.pack("!HHHH", town.port, port, 9, 0) + b"x"
    return ipv4("127.0.0.1", str(ip_address(there)), body)


def test_own_datagrams_from_the_device_are_dropped_once_a_reload_covers_their_endpoint(
    new_town: Callable[..., Town],
) -> None:
    town = new_town(2)
    town.connect()
    peers = town.table
    own = own_datagram(town, 0)
    town.server.device.from_the_kernel(own)
    town.loop.settle()
    assert town.server.all_drops() == {"no route": 1}
    town.reload({**peers, 1: replace(peers[1], allowed=(network_of(1), LOCALHOST_NETWORK))})
    town.server.device.from_the_kernel(own)
    town.loop.settle()
    assert town.server.all_drops() == {"no route": 1, "routing loop": 1}
    assert town.reaches(0)
    town.reload(peers)
    assert town.server.engine.guard.endpoints == {}


def test_own_datagrams_follow_the_endpoint_and_end_with_the_peer(new_town: Callable[..., Town]) -> None:
    town = new_town(2)
    peers = town.table
    peers[1] = replace(peers[1], allowed=(network_of(1), LOCALHOST_NETWORK))
    town.reload(peers)
    assert town.server.engine.guard.endpoints == {}
    town.connect()
    assert len(town.server.engine.guard.endpoints) == 2
    town.reload(without(peers, 0))
    assert list(town.server.engine.guard.endpoints) == [town.server.link(1).endpoint.flow.destination]  # type: ignore[union-attr]


def test_a_peer_whose_route_leads_inside_gets_no_reply(new_town: Callable[..., Town]) -> None:
    town = new_town(2)
    peers = town.table
    town.reload({**peers, 1: replace(peers[1], allowed=(network_of(1), LOCALHOST_NETWORK))})
    town.server.inside.add(town[0].address)
    for member in town.crowd.members:
        member.start()
    town.loop.until(lambda: town.server.connected() == 1)
    town.loop.settle()
    assert town.server.all_drops()["routing loop"] == 1
    assert town.server.link(0).peer.endpoint is None
    assert town.reaches(1)


def test_a_remembered_endpoint_whose_route_leads_inside_is_not_asked(
    new_town: Callable[..., Town], loop: HandLoop
) -> None:
    town = new_town(1)
    town.connect()
    for _ in range(2):
        town.loop.pass_time(1.0)  # until it is written
    again = Server(loop, free_port(socket.AF_INET), town.server.peers, town.state)
    try:
        again.inside.add(town[0].address)
        again.start()
        assert again.link(0).peer.endpoint is None
        again.links.change([])
    finally:
        again.close()


def test_an_address_of_the_peers_name_is_not_called_while_its_route_leads_inside(
    new_town: Callable[..., Town], loop: HandLoop
) -> None:
    town = new_town(0)
    town.server.inside.add(ip_address("127.0.0.1").packed)
    with socket.create_server(("127.0.0.1", 0)) as listener, logged() as lines:
        listener.settimeout(0.2)
        town.reload({5: called(5, listener.getsockname()[1])})
        loop.until(lambda: any("leads into the tunnel itself" in line for line in lines))
        with pytest.raises(TimeoutError):
            listener.accept()
        town.server.inside.clear()

        def dialled() -> bool:
            loop.pass_time(1.0)
            town.server.schedule.deadline()
            town.server.schedule.handle(loop.now)
            with suppress(TimeoutError):
                listener.accept()[0].close()
                return True
            return False

        loop.until(dialled)


# Peers that are called


def called(number: int, port: int, **changes: object) -> PeerSettings:
    settings = replace(settings_of(number), host="127.0.0.1", port=port, transport="tcp")
    return replace(settings, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("who_forgets", ["the called", "the caller"])
def test_the_connection_of_a_removed_peer_closes_at_both_ends(
    new_town: Callable[..., Town], loop: HandLoop, tmp_path: Path, who_forgets: str
) -> None:
    town = new_town(1, tcp=True)
    caller = Server(loop, free_port(socket.AF_INET), [], tmp_path / "caller", number=0)
    try:
        caller.links.change([replace(called(-1, town.port), allowed=(network_of(0),))])
        link = caller.links.of(key_of(-1).public)
        loop.until(lambda: town.server.connected() == caller.connected() == 1)
        assert [link.endpoint] == caller.tcp.connections
        if who_forgets == "the called":
            town.reload({})
        else:
            caller.links.change([])
        ends = [caller.tcp.connections[0], town.server.tcp.connections[0]]
        loop.until(lambda: all(end.fileno() < 0 for end in ends))
        caller.links.change([])  # which may be calling again by now
        loop.settle()
    finally:
        caller.close()


def test_a_removed_peer_is_no_longer_called(new_town: Callable[..., Town], loop: HandLoop) -> None:
    town = new_town(0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        town.reload({5: called(5, port)})
        accepted: list[socket.socket] = []

        def dialled() -> bool:
            try:
                accepted.append(listener.accept()[0])
            except BlockingIOError:
                return False
            return True

        loop.until(dialled)
        loop.settle()
        link = town.server.link(5)
        assert isinstance(link, ClientLink)
        town.reload({})
        with accepted[0] as connection:
            connection.settimeout(5)
            while connection.recv(4096):  # an initiation, and the end
                pass
        with logged() as lines:
            for _ in range(100):
                loop.pass_time(1.0)
                town.server.schedule.handle(loop.now)
        assert not dialled()
        assert not lines


def test_no_descriptor_is_left_behind_by_a_hundred_reloads(new_town: Callable[..., Town], loop: HandLoop) -> None:
    town = new_town(4)
    town.connect()
    peers = town.table
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        port = listener.getsockname()[1]

        def turn(number: int) -> None:
            names = {9: called(9, port), 10: called(10, port, host=f"two..dots{number}", transport="auto")}
            changed = {**peers, 3: replace(peers[3], psk=bytes([number]) * 32)}
            town.reload({**changed, **names} if number % 2 else without(peers, 0, 2))
            for _ in range(3):
                loop.pass_time(1.0)
                town.server.schedule.handle(loop.now)

        turn(1)
        turn(0)
        before = len(os.listdir("/proc/self/fd"))
        for number in range(100):
            turn(number)
        town.reload(without(peers, 0, 2))
        for _ in range(20):
            loop.pass_time(1.0)
        loop.settle()
        assert len(os.listdir("/proc/self/fd")) <= before


# Changes by wg(8)


def test_a_caller_is_sent_to_where_the_operator_says_and_moves_back_when_it_sends(
    new_town: Callable[..., Town],
) -> None:
    town = new_town(2)
    town.connect()
    link, session = town.server.link(1), town.server.link(1).peer.keys.current
    where = link.endpoint
    public = key_of(1).public
    peers = {**town.table, 1: replace(town.table[1], endpoint=("127.0.0.1", 9))}
    town.server.links.change(peers.values(), {public: ("127.0.0.1", 9)})
    assert link.endpoint == town.server.udp.candidate(("127.0.0.1", 9))
    assert town.gets_through(1)
    assert link.endpoint == where
    assert link.peer.keys.current is session
    town.server.links.change(peers.values(), {public: ("127.0.0.1", 9)})
    assert link.endpoint != where, "though it is configured as before"


def test_a_caller_that_was_never_seen_is_asked_where_the_operator_says(new_town: Callable[..., Town]) -> None:
    town = new_town(1)
    public = key_of(0).public
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(5)
        at = ("127.0.0.1", int(sink.getsockname()[1]))
        town.server.links.change(town.table.values(), {public: at})
        assert len(sink.recv(2000)) == 148
        added = replace(settings_of(7), endpoint=at)
        town.reload({**town.table, 7: added})
        assert len(sink.recv(2000)) == 148
    assert town.server.link(7).endpoint == town.server.udp.candidate(at)


def test_a_peer_is_not_moved_to_where_this_host_cannot_send(new_town: Callable[..., Town]) -> None:
    town = new_town(1)
    town.server.links.change(town.table.values(), {key_of(0).public: ("2001:db8::1", 9)})
    assert town.server.link(0).endpoint is None


def test_a_called_peer_is_called_at_another_address_and_its_session_continues(
    new_town: Callable[..., Town], loop: HandLoop, tmp_path: Path
) -> None:
    town = new_town(1)
    caller = Server(loop, free_port(socket.AF_INET), [], tmp_path / "caller", number=0)
    try:
        there = replace(called(-1, town.port), allowed=(network_of(0),), transport="udp")
        caller.links.change([there])
        link = caller.links.of(key_of(-1).public)
        loop.until(lambda: town.server.connected() == caller.connected() == 1)
        session = link.peer.keys.current
        caller.links.change([replace(there, host="127.0.0.2")])
        assert caller.links.of(key_of(-1).public) is link
        assert link.endpoint == caller.udp.candidate(("127.0.0.2", town.port))
        assert link.peer.keys.current is session
        loop.settle()
        assert not caller.links.name_has(replace(there, host="127.0.0.2"), ("127.0.0.2", town.port)), "it is no name"
        assert caller.links.name_has(replace(there, host="vpn.example.org"), ("127.0.0.2", town.port))
        assert not caller.links.name_has(replace(there, host="vpn.example.org"), ("127.0.0.3", town.port))
        link.move(caller.udp.candidate(("127.0.0.3", town.port)) or town[0].to_server)
        caller.links.change([replace(there, host="127.0.0.2")], {there.public: ("127.0.0.2", town.port)})
        assert link.endpoint == caller.udp.candidate(("127.0.0.2", town.port)), "though nothing else has changed"
        caller.links.change([replace(there, host="vpn.example.org")])
        assert caller.links.of(key_of(-1).public) is not link
    finally:
        caller.links.change([])
        caller.close()


def test_over_a_connection_the_former_path_stays_in_use_until_the_new_one_is_found(
    new_town: Callable[..., Town], loop: HandLoop, tmp_path: Path
) -> None:
    town = new_town(1, tcp=True)
    caller = Server(loop, free_port(socket.AF_INET), [], tmp_path / "caller", number=0)
    try:
        there = replace(called(-1, town.port), allowed=(network_of(0),))
        caller.links.change([there])
        link = caller.links.of(key_of(-1).public)
        loop.until(lambda: town.server.connected() == caller.connected() == 1)
        former = link.endpoint
        loop.pass_time(1.0)  # the peer takes two initiations only after a while
        caller.links.change([replace(there, host="127.0.0.2")])
        assert link.endpoint is former
        loop.until(lambda: link.endpoint is not None and link.endpoint.address[0] == "127.0.0.2")
    finally:
        caller.links.change([])
        caller.close()


def test_other_keys_of_this_end_ask_every_peer_that_had_a_session(new_town: Callable[..., Town]) -> None:
    town = new_town(2)
    town.connect()
    town.server.engine.node.identity = key_of(1)
    town.server.links.identify(key_of(1))
    assert list(town.server.engine.links) == [town.server.link(0).peer], "the other has this end's key now"
    assert town.server.link(0).peer.keys.current is None
    assert not town.gets_through(0)
    drops = town.crowd.drops
    town.loop.until(lambda: drops["unknown peer"] + drops["bad mac1"] + drops["unknown index"])


@needs_root
def test_a_new_key_whose_timestamps_cannot_be_saved_without_privileges_is_noticed(
    new_town: Callable[..., Town],
) -> None:
    town = new_town(1)
    town.server.links.hold_state()
    with logged() as lines, ordinary_user():
        town.server.links.identify(key_of(-1))
        assert lines == [], "the key that it has"
        town.server.links.identify(key_of(1))
    assert any("no timestamps are saved for another private key" in line for line in lines)


def test_without_keys_there_are_no_links_and_the_endpoints_are_remembered(new_town: Callable[..., Town]) -> None:
    town = new_town(2)
    town.connect()
    peers = town.table
    where = town.server.link(0).endpoint
    town.server.links.dissolve()
    assert not town.server.engine.links
    assert town.server.links.change(peers.values()) == (2, 0, 0)
    assert town.server.link(0).endpoint == where


def test_a_keepalive_that_is_turned_on_is_sent_at_once(new_town: Callable[..., Town]) -> None:
    town = new_town(1)
    town.connect()
    sent = town.server.link(0).peer.sent_bytes
    town.reload({0: replace(town.table[0], keepalive=25.0)})
    assert town.server.link(0).peer.sent_bytes == sent + 32
    town.reload({0: replace(town.table[0], keepalive=26.0)})
    assert town.server.link(0).peer.sent_bytes == sent + 32


def test_the_port_changes_and_peers_are_shown_the_new_one(new_town: Callable[..., Town]) -> None:
    town = new_town(2)
    town.connect()
    sessions = [town.server.link(number).peer.keys.current for number in range(2)]
    fresh = free_port(socket.AF_INET)
    sent = [town.server.link(number).peer.sent_bytes for number in range(2)]
    town.server.engine.change_port(fresh, can_be_called=True)
    assert town.server.udp.port == fresh
    assert [town.server.link(number).peer.sent_bytes for number in range(2)] == [each + 32 for each in sent]
    assert [town.server.link(number).peer.keys.current for number in range(2)] == sessions
    assert town.reaches(0)
    town.reload(without(town.table, 0))
    town.loop.settle()
