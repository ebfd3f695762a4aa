"""SERVICES: bodies of the requests by which peers find each other's services, and the bytes that begin a visit.

    asked      {"ask": "list"}                                      what may I use?
               {"ask": "visit", "service": "ssh", "peer": "desk"}   let me use this; without "peer": a service of yours
               {..., "from": "laptop"}                              a hub passes on what its peer "laptop" asks
    answered   {"services": [{"service": "ssh", "peer": "desk", "key": false}, ...]}     without "peer": my own
               {"places": [["10.9.0.3", 40123], ...], "token": 32 hexadecimal digits, "key": true}
               {"refused": "the reason"}

The visitor connects to one of the places by TCP, through the tunnel. Before the service's own bytes, these are sent:

    the offering end   nonce, 32 random bytes
    the visitor        token, 16 bytes, and proof, 32 bytes (crypto/service_proof.py)
    the offering end   verdict, 1 byte: 0 welcome; 1 to 4: the reason of a refusal, after which it closes

Everything here handles untrusted content. The parsers raise only BadPacket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from vpntun.errors import BadPacket
from vpntun.types import Place

SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
LONGEST_PEER = 64
"""Characters in what a hub calls a peer."""
LONGEST_REASON = 300
MOST_OFFERS = 150
"""Services in one answer, of which each takes 100 bytes or so."""
MOST_PLACES = 8

NONCE_SIZE, TOKEN_SIZE, PROOF_SIZE, VERDICT_SIZE = 32, 16, 32, 1
WELCOME, UNKNOWN_TOKEN, WRONG_KEY, TARGET_REFUSES, TOO_MANY = range(5)
REASONS = {
    UNKNOWN_TOKEN: "its permission is over, or the other end was restarted",
    WRONG_KEY: "the ServiceKey is not the other end's",
    TARGET_REFUSES: "the program behind the service does not take the connection",
    TOO_MANY: "too many connections use the other end's services",
}


@dataclass(frozen=True)
class Asked:
    """A request. `service`: None asks for a list. `peer`: "" is the asked end. `asker`: whose request is passed on."""

    service: str | None = None
    peer: str = ""
    asker: str = ""

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Asked:
        """Parse the body of a request. Raises BadPacket("bad services request")."""
        asker = _name(content.get("from", ""))
        if content.get("ask") == "list":
            return cls(asker=asker)
        if content.get("ask") != "visit":
            raise BadPacket("bad services request")
        return cls(_service(content.get("service")), _name(content.get("peer", "")), asker)

    def content(self) -> dict[str, Any]:
        """Return the body of the request."""
        visited = {"ask": "list"} if self.service is None else {"ask": "visit", "service": self.service}
        named = {"peer": self.peer, "from": self.asker}
        return {**visited, **{key: name for key, name in named.items() if name}}


@dataclass(frozen=True)
class Offer:
    """A service that may be used. `peer`: "" is the end that answers."""

    service: str
    peer: str
    needs_key: bool

    def content(self) -> dict[str, Any]:
        """Return the offer as a member of an answer."""
        named = {"peer": self.peer} if self.peer else {}
        return {"service": self.service, **named, "key": self.needs_key}


@dataclass(frozen=True)
class Grant:
    """Permission to use a service: the addresses and ports to connect to, and the token that is shown there."""

    places: tuple[Place, ...]
    token: bytes
    needs_key: bool

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Grant:
        """Parse the answer to a visit. Raises BadPacket("bad services answer")."""
        token = content.get("token")
        if not isinstance(token, str) or not re.fullmatch(r"[0-9a-f]{32}", token):
            raise BadPacket("bad services answer")
        places = content.get("places")
        if not isinstance(places, list) or not 1 <= len(places) <= MOST_PLACES:
            raise BadPacket("bad services answer")
        return cls(tuple(map(_place, places)), bytes.fromhex(token), _flag(content.get("key")))

    def content(self) -> dict[str, Any]:
        """Return the answer."""
        return {"places": [list(place) for place in self.places], "token": self.token.hex(), "key": self.needs_key}


def pack_offers(offers: Iterable[Offer]) -> dict[str, Any]:
    """Return the answer to a list, of the first MOST_OFFERS offers."""
    return {"services": [offer.content() for offer in list(offers)[:MOST_OFFERS]]}


def parse_offers(content: Mapping[str, Any]) -> list[Offer]:
    """Parse the answer to a list. Raises BadPacket("bad services answer")."""
    offers = content.get("services")
    if not isinstance(offers, list) or len(offers) > MOST_OFFERS:
        raise BadPacket("bad services answer")
    return [_offer(each) for each in offers]


def refusal_in(content: Mapping[str, Any]) -> str | None:
    """Return why an answer refuses, in printable characters; None if it does not."""
    if "refused" not in content:
        return None
    return "".join(each if each.isprintable() else "?" for each in str(content["refused"])[:LONGEST_REASON])


def _offer(content: Any) -> Offer:
    if not isinstance(content, dict):
        raise BadPacket("bad services answer")
    return Offer(_service(content.get("service")), _name(content.get("peer", "")), _flag(content.get("key")))


def _place(content: Any) -> Place:
    match content:
        case [str(host), int(port)] if not isinstance(port, bool) and 1 <= port <= 65535 and "%" not in host:
            try:
                return str(ip_address(host)), port
            except ValueError:
                pass
    raise BadPacket("bad services answer")


def _service(content: Any) -> str:
    if not isinstance(content, str) or not SERVICE_NAME.fullmatch(content):
        raise BadPacket("bad service name")
    return content


def _name(content: Any) -> str:
    if not isinstance(content, str) or len(content) > LONGEST_PEER or not content.isprintable():
        raise BadPacket("bad peer name")
    return content


def _flag(content: Any) -> bool:
    if not isinstance(content, bool):
        raise BadPacket("bad services answer")
    return content
