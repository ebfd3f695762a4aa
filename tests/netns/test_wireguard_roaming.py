"""Either end moves to another address and port under traffic, and the other end follows it.

In each test a ping every 20 ms goes through the tunnel from vpntun to wireguard-go.
"""

from __future__ import annotations

import pytest

from tests.netns.lab import PORT, Lab, Machine, until
from tests.netns.wireguard import (
    OURS,
    OURS_DEVICE,
    THEIRS,
    WG_PORT,
    Keys,
    as_client,
    endpoint_in_a,
    start_vpntun,
    start_wireguard,
)

NEW = {4: "10.0.0.7", 6: "fd01::7"}
SECONDS = 10
either_calls = pytest.mark.parametrize(("caller", "version"), [("vpntun", 4), ("wireguard", 6), ("wireguard", 4)])


class Ends:
    """Both ends, connected and under traffic."""

    def __init__(self, lab: Lab, keys: Keys, caller: str, version: int) -> None:
        self.lab, self.keys, self.version = lab, keys, version
        if caller == "vpntun":
            self.wireguard = start_wireguard(lab, keys)
            start_vpntun(lab, keys, *as_client(lab, version))
        else:
            start_vpntun(lab, keys, "-s")
            self.wireguard = start_wireguard(lab, keys, *endpoint_in_a(lab, version), "persistent-keepalive", "25")
        lab.ping(lab.b, OURS)
        self.traffic = lab.a.popen("ping", "-n", "-i0.02", THEIRS)
        self.flows()

    def move(self, machine: Machine) -> None:
        """Replace the machine's address by the new one."""
        former = f"{machine.four}/24" if self.version == 4 else f"{machine.six}/64"
        new = f"{NEW[4]}/24" if self.version == 4 else f"{NEW[6]}/64 nodad"
        machine.run("sh", "-ec", f"ip addr del {former} dev veth0; ip addr add dev veth0 {new}")

    def flows(self) -> None:
        """Wait until the traffic is answered."""
        count = self.traffic.log.count("bytes from")
        self.traffic.wait_for("bytes from", SECONDS, count + 1)

    def at_new(self, port: int) -> str:
        return f"{NEW[4]}:{port}" if self.version == 4 else f"[{NEW[6]}]:{port}"

    def at_ours(self) -> str:
        """Where vpntun sees wireguard-go."""
        return str(self.lab.a.status(OURS_DEVICE)["peers"][0]["endpoint"])

    def at_theirs(self) -> str:
        """Where wireguard-go sees vpntun."""
        return self.wireguard.shown("endpoints", self.keys.ours.public)


@either_calls
def test_wireguard_follows_vpntun_to_another_address(lab: Lab, keys: Keys, caller: str, version: int) -> None:
    ends = Ends(lab, keys, caller, version)
    former = ends.at_theirs()
    ends.move(lab.a)
    assert until(lambda: ends.at_theirs() == ends.at_new(int(former.rpartition(":")[2])), SECONDS), lab.logs()
    ends.flows()


@either_calls
def test_vpntun_follows_wireguard_to_another_address_and_port(lab: Lab, keys: Keys, caller: str, version: int) -> None:
    ends = Ends(lab, keys, caller, version)
    ends.move(lab.b)
    ends.wireguard.set("listen-port", str(WG_PORT + 1))
    lab.ping(lab.b, OURS, within=SECONDS)
    assert ends.at_ours() == ends.at_new(WG_PORT + 1), lab.logs()
    ends.flows()


@pytest.mark.parametrize("version", [4, 6])
def test_vpntun_answers_from_the_address_that_was_called_until_its_host_loses_that(
    lab: Lab, keys: Keys, version: int
) -> None:
    called = "10.0.0.99/24" if version == 4 else "fd01::99/64"
    never_chosen = (
        ("preferred_lft", "0", "nodad") if version == 6 else ()
    )  # by the kernel; a second IPv4 address is not
    lab.a.run("ip", "addr", "add", called, "dev", "veth0", *never_chosen)
    start_vpntun(lab, keys, "-s")
    host = called.partition("/")[0]
    endpoint, other = (f"{host}:{PORT}", lab.a.four) if version == 4 else (f"[{host}]:{PORT}", f"[{lab.a.six}]")
    wireguard = start_wireguard(lab, keys, "endpoint", endpoint)
    lab.ping(lab.b, OURS)
    lab.ping(lab.a, THEIRS)
    assert wireguard.shown("endpoints", keys.ours.public) == endpoint
    lab.a.run("ip", "addr", "del", called, "dev", "veth0")
    lab.ping(lab.a, THEIRS, within=SECONDS)
    assert wireguard.shown("endpoints", keys.ours.public) == f"{other}:{PORT}"
