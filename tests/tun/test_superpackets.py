"""A device that is made here gets superpackets that fit in one record; others keep their limit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.netconf.kernel import in_own_network
from vpntun.core.records.span import LARGEST_SEND
from vpntun.tun.device import TunDevice
from vpntun.tun.persistent import make
from vpntun.tun.superpackets import LIMIT, limit_superpackets
from vpntun.wire.message import DATA_OVERHEAD, HEADER_SIZE
from vpntun.wire.record import BUNDLE_START, ENTRY_SIZE

NAME = "test0"
SEGMENT, HEADERS = 1448, 52
"""Bytes of a TCP segment's payload and of its headers, with timestamps and an MTU of 1500."""

needs_tun = pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="there is no /dev/net/tun")


def limit() -> int:
    shown = subprocess.run(["ip", "-json", "-details", "link", "show", NAME], capture_output=True, check=True).stdout
    return int(json.loads(shown)[0]["gso_max_size"])


@needs_tun
@in_own_network
def test_a_new_device_gets_smaller_superpackets() -> None:
    device = TunDevice(NAME)
    assert limit() == LIMIT
    device.close()


@needs_tun
@in_own_network
def test_a_device_that_existed_before_keeps_its_limit() -> None:
    make(NAME, None, None)
    before = limit()
    device = TunDevice(NAME)
    assert limit() == before != LIMIT
    device.close()


def test_the_limit_makes_superpackets_that_fit_in_a_burst_and_passes_forwarded_ones_whole() -> None:
    made_by_tcp = (LIMIT - 320 - 1) // SEGMENT
    burst = 45
    record = BUNDLE_START + ENTRY_SIZE + HEADERS + made_by_tcp * SEGMENT
    assert record + DATA_OVERHEAD + (burst - 1) * HEADER_SIZE <= LARGEST_SEND
    assert HEADERS + 45 * SEGMENT < LIMIT


def test_a_device_that_is_gone_is_no_error() -> None:
    limit_superpackets("gone0")
