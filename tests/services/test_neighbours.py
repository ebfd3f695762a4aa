"""Neighbours: what AllowFrom may call a visitor, and which addresses lead to whom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.services.town import DESK, LAPTOP, Town
from vpntun.crypto.keys import format_key
from vpntun.errors import NoSuchPeer
from vpntun.services.neighbours import kernel_forwards


def test_a_peer_is_called_by_its_name_or_its_key(town: Town) -> None:
    hub, laptop = town.hub.neighbours, town.laptop.end.identity.public
    link = town.hub.link_of(laptop)
    assert hub.visitor(link, "").names == ("laptop", format_key(laptop))
    nameless = replace(town.hub.tunnel.peers[0], name="")
    town.hub.tunnel = replace(town.hub.tunnel, peers=(nameless, town.hub.tunnel.peers[1]))
    assert hub.name_of(laptop) == format_key(laptop)


def test_the_only_peer_may_speak_for_others_and_one_of_several_needs_its_own_name_beside(town: Town) -> None:
    assert town.desk.neighbours.visitor(town.desk.end.link, "phone").names[0] == "phone"
    link = town.hub.link_of(town.laptop.end.identity.public)
    assert town.hub.neighbours.visitor(link, "phone").names == ("phone@laptop",)


def test_the_only_peer_that_is_left_of_several_cannot_claim_to_be_one_of_the_others(town: Town) -> None:
    town.hub.tunnel = replace(town.hub.tunnel, peers=town.hub.tunnel.peers[:1])
    link = town.hub.link_of(town.laptop.end.identity.public)
    assert town.hub.neighbours.visitor(link, "desk").names == ("desk@laptop",)


def test_the_only_peer_needs_no_name(town: Town) -> None:
    assert town.desk.neighbours.called("") is town.desk.tunnel.peers[0]
    with pytest.raises(NoSuchPeer):
        town.desk.neighbours.called("laptop")


def test_an_address_leads_to_the_peer_whose_allowed_ips_have_it(town: Town) -> None:
    laptop, desk = town.hub.tunnel.peers
    assert town.hub.neighbours.leads_to(DESK, desk)
    assert not town.hub.neighbours.leads_to(DESK, laptop)
    assert not town.hub.neighbours.leads_to("192.0.2.7", desk)
    assert not town.hub.neighbours.leads_to("fd00::7", desk)


def test_a_hub_passes_packets_on_if_it_relays_or_its_kernel_forwards(town: Town) -> None:
    assert town.hub.neighbours.passes_on(LAPTOP)
    town.relay(False)
    assert not town.hub.neighbours.passes_on(LAPTOP)
    setting = Path("/proc/sys/net/ipv4/conf/all/forwarding").read_text()
    assert kernel_forwards(4) == (setting.strip() == "1")
