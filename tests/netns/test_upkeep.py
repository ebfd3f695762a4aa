"""A tunnel whose settings others remove, on a host whose network changes all the time. The rest is in tests/netconf."""

from __future__ import annotations

import re
import resource
import signal
from itertools import count
from pathlib import Path

import pytest

from tests.netns.lab import Lab, until
from tests.netns.test_routing import WORLD, WORLD6, World, reload


@pytest.fixture
def world(lab: Lab) -> World:
    return World(lab)


def test_a_full_tunnel_whose_device_was_down_and_whose_rules_were_deleted_is_whole_at_once(world: World) -> None:
    client = world.up()
    during = world.state()
    world.a.run("ip", "link", "set", "cli", "down")
    client.wait_for("taken down")
    world.nowhere(WORLD, WORLD6)
    world.a.run("ip", "link", "set", "cli", "up")
    client.wait_for("put back what had been removed: the address fd09::2/64", 2)
    assert until(lambda: world.state() == during, 2)
    world.through(WORLD, WORLD6)
    world.a.run("sh", "-ec", "ip rule flush; ip rule add prio 32766 table main; ip rule add prio 32767 table default")
    client.wait_for("packets may have left beside the tunnel", 2)
    assert until(lambda: world.state() == during, 2)
    world.seen()
    world.through(WORLD, WORLD6)
    assert client.stop() == 0
    assert world.state() == world.before


CHURN = """
for i in $(seq 120); do echo "addr add 10.100.$i.1/24 dev lo"; echo "addr add fd44:$i::1/64 dev lo"; done | ip -batch -
while :; do
    echo "link add one type veth peer name two"; echo "link set one up"; echo "addr add 172.20.7.1/24 dev one"
    echo "link del one"
done | timeout 4 ip -force -batch -
ip link del one
:
"""


def test_traffic_does_not_wait_while_a_host_with_many_addresses_starts_and_ends_containers(world: World) -> None:
    client = world.up()
    churn = world.a.popen("sh", "-c", CHURN)
    assert until(lambda: "10.100.120.0/24" in world.rules(), 5)
    said = world.a.run("ping", "-n", "-i0.05", "-c30", WORLD).stdout
    [middle] = re.findall(r"mdev = [\d.]+/([\d.]+)/", said)
    assert float(middle) < 40, said
    assert "30 received" in said
    assert churn.wait(20) == 0
    assert until(lambda: "172.20.7.0/24" not in world.rules(), 5)
    assert client.stop() == 0


def test_a_full_tunnel_that_was_killed_without_a_journal_is_cleared_by_down_and_by_the_next_up(world: World) -> None:
    for again in (False, True):
        world.up().kill()
        world.a.run("sh", "-c", "rm /run/vpntun/cli:*.journal")
        world.nowhere(WORLD, WORLD6)
        if again:
            assert world.up().stop() == 0
        else:
            world.down()
        world.beside(WORLD, WORLD6)
        assert world.rules() == world.before[: len(world.rules())]


def test_a_full_tunnel_without_a_free_descriptor_follows_the_network_and_survives_a_reload(world: World) -> None:
    client = world.up()
    pid = client.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    lowest_free = next(number for number in count() if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, hard))
    world.a.run("ip", "address", "add", "192.168.7.1/24", "dev", "veth0")
    assert until(lambda: "192.168.7.0/24" in world.rules(), 5)
    world.a.run("sh", "-ec", "ip rule del prio 32402; ip link set cli down; ip link set cli up")
    assert until(lambda: "32402" in world.rules() and "default" in world.routes("51820"), 5)
    client.process.send_signal(signal.SIGHUP)
    client.wait_for("nothing has changed")
    world.through(WORLD, WORLD6)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    reload(client)
    assert client.stop() == 0
    assert "192.168.7.0/24" not in world.rules()
