"""Permissions: each token is of one visitor and one service, for a time, and no peer can use up those of others."""

from __future__ import annotations

from vpntun.services.neighbours import Visitor
from vpntun.services.permissions import LASTS, MOST_OF_A_PEER, Permissions

LAPTOP, PHONE = (Visitor(name.encode() * 4, (name,)) for name in ("laptop", "phone"))


def test_a_token_stands_for_its_visitor_and_service_until_it_is_over() -> None:
    permissions = Permissions()
    token = permissions.give("ssh", LAPTOP, 0.0)
    found = permissions.of(token, LASTS - 1)
    assert found is not None
    assert (found.service, found.visitor) == ("ssh", LAPTOP)
    assert permissions.of(token, LASTS) is None
    assert permissions.of(bytes(16), 0.0) is None


def test_a_peer_that_asks_without_end_takes_the_place_of_its_own_permissions_only() -> None:
    permissions = Permissions()
    kept, own = permissions.give("ssh", LAPTOP, 0.0), permissions.give("ssh", PHONE, 0.0)
    for _ in range(MOST_OF_A_PEER):
        permissions.give("ssh", PHONE, 1.0)
    assert permissions.of(own, 1.0) is None
    assert permissions.of(kept, 1.0) is not None
    assert len(permissions) == MOST_OF_A_PEER + 1


def test_permissions_that_are_over_make_room() -> None:
    permissions = Permissions()
    for _ in range(5):
        permissions.give("ssh", LAPTOP, 0.0)
    permissions.give("ssh", LAPTOP, LASTS)
    assert len(permissions) == 1


def test_a_peer_that_is_removed_loses_its_permissions() -> None:
    permissions = Permissions()
    kept, lost = permissions.give("ssh", LAPTOP, 0.0), permissions.give("ssh", PHONE, 0.0)
    permissions.keep({LAPTOP.public})
    assert permissions.of(lost, 0.0) is None
    assert permissions.of(kept, 0.0) is not None
