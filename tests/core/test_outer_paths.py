"""Routes and source addresses of the tunnel's own packets, as this host's network changes."""

from __future__ import annotations

import pytest

from vpntun.carriers.fake import FakeEndpoint
from vpntun.core.endpoint import Flow
from vpntun.core.outer_paths import OuterPaths, OuterRoute, Rerouting, UnknownNetwork

HOST = bytes((192, 0, 2, 1))
OURS, OTHERS, INSIDE = b"\n\1\0\1", b"\n\2\0\1", b"\n\t\0\2"
CHOSEN = b""
"""The source address of a flow whose source the kernel chooses."""
ETH0, ETH1 = 2, 3


class Host(UnknownNetwork):
    """A host with two uplinks. `devices`: the device that takes packets from a source address; others it has not."""

    def __init__(self) -> None:
        self.devices = {OURS: ETH0, OTHERS: ETH0}
        self.preferred = OURS
        self.gateway = b"gate"
        self.better = b""
        self.has_route = True

    def find(self, flow: Flow) -> OuterRoute | None:
        source = flow.source or self.preferred
        if not self.has_route or source not in self.devices:
            return None
        return OuterRoute(self.devices[source], self.gateway, source)

    def better_source(self, flow: Flow) -> bytes:
        return self.better

    def prefer_the_other_uplink(self) -> None:
        self.devices = {OURS: ETH1, OTHERS: ETH1}
        self.preferred = OTHERS


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def paths(host: Host) -> OuterPaths:
    return OuterPaths(host)


def endpoint(source: bytes = CHOSEN, *, is_stream: bool = False) -> FakeEndpoint:
    made = FakeEndpoint("server", is_stream=is_stream)
    made.flow = made.flow._replace(source=source)
    return made


@pytest.mark.parametrize("source", [CHOSEN, OURS, OTHERS])
def test_a_change_elsewhere_on_the_host_is_none(paths: OuterPaths, source: bytes) -> None:
    server = endpoint(source)
    paths.follow("peer", server)
    for _ in range(2):
        assert paths.look_again("peer", [server]) is Rerouting.NONE
        assert server.flow.source == source


@pytest.mark.parametrize("source", [CHOSEN, OURS])
def test_when_another_device_takes_the_packets_the_kernel_chooses_their_source(
    host: Host, paths: OuterPaths, source: bytes
) -> None:
    server = endpoint(source)
    paths.follow("peer", server)
    host.prefer_the_other_uplink()
    assert paths.look_again("peer", [server]) is Rerouting.OTHER_ROUTE
    assert server.flow.source == CHOSEN
    assert paths.look_again("peer", [server]) is Rerouting.NONE


def test_a_switch_forth_and_back_is_noticed_twice_though_the_peer_names_the_source_between(
    host: Host, paths: OuterPaths
) -> None:
    server = endpoint(OURS)
    paths.follow("peer", server)
    host.prefer_the_other_uplink()
    assert paths.look_again("peer", [server]) is Rerouting.OTHER_ROUTE
    server.send_from(OTHERS)  # the address that the peer has answered to
    host.devices, host.preferred = {OURS: ETH0, OTHERS: ETH0}, OURS
    assert paths.look_again("peer", [server]) is Rerouting.OTHER_ROUTE
    assert server.flow.source == CHOSEN


@pytest.mark.parametrize("named", [CHOSEN, OURS])
def test_a_switch_is_noticed_although_the_endpoint_is_followed_again_before_the_look(
    host: Host, paths: OuterPaths, named: bytes
) -> None:
    paths.follow("peer", endpoint())
    server = endpoint(named)  # as the peer's next datagram names it
    host.prefer_the_other_uplink()
    paths.follow("peer", server)
    assert paths.look_again("peer", [server]) is Rerouting.OTHER_ROUTE
    assert server.flow.source == CHOSEN


def test_another_gateway_is_another_route_and_the_source_is_kept(host: Host, paths: OuterPaths) -> None:
    server = endpoint(OTHERS)
    paths.follow("peer", server)
    host.gateway = b"another"
    assert paths.look_again("peer", [server]) is Rerouting.OTHER_ROUTE
    assert server.flow.source == OTHERS


def test_an_address_to_which_the_peer_turns_later_is_kept(host: Host, paths: OuterPaths) -> None:
    host.devices = {OURS: ETH0, OTHERS: ETH1}
    server = endpoint(OURS)
    paths.follow("peer", server)
    server.send_from(OTHERS)
    for _ in range(2):
        assert paths.look_again("peer", [server]) is Rerouting.NONE
        assert server.flow.source == OTHERS


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_source_that_this_host_has_lost_is_forgotten(host: Host, paths: OuterPaths, is_stream: bool) -> None:
    server = endpoint(OTHERS, is_stream=is_stream)
    paths.follow("peer", server)
    del host.devices[OTHERS]
    assert paths.look_again("peer", [server]) is Rerouting.LOST
    assert server.flow.source == (OTHERS if is_stream else CHOSEN)


@pytest.mark.parametrize("source", [CHOSEN, OURS])
def test_a_network_that_goes_away_takes_nothing_with_it_and_is_noticed_when_it_comes_back(
    host: Host, paths: OuterPaths, source: bytes
) -> None:
    server = endpoint(source)
    paths.follow("peer", server)
    host.has_route = False
    assert paths.look_again("peer", [server]) is Rerouting.NONE
    assert server.flow.source == source
    host.has_route = True
    assert paths.look_again("peer", [server]) is Rerouting.OTHER_ROUTE


def test_an_endpoint_seen_first_has_not_changed(host: Host, paths: OuterPaths) -> None:
    assert paths.look_again("peer", [endpoint()]) is Rerouting.NONE
    paths.forget("peer")
    host.prefer_the_other_uplink()
    assert paths.look_again("peer", [endpoint()]) is Rerouting.NONE


@pytest.mark.parametrize(("is_stream", "source"), [(False, OTHERS), (True, CHOSEN)])
def test_where_the_kernel_would_send_from_inside_a_tunnel_another_source_is_chosen(
    host: Host, paths: OuterPaths, is_stream: bool, source: bytes
) -> None:
    host.devices[INSIDE], host.preferred, host.better = ETH0, INSIDE, OTHERS
    for settle in (paths.settle, lambda each: paths.follow("peer", each)):
        server = FakeEndpoint("server", is_stream=is_stream)
        settle(server)
        assert server.flow.source == source
    named = endpoint(OURS)
    paths.settle(named)
    assert named.flow.source == OURS


def test_when_a_chosen_source_is_lost_the_next_one_is_chosen(host: Host, paths: OuterPaths) -> None:
    host.devices[INSIDE], host.preferred, host.better = ETH0, INSIDE, OTHERS
    server = endpoint()
    paths.follow("peer", server)
    del host.devices[OTHERS]
    host.better = OURS
    assert paths.look_again("peer", [server]) is Rerouting.LOST
    assert server.flow.source == OURS


def test_a_chosen_source_is_left_once_the_kernels_choice_is_good(host: Host, paths: OuterPaths) -> None:
    host.devices[INSIDE], host.preferred, host.better = ETH0, INSIDE, OTHERS
    server = endpoint()
    paths.follow("peer", server)
    assert paths.look_again("peer", [server]) is Rerouting.NONE, "there is no better one yet"
    assert server.flow.source == OTHERS
    host.preferred, host.better = OURS, b""
    assert paths.look_again("peer", [server]) is Rerouting.OTHER_ROUTE
    assert server.flow.source == CHOSEN
    assert paths.look_again("peer", [server]) is Rerouting.NONE


def test_a_chosen_source_outlasts_a_network_that_goes_away(host: Host, paths: OuterPaths) -> None:
    host.devices[INSIDE], host.preferred, host.better = ETH0, INSIDE, OTHERS
    server = endpoint()
    paths.follow("peer", server)
    host.has_route, host.better = False, b""
    assert paths.look_again("peer", [server]) is Rerouting.NONE
    assert server.flow.source == OTHERS


def test_a_connection_that_has_lost_its_address_leaves_the_route_of_the_next_one(host: Host, paths: OuterPaths) -> None:
    paths.follow("peer", endpoint(OTHERS, is_stream=True))
    del host.devices[OTHERS]
    assert paths.look_again("peer", [endpoint(OTHERS, is_stream=True)]) is Rerouting.LOST
    assert paths.look_again("peer", [endpoint()]) is Rerouting.NONE
