"""Which changes of a running tunnel are made at once, and those of its sockets."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from tests.datapath.ends import ALICE, BOB, CAROL
from vpntun.carriers.base import Carrier
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Routing, Tunnel
from vpntun.control.changing import change_sockets, changed_at_once
from vpntun.datapath.engine import Engine
from vpntun.errors import CannotChange, PortInUse, VpntunError
from vpntun.netconf.host import HostNetwork

PRESENT = Tunnel("tun3", ALICE, (PeerSettings(BOB.public, ()),), 55555, "udp", routing=Routing("auto", 7))
CALLING = replace(PRESENT, port=None, listen_on=None)
OVER_TCP = replace(PRESENT, listen_on="auto")


def test_keys_peers_port_and_mark_change_at_once() -> None:
    wanted = replace(
        PRESENT, identity=CAROL, peers=(PeerSettings(ALICE.public, ()),), port=9, routing=Routing("auto", 8)
    )
    assert changed_at_once(PRESENT, wanted) == wanted
    assert changed_at_once(PRESENT, CALLING) == CALLING
    assert changed_at_once(CALLING, PRESENT) == PRESENT
    assert changed_at_once(OVER_TCP, replace(OVER_TCP, port=9)) == replace(OVER_TCP, port=9)


@pytest.mark.parametrize(
    "wanted",
    [
        replace(PRESENT, relay=True),
        replace(PRESENT, mtu=1400),
        replace(PRESENT, routing=Routing("off", 7)),
        replace(PRESENT, listen_on="auto"),
        replace(PRESENT, listen_on="auto", port=9),
    ],
)
def test_everything_else_takes_a_restart(wanted: Tunnel) -> None:
    assert changed_at_once(PRESENT, wanted) == PRESENT
    assert changed_at_once(wanted, PRESENT) == wanted


class Sockets:
    """An engine, a host and a UDP carrier that note what is asked of them. `refuses`: what fails."""

    def __init__(self, port: int = 55555, refuses: dict[str, VpntunError] | None = None) -> None:
        self.done: list[object] = []
        self._port, self._refuses = port, refuses or {}

    def change(self, former: Tunnel, wanted: Tunnel) -> None:
        engine, host = cast(Engine, self), cast(HostNetwork, self)
        change_sockets(former, wanted, engine, host, {"udp": cast(Carrier, SimpleNamespace(port=self._port))})

    def change_mark(self, mark: int) -> None:
        if "mark" in self._refuses:
            raise self._refuses["mark"]
        self.done.append(("mark", mark))

    def change_port(self, port: int, *, can_be_called: bool) -> None:
        if "port" in self._refuses:
            raise self._refuses["port"]
        self.done.append(("port", port, can_be_called))

    def peers_connect_at(self, tcp_port: int | None) -> None:
        self.done.append(("tcp", tcp_port))


def test_only_what_differs_is_changed() -> None:
    sockets = Sockets()
    sockets.change(PRESENT, replace(PRESENT, identity=None, peers=()))
    assert sockets.done == []
    sockets.change(PRESENT, replace(PRESENT, port=9, routing=Routing("auto", 8)))
    assert sockets.done == [("mark", 8), ("port", 9, True), ("tcp", None)]
    sockets.done.clear()
    sockets.change(OVER_TCP, replace(OVER_TCP, port=9))
    assert sockets.done == [("port", 9, True), ("tcp", 9)]


def test_any_port_is_another_one_and_the_port_that_the_kernel_has_chosen_is_none() -> None:
    sockets = Sockets(port=40000)
    sockets.change(PRESENT, CALLING)
    assert sockets.done == [("port", 0, False), ("tcp", None)]
    sockets.done.clear()
    sockets.change(CALLING, replace(PRESENT, port=40000))
    assert sockets.done == []


def test_after_a_failure_nothing_has_changed() -> None:
    sockets = Sockets(refuses={"mark": CannotChange("no")})
    with pytest.raises(CannotChange):
        sockets.change(PRESENT, replace(PRESENT, port=9, routing=Routing("auto", 8)))
    assert sockets.done == []
    sockets = Sockets(refuses={"port": PortInUse("no")})
    with pytest.raises(PortInUse):
        sockets.change(PRESENT, replace(PRESENT, port=9, routing=Routing("auto", 8)))
    assert sockets.done == [("mark", 8), ("mark", 7)]
