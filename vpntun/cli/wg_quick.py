"""`vpntun INTERFACE`, the command by which wg-quick(8) starts a userspace WireGuard where the kernel has none.

    1. wg-quick runs $WG_QUICK_USERSPACE_IMPLEMENTATION with the interface's name alone
    2. vpntun makes the device, opens the socket for wg(8), goes to the background, and the command returns
    3. wg-quick gives the tunnel keys and peers by wg(8), and the device addresses, an MTU and routes by ip(8)
    4. 'wg-quick down' deletes the device, and the tunnel ends

The command is there only while that variable is set, so a mistyped command is still an error. Where the name is that of
another command, that one is run.
"""

from __future__ import annotations

import time

from vpntun.config.tunnel import to_be_set_by_wg
from vpntun.control.client import ControlClient
from vpntun.errors import NoSuchTunnel
from vpntun.process.background import Background
from vpntun.process.service import RunOptions
from vpntun.runtime.clock import boottime
from vpntun.runtime.log import open_log
from vpntun.tun.opening import check_name
from vpntun.tun.queries import interface_exists

VARIABLE = "WG_QUICK_USERSPACE_IMPLEMENTATION"
SECONDS_TO_END = 5.0
SECONDS_BETWEEN = 0.02


def run_for_wg_quick(interface: str) -> None:
    """Run a tunnel that wg-quick will set up, in the background. Raises VpntunError; in the caller also SystemExit."""
    check_name(interface)
    open_log(interface, 0, detached=True)
    _wait_for_predecessor(interface)
    from vpntun.daemon import run  # takes 60 ms to load, and only a command that runs a tunnel needs it

    run(to_be_set_by_wg(interface), RunOptions(background=Background.enter()))


def _wait_for_predecessor(interface: str) -> None:
    """Wait a few seconds for a tunnel whose device is gone: after 'wg-quick down' it may still be ending."""
    end = boottime() + SECONDS_TO_END
    while not interface_exists(interface) and _runs(interface) and boottime() < end:
        time.sleep(SECONDS_BETWEEN)


def _runs(interface: str) -> bool:
    try:
        with ControlClient(interface):
            return True
    except NoSuchTunnel:
        return False
