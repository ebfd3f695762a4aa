"""Metrics of a status: names and units by Prometheus' conventions, one sample for each peer, and no whole key."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.sample_status import FORWARD
from vpntun.control.metrics import (
    MOST_FORWARDS,
    NO_DROPS,
    NO_DROPS_OF_A_PEER,
    labels_of,
    metrics_of_forwards,
    metrics_of_peers,
    metrics_of_tunnel,
)
from vpntun.control.status import FIELDS_OF_A_PEER
from vpntun.crypto.keys import KeyPair, clamp, format_key, shortened

LAPTOP = format_key(KeyPair.of(clamp(b"l" * 32)).public)
OWN = format_key(KeyPair.of(clamp(b"o" * 32)).public)


def peer(name: str = "", key: str = LAPTOP, **known: Any) -> dict[str, Any]:
    """Return the status of a peer of which only this is known."""
    unknown = dict.fromkeys(FIELDS_OF_A_PEER)
    always = {"received_bytes": 0, "sent_bytes": 0, "state": "waiting", "queue": {"packets": 0, "bytes": 0}}
    return {**unknown, **always, "drops": {}, "public_key": key, "name": name, **known}


def status(*peers: dict[str, Any], **known: Any) -> dict[str, Any]:
    """Return the status of a tunnel with these peers."""
    tunnel = {"interface": "tun3", "version": "1.2.3", "uptime": 60, "starting": None, "public_key": OWN, "mtu": 1420}
    return {**tunnel, "drops": {}, "forwards": [], "peers": list(peers), **known}


class Registry:
    """The metrics of a status, as prometheus_client takes them."""

    def __init__(self, status: dict[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        forwards = metrics_of_forwards("tun3", self._status["forwards"])
        yield from chain(metrics_of_tunnel(self._status), forwards, metrics_of_peers("tun3", self._status["peers"]))


def text_of(status: dict[str, Any]) -> str:
    return generate_latest(Registry(status)).decode()


def samples_of(status: dict[str, Any]) -> dict[str, float]:
    """Return the samples that another parser finds in the text, by name and labels without the interface."""
    found = {}
    for family in text_string_to_metric_families(text_of(status)):
        for sample in family.samples:
            labels = [f"{name}={value}" for name, value in sorted(sample.labels.items()) if name != "interface"]
            found[" ".join([sample.name, *labels])] = sample.value
    return found


FULL = peer(
    "office",
    endpoint="192.0.2.1:5",
    carrier="tcp",
    carrier_up=True,
    carrier_reason="no UDP answer",
    handshake_fresh=True,
    data_verified=False,
    state="one-way",
    latest_handshake=1_700_000_000,
    latest_handshake_age=7,
    latest_received=1_700_000_001,
    received_bytes=1000,
    sent_bytes=2000,
    vpntun=True,
    round_trip=0.25,
    loss=0.01,
    span=4,
    protected=True,
    record_bytes=5000,
    path_mtu=1500,
    delivered_rate=1_000_000,
    datagrams_sent=100,
    datagrams_lost=3,
    records_restored=2,
    records_unfinished=1,
    mac_count=7,
    queue={"packets": 5, "bytes": 600},
    drops={"queue full": 9},
)


def test_everything_that_is_known_is_exported_in_base_units() -> None:
    found = samples_of(status(FULL, drops={"unknown peer": 2}))
    own = {name.removeprefix("vpntun_"): value for name, value in found.items() if "build_info" not in name}
    assert {name: value for name, value in own.items() if "peer=" not in name} == {
        "uptime_seconds": 60,
        "ready": 1,
        "peers": 1,
        "mtu_bytes": 1420,
        **{f"drops_total reason={reason}": 0 for reason in NO_DROPS},
        "drops_total reason=unknown peer": 2,
    }
    of_peer = {
        name.removeprefix("peer_").replace(" peer=office", ""): value for name, value in own.items() if "peer=" in name
    }
    assert of_peer == {
        "up": 0,
        "latest_handshake_timestamp_seconds": 1_700_000_000,
        "latest_received_timestamp_seconds": 1_700_000_001,
        "received_bytes_total": 1000,
        "sent_bytes_total": 2000,
        "round_trip_seconds": 0.25,
        "loss_ratio": 0.01,
        "span_datagrams": 4,
        "protected": 1,
        "record_bytes": 5000,
        "path_mtu_bytes": 1500,
        "delivered_bytes_per_second": 1_000_000,
        "datagrams_sent_total": 100,
        "datagrams_lost_total": 3,
        "records_restored_total": 2,
        "records_unfinished_total": 1,
        "mac_addresses": 7,
        "queue_packets": 5,
        "queue_bytes": 600,
        "state state=connected": 0,
        "state state=one-way": 1,
        "state state=connecting": 0,
        "state state=waiting": 0,
        "carrier_info carrier=tcp reason=no UDP answer": 1,
        "carrier_up": 1,
        "handshake_fresh": 1,
        "data_verified": 0,
        **{f"drops_total reason={reason}": 0 for reason in NO_DROPS_OF_A_PEER},
        "drops_total reason=queue full": 9,
    }


def test_a_forward_is_counted_under_its_name_and_many_are_counted_together() -> None:
    others = [{**FORWARD, "listen": f":{number}"} for number in range(MOST_FORWARDS + 1)]
    found = samples_of(status(forwards=[FORWARD, *others]))
    own, rest = "from=here listen=:6443 protocol=tcp", "from= listen=others protocol="
    assert {name.removesuffix(own): value for name, value in found.items() if name.endswith(own)} == {
        "vpntun_forward_open_connections ": 2,
        "vpntun_forward_connections_total ": 1234,
        "vpntun_forward_refused_total ": 0,
        "vpntun_forward_failed_total ": 1,
        "vpntun_forward_sent_bytes_total ": 3072,
        "vpntun_forward_received_bytes_total ": 1_300_000,
    }
    assert found[f"vpntun_forward_connections_total {rest}"] == 2 * 1234
    assert len([name for name in found if name.startswith("vpntun_forward_failed_total")]) == MOST_FORWARDS + 1


def test_what_is_not_known_has_no_sample() -> None:
    found = samples_of(status(peer(), mtu=None))
    assert not [name for name in found if "mtu" in name or "round_trip" in name or "carrier_info" in name]
    assert found[f"vpntun_peer_up peer={shortened(LAPTOP)}"] == 0


def test_a_tunnel_that_is_being_set_up_is_not_ready() -> None:
    assert samples_of(status(starting="PreUp"))["vpntun_ready"] == 0


def test_no_whole_key_and_no_endpoint_is_exported() -> None:
    text = text_of(status(FULL, peer(), peer(key=LAPTOP), peer("office", OWN)))
    for hidden in (LAPTOP, OWN, "192.0.2.1"):
        assert hidden not in text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_improve() -> None:
    text = text_of(status(FULL, peer(), drops={"unknown peer": 2}, forwards=[FORWARD]))
    checked = subprocess.run(
        ["promtool", "check", "metrics"], check=False, input=text, capture_output=True, text=True, timeout=30
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_peer_is_called_by_its_name_or_the_beginning_of_its_key() -> None:
    assert labels_of([peer("office"), peer(key=OWN)]) == ["office", shortened(OWN)]


def test_peers_of_one_name_are_told_apart_by_their_keys() -> None:
    short, other = shortened(LAPTOP), shortened(OWN)
    assert labels_of([peer("a"), peer("a", OWN), peer("b")]) == [f"a {short}", f"a {other}", "b"]


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", shortened(LAPTOP), "a 2"]), st.sampled_from([LAPTOP, OWN]))))
def test_every_peer_has_a_label_of_its_own(peers: list[tuple[str, str]]) -> None:
    labels = labels_of([peer(name, key) for name, key in peers])
    assert len(set(labels)) == len(labels) == len(peers)


@given(st.text(max_size=20))
def test_any_name_survives_the_text_format(name: str) -> None:
    assert samples_of(status(peer(name)))
