"""The kernel's answers about this host. tests/netns/test_doctor.py has those that the checks judge by."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.machine import needs_root, ordinary_user
from vpntun.doctor.host import Host, KernelHost
from vpntun.doctor.ruleset import Packet
from vpntun.errors import PrivilegeError


def test_the_loopback_device_is_found_in_every_way() -> None:
    host: Host = KernelHost()
    assert "lo" in [link.name for link in host.links()]
    assert ("lo", "127.0.0.1") in [(each.device, each.address) for each in host.addresses()]
    assert host.device_to(ip_address("127.0.0.1")) == "lo"
    assert all(route.network.version == 4 for route in host.routes(4))


def test_a_setting_is_a_number_or_unknown() -> None:
    assert KernelHost().setting("net/ipv4/conf/lo/rp_filter") in (0, 1, 2)
    assert KernelHost().setting("net/ipv4/conf/nothing/rp_filter") is None
    assert KernelHost().setting("kernel/ostype") is None


@needs_root
def test_the_rules_of_the_packet_filter_are_read() -> None:
    assert isinstance(KernelHost().ruleset().droppers("forward", Packet(4)), list)
    assert KernelHost().has_legacy_rules() in (True, False)


@needs_root
def test_an_ordinary_user_may_not_read_the_rules() -> None:
    with ordinary_user(), pytest.raises(PrivilegeError, match="only root"):
        KernelHost().ruleset()
