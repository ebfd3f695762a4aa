"""Rules for the kind of a tunnel's device: what has no meaning on a TAP device, or only there.

    TAP    frames are switched by their MAC addresses, so AllowedIPs, Relay and routes to allowed IPs are refused
    TUN    packets are routed by their IP addresses, so MAC, Bridge and AllowedMACs are refused

A device in a bridge is a port of it. Addresses belong on the bridge, so a port gets none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vpntun.config.lines import Section
from vpntun.errors import ConfigurationError
from vpntun.types import DeviceKind

REFUSED_ON_TAP = {
    "AllowedIPs": (
        "AllowedIPs have no meaning on a TAP device, which switches frames by MAC address: leave them out; AllowedMACs "
        "limits a peer"
    ),
    "Relay": "Relay has no meaning on a TAP device, which switches frames from peer to peer anyway: leave it out",
    "Table": "Table has no meaning on a TAP device, since its peers have no allowed IPs to route: leave it out",
}
REFUSED_ON_TUN = {
    "MAC": "MAC is for a TAP device, and a TUN device has no MAC address: set Device = tap, or leave it out",
    "Bridge": "Bridge is for a TAP device, since a bridge takes no TUN device: set Device = tap, or leave it out",
    "AllowedMACs": "AllowedMACs are for a TAP device: set Device = tap, or limit the peer by AllowedIPs",
}


def check_sections(own: Section, peers: Iterable[Section], device: DeviceKind) -> None:
    """Refuse lines that have no meaning on this kind of device. Raises ConfigurationError with the line.

    Values that change nothing are accepted. Table is wg-quick's key, which only some readers of a file mind.
    """
    refused = REFUSED_ON_TAP if device == "tap" else REFUSED_ON_TUN
    for section in (own, *peers):
        for key in refused:
            if key != "Table" and any(text.lower() not in ("", "no") for _, text in section.values.get(key, ())):
                raise section.error(refused[key], key)


def check_device(device: DeviceKind, given: Mapping[str, object]) -> None:
    """Raise ConfigurationError if a value that is given has no meaning on this kind of device.

    `given`: the values by the keys that stand for them in a file; what is false is not given.
    """
    refused = REFUSED_ON_TAP if device == "tap" else REFUSED_ON_TUN
    for key in refused:
        if given[key]:
            raise ConfigurationError(refused[key])
    for key in ("Address", "--route"):
        if given["Bridge"] and given[key]:
            raise ConfigurationError(
                f"a device in a bridge gets no addresses and no routes, since they belong on the bridge: leave {key} "
                "out, or Bridge"
            )
