"""Kernel settings of a new device: it takes no routes and no addresses from router messages.

    net.ipv6.conf.DEVICE   accept_ra, autoconf, accept_redirects = 0
    net.ipv4.conf.DEVICE   accept_redirects = 0

The data path drops such messages from peers anyway (wire/router_messages.py). These settings are a second line of
defence, and keep the kernel from sending router solicitations to the peers. The settings of the host (`all`) are left
alone, so on a host that does not forward, the kernel still accepts IPv4 redirects on every device as long as
net.ipv4.conf.all.accept_redirects is 1 (IN_DEV_RX_REDIRECTS in include/linux/inetdevice.h). A device that existed
before keeps its settings.
"""

from __future__ import annotations

from pathlib import Path

from vpntun.runtime.log import log

CONF = Path("/proc/sys/net")
_SETTINGS = (
    *("ipv6/conf/{}/accept_ra", "ipv6/conf/{}/autoconf", "ipv6/conf/{}/accept_redirects"),
    "ipv4/conf/{}/accept_redirects",
)


def ignore_routers(device: str, conf: Path = CONF) -> None:
    """Make the kernel ignore router messages that arrive on this device. Where /proc/sys is read-only, only log it."""
    for each in _SETTINGS:
        setting = conf / each.format(device)
        try:
            if setting.read_text().strip() != "0":
                setting.write_text("0\n")
        except FileNotFoundError:  # this kernel has no IPv6, or the device's MTU is too small for it
            continue
        except OSError as error:
            why = error.strerror
            log.info("%s cannot be set to 0 (%s); router messages from peers are dropped all the same", setting, why)
            return
