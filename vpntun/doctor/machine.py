"""This machine: its TUN device, the right to use it, and what its kernel does for speed.

Nothing on the machine changes. The device that tells which superpackets the kernel takes is made in a network namespace
of its own, which only a thread enters, and which vanishes with that thread. That takes root.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vpntun.carriers.ancillary import SOL_UDP, UDP_GRO, UDP_SEGMENT
from vpntun.doctor.finding import Finding, failed, ok, refused, skipped, warning
from vpntun.errors import DeviceError, PrivilegeError, VpntunError
from vpntun.process.privileges import CAP_NET_ADMIN, capabilities
from vpntun.tun.device import TCP_OFFLOADS, TUNSETOFFLOAD, UDP_OFFLOADS
from vpntun.tun.opening import CLONE, check_clone, open_device

TUNGETFEATURES = 0x800454CF
IFF_VNET_HDR = 0x4000
CLONE_NEWNET = 0x40000000
TRIAL = "doctor0"
SECONDS_OF_A_TRIAL = 3.0

_u32 = struct.Struct("=I")


class MachineFacts(NamedTuple):
    """What the checks of a machine judge by.

    `problem`: the error with which the TUN device refuses to be opened, None if it opens. `has_header`: whether it
    knows the virtio_net_hdr. `offloads`: the TUN_F_* flags that a device accepts, None if that could not be tried.
    `cuts`, `coalesces`: whether UDP sockets know UDP_SEGMENT and UDP_GRO.
    """

    is_root: bool
    may_administer: bool
    problem: VpntunError | None
    has_header: bool
    offloads: int | None
    cuts: bool
    coalesces: bool


def examine_machine() -> Iterator[Finding]:
    """Examine this machine."""
    return judge(read_facts())


def examine_udp() -> Iterator[Finding]:
    """Examine what the kernel does for UDP sockets. That is quick, and takes no right."""
    return _udp(_has_option(UDP_SEGMENT, 0), _has_option(UDP_GRO, 1))


def read_facts() -> MachineFacts:
    """Read what the checks judge by."""
    problem, features = None, 0
    try:
        features = _features()
    except VpntunError as error:
        problem = error
    return MachineFacts(
        is_root=os.geteuid() == 0,
        may_administer=bool(capabilities()[0] >> CAP_NET_ADMIN & 1),
        problem=problem,
        has_header=bool(features & IFF_VNET_HDR),
        offloads=_tried_offloads() if problem is None else None,
        cuts=_has_option(UDP_SEGMENT, 0),
        coalesces=_has_option(UDP_GRO, 1),
    )


def judge(facts: MachineFacts) -> Iterator[Finding]:
    """Yield the findings about a machine."""
    if facts.problem is None:
        yield ok("TUN device", f"{CLONE} opens")
    else:
        yield refused("TUN device", facts.problem)
    yield _right(facts)
    if facts.problem is None:
        yield from _device(facts)
    yield from _udp(facts.cuts, facts.coalesces)


def _udp(cuts: bool, coalesces: bool) -> Iterator[Finding]:
    if cuts:
        yield ok("UDP_SEGMENT", "the kernel cuts a burst into datagrams")
    else:
        yield warning(
            "UDP_SEGMENT", "the kernel does not cut bursts: each datagram takes a call", "use Linux 4.18 or newer"
        )
    if coalesces:
        yield ok("UDP_GRO", "the kernel coalesces datagrams that arrive together")
    else:
        yield warning(
            "UDP_GRO", "the kernel does not coalesce datagrams: each takes a part of a call", "use Linux 5.0 or newer"
        )


def _right(facts: MachineFacts) -> Finding:
    if facts.may_administer:
        return ok("capability", "CAP_NET_ADMIN is there, to create devices and to set addresses and routes")
    if facts.is_root:
        return failed(
            "capability",
            "root lacks CAP_NET_ADMIN here, so no device, address or route can be made",
            "give it to the container (--cap-add NET_ADMIN) or to the service (CapabilityBoundingSet=CAP_NET_ADMIN)",
        )
    return warning(
        "capability",
        "this user has no CAP_NET_ADMIN and can only use devices that root has made for it, or 'vpntun run'",
        f"run vpntun as root, or have root run 'vpntun mktun NAME --user {os.geteuid()}'; 'vpntun run' needs neither",
    )


def _device(facts: MachineFacts) -> Iterator[Finding]:
    if facts.has_header:
        yield ok("vnet header", "the kernel describes superpackets by a virtio_net_hdr")
    else:
        yield failed("vnet header", "the kernel's TUN device has no virtio_net_hdr", "use Linux 2.6.27 or newer")
    if facts.offloads is None:
        yield skipped("offloads", "only root may make a device to try them", "run 'vpntun doctor' as root")
    elif facts.offloads & TCP_OFFLOADS != TCP_OFFLOADS:
        yield warning(
            "offloads",
            "the device takes no superpackets: packets pass one by one, which is slower",
            "use a newer kernel",
        )
    elif facts.offloads & UDP_OFFLOADS != UDP_OFFLOADS:
        yield warning(
            "offloads",
            "the device takes superpackets of TCP (TSO) but not of UDP (USO): UDP in the tunnel is slower",
            "use Linux 6.2 or newer",
        )
    else:
        yield ok("offloads", "the device takes superpackets of TCP (TSO) and UDP (USO)")


def _features() -> int:
    """Return the IFF_* flags that the kernel's TUN device knows. Raises DeviceError or PrivilegeError."""
    check_clone(Path(CLONE))
    try:
        descriptor = os.open(CLONE, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        raise PrivilegeError(
            f"{CLONE} may not be opened: run as root, or have root change its mode to 0666; in a container or service "
            "allow the device c 10:200"
        ) from None
    except OSError as error:
        raise DeviceError(
            f"{CLONE} does not open ({error.strerror}): load the module ('modprobe tun'), or give the container access "
            "to it"
        ) from error
    try:
        return int(_u32.unpack(fcntl.ioctl(descriptor, TUNGETFEATURES, bytes(_u32.size)))[0])
    except OSError:
        return 0
    finally:
        os.close(descriptor)


def _tried_offloads() -> int | None:
    """Return the offloads that a new device accepts; None if no device can be made in a namespace of its own."""
    found: list[int] = []
    trial = threading.Thread(target=lambda: found.extend(_try_offloads()), name="trial", daemon=True)
    trial.start()
    trial.join(SECONDS_OF_A_TRIAL)
    return found[0] if found else None


def _try_offloads() -> Iterator[int]:
    """Move this thread, and no other, to a new network namespace, and yield what a device accepts there."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        return
    with suppress(VpntunError):
        device = open_device(TRIAL)
        for wanted in (TCP_OFFLOADS | UDP_OFFLOADS, TCP_OFFLOADS, 0):
            with suppress(OSError):
                fcntl.ioctl(device.fileno(), TUNSETOFFLOAD, wanted)
                yield wanted
                break
        device.close()


def _has_option(option: int, value: int) -> bool:
    """Whether UDP sockets know an option."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        tried.setsockopt(SOL_UDP, option, value)
        return True
    return False
