"""Tables that belong to this process, in a network of the test's own; nft(8) shows what the kernel made of them."""

from __future__ import annotations

import errno
import shutil
import struct
import subprocess

import pytest

from tests.netconf.kernel import in_own_network
from vpntun.firewall.nftables import (
    AT_LEAST,
    FIB_DADDR,
    FIB_SADDR,
    INET,
    META_IIFNAME,
    META_L4PROTO,
    META_MARK,
    META_NFPROTO,
    NETWORK_HEADER,
    PREROUTING,
    TRANSPORT_HEADER,
    UNEQUAL,
    Chain,
    Expression,
    OwnTables,
    compare,
    drop,
    load_meta,
    load_payload,
    load_socket_mark,
    load_type,
    set_mark,
)

pytestmark = pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")

LOCAL, SEVEN = struct.pack("=I", 2), struct.pack("=I", 7)


def nft(*words: str) -> str:
    done = subprocess.run(["nft", "-y", *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def chain(*rules: tuple[Expression, ...]) -> Chain:
    return Chain("first", PREROUTING, -310, rules)


RULES = {
    'iifname != "tun3" drop': (load_meta(META_IIFNAME), compare(b"tun3".ljust(16, b"\0"), UNEQUAL), drop()),
    "ip daddr 10.9.0.2 drop": (
        load_meta(META_NFPROTO),
        compare(b"\2"),
        load_payload(NETWORK_HEADER, 16, 4),
        compare(bytes((10, 9, 0, 2))),
        drop(),
    ),
    "fib saddr type != local drop": (load_type(FIB_SADDR), compare(LOCAL, UNEQUAL), drop()),
    "fib daddr type local drop": (load_type(FIB_DADDR), compare(LOCAL), drop()),
    "socket mark 0x00000007 meta mark set 0x00000008": (load_socket_mark(), compare(SEVEN), *set_mark(8)),
    "meta mark != 0x00000007 drop": (load_meta(META_MARK), compare(SEVEN, UNEQUAL), drop()),
    "udp dport >= 5 drop": (
        load_meta(META_L4PROTO),
        compare(b"\x11"),
        load_payload(TRANSPORT_HEADER, 2, 2),
        compare(b"\0\5", AT_LEAST),
        drop(),
    ),
}


@in_own_network
def test_the_kernel_understands_each_expression() -> None:
    tables = OwnTables()
    tables.replace(INET, "mine", [chain(*RULES.values())])
    listed = [line.strip() for line in nft("list", "table", "inet", "mine").splitlines()]
    first = listed.index("type filter hook prerouting priority -310; policy accept;") + 1
    assert listed[first : first + len(RULES)] == list(RULES)


@in_own_network
def test_a_table_is_replaced_as_a_whole_and_goes_with_its_socket() -> None:
    tables = OwnTables()
    for mark in (7, 8):
        tables.replace(INET, "mine", [chain((*set_mark(mark),))])
    assert "mark set 0x00000008" in nft("list", "ruleset")
    assert "mark set 0x00000007" not in nft("list", "ruleset")
    tables.close()
    assert nft("list", "ruleset") == ""


@in_own_network
def test_nobody_else_can_remove_a_table_or_take_its_name() -> None:
    tables, others = OwnTables(), OwnTables()
    tables.replace(INET, "mine", [])
    nft("flush", "ruleset")
    assert "Operation not permitted" in nft("delete", "table", "inet", "mine")
    with pytest.raises(OSError) as refused:
        others.replace(INET, "mine", [])
    assert refused.value.errno == errno.EPERM
    assert "mine" in nft("list", "tables")


@in_own_network
def test_a_refused_change_leaves_the_table_as_it_was() -> None:
    tables = OwnTables()
    tables.replace(INET, "mine", [chain((*set_mark(7),))])
    with pytest.raises(OSError, match="not supported"):
        tables.replace(INET, "mine", [chain((*set_mark(8),)), Chain("second", 99, 0, ())])
    assert "mark set 0x00000007" in nft("list", "ruleset")
