"""Zones that are added on request while the tunnel runs, in the JSON of gvisor-tap-vsock (pkg/types, Zone and Record).

    {"name": "apps.example.", "records": [{"name": "gateway", "ip": "10.9.0.1"}, {"regexp": "^web-[0-9]+$", "ip": ...}],
     "defaultIP": "10.9.0.2"}

Keys may be in any case, and unknown ones are ignored, as Go's decoder does. A zone that is added again keeps its
records behind the new ones, and gets the new default. All zones are kept as long as the name server runs, through
reloads of the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from vpntun.config.names import parse_address, parse_domain
from vpntun.errors import ConfigurationError
from vpntun.names.patterns import Pattern
from vpntun.names.zones import Zone
from vpntun.types import IpAddress

MOST_ZONES = 256
MOST_RECORDS = 4096
"""Records of all zones together."""
MOST_PATTERNS = 64
"""Expressions of one zone: each question for a name in the zone may try all of them."""


@dataclass(frozen=True)
class AddedRecord:
    """A record: a name relative to the zone, or an expression; both may be missing, and then nothing matches."""

    name: str
    address: IpAddress
    pattern: Pattern | None = None


@dataclass(frozen=True)
class AddedZone:
    """A zone as it was added. `name`: as in Zone."""

    name: str
    records: tuple[AddedRecord, ...] = ()
    default: IpAddress | None = None

    def as_zone(self) -> Zone:
        """Return it as the directory needs it. The first record of a name counts, with one address of each version."""
        names: dict[str, tuple[IpAddress, ...]] = {}
        patterns = []
        for record in self.records:
            known = names.get(record.name, ())
            if record.pattern is not None:
                patterns.append((record.pattern, (record.address,)))
            elif all(record.address.version != each.version for each in known):
                names[record.name] = (*known, record.address)
        return Zone(self.name, names, tuple(patterns), (self.default,) if self.default is not None else ())

    def as_json(self) -> dict[str, Any]:
        """Return it as gvisor-tap-vsock lists it."""
        return {
            "Name": f"{self.name}.",
            "Records": [
                {"Name": record.name, "IP": str(record.address)}
                | ({"Regexp": record.pattern.expression} if record.pattern is not None else {})
                for record in self.records
            ],
            "DefaultIP": "" if self.default is None else str(self.default),
        }


class AddedZones:
    """All added zones, by their names, in the order in which they came."""

    def __init__(self) -> None:
        self._zones: dict[str, AddedZone] = {}

    def add(self, zone: AddedZone) -> None:
        """Add a zone, or what it has to a zone of the same name. Raises ConfigurationError if there are too many."""
        present = self._zones.get(zone.name)
        if present is not None:
            former = [each for each in present.records if each not in zone.records]
            zone = replace(zone, records=(*zone.records, *former))
        zones = {**self._zones, zone.name: zone}
        if len(zones) > MOST_ZONES or sum(len(each.records) for each in zones.values()) > MOST_RECORDS:
            raise ConfigurationError(f"there may be {MOST_ZONES} added zones, with {MOST_RECORDS} records in all")
        if sum(record.pattern is not None for record in zone.records) > MOST_PATTERNS:
            raise ConfigurationError(f"a zone may have {MOST_PATTERNS} regular expressions")
        self._zones = zones

    def as_zones(self) -> list[Zone]:
        """Return all zones as the directory needs them."""
        return [zone.as_zone() for zone in self._zones.values()]

    def as_json(self) -> list[dict[str, Any]]:
        """Return all zones as gvisor-tap-vsock lists them."""
        return [zone.as_json() for zone in self._zones.values()]


def parse_zone(body: bytes) -> AddedZone:
    """Parse the JSON of one zone. Raises ConfigurationError, whatever the bytes are."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    zone = _fields(content, "a zone is a JSON object with name, records and defaultIP")
    records = _value(zone, "records", list, "the records of a zone are a list") or []
    name = _text(zone, "name")
    if not name.strip("."):
        raise ConfigurationError("a zone needs a name, such as apps.example.")
    return AddedZone(parse_domain(name), tuple(map(_record, records)), _address(zone, "defaultip"))


def _record(content: object) -> AddedRecord:
    record = _fields(content, "a record is a JSON object with name or regexp, and ip")
    name, expression, address = _text(record, "name"), _text(record, "regexp"), _address(record, "ip")
    if address is None or bool(name) == bool(expression):
        raise ConfigurationError("a record has a name or a regexp, and an ip")
    return AddedRecord(parse_domain(name) if name else "", address, Pattern(expression) if expression else None)


def _fields(content: object, complaint: str) -> dict[str, Any]:
    """Return the fields of an object by their names in lower case."""
    if not isinstance(content, dict):
        raise ConfigurationError(complaint)
    return {name.lower(): value for name, value in content.items()}


def _address(fields: dict[str, Any], name: str) -> IpAddress | None:
    text = _text(fields, name)
    return parse_address(text) if text else None


def _text(fields: dict[str, Any], name: str) -> str:
    return _value(fields, name, str, f"{name} is a text") or ""


def _value(fields: dict[str, Any], name: str, kind: type, complaint: str) -> Any:
    value = fields.get(name)
    if value is not None and not isinstance(value, kind):
        raise ConfigurationError(complaint)
    return value
