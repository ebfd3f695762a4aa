"""Forwarding of questions to other name servers: which are asked, in which order, and who waits for the answers.

    1. a name in a domain of DnsForward is for the servers of the longest such domain, everything else for this
       machine's own (resolv_conf.py)
    2. servers that are this tunnel's own addresses are left out; so are those of this machine's own to which its routes
       lead through the tunnel: the question would come back, or only a peer could answer it
    3. a question that is pending already is not asked again: whoever asks waits for the same answer. Two name servers
       that forward to each other therefore send one question each, which ends when its time is over
    4. each server has 1.5 s (upstream.py), all together 6 s, in two rounds. A server that refuses or fails is followed
       by the next one; if none is left, its answer is passed on, or SERVFAIL

At most 256 questions are pending, 64 of them for one source, and 64 askers wait for one of them. More get SERVFAIL.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

import dns.rcode

from vpntun.config.names import NameForward
from vpntun.names.answering import Question
from vpntun.names.others import OthersAnswer
from vpntun.names.upstream import Upstream
from vpntun.names.zones import Labels
from vpntun.runtime.log import NOTICE, Limited
from vpntun.runtime.loop import Loop
from vpntun.types import IpAddress, Place

MOST_PENDING, MOST_OF_A_SOURCE, MOST_ASKERS = 256, 64, 64
SECONDS_IN_ALL = 6.0
ROUNDS = 2
TRY_ANOTHER = frozenset({dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP, dns.rcode.FORMERR})

Deliver = Callable[[bytes], None]


@dataclass(frozen=True)
class Servers:
    """Where questions go. All are functions, since any of it may change between two questions.

    `forwards`: the domains with servers of their own. `of_machine`: the machine's servers at a time. `own`: addresses
    of the tunnel. `leads_inside`: whether packets to an address go through the tunnel. `mark`: the mark of what the
    tunnel itself sends, 0 for none; questions to the machine's servers have it, too.
    """

    forwards: Callable[[], Sequence[NameForward]]
    of_machine: Callable[[float], Sequence[Place]]
    own: Callable[[], Sequence[IpAddress]]
    leads_inside: Callable[[str], bool]
    mark: Callable[[], int]

    def choose(self, labels: Labels, now: float) -> tuple[list[Place], int]:
        """Return the servers for a name, and the mark of the packets to them."""
        own = set(self.own())
        for number in range(len(labels)):
            domain = ".".join(labels[number:])
            for each in self.forwards():
                if each.domain == domain:
                    return [server for server in each.servers if ip_address(server[0]) not in own], 0
        usable = [
            server
            for server in self.of_machine(now)
            if ip_address(server[0]) not in own and not self.leads_inside(server[0])
        ]
        return usable, self.mark()


@dataclass
class _Pending:
    """A question that is pending. `left`: servers still to be asked. `worst`: the answer of one that failed."""

    question: Question
    left: list[Place]
    mark: int
    ends_at: float
    askers: list[tuple[Question, Hashable, Deliver]] = field(default_factory=list)
    upstream: Upstream | None = None
    worst: OthersAnswer | None = None


class Forwarding:
    """All pending questions. `on_failed` is called for each asker that gets no answer of a server."""

    def __init__(self, loop: Loop, servers: Servers, on_failed: Callable[[], None]) -> None:
        self._loop = loop
        self._servers = servers
        self._on_failed = on_failed
        self._pending: dict[Hashable, _Pending] = {}
        self._of_source: Counter[Hashable] = Counter()
        self._nobody = Limited(NOTICE, "no name server to ask: %s")

    def __len__(self) -> int:
        """Return how many questions are pending."""
        return len(self._pending)

    def ask(self, question: Question, source: Hashable, deliver: Deliver) -> None:
        """Ask others for an asker, and deliver the answer, at once if there are too many. `source`: who asks."""
        pending = self._pending.get(question.key)
        if pending is not None:
            has_room = len(pending.askers) < MOST_ASKERS
        else:
            has_room = len(self._pending) < MOST_PENDING
        if not has_room or self._of_source[source] >= MOST_OF_A_SOURCE:
            self._on_failed()
            deliver(question.failed())
            return
        if pending is None:
            pending = self._begin(question)
        pending.askers.append((question, source, deliver))
        self._of_source[source] += 1

    def close(self) -> None:
        """End all questions without an answer."""
        for pending in self._pending.values():
            if pending.upstream is not None:
                pending.upstream.close()
        self._pending.clear()
        self._of_source.clear()

    def _begin(self, question: Question) -> _Pending:
        now = self._loop.now
        servers, mark = self._servers.choose(question.labels, now)
        if not servers:
            self._nobody("this machine has none, or they are inside the tunnel")
        pending = self._pending[question.key] = _Pending(question, servers * ROUNDS, mark, now + SECONDS_IN_ALL)
        self._loop.call_later(0.0, lambda: self._ask_next(pending))
        return pending

    def _ask_next(self, pending: _Pending) -> None:
        if self._pending.get(pending.question.key) is not pending:
            return
        if not pending.left or self._loop.now >= pending.ends_at:
            self._finish(pending, pending.worst)
            return
        server = pending.left.pop(0)

        def done(answer: OthersAnswer | None) -> None:
            if answer is not None and answer.rcode not in TRY_ANOTHER:
                self._finish(pending, answer)
                return
            if answer is not None:
                pending.worst = answer
                pending.left = [each for each in pending.left if each != server]
            self._ask_next(pending)

        pending.upstream = Upstream(self._loop, server, pending.question, pending.mark, done)

    def _finish(self, pending: _Pending, answer: OthersAnswer | None) -> None:
        del self._pending[pending.question.key]
        for question, source, deliver in pending.askers:
            self._of_source[source] -= 1
            if not self._of_source[source]:
                del self._of_source[source]
            if answer is None:
                self._on_failed()
            deliver(question.failed() if answer is None else question.answered(answer))
