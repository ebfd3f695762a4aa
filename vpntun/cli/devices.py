"""Commands for persistent devices: mktun creates one for a user, rmtun removes it."""

from __future__ import annotations

import click

from vpntun.config.tunnel import DEFAULT_MTU, DEFAULT_MTU_OF_TAP, check_mtu, parse_interface
from vpntun.errors import VpntunError
from vpntun.netconf.settings import DeviceSettings
from vpntun.runtime.accounts import gid_of, uid_of
from vpntun.runtime.log import open_log
from vpntun.tun import persistent
from vpntun.tun.ipv6 import carried_addresses
from vpntun.tun.queries import mtu_of
from vpntun.types import DeviceKind


@click.command()
@click.argument("name")
@click.option("-a", "--tap", is_flag=True, help="Make a TAP device, which carries Ethernet frames, not a TUN device.")
@click.option("--user", metavar="USER", help="User that may use it, by name or number (default: you).")
@click.option(
    "--group", metavar="GROUP", help="Group that may use it; with --user, only that user, while in the group."
)
@click.option("--address", "addresses", multiple=True, metavar="CIDR", help="Address of this end on the device.")
@click.option(
    "--mtu",
    type=int,
    metavar="N",
    help=f"MTU of the device (default: {DEFAULT_MTU}, {DEFAULT_MTU_OF_TAP} with --tap).",
)
def mktun(
    name: str, tap: bool, user: str | None, group: str | None, addresses: tuple[str, ...], mtu: int | None
) -> None:
    """Create a persistent device, which USER can use without privileges.

    The device is brought up; USER then runs vpntun -i NAME, with -a if it is a TAP device. A device that exists
    already for the same user and group gets the address and MTU given here.
    """
    kind: DeviceKind = "tap" if tap else "tun"
    owner = None if user is None else uid_of(user)
    members = None if group is None else gid_of(group)
    wanted = tuple(map(parse_interface, addresses))
    if mtu is not None:
        check_mtu(mtu, wanted, kind)
    made = persistent.make(name, owner, members, kind)
    open_log(name, 0)
    settings = DeviceSettings(name)
    try:
        if made and mtu is None:
            mtu = DEFAULT_MTU_OF_TAP if tap else DEFAULT_MTU
        settings.apply(carried_addresses(name, mtu or mtu_of(name), wanted), [], mtu)
    except VpntunError:
        if made:
            persistent.remove(name)
        else:
            settings.undo()
        raise


@click.command()
@click.argument("name")
def rmtun(name: str) -> None:
    """Remove a persistent device. One that is in use, or is neither a TUN nor a TAP device, stays."""
    persistent.remove(name)
