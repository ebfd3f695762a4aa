"""This machine's addresses: looked at when somebody asks and something has changed."""

from __future__ import annotations

from ipaddress import ip_address

from tests.machine import Clock
from vpntun.netconf.addresses import AddressOnDevice, OwnAddresses, look_at_all

ONE, TWO = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])


class Kernel:
    """Tells of changes, and answers until it is out of order."""

    def __init__(self) -> None:
        self.found: list[AddressOnDevice] = [(ONE, "tun0")]
        self.looks = 0
        self.changed = False
        self.works = True

    def has_changed(self) -> bool:
        changed, self.changed = self.changed, False
        return changed

    def look(self) -> list[AddressOnDevice]:
        self.looks += 1
        if not self.works:
            raise OSError
        return self.found


def test_all_addresses_are_looked_at_only_after_a_change_and_only_when_somebody_asks() -> None:
    kernel, clock = Kernel(), Clock()
    own = OwnAddresses("tun0", kernel.has_changed, kernel.look, clock)
    for _ in range(100):
        clock.now += 1
        assert ONE in own
        assert TWO not in own
    assert kernel.looks == 1
    kernel.found, kernel.changed = [(TWO, "eth0")], True
    clock.now += 1000
    assert kernel.looks == 1
    assert TWO in own
    assert ONE not in own
    assert own.of_device(4) is None
    assert kernel.looks == 2


def test_a_machine_whose_addresses_keep_changing_is_looked_at_once_a_second() -> None:
    kernel, clock = Kernel(), Clock()
    own = OwnAddresses("tun0", kernel.has_changed, kernel.look, clock)
    for _ in range(80):
        kernel.changed = True
        clock.now += 0.125
        assert ONE in own
    assert kernel.looks == 1 + 10


def test_a_kernel_that_does_not_answer_is_asked_again_and_what_it_said_stands_until_then() -> None:
    kernel, clock = Kernel(), Clock()
    own = OwnAddresses("tun0", kernel.has_changed, kernel.look, clock)
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


def test_the_kernel_says_what_this_machine_has() -> None:
    assert (bytes([127, 0, 0, 1]), "lo") in look_at_all()
