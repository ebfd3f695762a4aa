"""Nftables tables that belong to this process: the kernel removes them when their socket closes, even by a kill.

Each request is a batch, which the kernel carries out as a whole or not at all. A table is made with the flag "owner"
(Linux 5.12): no other process can change it, and `nft flush ruleset` leaves it alone. So neither a journal nor a
privilege is needed to take it away.

The body of a message (netlink_messages.py) is nfgenmsg: family, version (u8 each), subsystem (u16, big-endian). Numbers
in attributes are big-endian.

The layouts are those of linux/netfilter/nf_tables.h. A rule is a list of expressions, which load a value into register
1, compare it, and end the rule where it differs; `nft --debug=netlink list ruleset` shows them.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from vpntun.runtime.netlink_messages import (
    NLMSG_ERROR,
    attribute,
    error_in,
    message,
    messages_in,
    netlink_socket,
)

NETLINK_NETFILTER = 12
NFNL_SUBSYS_NFTABLES = 10
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEWTABLE, DELTABLE, NEWCHAIN, NEWRULE = 0, 2, 3, 6
NLM_F_ACK, NLM_F_CREATE, NLM_F_APPEND = 4, 0x400, 0x800
NESTED = 0x8000
TABLE_OWNER = 2
LARGEST_ANSWER = 65536

INET, ARP = 1, 3
"""Families of tables; that of INET sees packets of both IP versions."""
PREROUTING = ARP_INPUT = 0
"""Hooks of chains, by the family of their table."""
META_MARK, META_IIFNAME, META_NFPROTO, META_L4PROTO = 3, 6, 15, 16
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
FIB_SADDR, FIB_DADDR = 1, 2
EQUAL, UNEQUAL, AT_MOST, AT_LEAST = 0, 1, 3, 5

_FIB_ADDRTYPE = 3
_SOCKET_MARK = 1
_NF_DROP = 0
_VERDICT, _REGISTER = 0, 1
_GENERIC = struct.Struct("!BBH")
_u32 = struct.Struct("!I")
_s32 = struct.Struct("!i")

Expression = bytes


class Chain(NamedTuple):
    """A chain of type filter and its rules. The chain with the lowest `priority` sees a packet first."""

    name: str
    hook: int
    priority: int
    rules: tuple[tuple[Expression, ...], ...]


class OwnTables:
    """Tables of this process, which exist until `close`. The constructor raises OSError if there is no netlink."""

    def __init__(self) -> None:
        self._socket = netlink_socket(NETLINK_NETFILTER)
        self._sequence = 0

    def replace(self, family: int, name: str, chains: Iterable[Chain]) -> None:
        """Make a table with these chains, in place of the one of this name if it is this process's.

        Raises OSError; then nothing has changed. EOPNOTSUPP and ENOENT mean that the kernel lacks nftables or one of
        the expressions; EPERM that the right is missing, or that the table is another process's.
        """
        table = _text(1, name)
        made = (NEWTABLE, NLM_F_CREATE, table + _number(2, TABLE_OWNER))
        requests = [made, (DELTABLE, 0, table), made]
        for chain in chains:
            hook = _nest(4, _number(1, chain.hook), attribute(2, _s32.pack(chain.priority)))
            requests.append((NEWCHAIN, NLM_F_CREATE, table + _text(3, chain.name) + hook + _text(7, "filter")))
            for rule in chain.rules:
                where = table + _text(2, chain.name)
                listed = _nest(4, *(_nest(1, expression) for expression in rule))
                requests.append((NEWRULE, NLM_F_CREATE | NLM_F_APPEND, where + listed))
        self._carry_out(family, requests)

    def close(self) -> None:
        """Remove the tables."""
        self._socket.close()

    def _carry_out(self, family: int, requests: Iterable[tuple[int, int, bytes]]) -> None:
        """Send one batch. The kernel has answered it by the time that it is sent."""
        subsystem = NFNL_SUBSYS_NFTABLES
        messages = [self._message(BATCH_BEGIN, 0, _GENERIC.pack(0, 0, subsystem))]
        for kind, flags, attributes in requests:
            body = _GENERIC.pack(family, 0, 0) + attributes
            messages.append(self._message(subsystem << 8 | kind, flags | NLM_F_ACK, body))
        messages.append(self._message(BATCH_END, 0, _GENERIC.pack(0, 0, subsystem)))
        self._socket.send(b"".join(messages))
        answers = list(self._answers())
        refused = next(filter(None, answers), 0 if len(answers) >= len(messages) - 2 else errno.EPROTO)
        if refused:
            raise OSError(refused, os.strerror(refused))

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        return message(kind, flags, self._sequence, body)

    def _answers(self) -> Iterator[int]:
        """Yield the error number in each answer that waits, 0 for none."""
        with suppress(BlockingIOError):
            while True:
                data = self._socket.recv(LARGEST_ANSWER)
                for place in messages_in(data):
                    if place.kind == NLMSG_ERROR and place.begin + 4 <= len(data):
                        yield error_in(data, place.begin)


def load_meta(key: int) -> Expression:
    """Load what the kernel knows of a packet, by a META_* key."""
    return _expression("meta", _number(2, key), _number(1, _REGISTER))


def load_payload(header: int, offset: int, length: int) -> Expression:
    """Load bytes of a packet; `header` is NETWORK_HEADER or TRANSPORT_HEADER."""
    fields = (_REGISTER, header, offset, length)
    return _expression("payload", *(_number(kind, value) for kind, value in enumerate(fields, 1)))


def load_type(of: int) -> Expression:
    """Load the type of an address, such as RTN_LOCAL, as 4 bytes in this machine's order. `of`: FIB_SADDR or so."""
    return _expression("fib", _number(1, _REGISTER), _number(2, _FIB_ADDRTYPE), _number(3, of))


def load_socket_mark() -> Expression:
    """Load the mark of the TCP or UDP socket that a packet, or an ICMP error about one, is for; end without one."""
    return _expression("socket", _number(1, _SOCKET_MARK), _number(2, _REGISTER))


def compare(data: bytes, how: int = EQUAL) -> Expression:
    """End the rule here unless the register compares so to `data`: EQUAL, UNEQUAL, AT_MOST or AT_LEAST."""
    return _expression("cmp", _number(1, _REGISTER), _number(2, how), _nest(3, attribute(1, data)))


def set_mark(mark: int) -> tuple[Expression, Expression]:
    """Give the packet a mark."""
    value = _nest(2, attribute(1, struct.pack("=I", mark)))
    return (
        _expression("immediate", _number(1, _REGISTER), value),
        _expression("meta", _number(2, META_MARK), _number(3, _REGISTER)),
    )


def drop() -> Expression:
    """Drop the packet."""
    return _expression("immediate", _number(1, _VERDICT), _nest(2, _nest(2, _number(1, _NF_DROP))))


def _expression(name: str, *attributes: bytes) -> Expression:
    return _text(1, name) + _nest(2, *attributes)


def _nest(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(attributes))


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, _u32.pack(value))


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")
