"""Text of the metrics in Prometheus' format, written a little at a time, so that the loop goes on with its packets.

With many peers the text is long, and writing it takes longer than packets may wait. So each turn of the loop does one
part: the status of some peers, or some samples. A text is used for a second, however many ask for it.

An idle link proves nothing, so the peers are first asked whether data arrives, as `POST /v1/verify` does, and those
that answer at once are shown as verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus
from itertools import chain
from typing import Any

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector

from vpntun.control.metrics import metrics_of_forwards, metrics_of_peers, metrics_of_tunnel
from vpntun.control.state import PEERS_PER_TURN
from vpntun.runtime.loop import Loop
from vpntun.serving.http import Answer, AnyAnswer, Route, follow

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS_OF_USE = 1.0
SAMPLES_PER_TURN = 250
SECONDS_FOR_PROOFS = 0.5
SECONDS_BETWEEN_LOOKS = 0.02
LINES_OF_HEAD = 2


class Exposition:
    """The metrics of one tunnel, for those who ask for them.

    `status` returns the tunnel's status with those of its peers whose numbers are in a range; `count` the number of
    peers. `verify` asks those in a range whether data arrives, and returns whether an answer is awaited. `on_ready` is
    called once a text that was not ready is.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        count: Callable[[], int],
        status: Callable[[int, int], dict[str, Any]],
        verify: Callable[[int, int], bool],
        on_ready: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._count = count
        self._status = status
        self._verify = verify
        self._on_ready = on_ready
        self._text = b""
        self._good_until = -1.0
        self._parts: Iterator[bytes | None] | None = None
        self._written: list[bytes] = []
        self._process = ProcessCollector(registry=None)
        self._routes = {"/metrics": Route("GET", lambda: Answer(HTTPStatus.OK, self._text, content_type=CONTENT_TYPE))}

    def answer(self, method: str, target: str, _body: bytes = b"") -> AnyAnswer | None:
        """Answer a request; None while the text is being written."""
        answer = follow(self._routes, "GET" if method == "HEAD" else method, target)
        is_refused = isinstance(answer, Answer) and answer.status is not HTTPStatus.OK
        if is_refused or self._loop.now < self._good_until:
            return answer
        if self._parts is None:
            self._written = []
            self._parts = chain(self._ask_peers(), self._write())
            self._loop.call_later(0.0, self._go_on)
        return None

    def _go_on(self) -> None:
        """Write the next part; after the last one, let the answers leave."""
        assert self._parts is not None
        parts, self._parts = self._parts, None  # after a bug, the next request begins again
        for part in parts:
            self._parts = parts
            self._written.append(part or b"")
            self._loop.call_later(SECONDS_BETWEEN_LOOKS if part is None else 0.0, self._go_on)
            return
        self._text = b"".join(self._written)
        self._good_until = self._loop.now + SECONDS_OF_USE
        self._on_ready()

    def _ask_peers(self) -> Iterator[bytes | None]:
        """Ask all peers whether data arrives, and yield until they have answered, but not for long: None is a pause."""
        awaited = []
        for begin in range(0, self._count(), PEERS_PER_TURN):
            if self._verify(begin, begin + PEERS_PER_TURN):
                awaited.append(begin)
            yield b""
        end = self._loop.now + SECONDS_FOR_PROOFS
        while awaited and self._loop.now < end:
            yield None
            awaited = [begin for begin in awaited if self._verify(begin, begin + PEERS_PER_TURN)]

    def _write(self) -> Iterator[bytes]:
        """Yield the text in parts, each of which takes a few milliseconds; some are empty."""
        count = self._count()
        status = self._status(0, PEERS_PER_TURN)
        for begin in range(PEERS_PER_TURN, count, PEERS_PER_TURN):
            yield b""
            status["peers"] += self._status(begin, begin + PEERS_PER_TURN)["peers"]
        for metric in self._process.collect():
            yield from text_of(metric)
        interface = status["interface"]
        for metric in chain(
            metrics_of_tunnel(status),
            metrics_of_forwards(interface, status["forwards"]),
            metrics_of_peers(interface, status["peers"]),
        ):
            yield from text_of(metric)


class _Only:
    """A registry with one metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


def text_of(metric: Metric) -> Iterator[bytes]:
    """Yield the text of a metric in parts; nothing if it has no sample. Its head, HELP and TYPE, stands once."""
    samples = metric.samples
    for begin in range(0, len(samples), SAMPLES_PER_TURN):
        metric.samples = samples[begin : begin + SAMPLES_PER_TURN]
        text = generate_latest(_Only(metric))
        yield text if begin == 0 else text.split(b"\n", LINES_OF_HEAD)[-1]
