"""A full tunnel beside other tunnels of the same host: an office's, and an overlay with a table and a rule of its own.

The office's server runs on b as well, as 10.8.0.1; behind it is 172.20.0.1 (the machines are those of test_routing.py).
"""

from __future__ import annotations

import pytest

from tests.netns.lab import PORT, STARTED, Daemon, Lab, until
from tests.netns.test_routing import FULL, PRIVATE, SECONDS, SERVER, WORLD, World, inject
from vpntun.crypto.keys import KeyPair, format_key

OFFICE = "172.20.0.0/16, 10.8.0.0/24"


class Office:
    """The office's server, and the file with which a calls it."""

    def __init__(self, world: World, transport: str = "udp", allowed: str = OFFICE) -> None:
        self._world = world
        here, there = KeyPair.generate(), KeyPair.generate()
        self._server = self._write(
            "ofs",
            f"[Interface]\nPrivateKey = {format_key(there.private)}\nAddress = 10.8.0.1/24\nListenPort = {PORT + 1}\n"
            f"Transport = auto\n[Peer]\nPublicKey = {format_key(here.public)}\nAllowedIPs = 10.8.0.2\n",
        )
        self._client = self._write(
            "office",
            f"[Interface]\nPrivateKey = {format_key(here.private)}\nAddress = 10.8.0.2/32\n[Peer]\n"
            f"PublicKey = {format_key(there.public)}\nEndpoint = {SERVER}:{PORT + 1}\nAllowedIPs = {allowed}\n"
            f"Transport = {transport}\n",
        )
        world.b.vpntun("up", self._server).wait_for(STARTED, SECONDS)

    def up(self) -> Daemon:
        client = self._world.a.vpntun("up", self._client)
        client.wait_for("connected", SECONDS)
        return client

    def leads_to(self, address: str) -> bool:
        return "dev office" in self._world.way_to(address)

    def _write(self, name: str, text: str) -> str:
        file = self._world.lab.folder / f"{name}.conf"
        file.touch(mode=0o600)
        file.write_text(text)
        return str(file)


@pytest.fixture
def world(lab: Lab) -> World:
    return World(lab)


@pytest.mark.parametrize("first", [pytest.param("full", marks=pytest.mark.long), "office"])
def test_the_office_is_reached_by_its_own_tunnel_in_either_order_and_without_the_full_one(
    world: World, first: str
) -> None:
    office = Office(world, "tcp" if first == "office" else "udp")
    if first == "office":
        client = office.up()
        full = world.up()
    else:
        full = world.up()
        client = office.up()
    assert until(lambda: office.leads_to(PRIVATE), 5)
    world.through(PRIVATE, WORLD)
    inject(world.a)  # as DHCP could, also routes inside the office's network
    world.a.run("ip", "route", "add", "172.20.0.0/24", "via", "10.0.0.2")
    world.through(PRIVATE, WORLD)
    world.server.kill()
    world.through(PRIVATE)
    world.nowhere(WORLD)
    full.kill()
    world.through(PRIVATE)
    world.nowhere(WORLD)
    world.down()
    assert "51820" not in world.a.run("ip", "route", "show", "table", "all").stdout
    assert client.stop() == 0
    assert world.rules() == world.before[: len(world.rules())]


@pytest.mark.long
def test_a_tunnel_whose_networks_may_contain_its_peer_counts_beside_a_full_one(world: World) -> None:
    office = Office(world, allowed="172.0.0.0/8, 198.51.100.0/24")
    client = office.up()
    full = world.up()
    assert until(lambda: office.leads_to("172.77.0.1"), 5)
    assert office.leads_to(SERVER)
    world.through(PRIVATE, WORLD)
    world.server.kill()
    world.through(PRIVATE)
    assert full.stop() == 0
    world.through(PRIVATE)
    world.beside(WORLD)
    assert client.stop() == 0
    assert world.state() == world.before


def test_rules_of_other_programs_keep_their_rank_and_tap_devices_do_not_count(world: World) -> None:
    world.a.run(
        "sh",
        "-ec",
        "ip tuntap add mode tap name tap7; ip link set tap7 up; ip route add 10.67.0.0/16 dev tap7;"
        "ip tuntap add mode tun name tun7; ip link set tun7 up; ip route add 10.68.0.0/16 dev tun7",
    )
    full = world.up()
    world.a.run("sh", "-ec", "ip route add 100.64.0.0/10 dev tun7 table 52; ip rule add priority 5270 lookup 52")
    assert "dev tun7" in world.way_to("100.100.0.1")
    assert "dev tun7" in world.way_to("10.68.0.1")
    assert "dev cli" in world.way_to("10.67.0.1")
    world.a.run("ip", "route", "del", "10.68.0.0/16", "dev", "tun7")
    assert until(lambda: "dev cli" in world.way_to("10.68.0.1"), 5)
    assert full.stop() == 0


@pytest.mark.long
def test_allowed_ips_of_a_full_tunnel_win_against_the_same_networks_of_another(world: World) -> None:
    office = Office(world)
    client = office.up()
    full = world.up(f"{FULL}, 172.20.0.0/16")
    assert not until(lambda: office.leads_to(PRIVATE), 1)
    assert office.leads_to("10.8.0.1")
    assert [full.stop(), client.stop()] == [0, 0]
    assert world.state() == world.before
