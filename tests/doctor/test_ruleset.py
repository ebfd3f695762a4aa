"""Rules of the packet filter: a chain is blamed only for a packet that it drops for certain.

The rules are nft's JSON, as in the list that nft 1.0.6 prints. tests/netns/test_doctor.py lets real ones be read.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.doctor.ruleset import LARGEST_LIST, Packet, Ruleset, read_ruleset
from vpntun.errors import VpntunError

CALL = Packet(4, "udp", 55555)
THROUGH = Packet(4, enters="tun3", leaves="eth0")
ACCEPT, DROP, RETURN = {"accept": None}, {"drop": None}, {"return": None}
COUNTER = {"counter": {"packets": 0, "bytes": 0}}


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, field: str, right: Any, op: str = "==") -> dict[str, Any]:
    return match({"payload": {"protocol": protocol, "field": field}}, right, op)


def meta(key: str, right: Any, op: str = "==") -> dict[str, Any]:
    return match({"meta": {"key": key}}, right, op)


def state(*states: str) -> dict[str, Any]:
    return match({"ct": {"key": "state"}}, list(states), "in")


def xt(name: str, kind: str = "match") -> dict[str, Any]:
    return {"xt": {"type": kind, "name": name}}


DPORT = payload("udp", "dport", 55555)
ESTABLISHED = [state("established", "related"), ACCEPT]


def listed(
    *rules: list[Any], hook: str = "input", policy: str = "drop", family: str = "inet", **others: Any
) -> list[dict[str, Any]]:
    """List one base chain, and the `others`, which are lists of rules by their chain's name."""
    found: list[dict[str, Any]] = [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": family, "name": "filter"}},
        {
            "chain": {
                "family": family,
                "table": "filter",
                "name": "base",
                "type": "filter",
                "hook": hook,
                "policy": policy,
            }
        },
    ]
    for name, its in {"base": rules, **others}.items():
        found.append({"chain": {"family": family, "table": "filter", "name": name}})
        found += [{"rule": {"family": family, "table": "filter", "chain": name, "expr": each}} for each in its]
    return found


def chain(*rules: list[Any], **others: Any) -> Ruleset:
    return Ruleset(listed(*rules, **others))


def drops(rules: Ruleset, packet: Packet = CALL, hook: str = "input") -> bool:
    return rules.droppers(hook, packet) != []


def test_an_empty_ruleset_drops_nothing() -> None:
    assert not drops(Ruleset([]))


def test_a_policy_drops_what_no_rule_accepts() -> None:
    assert chain(ESTABLISHED).droppers("input", CALL) == ["inet filter base"]
    assert not drops(chain(ESTABLISHED, policy="accept"))
    assert not drops(chain(ESTABLISHED), CALL, "forward")


@pytest.mark.parametrize(
    "rule",
    [
        [DPORT, ACCEPT],
        [DPORT, COUNTER, ACCEPT],
        [payload("udp", "dport", {"set": [22, {"range": [50000, 60000]}]}), ACCEPT],
        [meta("l4proto", {"set": ["tcp", "udp"]}), payload("th", "dport", 55555), ACCEPT],
        [payload("ip", "protocol", "udp"), ACCEPT],
        [payload("udp", "dport", 22, "!="), ACCEPT],
        [state("new"), DPORT, ACCEPT],
        [state("established", "untracked"), ACCEPT],  # perhaps
        [payload("ip", "saddr", "203.0.113.0"), DPORT, ACCEPT],  # perhaps
        [payload("udp", "dport", "@ports"), ACCEPT],
        [meta("iifname", "eth0"), ACCEPT],
        [meta("iifname", "lo", "!="), DPORT, ACCEPT],
        [xt("multiport"), ACCEPT],
        [xt("conntrack"), DPORT, ACCEPT],
        [DPORT, xt("comment"), ACCEPT],
        [{"queue": {"num": 0}}],
        [{"something": "new"}, ACCEPT],
    ],
)
def test_a_rule_that_accepts_the_packet_or_may_is_enough(rule: list[Any]) -> None:
    assert not drops(chain(ESTABLISHED, rule))


@pytest.mark.parametrize(
    "rule",
    [
        [payload("udp", "dport", 500), ACCEPT],
        [payload("tcp", "dport", 55555), ACCEPT],
        [payload("tcp", "dport", 22, "!="), ACCEPT],
        [payload("udp", "dport", 55555, "!="), ACCEPT],
        [payload("udp", "dport", {"set": [500, {"range": [4000, 5000]}]}), ACCEPT],
        [payload("ip6", "saddr", "fe80::"), ACCEPT],
        [meta("l4proto", "tcp"), ACCEPT],
        [meta("iif", "lo"), ACCEPT],
        [meta("nfproto", "ipv6"), ACCEPT],
        [xt("conntrack"), COUNTER, ACCEPT],
        [DROP],
        [DPORT, {"reject": {"type": "icmp"}}],
        [COUNTER, xt("REJECT", "target")],
        [xt("LOG", "target")],
        [{"log": {"prefix": "x"}}],
    ],
)
def test_a_rule_that_cannot_accept_the_packet_does_not_help(rule: list[Any]) -> None:
    assert drops(chain(ESTABLISHED, rule))


def test_an_interface_fits_by_its_name_and_by_a_pattern() -> None:
    for name in ("tun3", "tun*"):
        assert not drops(chain([meta("iifname", name), ACCEPT], hook="forward"), THROUGH, "forward")
    for rule in ([meta("iifname", "docker0"), ACCEPT], [meta("oifname", "docker0"), ACCEPT]):
        assert drops(chain(rule, hook="forward"), THROUGH, "forward")
    assert not drops(chain([meta("iifname", "docker0", "!="), ACCEPT], hook="forward"), THROUGH, "forward")


def test_the_first_rule_that_is_certain_decides() -> None:
    assert drops(chain([DPORT, DROP], [DPORT, ACCEPT], policy="accept"))
    assert not drops(chain([DPORT, ACCEPT], [DROP]))
    assert not drops(chain([payload("ip", "saddr", "192.0.2.1"), DROP], [DPORT, ACCEPT]))


@pytest.mark.parametrize(
    "statement",
    [
        {"limit": {"rate": 100, "per": "second", "inv": True}},
        {"quota": {"val": 10, "val_unit": "mbytes", "inv": True}},
        {"ct count": {"val": 20, "inv": True}},
        {"set": {"op": "add", "elem": {"payload": {"protocol": "ip", "field": "saddr"}}, "set": "@seen"}},
    ],
)
def test_a_rule_that_drops_what_exceeds_a_limit_is_not_blamed(statement: dict[str, Any]) -> None:
    assert not drops(chain([state("new"), statement, COUNTER, DROP], [DPORT, ACCEPT]))
    assert drops(chain([state("new"), COUNTER, {"log": None}, DROP], [DPORT, ACCEPT]))


def test_chains_are_followed() -> None:
    to = {"jump": {"target": "calls"}}
    assert not drops(chain([to], calls=[[DPORT, ACCEPT]]))
    assert not drops(chain([to], [DPORT, ACCEPT], calls=[[RETURN], [DROP]]))
    assert not drops(chain([to], [DPORT, ACCEPT], calls=[]))
    assert drops(chain([to], calls=[[payload("udp", "dport", 53), ACCEPT]]))
    assert drops(chain([to], [DPORT, ACCEPT], calls=[[DROP]]))
    assert drops(chain([{"goto": {"target": "calls"}}], [DPORT, ACCEPT], calls=[]))
    assert not drops(chain([{"goto": {"target": "calls"}}], policy="accept", calls=[]))


def test_chains_in_a_circle_come_to_an_end() -> None:
    assert not drops(chain([{"jump": {"target": "base"}}], [ACCEPT]))


def test_a_map_of_verdicts_is_followed() -> None:
    by_state = {"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["established", ACCEPT], ["new", DROP]]}}}
    assert drops(chain([by_state], [DPORT, ACCEPT]))
    by_port = {"vmap": {"key": {"payload": {"protocol": "udp", "field": "dport"}}, "data": {"set": [[55555, ACCEPT]]}}}
    assert not drops(chain([by_port]))
    assert not drops(chain([{"vmap": {"key": {"meta": {"key": "mark"}}, "data": "@map"}}]))


def test_families_see_their_own_version() -> None:
    assert not drops(chain(family="ip6"))
    assert drops(chain(family="ip6"), CALL._replace(version=6))
    assert drops(chain(), CALL._replace(version=6))
    assert not drops(chain(family="netdev"))


def test_every_chain_of_a_hook_has_to_accept() -> None:
    both = Ruleset([*listed([DPORT, ACCEPT]), *listed(family="ip")])
    assert both.droppers("input", CALL) == ["ip filter base"]


@pytest.mark.parametrize(
    ("printed", "why"),
    [
        (b'{"nftables": []}'.ljust(LARGEST_LIST + 1), "too many rules"),
        (b"[]", "run it by hand"),
        (b"", "no such table"),
    ],
    ids=["too long", "no object", "nothing"],
)
def test_a_list_that_cannot_be_read_says_why(printed: bytes, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(
        subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, printed, b"no such table")
    )
    with pytest.raises(VpntunError, match=why):
        read_ruleset()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["match", "op", "left", "right", "meta", "key", "xt", "jump", "vmap", "data", "set", "accept"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=2) | JSON, max_size=3), max_size=3))
def test_rules_of_another_version_raise_nothing_and_are_not_blamed(rules: list[Any]) -> None:
    assert not drops(chain(*rules, policy="accept")) or "drop" in str(rules) or "reject" in str(rules)
