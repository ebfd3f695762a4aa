"""Zones: which names peers get, what records and added zones change, and what only others can know."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

from hypothesis import given
from hypothesis import strategies as st

from tests.names.directories import ADDRESSES, directory, peer, tunnel
from vpntun.names.added_zones import parse_zone
from vpntun.names.zones import Directory, Found, Unknown, directory_of, labels_of_peers, network_of_reverse

LAPTOP = peer("Anna's Laptop", "10.9.0.2/32", "fd09::2/128", "192.168.5.0/24")
DESK = peer("desk", "10.9.0.3/32")


def look_up(known: Directory, name: str) -> list[str] | Unknown:
    """What is known of a name: its addresses or names as text."""
    _, found = known.find(tuple(name.split(".")))
    return [*map(str, found.addresses), *found.names] if isinstance(found, Found) else found


def test_peers_have_the_single_addresses_of_their_allowed_ips() -> None:
    known = directory(LAPTOP, DESK)
    assert look_up(known, "anna-s-laptop.office.internal") == ["10.9.0.2", "fd09::2"]
    assert look_up(known, "desk.office.internal") == ["10.9.0.3"]
    assert look_up(known, "nobody.office.internal") is Unknown.NO_SUCH_NAME
    assert look_up(known, "a.desk.office.internal") is Unknown.NO_SUCH_NAME
    assert look_up(known, "office.internal") == []
    assert look_up(known, "internal") is Unknown.OTHERS_KNOW


def test_this_machine_has_its_own_name_and_the_tunnels_addresses() -> None:
    assert look_up(directory(), "hub.office.internal") == ["10.9.0.1", "fd09::1"]
    assert look_up(directory(peer("HUB", "10.9.0.4/32")), "hub.office.internal") == ["10.9.0.4"]
    assert directory().host == "hub.office.internal"
    assert directory_of(tunnel(), ADDRESSES, "東京").host == "ns.office.internal"


def test_of_two_peers_with_one_label_the_first_has_the_name() -> None:
    peers = [DESK, peer("Desk", "10.9.0.4/32"), peer("東京", "10.9.0.5/32"), peer("", "10.9.0.6/32")]
    assert labels_of_peers(peers) == ({"desk": DESK}, ["Desk", "東京"])
    assert look_up(directory(*peers), "desk.office.internal") == ["10.9.0.3"]


def test_the_peer_of_a_shared_key_has_the_addresses_derived_from_it() -> None:
    derived = replace(tunnel(peer("Other", "0.0.0.0/0")), derived_peer_addresses=(ip_address("100.64.0.2"),))
    assert look_up(directory_of(derived, ADDRESSES, "hub"), "other.office.internal") == ["100.64.0.2"]


def test_addresses_have_names_and_those_inside_the_tunnel_are_nobody_elses_business() -> None:
    known = directory(LAPTOP, peer("far", "172.16.0.9/32"), records=("www.example.org 203.0.113.8",))
    assert look_up(known, "2.0.9.10.in-addr.arpa") == ["anna-s-laptop.office.internal"]
    assert look_up(known, ".".join(reversed("fd09" + "0" * 27 + "2")) + ".ip6.arpa") == [
        "anna-s-laptop.office.internal"
    ]
    assert look_up(known, "9.0.16.172.in-addr.arpa") == ["far.office.internal"]
    assert look_up(known, "8.113.0.203.in-addr.arpa") == ["www.example.org"]
    assert look_up(known, "77.0.9.10.in-addr.arpa") is Unknown.NO_SUCH_NAME
    assert look_up(known, "0.9.10.in-addr.arpa") == []
    for name in (
        "9.10.in-addr.arpa",
        "8.8.8.8.in-addr.arpa",
        "in-addr.arpa",
        "x.0.9.10.in-addr.arpa",
        "999.0.9.10.in-addr.arpa",
    ):
        assert look_up(known, name) is Unknown.OTHERS_KNOW


def test_the_address_of_a_nameless_peer_is_not_looked_for_elsewhere() -> None:
    assert look_up(directory(peer("", "172.16.0.9/32")), "9.0.16.172.in-addr.arpa") is Unknown.NO_SUCH_NAME


def test_records_name_single_names_all_below_one_and_the_rest_of_the_domain() -> None:
    records = ("nas 10.9.0.7", "desk 10.9.0.9", "www.example.org 10.9.0.8", "*.apps.example 10.9.0.8", "* 10.9.0.1")
    known = directory(DESK, records=records)
    assert look_up(known, "nas.office.internal") == ["10.9.0.7"]
    assert look_up(known, "desk.office.internal") == ["10.9.0.9"]  # before the peer
    assert look_up(known, "anything.office.internal") == ["10.9.0.1"]
    assert look_up(known, "www.example.org") == ["10.9.0.8"]
    assert look_up(known, "a.b.apps.example") == ["10.9.0.8"]
    for name in ("mail.example.org", "x.www.example.org", "apps.example"):
        assert look_up(known, name) is Unknown.OTHERS_KNOW


def test_an_added_zone_has_records_expressions_and_a_default_and_nobody_else_is_asked() -> None:
    body = b"""{"Name": "Containers.internal.", "records": [{"name": "gateway", "ip": "10.9.0.1"},
        {"name": "a.b", "ip": "10.9.0.2"}, {"regexp": "^web-", "ip": "10.9.0.3"}]}"""
    zone = parse_zone(body)
    known = directory(added=(zone.as_zone(),))
    assert look_up(known, "gateway.containers.internal") == ["10.9.0.1"]
    assert look_up(known, "web-7.containers.internal") == ["10.9.0.3"]
    assert look_up(known, "b.containers.internal") == []  # since there is a name below it
    assert look_up(known, "x.containers.internal") is Unknown.NO_SUCH_NAME
    known = directory(added=(replace(zone, default=ip_address("10.9.0.4")).as_zone(),))
    assert look_up(known, "x.containers.internal") == ["10.9.0.4"]
    assert look_up(known, "containers.internal") == []


def test_an_added_zone_with_the_name_of_the_domain_adds_to_it() -> None:
    body = (
        b'{"name": "office.internal", "records": [{"name": "desk", "ip": "10.9.0.7"}, {"name": "x", "ip": "10.9.0.8"}]}'
    )
    known = directory(DESK, added=(parse_zone(body).as_zone(),))
    assert look_up(known, "desk.office.internal") == ["10.9.0.3"]
    assert look_up(known, "x.office.internal") == ["10.9.0.8"]
    assert len(known) == 3


@given(st.lists(st.text(max_size=6), max_size=40))
def test_any_labels_can_be_looked_up(labels: list[str]) -> None:
    known = directory(LAPTOP, records=("*.apps.example 10.9.0.8",))
    for top in ([], ["office", "internal"], ["in-addr", "arpa"], ["ip6", "arpa"], ["apps", "example"]):
        known.find((*labels, *top))


@given(st.ip_addresses())
def test_a_reverse_name_stands_for_its_address(address: object) -> None:
    parsed = ip_address(str(address))
    network = network_of_reverse(tuple(parsed.reverse_pointer.split(".")))
    assert network is not None
    assert (network.network_address, network.prefixlen) == (parsed, parsed.max_prefixlen)
    assert ip_interface(str(address)).network == network
