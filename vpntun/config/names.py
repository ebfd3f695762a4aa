"""Settings of the name server that a tunnel runs on its own addresses, as [Interface] gives them.

    DnsServer = yes                                names of the peers, and everything else by this machine's resolvers
    DnsDomain = office.internal                    the domain of the peers' names; INTERFACE.internal otherwise
    DnsRecord = nas 10.9.0.7 fd00::7               a name without a dot is in that domain
    DnsRecord = www.example.org 10.9.0.8           only this name: other names of example.org are looked up as ever
    DnsRecord = *.apps.example.org 10.9.0.8        all names below apps.example.org
    DnsRecord = * 10.9.0.1                         all names of the domain that nothing else has
    DnsForward = corp.example 10.1.0.53            names of this domain are asked of these servers instead

Names are kept in lower case, without a dot at the end.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from ipaddress import ip_address

from vpntun.config import values
from vpntun.errors import ConfigurationError
from vpntun.types import IpAddress, Place, written

LONGEST_NAME, LONGEST_LABEL = 253, 63
MOST_ADDRESSES = 16
"""Addresses of one record: their answer fits one datagram."""

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


@dataclass(frozen=True)
class NameRecord:
    """Addresses of a name; of all names below it if `is_wildcard`. `name`: absolute, or "" for the tunnel's domain."""

    name: str
    addresses: tuple[IpAddress, ...]
    is_wildcard: bool = False

    def __str__(self) -> str:
        name = f"*.{self.name}" if self.is_wildcard and self.name else self.name or "*"
        return " ".join([name, *map(str, self.addresses)])


@dataclass(frozen=True)
class NameForward:
    """A domain whose names are asked of these servers."""

    domain: str
    servers: tuple[Place, ...]

    def __str__(self) -> str:
        places = (each[0] if each[1] == values.DNS_PORT else written(each) for each in self.servers)
        return " ".join([self.domain, *places])


@dataclass(frozen=True)
class NameSettings:
    """What the name server of a tunnel serves. `domain`: the domain of the peers' names."""

    domain: str
    records: tuple[NameRecord, ...] = ()
    forwards: tuple[NameForward, ...] = ()


def label_of(text: str) -> str:
    """Return the label in the DNS for the name of a peer or a machine; "" if nothing of it can be in one.

    Letters lose their case and their accents; whatever is neither an ASCII letter nor a digit becomes a hyphen, several
    in a row become one, and there are none at the ends.
    """
    if not text.isascii():
        letters = unicodedata.normalize("NFKD", text.casefold())
        text = "".join(each for each in letters if not unicodedata.combining(each))
    hyphened = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return hyphened[:LONGEST_LABEL].rstrip("-")


def default_domain(interface: str) -> str:
    """Return the domain of a tunnel whose file names none."""
    return f"{label_of(interface) or 'tunnel'}.internal"


def parse_domain(text: str) -> str:
    """Parse a name in the DNS, and return it in lower case, without a dot at the end. Raises ConfigurationError."""
    name = text.lower().removesuffix(".")
    try:
        if not name.isascii():
            name = name.encode("idna").decode("ascii")
        if len(name) > LONGEST_NAME or not all(map(_LABEL.fullmatch, name.split("."))):
            raise ValueError
    except ValueError:
        raise ConfigurationError(f"{values.shown(text)} is not a name in the DNS, such as office.internal") from None
    return name


def parse_record(text: str, domain: str) -> NameRecord:
    """Parse NAME ADDRESS..., where NAME may be a pattern, *.NAME or *. Raises ConfigurationError."""
    name, *addresses = text.replace(",", " ").split() or [""]
    if not addresses or len(addresses) > MOST_ADDRESSES:
        raise ConfigurationError(
            f"a record is a name with 1 to {MOST_ADDRESSES} addresses, such as nas 10.9.0.7, or *.apps.example 10.9.0.8"
        )
    parsed = tuple(map(parse_address, addresses))
    if name == "*":
        return NameRecord("", parsed, is_wildcard=True)
    if name.startswith("*."):
        return NameRecord(parse_domain(name[2:]), parsed, is_wildcard=True)
    name = parse_domain(name)
    return NameRecord(name if "." in name else parse_domain(f"{name}.{domain}"), parsed)


def parse_forward_of_names(text: str) -> NameForward:
    """Parse DOMAIN SERVER..., where a server may have a port, as in 10.1.0.53:5353. Raises ConfigurationError."""
    domain, *servers = text.replace(",", " ").split() or [""]
    if not servers:
        raise ConfigurationError("give a domain and the addresses of its name servers, such as corp.example 10.1.0.53")
    return NameForward(parse_domain(domain), tuple(map(_server, servers)))


def parse_address(text: str) -> IpAddress:
    """Parse an address without a zone. Raises ConfigurationError."""
    try:
        if "%" in text:
            raise ValueError
        return ip_address(text)
    except ValueError:
        raise ConfigurationError(f"{values.shown(text)} is not an address, such as 10.9.0.7 or fd00::7") from None


def _server(text: str) -> Place:
    try:
        host, port = values.name_server(text)
    except ValueError:
        raise ConfigurationError(
            f"{values.shown(text)} is not a name server, such as 10.1.0.53 or [fd00::53]:5353"
        ) from None
    return str(parse_address(host)), port
