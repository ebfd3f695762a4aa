"""A device that is made here gets superpackets that fit in one record, unless this host forwards."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.netconf.kernel import in_own_network
from vpntun.core.records.span import LARGEST_SEND, MOST
from vpntun.tun.device import KernelDevice
from vpntun.tun.superpackets import (
    HEADERS,
    KERNELS_LIMIT,
    LARGEST_OF_A_BURST,
    limit_for,
    limit_superpackets,
)
from vpntun.wire.ethernet.frame import LARGEST_HEADER
from vpntun.wire.message import HEADER_SIZE, TAG_SIZE
from vpntun.wire.record import BUNDLE_START, ENTRY_SIZE

NAME = "test0"
FORWARDING = ("/proc/sys/net/ipv4/conf/all/forwarding", "/proc/sys/net/ipv6/conf/all/forwarding")

needs_tun = pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="there is no /dev/net/tun")


def limit() -> int:
    shown = subprocess.run(["ip", "-json", "-details", "link", "show", NAME], capture_output=True, check=True).stdout
    return int(json.loads(shown)[0]["gso_max_size"])


def forward(*values: str) -> None:
    for setting, value in zip(FORWARDING, values, strict=True):
        Path(setting).write_text(value)


@needs_tun
@in_own_network
def test_a_device_of_a_host_that_does_not_forward_gets_smaller_superpackets() -> None:
    forward("0", "0")
    device = KernelDevice(NAME)
    limit_superpackets(NAME, 1400)
    assert limit() == limit_for(1400) < KERNELS_LIMIT
    device.close()


@needs_tun
@in_own_network
@pytest.mark.parametrize("values", [("1", "0"), ("0", "1")], ids=["IPv4", "IPv6"])
def test_a_device_of_a_host_that_forwards_keeps_the_kernels_limit(values: tuple[str, str]) -> None:
    forward(*values)
    device = KernelDevice(NAME)
    limit_superpackets(NAME, 1400)
    assert limit() == KERNELS_LIMIT
    device.close()


@pytest.mark.parametrize("datagram", [1472, 1452], ids=["IPv4", "IPv6"])
def test_what_the_limit_is_made_for_fits_in_a_burst(datagram: int) -> None:
    message = BUNDLE_START + ENTRY_SIZE + LARGEST_OF_A_BURST + TAG_SIZE
    assert message <= MOST * (datagram - HEADER_SIZE)
    assert message + MOST * HEADER_SIZE <= LARGEST_SEND


@pytest.mark.parametrize("lead", [0, 14, LARGEST_HEADER])
@pytest.mark.parametrize("mtu", [68, 576, 1280, 1400, 1420, 1500])
@pytest.mark.parametrize("subtracted", [193, 257, 321])
def test_tcp_fills_a_burst_with_whole_segments_as_far_as_they_fit(mtu: int, subtracted: int, lead: int) -> None:
    segment = mtu - HEADERS
    payload = (limit_for(mtu, lead) - subtracted) // segment * segment
    assert LARGEST_OF_A_BURST - 5 * segment - 64 < lead + HEADERS + payload <= LARGEST_OF_A_BURST


def test_a_jumbo_frames_superpackets_fit_anyway() -> None:
    assert limit_for(9000) == KERNELS_LIMIT


def test_a_device_that_is_gone_is_no_error() -> None:
    limit_superpackets("gone0", 1400)
