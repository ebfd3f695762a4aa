"""Full tunnels behind reverse path filters that mind marks, and the guard of the tunnel's addresses.

The machines are those of test_routing.py. Here the uplink is a network of public addresses, as a rented server has:

    a  203.0.113.1, 2001:db8:a::1  ==veth0==  203.0.113.2, 2001:db8:a::2  b
"""

from __future__ import annotations

import shutil

import pytest

from tests.netns.lab import PORT, STARTED, Daemon, Lab, Machine, firewall
from tests.netns.test_routing import FULL, SECONDS, SERVER, SERVER6, WORLD, WORLD6, World
from vpntun.crypto.keys import KeyPair, format_key

pytestmark = pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")

UPLINK, UPLINK6 = "203.0.113.1", "2001:db8:a::1"
GATEWAY, GATEWAY6 = "203.0.113.2", "2001:db8:a::2"
FILTERS = """
table inet firewall {
  chain marked {
    type filter hook prerouting priority mangle + 10; policy accept;
    fib saddr . mark . iif oif missing counter drop
  }
}
"""


@pytest.fixture
def world(lab: Lab) -> World:
    return World(lab)


@pytest.fixture
def public(world: World) -> World:
    """A world with a public uplink, and every reverse path filter there is."""
    give_addresses(world.a, f"{UPLINK}/24", f"{UPLINK6}/64")
    give_addresses(world.b, f"{GATEWAY}/24", f"{GATEWAY6}/64")
    world.a.run("ip", "route", "replace", "default", "via", GATEWAY)
    world.a.run("ip", "-6", "route", "replace", "default", "via", GATEWAY6)
    filter_strictly(world.a)
    world.before = world.state()
    return world


def give_addresses(machine: Machine, *addresses: str) -> None:
    for address in addresses:
        machine.run("ip", "address", "add", address, "dev", "veth0", *(["nodad"] if ":" in address else []))


def filter_strictly(machine: Machine) -> None:
    """Set up the filters of firewalld and NixOS with nftables, of NixOS and RHEL with iptables, and the kernel's."""
    machine.run("nft", "-f", "-", input=FILTERS)
    for tool in firewall():
        machine.run(tool, "-t", "raw", "-A", "PREROUTING", "-m", "rpfilter", "--invert", "--validmark", "-j", "DROP")
    machine.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")


def forget_neighbours(machine: Machine) -> None:
    machine.run("ip", "neighbour", "flush", "dev", "veth0")
    machine.run("ip", "-6", "neighbour", "flush", "dev", "veth0")


@pytest.mark.parametrize(("server", "transport"), [(SERVER, "udp"), (SERVER6, "tcp")])
def test_a_full_tunnel_works_behind_strict_filters_which_stay_strict(
    public: World, server: str, transport: str
) -> None:
    client = public.up(endpoint=server, transport=transport)
    public.through(WORLD, WORLD6)
    forget_neighbours(public.a)  # both ends have to find each other's hardware addresses again
    forget_neighbours(public.b)
    public.through(WORLD, WORLD6)
    assert "rp_filter = 1" in public.state()
    public.a.run("nft", "flush", "ruleset")
    filter_strictly(public.a)
    public.through(WORLD, WORLD6)
    assert client.stop() == 0
    assert public.state() == public.before


def test_a_full_tunnel_that_waits_for_its_peer_lets_it_in_through_strict_filters(lab: Lab) -> None:
    for machine, address in ((lab.a, UPLINK), (lab.b, GATEWAY)):
        give_addresses(machine, f"{address}/24")
    filter_strictly(lab.a)
    keys = {machine.name: KeyPair.generate() for machine in (lab.a, lab.b)}

    def up(machine: Machine, other: Machine, name: str, interface: str, peer: str) -> Daemon:
        file = lab.folder / f"{name}.conf"
        file.touch(mode=0o600)
        file.write_text(
            f"[Interface]\nPrivateKey = {format_key(keys[machine.name].private)}\n{interface}\n"
            f"[Peer]\nPublicKey = {format_key(keys[other.name].public)}\n{peer}\n"
        )
        daemon = machine.vpntun("up", file)
        daemon.wait_for(STARTED, SECONDS)
        return daemon

    everything = f"Address = 10.9.0.1/24\nListenPort = {PORT}\nTransport = auto"
    up(lab.a, lab.b, "everything", everything, f"AllowedIPs = {FULL}")
    for transport in ("udp", "tcp"):
        peer = f"AllowedIPs = 10.9.0.1\nEndpoint = {UPLINK}:{PORT}\nTransport = {transport}"
        caller = up(lab.b, lab.a, "caller", "Address = 10.9.0.2/24", peer)
        lab.ping(lab.b, "10.9.0.1", SECONDS)
        assert caller.stop() == 0


def test_only_through_the_tunnel_can_others_reach_the_addresses_of_a_full_tunnel(world: World) -> None:
    """As in CVE-2019-14899, b stands for somebody on the same network who tries addresses of the tunnel."""
    world.a.run("ip", "address", "add", "10.9.0.3/32", "dev", "lo")
    for address, via in (("10.9.0.2", "10.0.0.1"), ("10.9.0.3", "10.0.0.1"), ("fd09::2", "fd01::1")):
        world.b.run("ip", "route", "add", address, "via", via, "dev", "veth0", "table", "77")
    world.b.run("sh", "-ec", "ip rule add from 10.0.0.2 table 77; ip -6 rule add from fd01::2 table 77")

    def answers(source: str, address: str) -> bool:
        return world.b.run("ping", "-n", "-c1", "-W0.5", "-I", source, address, check=False).returncode == 0

    client = world.up("10.9.0.0/24, fd09::/64", address="10.9.0.2/24, 10.9.0.3/24, fd09::2/64")
    assert answers("10.0.0.2", "10.9.0.2")  # a split tunnel is a host with two networks
    assert client.stop() == 0
    world.up(address="10.9.0.2/24, 10.9.0.3/24, fd09::2/64")
    assert not answers("10.0.0.2", "10.9.0.2")
    assert not answers("fd01::2", "fd09::2")
    assert answers("10.0.0.2", "10.9.0.3")  # the machine's own address, by chance the tunnel's too
    world.lab.ping(world.a, "10.9.0.2")
    world.lab.ping(world.b, "10.9.0.2")
