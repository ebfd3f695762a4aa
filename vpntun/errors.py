"""Every error of the program, in one tree.

The text of an error is the operator's message: it says what is wrong and what to do. The class says which
exit status the program ends with; `vpntun.cli` turns one into the other, once.

    status  class               when
    1       VpntunError         unexpected: nothing below fits
    2       (click's own)       usage: an option is missing, unknown or contradicts another
    3       ConfigurationError  a value that cannot work: a key, an address, a route, an MTU
    4       KeyFileError        the key file is missing, malformed or readable by others
    5       DeviceError         the TUN device cannot be made, attached, configured or has gone
    6       PrivilegeError      a capability or a permission is missing
    7       PortInUse           another process listens on the port
    8       InterfaceInUse      another vpntun runs the interface
    9       NotInTime           the link did not stand within the time given to wait for it
    10      HookFailed          a command of the operator's failed, and so the tunnel was not started

`BadPacket` stands apart: it is what parsers of untrusted bytes raise, and the only thing they raise. It never
leaves the loop; what it carries is the name of the counter the packet is dropped under.
"""

from __future__ import annotations


class VpntunError(Exception):
    """An error whose text tells the operator what to do; `exit_status` is what the program ends with."""

    exit_status = 1


class ConfigurationError(VpntunError):
    """A value that cannot work, whatever the state of the machine."""

    exit_status = 3


class KeyFileError(VpntunError):
    """The key file is missing, malformed, or others can read it."""

    exit_status = 4


class DeviceError(VpntunError):
    """The TUN device cannot be made, attached or configured, or it has gone away."""

    exit_status = 5


class PrivilegeError(VpntunError):
    """The process lacks a capability or a permission."""

    exit_status = 6


class PortInUse(VpntunError):
    """Another process holds the port."""

    exit_status = 7


class InterfaceInUse(VpntunError):
    """Another vpntun runs the interface: somebody answers on its control socket."""

    exit_status = 8


class NotInTime(VpntunError):
    """Who waited for the link has waited long enough; the tunnel goes on trying."""

    exit_status = 9


class NoSuchPeer(VpntunError):
    """The tunnel has no peer of this name or key."""


class AmbiguousPeer(VpntunError):
    """Several peers of the tunnel may be meant."""


class HookFailed(VpntunError):
    """A command that the operator wants run before the tunnel is used did not succeed."""

    exit_status = 10


class BadPacket(Exception):
    """Untrusted bytes that are dropped; `reason` is the counter they are counted under, such as "bad mac1".

    `sender`: the peer whose key they were made with, where that is known.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sender: object = None
