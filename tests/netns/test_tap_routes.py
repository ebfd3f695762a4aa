"""Routes into a TAP device: through the peer or another station, put back when they go, and taken back at the end."""

from __future__ import annotations

import json

import pytest

from tests.netns.lab import Lab, Machine, until
from tests.netns.taps import OURS, start_taps

BEHIND, BEHIND6 = "10.77.0.1", "fd77::1"
ROUTES = ["--route", "10.77.0.0/16", "--route", "fd77::/64"]


def gateways(machine: Machine) -> dict[str, str]:
    """The gateways of the routes through the client's device, by their networks."""
    shown = [json.loads(machine.run("ip", "-json", f"-{v}", "route", "show", "dev", OURS).stdout) for v in (4, 6)]
    return {route["dst"]: route["gateway"] for found in shown for route in found if "gateway" in route}


def test_a_route_leads_to_what_is_behind_the_peer_and_comes_back_with_the_device(lab: Lab) -> None:
    for address in (BEHIND, BEHIND6):
        lab.b.run("ip", "address", "add", address, "dev", "lo")
    _, client = start_taps(lab, client=ROUTES)
    lab.ping(lab.a, BEHIND, within=10)
    lab.ping(lab.a, BEHIND6, within=5)
    set_up = gateways(lab.a)
    assert set(set_up) == {"10.77.0.0/16", "fd77::/64"}
    lab.a.run("ip", "link", "set", OURS, "down")
    client.wait_for("the device was taken down")
    assert gateways(lab.a) == {}
    lab.a.run("ip", "link", "set", OURS, "up")
    assert until(lambda: gateways(lab.a) == set_up, 5), gateways(lab.a)
    lab.ping(lab.a, BEHIND, within=10)
    assert client.stop() == 0


@pytest.mark.long
def test_a_route_that_a_killed_tunnel_left_on_a_persistent_device_is_taken_back_and_a_bad_gateway_sets_nothing(
    lab: Lab,
) -> None:
    lab.a.run("ip", "tuntap", "add", "dev", OURS, "mode", "tap")
    route = ["--address", "10.9.0.1/24", "--route", "10.77.0.0/16 via 10.9.0.7"]
    client = lab.a.vpntun("-c", lab.b.four, "-a", "-i", OURS, "-k", lab.key, *route)
    client.wait_for("this end 10.9.0.1/24")
    client.kill()
    assert gateways(lab.a) == {"10.77.0.0/16": "10.9.0.7"}
    bad = ["--address", "10.9.0.1/24", "--route", "10.77.0.0/16 via 10.8.0.7"]
    status, said = lab.a.ask("-c", lab.b.four, "-a", "-i", OURS, "-k", str(lab.key), *bad)
    assert (status, "the gateway 10.8.0.7 must be another station in the network of an address" in said) == (5, True)
    assert (gateways(lab.a), lab.a.addresses(OURS)) == ({}, [])
