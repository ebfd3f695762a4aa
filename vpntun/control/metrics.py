"""Metrics of a tunnel in Prometheus' data model, made of its status (status.py). No label is a secret.

Names and units follow Prometheus' conventions: base units, _total for counters, and _info for a 1 whose labels tell
something. What is not known has no sample.

The label `peer` is the peer's name, or else the beginning of its public key. Whole keys are left out: with the public
key of an end, a stranger can make it compute handshakes.

The package prometheus_client has the model. It is an extra, since nothing else needs it, so this file is imported only
where metrics are wanted.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from vpntun.control.status import State
from vpntun.crypto.aead import BACKEND
from vpntun.crypto.keys import shortened

Status = Mapping[str, Any]

MOST_FORWARDS = 50
"""Forwards with labels of their own. What comes after them is counted together: a scrape stays small."""

NO_DROPS = dict.fromkeys(("internal error", "no route", "old timestamp", "own key", "unknown peer"), 0)
NO_DROPS_OF_A_PEER = dict.fromkeys(("old timestamp", "queue full", "source not allowed", "undeliverable"), 0)
"""Drops that are exported before the first one, so that an increase from none to one is seen as such."""

STATES: tuple[str, ...] = get_args(State)

Row = tuple[list[str], Status]
"""The labels of a peer, and its status."""

Value = Callable[[Status], float | None]


def _field(name: str) -> Value:
    return lambda peer: peer.get(name)


def _in_queue(name: str) -> Value:
    return lambda peer: float(peer["queue"][name])


GAUGES: Mapping[str, tuple[str, Value]] = {
    "up": ("Whether packets can leave for the peer (state connected)", lambda peer: peer["state"] == "connected"),
    "carrier_up": ("Whether messages can be sent to the peer by a carrier", _field("carrier_up")),
    "handshake_fresh": ("Whether there is a session under 180 s old", _field("handshake_fresh")),
    "data_verified": ("Whether data is known to arrive at the peer", _field("data_verified")),
    "latest_handshake_timestamp_seconds": ("When the last handshake was finished", _field("latest_handshake")),
    "latest_received_timestamp_seconds": (
        "When the last authenticated message of the peer arrived",
        _field("latest_received"),
    ),
    "round_trip_seconds": ("The last round trip measured", _field("round_trip")),
    "loss_ratio": ("Share of the datagrams to the peer that are lost, smoothed", _field("loss")),
    "path_mtu_bytes": ("The longest IP packet known to reach the peer unfragmented", _field("path_mtu")),
    "record_bytes": ("The longest record that may be sent to the peer at present", _field("record_bytes")),
    "delivered_bytes_per_second": (
        "Rate that reached the peer when there was last something to send",
        _field("delivered_rate"),
    ),
    "span_datagrams": ("Datagrams that a record to the peer may take at present", _field("span")),
    "protected": ("Whether parities are sent with the records to the peer now", _field("protected")),
    "mac_addresses": ("MAC addresses learnt at the peer, on a TAP device", _field("mac_count")),
    "queue_packets": ("Packets that wait to be sent to the peer", _in_queue("packets")),
    "queue_bytes": ("Size of the packets that wait to be sent to the peer", _in_queue("bytes")),
}
COUNTERS: Mapping[str, tuple[str, str]] = {
    "received_bytes": ("Authenticated messages from the peer, in their encrypted form", "received_bytes"),
    "sent_bytes": ("Messages to the peer, in their encrypted form", "sent_bytes"),
    "datagrams_sent": ("Datagrams to the peer that its reports cover", "datagrams_sent"),
    "datagrams_lost": ("Datagrams to the peer that did not arrive, of those that its reports cover", "datagrams_lost"),
    "records_restored": ("Records from the peer that were lost on the way and restored", "records_restored"),
    "records_unfinished": (
        "Records from the peer that were dropped because a datagram never arrived",
        "records_unfinished",
    ),
}


def metrics_of_tunnel(status: Status) -> Iterator[Metric]:
    """Yield the metrics of a tunnel as a whole."""
    own = [status["interface"]]
    build = InfoMetricFamily("vpntun_build", "Version of vpntun and what it runs on")
    build.add_metric([], {"version": status["version"], "python": platform.python_version(), "aead": BACKEND})
    yield build
    for name, text, value in (
        ("uptime_seconds", "Time since the tunnel was started", status["uptime"]),
        ("ready", "Whether the tunnel is set up: 0 while its start waits for something", status["starting"] is None),
        ("peers", "Number of configured peers", len(status["peers"])),
        ("mtu_bytes", "MTU of the tunnel's device", status["mtu"]),
    ):
        gauge = GaugeMetricFamily(f"vpntun_{name}", text, labels=["interface"])
        if value is not None:
            gauge.add_metric(own, value)
        yield gauge
    drops = CounterMetricFamily(
        "vpntun_drops", "Dropped messages and packets that belong to no peer", labels=["interface", "reason"]
    )
    for reason, count in {**NO_DROPS, **status["drops"]}.items():
        drops.add_metric([*own, reason], count)
    yield drops


def metrics_of_peers(interface: str, peers: Sequence[Status]) -> Iterator[Metric]:
    """Yield the metrics of all peers."""
    labels = ["interface", "peer"]
    rows = [([interface, label], peer) for label, peer in zip(labels_of(peers), peers, strict=True)]
    for name, (text, field) in COUNTERS.items():
        counter = CounterMetricFamily(f"vpntun_peer_{name}", text, labels=labels)
        for row, peer in rows:
            if (count := peer[field]) is not None:
                counter.add_metric(row, count)
        yield counter
    for name, (text, value_of) in GAUGES.items():
        gauge = GaugeMetricFamily(f"vpntun_peer_{name}", text, labels=labels)
        for row, peer in rows:
            if (value := value_of(peer)) is not None:
                gauge.add_metric(row, value)
        yield gauge
    yield _states(rows)
    yield _carriers(rows)
    yield _drops_of_peers(rows)


FORWARD_COUNTERS: Mapping[str, tuple[str, str]] = {
    "connections": ("Connections, or flows of UDP, that were accepted", "connections_total"),
    "refused": ("Connections that were refused, because too many were open", "connections_refused"),
    "failed": ("Accepted connections whose target could not be reached", "connections_failed"),
    "sent_bytes": ("Bytes from those who connect to the target", "sent_bytes"),
    "received_bytes": ("Bytes from the target to those who connect", "received_bytes"),
}


def metrics_of_forwards(interface: str, forwards: Sequence[Status]) -> Iterator[Metric]:
    """Yield the metrics of all forwards; of those after some, the sums."""
    labels = ["interface", "protocol", "from", "listen"]
    rows = [([interface, each["protocol"], each["from"], each["listen"]], each) for each in forwards[:MOST_FORWARDS]]
    if others := forwards[MOST_FORWARDS:]:
        names = ("connections", *(name for _, name in FORWARD_COUNTERS.values()))
        sums = {name: sum(each[name] for each in others) for name in names}
        rows.append(([interface, "", "", "others"], sums))
    gauge = GaugeMetricFamily(
        "vpntun_forward_open_connections", "Connections, or flows of UDP, that are open now", labels=labels
    )
    for row, forward in rows:
        gauge.add_metric(row, forward["connections"])
    yield gauge
    for name, (text, field) in FORWARD_COUNTERS.items():
        counter = CounterMetricFamily(f"vpntun_forward_{name}", text, labels=labels)
        for row, forward in rows:
            counter.add_metric(row, forward[field])
        yield counter


def _states(rows: Iterable[Row]) -> Metric:
    states = GaugeMetricFamily(
        "vpntun_peer_state", "1 for the state of the link, 0 for the others", labels=["interface", "peer", "state"]
    )
    for row, peer in rows:
        for each in STATES:
            states.add_metric([*row, each], peer["state"] == each)
    return states


def _carriers(rows: Iterable[Row]) -> Metric:
    carriers = GaugeMetricFamily(
        "vpntun_peer_carrier_info",
        "The carrier in use, and why it is",
        labels=["interface", "peer", "carrier", "reason"],
    )
    for row, peer in rows:
        if peer["carrier"] is not None:
            carriers.add_metric([*row, peer["carrier"], peer.get("carrier_reason") or ""], 1)
    return carriers


def _drops_of_peers(rows: Iterable[Row]) -> Metric:
    drops = CounterMetricFamily(
        "vpntun_peer_drops", "Dropped packets from and to the peer", labels=["interface", "peer", "reason"]
    )
    for row, peer in rows:
        for reason, count in {**NO_DROPS_OF_A_PEER, **peer["drops"]}.items():
            drops.add_metric([*row, reason], count)
    return drops


def labels_of(peers: Sequence[Status]) -> list[str]:
    """Return a label for each peer, each once: its name, or the beginning of its key; both if the name is repeated."""
    short = [shortened(peer["public_key"]) for peer in peers]
    names = Counter(peer["name"] or key for peer, key in zip(peers, short, strict=True))
    labels = []
    taken: Counter[str] = Counter()
    for peer, key in zip(peers, short, strict=True):
        name = peer["name"] or key
        label = name if names[name] == 1 else f"{name} {key}" if peer["name"] else key
        taken[label] += 1
        labels.append(label if taken[label] == 1 else f"{label} {taken[label]}")
    return labels
