"""The commands for devices that outlive a program: mktun makes one for a user, rmtun takes it away."""

from __future__ import annotations

import click

from vpntun.config.tunnel import DEFAULT_MTU, check_mtu, parse_interface
from vpntun.errors import VpntunError
from vpntun.netconf.settings import DeviceSettings
from vpntun.runtime.accounts import gid_of, uid_of
from vpntun.tun import persistent


@click.command()
@click.argument("name")
@click.option("--user", metavar="USER", help="Who may use it: a name or a number; unless given, you.")
@click.option("--group", metavar="GROUP", help="Which group may use it; with --user, that user while in the group.")
@click.option("--address", "addresses", multiple=True, metavar="CIDR", help="Address of this end on the device.")
@click.option("--mtu", type=int, metavar="N", help=f"Inner MTU ({DEFAULT_MTU} unless given).")
def mktun(name: str, user: str | None, group: str | None, addresses: tuple[str, ...], mtu: int | None) -> None:
    """Make a device that stays, and bring it up: USER then runs vpntun -i NAME without privileges.

    One that is there already for the same user and group is given what is asked for, and is no error.
    """
    owner = None if user is None else uid_of(user)
    members = None if group is None else gid_of(group)
    wanted = tuple(map(parse_interface, addresses))
    if mtu is not None:
        check_mtu(mtu, wanted)
    made = persistent.make(name, owner, members)
    settings = DeviceSettings(name)
    try:
        settings.apply(list(wanted), [], DEFAULT_MTU if made and mtu is None else mtu)
    except VpntunError:
        if made:
            persistent.remove(name)
        else:
            settings.undo()
        raise


@click.command()
@click.argument("name")
def rmtun(name: str) -> None:
    """Remove a device that mktun made; never one that is in use, or that is no TUN device."""
    persistent.remove(name)
