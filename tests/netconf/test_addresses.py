"""This machine's addresses, read from the kernel on demand and only after a change."""

from __future__ import annotations

from ipaddress import ip_address

from tests.machine import Clock
from vpntun.netconf.addresses import AddressOnDevice, OwnAddresses, read_all

ONE, TWO = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])


class Kernel:
    """A fake kernel that announces changes, and answers while it `works`."""

    def __init__(self) -> None:
        self.found: list[AddressOnDevice] = [(ONE, "tun0")]
        self.reads = 0
        self.changed = False
        self.works = True

    def has_changed(self) -> bool:
        changed, self.changed = self.changed, False
        return changed

    def read(self) -> list[AddressOnDevice]:
        self.reads += 1
        if not self.works:
            raise OSError
        return self.found


def test_the_addresses_are_read_only_after_a_change_and_only_on_demand() -> None:
    kernel, clock = Kernel(), Clock()
    own = OwnAddresses("tun0", kernel.has_changed, kernel.read, clock)
    for _ in range(100):
        clock.now += 1
        assert ONE in own
        assert TWO not in own
    assert kernel.reads == 1
    kernel.found, kernel.changed = [(TWO, "eth0")], True
    clock.now += 1000
    assert kernel.reads == 1
    assert TWO in own
    assert ONE not in own
    assert own.of_device(4) is None
    assert kernel.reads == 2


def test_addresses_that_keep_changing_are_read_once_a_second() -> None:
    kernel, clock = Kernel(), Clock()
    own = OwnAddresses("tun0", kernel.has_changed, kernel.read, clock)
    for _ in range(80):
        kernel.changed = True
        clock.now += 0.125
        assert ONE in own
    assert kernel.reads == 1 + 10


def test_the_former_addresses_stay_valid_until_the_kernel_answers_again() -> None:
    kernel, clock = Kernel(), Clock()
    own = OwnAddresses("tun0", kernel.has_changed, kernel.read, clock)
    kernel.works, kernel.changed, kernel.found = False, True, [(TWO, "tun0")]
    clock.now += 2
    assert ONE in own
    assert own.of_device(4) == ONE
    kernel.works = True
    assert ONE in own
    clock.now += 2
    assert TWO in own
    assert own.of_device(4) == TWO


def test_the_devices_address_is_the_first_that_is_not_link_local() -> None:
    six, local = ip_address("fd00::1").packed, ip_address("fe80::1").packed
    found: list[AddressOnDevice] = [(local, "tun0"), (ONE, "eth0"), (six, "tun0"), (b"\xfd" * 16, "tun0")]
    own = OwnAddresses("tun0", lambda: False, lambda: found)
    assert own.of_device(16) == six
    assert own.of_device(4) is None


def test_the_kernel_lists_the_loopback_address() -> None:
    assert (bytes([127, 0, 0, 1]), "lo") in read_all()
