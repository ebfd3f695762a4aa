"""The name server as the settings want it: it follows them, and says what it cannot do."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from tests.machine import HandLoop, logged, needs_root
from tests.names.directories import ADDRESSES, peer, tunnel
from vpntun.config.tunnel import Tunnel
from vpntun.errors import ConfigurationError, VpntunError
from vpntun.names.added_zones import parse_zone
from vpntun.names.service import NameService
from vpntun.netconf.localnets import addresses_of
from vpntun.types import Interface


class Present:
    """A service whose tunnel the test changes."""

    def __init__(self, loop: HandLoop, present: Tunnel, addresses: tuple[Interface, ...] = ADDRESSES) -> None:
        self.tunnel = present
        self.service = NameService(
            loop, "lo", lambda: self.tunnel, addresses, lambda _: False, lambda _: None, lambda: 0
        )


def test_the_directory_follows_the_peers_and_the_zones(loop: HandLoop) -> None:
    present = Present(loop, tunnel(peer("laptop", "10.9.0.2/32")))
    first = present.service.directory()
    assert present.service.directory() is first
    present.tunnel = replace(present.tunnel, peers=(peer("desk", "10.9.0.3/32"),))
    assert present.service.directory().find(("desk", "office", "internal"))[0] == "office.internal"
    present.service.add(parse_zone(b'{"name": "x."}'))
    assert present.service.directory().find(("a", "x"))[0] == "x"


@needs_root
def test_it_opens_and_closes_as_the_settings_say(loop: HandLoop) -> None:
    here = ip_interface(f"127.{os.getpid() >> 16 & 255}.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}/8")
    present = Present(loop, tunnel(peer("laptop", "10.9.0.2/32"), peer("Laptop", "10.9.0.3/32")), (here,))
    with logged() as lines:
        for _ in range(2):
            present.service.open(present.tunnel)
    assert len([line for line in lines if "no name in the DNS for 'Laptop'" in line]) == 1
    assert present.service.is_open
    status = present.service.status()
    assert status is not None
    assert (status["domain"], status["names"], status["asked"]) == ("office.internal", 2, 0)
    present.service.add(parse_zone(b'{"name": "x."}'))
    present.service.close_unless(present.tunnel)
    assert len(present.service.added.as_json()) == 1
    present.service.close_unless(replace(present.tunnel, names=None))
    assert present.service.status() is None
    assert present.service.added.as_json() == []


def test_without_settings_nothing_is_opened(loop: HandLoop) -> None:
    present = Present(loop, replace(tunnel(), names=None))
    present.service.open(present.tunnel)
    assert not present.service.is_open
    assert present.service.status() is None


def test_a_missing_package_is_named(loop: HandLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vpntun.names.server", None)
    with pytest.raises(VpntunError, match="pip install dnspython"):
        Present(loop, tunnel()).service.open(tunnel())


def test_a_device_without_an_address_is_refused(loop: HandLoop) -> None:
    present = NameService(loop, "no-such-dev", tunnel, (), lambda _: False, lambda _: None, lambda: 0)
    with pytest.raises(ConfigurationError, match="add Address"):
        present.open(tunnel())


def test_the_addresses_of_a_device_that_was_found_are_the_kernels() -> None:
    assert "127.0.0.1/8" in map(str, addresses_of("lo"))
