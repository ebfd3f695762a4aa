"""Two ends under any reordering, loss and restarts: once the network heals, they exchange data again.

Hypothesis chooses what happens to the network and to the ends; the seed determines the rest.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.fakes import Conditions, Connection
from tests.core.simulation import World
from vpntun.types import Transport

Step = Callable[[World], None]

SHARES = st.sampled_from([0.0, 0.1, 0.5, 0.9])
PAUSES = st.sampled_from([0.0, 0.01, 0.5, 2.0, 2.03, 5.0, 16.0, 31.0, 125.0, 200.0, 600.0])


def passing(seconds: float, busy: bool) -> Step:
    """Let time pass, with or without traffic."""

    def step(world: World) -> None:
        if busy:
            world.talk(min(seconds, 130.0), every=max(0.5, seconds / 20))
        else:
            world.run(seconds)

    return step


def weather(udp: Conditions, tcp_latency: float) -> Step:
    """Change the behaviour of the carriers."""

    def step(world: World) -> None:
        udp.blocked = world.network.udp.blocked
        world.network.udp = udp
        world.network.tcp.latency = tcp_latency

    return step


def close_connections(world: World) -> None:
    """Break every connection."""
    for connection in list(world.network.connections):
        connection.close()


def send_both(world: World) -> None:
    """Give each end a packet to send."""
    for end in (world.client, world.server):
        if end.alive:
            end.send(b"something")


STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(passing, PAUSES, st.booleans()),
    st.builds(
        weather,
        st.builds(Conditions, latency=st.floats(0, 3), jitter=st.floats(0, 3), loss=SHARES, duplicates=SHARES),
        st.floats(0, 3),
    ),
    st.sampled_from(
        [
            lambda world: world.network.block("udp"),
            lambda world: world.network.block("tcp"),
            lambda world: world.network.unblock("udp"),
            lambda world: world.network.unblock("tcp"),
            close_connections,
            send_both,
            World.restart_server,
            World.restart_client,
        ]
    ),
)


@settings(max_examples=150)
@given(st.sampled_from(["auto", "udp", "tcp"]), st.integers(0, 2**16), st.lists(STEPS, max_size=12), st.booleans())
def test_after_the_network_has_healed_both_ends_can_exchange_data(
    transport: Transport, seed: int, steps: list[Step], plain: bool
) -> None:
    world = World(transport, seed=seed, plain=plain)
    world.start()
    for step in steps:
        step(world)
    world.network.udp, world.network.tcp.latency = Conditions(), 0.01
    world.network.unblock("udp", "tcp")
    world.until_through(75)
    # Messages under way have arrived, and from now on nothing is lost.
    world.run(30)
    assert world.talk(140, every=2.0) == 0
    # No state is left over.
    for end in (world.client, world.server):
        assert len(end.peer.keys.all()) <= 4
        assert len(end.node.indices) <= 6
        assert end.peer.endpoint is not None
        assert not isinstance(end.peer.endpoint, Connection) or end.peer.endpoint.open
    assert sum(connection.open for connection in world.network.connections) <= 2
