"""Ruleset of this host's packet filter, as `nft --json list ruleset` prints it: chains that surely drop a packet.

A chain of a hook drops a packet for certain if none of the rules that may match accepts it, and its policy, or a rule
that matches for certain, drops it. What is not understood may match or not: sets, addresses, most matches of iptables.
So a ruleset that is too clever is never blamed, but may hide a fault. The packet opens a connection.

iptables-nft's rules are in the list, too. Those of iptables-legacy are not; `uses_legacy` tells whether there are any.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from vpntun.errors import PrivilegeError, VpntunError
from vpntun.runtime.child import SYSTEM_PATH

LEGACY = (Path("/proc/net/ip_tables_names"), Path("/proc/net/ip6_tables_names"))
SECONDS_OF_NFT = 4.0
LARGEST_LIST = 8 << 20
"""Bytes of a list of rules. A tunnel that reads a longer one for its peer would delay packets."""
DEEPEST = 16
FAMILIES: dict[int, tuple[str, ...]] = {4: ("ip", "inet"), 6: ("ip6", "inet")}
ACCEPT, DROP, ON = "accept", "drop", "on"
"""What may become of a packet: ON means that the next rule, or the calling chain, decides."""
HARMLESS = frozenset({"LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "CT", "AUDIT", "SECMARK", "CONNSECMARK"})
"""Targets of iptables after which the next rule follows."""
SURE = frozenset({"xt", "counter", "log", "mangle", "notrack", "comment", "ct helper", "ct timeout"})
"""Statements after which the rest of a rule follows for certain: a limit, a quota or a full set may end the rule."""
DEVICES = frozenset({"iif", "iifname", "oif", "oifname"})

Outcomes = frozenset[str]
Json = Mapping[str, Any]


class Packet(NamedTuple):
    """A packet that opens a connection. None and "" are whatever is not known of it."""

    version: int
    protocol: str = ""
    port: int | None = None
    enters: str = ""
    leaves: str = ""


def read_ruleset() -> Ruleset:
    """Read the ruleset. Raises VpntunError if there is no nft, PrivilegeError if this user may not."""
    if os.geteuid() != 0:
        raise PrivilegeError("only root may read the packet filter's rules: run 'vpntun doctor' as root")
    try:
        done = subprocess.run(
            ["nft", "--json", "list", "ruleset"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS_OF_NFT,
            check=False,
            env={"PATH": SYSTEM_PATH, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise VpntunError("the packet filter's rules cannot be read without nft(8): install nftables") from None
    except subprocess.TimeoutExpired:
        raise VpntunError(f"'nft list ruleset' has not ended within {SECONDS_OF_NFT:g} s: run it by hand") from None
    if len(done.stdout) > LARGEST_LIST:
        raise VpntunError("the packet filter has too many rules to be examined: see 'nft list ruleset'")
    try:
        return Ruleset(json.loads(done.stdout)["nftables"])
    except (ValueError, KeyError, TypeError, AttributeError):
        reason = done.stderr.decode(errors="replace").strip().partition("\n")[0] or "no JSON"
        raise VpntunError(f"'nft --json list ruleset' fails ({reason}): run it by hand") from None


def uses_legacy() -> bool:
    """Whether iptables-legacy has tables here, as far as this user may know."""
    return any(_content(path) for path in LEGACY)


class Ruleset:
    """Chains and rules, of the list that nft prints. Raises KeyError, TypeError or AttributeError if it is none."""

    def __init__(self, listed: Iterable[Json]) -> None:
        self._hooked: list[Json] = []
        self._rules: dict[tuple[str, str, str], list[Sequence[Json]]] = {}
        for each in listed:
            if "chain" in each:
                chain = each["chain"]
                self._rules.setdefault((chain["family"], chain["table"], chain["name"]), [])
                if chain.get("type") == "filter":
                    self._hooked.append(chain)
            elif "rule" in each:
                rule = each["rule"]
                self._rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule["expr"])

    def droppers(self, hook: str, packet: Packet) -> list[str]:
        """Name the chains of a hook (input, forward) that drop this packet for certain."""
        return [
            f"{chain['family']} {chain['table']} {chain['name']}"
            for chain in self._hooked
            if chain.get("hook") == hook
            and chain["family"] in FAMILIES[packet.version]
            and self._of_hook(chain, packet) == {DROP}
        ]

    def _of_hook(self, chain: Json, packet: Packet) -> Outcomes:
        found = self._of_chain((chain["family"], chain["table"], chain["name"]), packet, DEEPEST)
        return found - {ON} | {str(chain.get("policy", ACCEPT))} if ON in found else found

    def _of_chain(self, name: tuple[str, str, str], packet: Packet, deep: int) -> Outcomes:
        """Return what may become of a packet in a chain; ON: its end is reached, or "return"."""
        found: set[str] = set()
        for rule in self._rules.get(name, ()):
            try:
                outcomes, returns = self._of_rule(name, rule, packet, deep)
            except (KeyError, TypeError, ValueError, AttributeError, StopIteration):  # another version's JSON
                outcomes, returns = frozenset({ACCEPT, ON}), False
            found |= outcomes - {ON}
            if returns and ON not in outcomes:
                return frozenset(found | {ON})
            found |= {ON} if returns else set()
            if ON not in outcomes:
                return frozenset(found)
        return frozenset(found | {ON})

    def _of_rule(
        self, name: tuple[str, str, str], rule: Sequence[Json], packet: Packet, deep: int
    ) -> tuple[Outcomes, bool]:
        """Return what may become of a packet by a rule, ON for the next rule; and whether the chain may be left."""
        is_certain = True
        is_alone = sum("match" in each or _is_match(each) for each in rule) == 1
        for each in rule:
            if "match" in each or _is_match(each):
                fits = (
                    _fits(each["match"], packet) if "match" in each else _fits_iptables(each["xt"], is_alone=is_alone)
                )
                if fits is False:
                    return frozenset({ON}), False
                is_certain = is_certain and fits is True
                continue
            outcomes, returns = self._of_statement(name, each, packet, deep)
            if outcomes != {ON} or returns:
                return (outcomes if is_certain else outcomes | {ON}), returns
            is_certain = is_certain and next(iter(each)) in SURE
        return frozenset({ON}), False

    def _of_statement(
        self, name: tuple[str, str, str], statement: Json, packet: Packet, deep: int
    ) -> tuple[Outcomes, bool]:
        kind, content = next(iter(statement.items()))
        if kind == "accept":
            return frozenset({ACCEPT}), False
        if kind in ("drop", "reject"):
            return frozenset({DROP}), False
        if kind == "return":
            return frozenset(), True
        if kind in ("jump", "goto") and deep:
            outcomes = self._of_chain((*name[:2], content["target"]), packet, deep - 1)
            return (outcomes, False) if kind == "jump" else (outcomes - {ON}, ON in outcomes)
        if kind == "xt":
            return _of_target(str((content or {}).get("name", ""))), False
        if kind == "vmap":
            return self._of_map(name, content, packet, deep)
        return frozenset({ON} if kind not in ("queue", "jump", "goto") else {ACCEPT, ON}), False

    def _of_map(self, name: tuple[str, str, str], content: Json, packet: Packet, deep: int) -> tuple[Outcomes, bool]:
        """Return what may become of a packet by a map from values to verdicts."""
        pairs = content["data"].get("set", ()) if isinstance(content["data"], Mapping) else ()
        if not pairs:
            return frozenset({ACCEPT, ON}), False
        found: set[str] = set()
        may_return = False
        for value, statement in pairs:
            fits = _fits({"op": "==", "left": content["key"], "right": value}, packet)
            if fits is not False:
                outcomes, returns = self._of_statement(name, statement, packet, deep)
                found, may_return = found | outcomes, may_return or returns
                if fits:
                    return frozenset(outcomes), returns
        return frozenset(found | {ON}), may_return


def _is_match(statement: Json) -> bool:
    return "xt" in statement and (statement["xt"] or {}).get("type") == "match"


def _fits_iptables(match: Json, *, is_alone: bool) -> bool | None:
    """Return whether a match of iptables fits. One by a connection's state that is alone lets answers pass, surely."""
    if match.get("name") == "comment":
        return True
    return False if is_alone and match.get("name") in ("conntrack", "state") else None


def _of_target(name: str) -> Outcomes:
    if name in ("REJECT", "DROP"):
        return frozenset({DROP})
    return frozenset({ON} if name in HARMLESS else {ACCEPT, ON})


def _fits(match: Json, packet: Packet) -> bool | None:
    """Return whether a match fits the packet; None if nobody knows."""
    if match["right"] == "lo" and match["left"].get("meta", {}).get("key") in DEVICES:
        return bool(match["op"] == "!=")  # the packet is another machine's
    known = _known(match["left"], packet)
    if isinstance(known, bool):
        return known
    if known is None:
        return None
    found = _holds(match["right"], known)
    if not found and "ct" in match["left"] and _holds(match["right"], "untracked"):
        return None  # an earlier rule may have said so (notrack)
    if found is None or match["op"] not in ("==", "in", "!="):
        return None
    return not found if match["op"] == "!=" else found


def _known(left: Json, packet: Packet) -> str | int | bool | None:
    """Return the packet's value of an expression: None if it is not known, False if the packet has none."""
    if "meta" in left:
        values: dict[str, str | int] = {"l4proto": packet.protocol, "nfproto": f"ipv{packet.version}"}
        values |= {"iifname": packet.enters, "iif": packet.enters, "oifname": packet.leaves, "oif": packet.leaves}
        return values.get(left["meta"]["key"]) or None
    if "ct" in left:
        return "new" if left["ct"]["key"] == "state" else None
    if "payload" in left:
        header, field = left["payload"].get("protocol"), left["payload"].get("field")
        if header in ("ip", "ip6") and (header == "ip") != (packet.version == 4):
            return False
        if (header, field) in (("ip", "protocol"), ("ip6", "nexthdr")):
            return packet.protocol or None
        if header in ("tcp", "udp", "sctp", "dccp", "icmp", "icmpv6") and packet.protocol and header != packet.protocol:
            return False
        return packet.port if field == "dport" and header in ("th", packet.protocol) else None
    return None


def _holds(right: Any, value: str | int) -> bool | None:
    """Return whether a value is the right side of a match or in it; None if that is not understood."""
    if isinstance(right, Mapping):
        if "set" in right:
            return _holds(right["set"], value)
        if "range" in right and isinstance(value, int):
            low, high = right["range"]
            return bool(low <= value <= high) if isinstance(low, int) and isinstance(high, int) else None
        return _holds(right["elem"].get("val"), value) if "elem" in right else None
    if isinstance(right, list):
        found = [_holds(each, value) for each in right]
        return True if True in found else None if None in found else False
    if isinstance(right, str):
        if right.startswith("@"):
            return None
        return fnmatchcase(str(value), right) if isinstance(value, str) else None
    return bool(right == value) if isinstance(value, int) else None


def _content(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
