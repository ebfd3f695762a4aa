"""A client and a server in a simulated network: the path that the client finds, and how soon."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from tests.core.fakes import Address, Connection, FakeTimestamps
from tests.core.pair import AT_LEFT, CLIENT_KEYS, SERVER_KEYS, Side, only, sent
from tests.core.simulation import World
from vpntun.core.events import CloseConnection, Dial, Established, Event, Resolve, Transmit
from vpntun.core.selection.client import ClientCarriers
from vpntun.core.selection.reason import Reason
from vpntun.types import CarrierName, Transport

BOTH = ("server-v4", "server-v6")


def started(transport: Transport = "auto", **arguments: object) -> World:
    """A simulation in which the client has just started."""
    world = World(transport, **arguments)  # type: ignore[arg-type]
    world.start()
    return world


def on_tcp(*, plain: bool = False) -> World:
    """A simulation in which UDP is blocked and TCP is in use."""
    world = World(plain=plain)
    world.network.block("udp")
    world.start()
    world.until_through(5)
    assert world.client.carrier == world.server.carrier == "tcp"
    return world


def carriers(world: World) -> tuple[CarrierName | None, CarrierName | None]:
    """The carriers that the client and the server use."""
    return world.client.carrier, world.server.carrier


def connections(world: World) -> int:
    """The number of open TCP connections, counted at both ends."""
    return sum(each.open for each in world.network.connections)


# The search


@pytest.mark.parametrize("transport", ["auto", "udp"])
def test_over_udp_the_client_connects_at_once_and_does_not_dial(transport: Transport) -> None:
    world = started(transport)
    world.run(0.1)
    assert world.client.carrier == world.server.carrier == "udp"
    assert world.until_through(1) < 1
    world.run(600)
    assert world.times("client", "dials", "tcp") == []
    assert connections(world) == 0


def test_with_udp_blocked_tcp_is_dialled_2_seconds_later_and_used() -> None:
    world = World()
    world.network.block("udp")
    start = world.now
    world.start()
    world.until_through(3)
    (dialled,) = world.times("client", "dials", "tcp")
    assert 1.9 <= dialled - start <= 2.1
    assert world.client.carrier == world.server.carrier == "tcp"
    assert connections(world) == 2


def test_tcp_alone_is_dialled_at_once() -> None:
    world = started("tcp")
    assert world.until_through(1) < 1
    assert world.client.carrier == "tcp"
    world.run(300)
    assert world.times("client", "asks", "udp") == []


def test_udp_alone_never_dials() -> None:
    world = started("udp")
    world.until_through(1)
    world.network.block("udp")
    world.run(600)
    assert world.times("client", "dials", "tcp") == []


def test_udp_with_a_round_trip_of_3_seconds_gets_through() -> None:
    for transport in ("udp", "auto"):
        world = World(transport)
        world.network.block("tcp")
        world.network.udp.latency = 1.5
        world.start()
        assert world.until_through(12) < 12
        assert world.client.carrier == "udp"


def test_both_carriers_with_a_round_trip_of_3_seconds_get_through() -> None:
    world = World()
    world.network.udp.latency = world.network.tcp.latency = 1.5
    world.start()
    world.until_through(15)
    world.run(20)
    assert world.talk(200) <= 8
    assert world.client.carrier == world.server.carrier == "udp"


@pytest.mark.parametrize("udp", [0.99, 1.0, 1.01, 1.02, 1.03, 1.5, 2.0, 2.3])
@pytest.mark.parametrize("tcp", [0.005, 0.01, 0.3, 1.0])
def test_answers_on_both_carriers_in_any_order_lose_no_session(udp: float, tcp: float) -> None:
    world = World()
    world.network.udp.latency, world.network.tcp.latency = udp, tcp
    world.start()
    world.until_through(12)
    world.network.udp.latency = 0.01
    world.run(5)
    assert world.talk(100) == 0
    assert world.client.gave_up == world.server.gave_up == 0


def test_udp_that_answers_late_replaces_tcp_and_the_connection_closes() -> None:
    world = World()
    world.network.udp.latency = 1.1
    world.start()
    world.run(10)
    assert world.client.carrier == world.server.carrier == "udp"
    assert world.times("client", "hangs up", "tcp")
    assert connections(world) == 0
    assert world.talk(30) == 0


def test_a_late_keepalive_on_tcp_does_not_take_the_server_back_there_for_long() -> None:
    # The server takes the keepalive that confirms the UDP session before the one that confirms the TCP session.
    world = World()
    world.network.udp.latency = 1.02
    world.start()
    world.run(2.045)  # the answer over TCP has just come, the one over UDP is next
    assert world.client.carrier == "udp" or world.times("client", "established", "tcp")
    world.network.tcp.latency = 3.0
    world.run(6)
    assert world.talk(60) <= 1
    assert world.client.carrier == world.server.carrier == "udp"


def test_an_answer_of_a_server_that_has_been_restarted_since_does_not_replace_the_session_in_use() -> None:
    world = World()
    world.network.block("udp")
    world.network.tcp.latency = 1.0
    world.start()
    world.run(5.005)  # the answer has just left, over TCP
    world.restart_server()
    world.network.unblock("udp")
    world.until_through(5)
    world.run(2)
    assert world.talk(30) == 0


# TCP in use, UDP preferred


@pytest.mark.parametrize("plain", [False, True], ids=["by PROBE", "by handshake"])
def test_on_tcp_udp_is_tried_after_30_seconds_doubling_to_10_minutes_whatever_is_rekeyed(plain: bool) -> None:
    world = on_tcp(plain=plain)
    (begun,) = world.times("client", "established", "tcp")
    for _ in range(50):
        world.talk(60, every=5.0)
    assert len(world.times("client", "established", "tcp")) > 15
    tried = world.times("client", "tries", "udp", since=begun)
    gaps = [later - earlier for earlier, later in pairwise([begun, *tried])]
    assert [round(gap) for gap in gaps] == [30, 60, 120, 240, 480, 600, 600, 600]
    # UDP is tried by PROBEs, without a handshake; a plain WireGuard would answer only a handshake.
    assert world.times("client", "asks", "udp", since=begun) == ([] if not plain else tried)


@pytest.mark.parametrize("plain", [False, True], ids=["by PROBE", "by handshake"])
def test_on_tcp_a_trial_of_udp_disturbs_nothing(plain: bool) -> None:
    world = on_tcp(plain=plain)
    assert world.talk(400) == 0
    assert world.client.carrier == "tcp"
    assert len(world.times("client", "dials", "tcp")) == 1


def test_a_trial_of_udp_by_probe_moves_no_endpoint_before_the_echo_has_come() -> None:
    world = on_tcp()
    world.network.unblock("udp")
    world.network.udp.latency = 2.0
    begun = world.times("client", "established", "tcp")[-1]
    world.run(begun + 30 + 3.9 - world.now)
    (probed,) = world.times("server", "is probed", "udp")
    assert probed == pytest.approx(begun + 32)
    assert carriers(world) == ("tcp", "tcp")
    world.run(0.2)
    assert world.times("client", "proved", "udp")
    assert carriers(world) == ("udp", "tcp")
    world.run(2.0)
    assert carriers(world) == ("udp", "udp")
    assert world.times("client", "asks", "udp", since=begun) == []


@pytest.mark.parametrize("plain", [False, True], ids=["by PROBE", "by handshake"])
def test_when_udp_passes_again_the_link_moves_and_the_connection_is_closed(plain: bool) -> None:
    world = on_tcp(plain=plain)
    world.network.unblock("udp")
    assert world.talk(35) == 0
    assert world.client.carrier == world.server.carrier == "udp"
    assert connections(world) == 0
    assert world.talk(300) == 0
    assert len(world.times("client", "dials", "tcp")) == 1


def test_udp_that_stops_passing_is_replaced_by_tcp() -> None:
    world = started()
    world.until_through(1)
    world.network.block("udp")
    assert world.until_through(20) < 20
    assert world.client.carrier == world.server.carrier == "tcp"
    assert world.talk(100) == 0


def test_an_idle_client_notices_within_a_session_that_udp_stopped_passing() -> None:
    world = started()
    world.until_through(1)
    world.network.block("udp")
    world.run(180)
    assert world.client.carrier == world.server.carrier == "tcp"


def test_a_connection_that_opens_late_is_not_used() -> None:
    # Dialled when UDP was late, connected after UDP has answered.
    world = World()
    world.network.udp.latency, world.network.tcp.latency = 1.1, 2.0
    world.start()
    world.run(30)
    assert world.client.carrier == "udp"
    assert connections(world) == 0


# Failures


def test_a_connection_lost_while_in_use_is_dialled_again_at_once() -> None:
    world = on_tcp()
    connection = world.client.peer.endpoint
    assert isinstance(connection, Connection)
    connection.close()
    assert world.until_through(2) < 2
    assert world.client.peer.endpoint is not connection
    assert world.talk(200) == 0


def test_a_connection_that_the_server_closes_is_dialled_again_at_once() -> None:
    world = on_tcp()
    connection = world.server.peer.endpoint
    assert isinstance(connection, Connection)
    connection.close()
    assert world.until_through(2) < 2
    assert world.talk(200) == 0


def test_refused_dials_are_repeated_with_pauses_that_grow_to_40_seconds() -> None:
    world = World("tcp")
    world.network.tcp.refused = True
    world.start()
    world.run(3600)
    dials = world.times("client", "dials", "tcp")
    pauses = [later - earlier for earlier, later in pairwise(dials)]
    assert pauses[0] < 1.5
    assert max(pauses) <= 41
    assert min(pauses[-20:]) >= 32
    assert 3600 / 41 <= len(dials) <= 150
    world.network.tcp.refused = False
    assert world.until_through(45)


@pytest.mark.parametrize("outage", [10.0, 100.0, 1000.0, 20_000.0])
@pytest.mark.parametrize("transport", ["auto", "udp", "tcp"])
def test_after_an_outage_of_any_length_the_link_is_back_within_60_seconds(transport: Transport, outage: float) -> None:
    world = started(transport)
    world.until_through(2)
    world.network.block("udp", "tcp")
    for _ in range(10):
        world.client.send(b"into the void")
        world.run(outage / 10)
    world.network.unblock("udp", "tcp")
    assert world.until_through(60) <= 60
    world.run(60)
    assert world.talk(200) == 0


@pytest.mark.parametrize("dead", BOTH)
@pytest.mark.parametrize("transport", ["auto", "udp", "tcp"])
def test_one_dead_address_of_two_does_not_prolong_the_search(transport: Transport, dead: str) -> None:
    world = World(transport, names=BOTH)
    world.network.swallowed.add(dead)
    world.start()
    world.until_through(15)
    world.network.block("udp", "tcp")
    world.run(3000)
    world.network.unblock("udp", "tcp")
    assert world.until_through(60) <= 60


def test_an_outage_at_night_with_nothing_to_send_is_over_within_60_seconds_too() -> None:
    world = started()
    world.until_through(2)
    world.network.block("udp", "tcp")
    world.run(30_000)
    world.network.unblock("udp", "tcp")
    world.run(60)
    assert world.until_through(1) < 1


@pytest.mark.parametrize("transport", ["auto", "udp", "tcp"])
def test_a_server_that_comes_up_hours_later_is_found_within_60_seconds(transport: Transport) -> None:
    world = started(transport, running=False)
    world.run(4 * 3600)
    asked = len(world.times("client", "asks", "udp")) + len(world.times("client", "dials", "tcp"))
    world.run(3600)
    assert len(world.times("client", "asks", "udp")) + len(world.times("client", "dials", "tcp")) > asked + 80
    world.start_server()
    assert world.until_through(60) <= 60


def test_waiting_packets_are_dropped_after_90_seconds_without_an_answer_but_the_search_continues() -> None:
    world = World(running=False)
    world.start()
    world.client.send(b"stale")
    world.run(200)
    assert world.client.gave_up > 0
    assert len(world.client.queue) == 0
    world.start_server()
    world.until_through(60)
    assert b"stale" not in world.server.received


def test_a_waiting_packet_is_sent_once_the_session_is_established() -> None:
    world = World()
    world.client.send(b"first")
    world.start()
    world.run(0.2)
    assert world.server.received == [b"first"]


@pytest.mark.parametrize(("blocked", "limit"), [("tcp", 20), ("udp", 5)])
def test_traffic_flows_soon_after_a_restart_of_the_server(blocked: str, limit: float) -> None:
    world = World()
    world.network.block(blocked)  # type: ignore[arg-type]
    world.start()
    world.until_through(5)
    world.talk(30)
    for pause in (30, 200):
        world.restart_server()
        assert world.until_through(limit) <= limit
        assert world.talk(pause) == 0


def test_over_udp_a_server_that_remembers_its_peer_is_back_at_once() -> None:
    world = started()
    world.until_through(1)
    world.run(10)
    world.restart_server()
    assert world.until_through(1) <= 1


@pytest.mark.parametrize(("blocked", "limit"), [("tcp", 2), ("udp", 5)])
def test_traffic_flows_soon_after_a_restart_of_the_client(blocked: str, limit: float) -> None:
    world = World()
    world.network.block(blocked)  # type: ignore[arg-type]
    world.start()
    world.until_through(5)
    for pause in (30, 200):
        world.restart_client()
        assert world.until_through(limit + 1) <= limit + 1
        assert world.talk(pause) == 0


def test_both_ends_restart_at_once() -> None:
    world = started()
    world.until_through(1)
    world.restart_server()
    world.restart_client()
    assert world.until_through(6)
    assert world.talk(200) == 0


def test_the_server_follows_a_client_whose_address_changes() -> None:
    world = started()
    world.until_through(1)
    world.move_client("a train")
    assert world.until_through(1) <= 1
    assert world.server.peer.endpoint == Address("a train")


def test_a_connection_that_goes_silent_is_replaced() -> None:
    world = on_tcp()
    world.network.block("tcp")
    world.client.send(b"held")
    world.run(8)
    connection = world.client.peer.endpoint
    assert connection is not None
    assert connection.clogged()
    world.run(12)
    world.network.unblock("tcp")
    assert world.until_through(30)
    assert world.client.peer.endpoint is not connection


def test_a_clogged_connection_gets_no_second_initiation() -> None:
    world = on_tcp()
    world.run(119)
    world.network.block("tcp")
    world.client.send(b"1")
    world.run(5)
    since = world.now
    world.client.send(b"2")
    world.run(9)
    assert len(world.times("client", "asks", "tcp", since=since)) <= 1
    world.network.unblock("tcp")
    world.run(1)
    assert world.until_through(2) <= 2


# Names and addresses


def test_a_name_without_addresses_is_looked_up_until_it_has_some() -> None:
    world = started(names=())
    world.run(1000)
    assert world.times("client", "asks", "udp") == []
    world.names = ["server"]
    assert world.until_through(60) <= 60


def test_a_slow_look_up_delays_nothing_else() -> None:
    world = World()
    world.lookup_time = 4.0
    world.start()
    world.run(3.9)
    assert world.times("client", "asks", "udp") == []
    world.run(0.2)
    assert world.client.carrier == "udp"


def test_a_server_that_moves_to_another_address_is_found_by_its_name() -> None:
    world = started()
    world.until_through(1)
    world.run(30)
    world.network.swallowed.add("server")
    world.names = ["server-v6"]
    assert world.until_through(60) <= 60


def test_a_name_that_no_longer_resolves_leaves_the_last_addresses_in_use() -> None:
    world = started()
    world.until_through(1)
    world.names = []
    world.restart_server()
    assert world.until_through(20) <= 20


@pytest.mark.parametrize("dead", BOTH)
@pytest.mark.parametrize("transport", ["auto", "udp", "tcp"])
def test_an_address_that_never_answers_costs_one_turn(transport: Transport, dead: str) -> None:
    world = World(transport, names=BOTH)
    world.network.swallowed.add(dead)
    world.start()
    assert world.until_through(15) <= 15


@pytest.mark.parametrize("transport", ["auto", "udp", "tcp"])
def test_an_address_without_a_route_costs_no_turn(transport: Transport) -> None:
    world = World(transport, names=BOTH)
    world.network.without_way.add("server-v4")
    world.start()
    assert world.until_through(2) <= 2
    assert world.talk(200) == 0


def test_the_server_answers_from_the_address_that_the_client_uses_now() -> None:
    world = started("udp", names=BOTH)
    world.until_through(1)
    world.network.swallowed.add("server-v4")
    world.until_through(60)
    assert world.client.peer.endpoint == Address("server-v6")
    assert world.talk(100) == 0


def test_when_the_route_to_the_address_in_use_disappears_the_other_is_asked_at_once() -> None:
    world = started("udp", names=BOTH)
    world.until_through(1)
    assert world.client.peer.endpoint == Address("server-v4")
    world.network.without_way.add("server-v4")
    world.run(119.5)
    lost_from = world.now
    world.until_through(17)
    assert world.client.peer.endpoint == Address("server-v6")
    asked = [time for time in world.times("client", "asks", "udp") if time > lost_from - 120]
    assert asked[-1] - asked[-2] < 1


def test_without_a_route_to_any_address_the_client_does_not_ask_in_a_circle() -> None:
    world = World("udp", names=BOTH)
    world.network.without_way.update(BOTH)
    world.start()
    world.run(60)
    assert len(world.times("client", "asks", "udp")) < 30
    world.network.without_way.clear()
    assert world.until_through(30) <= 30


# Single steps


def alone(transport: Transport = "auto") -> tuple[Side, ClientCarriers]:
    rng = Random(1)
    side = Side(CLIENT_KEYS, SERVER_KEYS.public, rng, timestamps=FakeTimestamps(), chooses_carrier=True)
    return side, ClientCarriers(side.peer, transport, rng)


def test_the_name_is_looked_up_with_every_attempt() -> None:
    _, selector = alone()
    assert selector.start(0) == [Resolve()]
    (event, again) = selector.resolved([Address("a")], 0.1)
    assert isinstance(event, Transmit)
    assert again == Resolve()
    assert selector.handle_timer(1.9) == []
    assert selector.handle_timer(2) == [Dial("tcp", Address("a")), Resolve()]


def test_another_request_during_the_search_changes_nothing() -> None:
    _, selector = alone()
    selector.start(0)
    deadline = selector.deadline
    assert selector.want(0.5) == []
    assert selector.deadline == deadline


def test_a_silent_connection_is_closed_after_three_initiations_and_another_dialled() -> None:
    world = World("tcp")
    world.server.alive = False  # it accepts, and says nothing
    connection = Connection(world.network, world.client)
    _, selector = alone("tcp")
    selector.start(0)
    assert selector.resolved([Address("a")], 0) == [Dial("tcp", Address("a")), Resolve()]
    asked = sum(isinstance(event, Transmit) for event in selector.dialled(connection, 0))
    events: list[Event] = []
    while not events or not isinstance(events[0], CloseConnection):
        asked += sum(isinstance(event, Transmit) for event in events)
        assert selector.deadline <= 17
        events = selector.handle_timer(selector.deadline)
    assert asked == 3
    assert events == [CloseConnection(connection), Dial("tcp", Address("a")), Resolve()]


def test_a_connection_that_answers_while_it_is_being_closed_leaves_no_dead_endpoint() -> None:
    world = World("tcp")
    connection = Connection(world.network, world.client)
    side, selector = alone("tcp")
    server = Side(SERVER_KEYS, CLIENT_KEYS.public, Random(2))
    selector.start(0)
    selector.resolved([Address("a")], 0)
    selector.dialled(connection, 0)
    events: list[Event] = []
    while CloseConnection(connection) not in events:
        now = selector.deadline
        last, events = events, selector.handle_timer(now)
    response = only(server.take(only(last), AT_LEFT, now))
    assert side.take(response, connection, now) == [Established(connection, initiator=True)]
    assert sent(selector.established(connection, now, initiator=True))
    selector.lost(connection, now + 2)
    assert side.peer.endpoint is None
    assert selector.searching
    assert selector.dial_failed("tcp", now + 3) == []
    assert selector.handle_timer(selector.deadline)[0] == Dial("tcp", Address("a"))


# Reasons


def test_the_reason_follows_the_carrier_from_udp_to_tcp_and_back() -> None:
    world = World()
    world.start()
    world.until_through(5)
    selector = world.client.selector
    assert selector.reason == Reason("it answered first")
    world.network.block("udp")
    blocked = world.now
    world.until_through(40)
    assert world.client.carrier == "tcp"
    text, since = selector.reason
    assert text == "no UDP answer"
    assert since is not None
    assert blocked <= since <= blocked + 1, "the data that was not answered counts, and not only the search"
    world.network.unblock("udp")
    world.run(60)
    assert (world.client.carrier, selector.reason) == ("udp", Reason("it answers again"))
