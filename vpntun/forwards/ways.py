"""Ways of a tunnel's forwards: for each origin, the side where it listens, and the side where its targets are.

tunnel of this machine    here      listens on this machine, connects by the device
                          peer      listens on the device, connects on this machine
vpntun run                here      listens on this machine, connects inside the namespace
                          inside    listens inside, connects on this machine
                          peer      listens on the device inside, connects on this machine
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from vpntun.config.forwards import Origin
from vpntun.forwards.side import Side
from vpntun.forwards.sides import DeviceSide, MachineSide, addresses_of_device
from vpntun.runtime.resolver import Lookups


@dataclass(frozen=True)
class Way:
    """Where the forwards of one origin listen, and where their targets are."""

    listening: Side
    connecting: Side


Ways = Mapping[Origin, Way]


def ways_of_machine(device: str, lookups: Lookups) -> Ways:
    """Return the ways of a tunnel with a device of this machine."""
    machine = MachineSide(lookups)
    tunnel = DeviceSide(machine, device, partial(addresses_of_device, device))
    return {"here": Way(machine, tunnel), "peer": Way(tunnel, machine)}


def ways_of_run(device: str, lookups: Lookups, inside: Side, addresses: Callable[[], Iterable[str]]) -> Ways:
    """Return the ways of a run. `addresses`: those of the device, which is in the namespace that `inside` is."""
    machine = MachineSide(lookups)
    return {
        "here": Way(machine, inside),
        "inside": Way(inside, machine),
        "peer": Way(DeviceSide(inside, device, addresses), machine),
    }
