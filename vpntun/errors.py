"""The tree of all the program's errors, with the exit status of each.

An error's text is the message that the operator reads: what is wrong and what to do. Its class determines the exit
status; `vpntun.cli` maps one to the other in one place.

    status  class               when
    1       VpntunError         unexpected: none of the classes below fits
    2       (click's own)       usage: an option is missing, unknown or contradicts another
    3       ConfigurationError  a value that cannot work: a key, an address, a route, an MTU
    4       KeyFileError        the key file is missing, malformed or readable by others
    5       DeviceError         the device cannot be created, attached or configured, or it has disappeared
    6       PrivilegeError      a capability or a permission is missing
    7       PortInUse           another process listens on the port
    8       InterfaceInUse      another vpntun runs the interface, or another program has its socket for wg(8)
    9       NotInTime           the link was not up, or the daemon had not ended, within the time to wait for it
    10      HookFailed          one of the operator's commands failed, so the tunnel was not started
    11      NotRunning          no daemon holds the pid file
    12      CheckFailed         `vpntun doctor` has found something that cannot work
    13      NotVerified         there is a session with a peer, but nothing proves that data arrives
    14      NoFreshHandshake    messages can be sent to a peer, but there is no session under 180 s old
    15      CarrierDown         no message can be sent to a peer
    16      PairingFailed       the two machines were not paired: a wrong code, too late, or nobody answered
    126     CommandNotRun       the command of `vpntun run` is there, and cannot be executed
    127     CommandNotFound     there is no such command

`BadPacket` is separate: parsers of untrusted bytes raise it and nothing else. It never leaves the event loop. It
carries the name of the counter under which the packet is dropped.
"""

from __future__ import annotations


class VpntunError(Exception):
    """An error whose text tells the operator what to do; `exit_status` is the program's exit status."""

    exit_status = 1


class ConfigurationError(VpntunError):
    """A configured value that cannot work, whatever the state of the machine."""

    exit_status = 3


class CannotChange(ConfigurationError):
    """A setting that a running tunnel cannot change, or that is not this end's to choose."""


class KeyFileError(VpntunError):
    """The key file is missing, malformed, or others can read it."""

    exit_status = 4


class DeviceError(VpntunError):
    """The device cannot be created, attached or configured, or it has disappeared."""

    exit_status = 5


class PrivilegeError(VpntunError):
    """The process lacks a capability or a permission."""

    exit_status = 6


class PortInUse(VpntunError):
    """Another process listens on the port."""

    exit_status = 7


class InterfaceInUse(VpntunError):
    """Another vpntun runs the interface: it answers on the interface's control socket."""

    exit_status = 8


class UapiInUse(InterfaceInUse):
    """Another process listens on the interface's socket for wg(8)."""


class NotInTime(VpntunError):
    """What the command waited for has not happened in time: a link that comes up, or a daemon that ends."""

    exit_status = 9


class NoSuchTunnel(VpntunError):
    """No vpntun of this user runs the interface in this network namespace."""


class RequestRefused(VpntunError):
    """A running tunnel has answered a request by a refusal; it can be asked something else."""


class RequestUnknown(RequestRefused):
    """A running tunnel, which an older version has started, does not know a request."""


class NoSuchForward(VpntunError):
    """The tunnel has no forward that listens there."""


class ForwardExists(VpntunError):
    """The tunnel has a forward that listens there."""


class NoSuchPeer(VpntunError):
    """The tunnel has no peer with this name or key."""


class AmbiguousPeer(VpntunError):
    """The name or key given matches several peers of the tunnel."""


class CannotAsk(VpntunError):
    """The peer cannot be asked anything inside the tunnel now."""


class CannotAskYet(CannotAsk):
    """The peer cannot be asked anything now, and perhaps can in a moment."""


class CannotTry(VpntunError):
    """The peer has no other carrier that can be tried now."""


class CannotTest(VpntunError):
    """A speed test cannot begin, or has failed."""


class HookFailed(VpntunError):
    """A command that the operator set to run before the tunnel is used has failed."""

    exit_status = 10


class NotRunning(VpntunError):
    """No daemon holds the pid file: it has ended, or was killed and left the file behind."""

    exit_status = 11


class CheckFailed(VpntunError):
    """A check of `vpntun doctor` has failed."""

    exit_status = 12


class LinkError(VpntunError):
    """A link that does not carry data, as far as is known."""


class NotVerified(LinkError):
    """Nothing has proven lately that data arrives at the peer."""

    exit_status = 13


class NoFreshHandshake(LinkError):
    """There is no session with the peer that is under 180 s old."""

    exit_status = 14


class CarrierDown(LinkError):
    """No message can be sent to the peer: where it is reached is not known, or this host cannot send there."""

    exit_status = 15


class PairingFailed(VpntunError):
    """Two machines were not paired: the code was wrong or too old, or the other end did not answer."""

    exit_status = 16


class CommandNotRun(VpntunError):
    """The command of `vpntun run` cannot be executed; the status is a shell's."""

    exit_status = 126


class CommandNotFound(VpntunError):
    """There is no command of this name; the status is a shell's."""

    exit_status = 127


class BadPacket(Exception):
    """Untrusted bytes that must be dropped; `reason` names the counter to increment, such as "bad mac1".

    `sender` is the peer whose key the bytes were made with, or None if that is not known.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sender: object = None


class OldTimestamp(BadPacket):
    """Authentic initiation, older than the newest of its sender: a replay, or the sender's clock was set back."""

    def __init__(self) -> None:
        super().__init__("old timestamp")
