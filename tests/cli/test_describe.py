"""Text of a status: what has a line, and how sizes, rates and durations are written."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.sample_status import FORWARD, PEER, SOCKS5, STATUS, TEXT
from vpntun.cli.describe import describe, faults_of
from vpntun.errors import CarrierDown, LinkError, NoFreshHandshake, NotVerified

UNKNOWN = dict.fromkeys(
    (
        "endpoint",
        "carrier",
        "carrier_up_for",
        "carrier_reason",
        "carrier_reason_for",
        "handshake_fresh_for",
        "data_verified_for",
        "data_verified_age",
        "data_unanswered_for",
        "latest_handshake",
        "latest_handshake_age",
        "latest_received",
        "latest_received_age",
        "persistent_keepalive",
        "round_trip",
        "loss",
        "span",
        "protected",
        "record_bytes",
        "path_mtu",
        "delivered_rate",
        "datagrams_sent",
        "datagrams_lost",
        "records_restored",
        "records_unfinished",
    )
)


def lines(**peer: Any) -> dict[str, str]:
    """Return the lines of a peer by their titles."""
    text = list(describe({**STATUS, "peers": [{**PEER, **peer}]}))
    return dict(line.strip().split(": ", 1) for line in text[text.index("") + 1 :])


def test_show_prints_everything_that_is_known() -> None:
    assert "\n".join(describe(STATUS)) == TEXT


def test_show_says_that_there_is_no_private_key() -> None:
    assert list(describe({**STATUS, "public_key": None}))[1] == "  public key: (none: there is no private key)"


def test_an_unknown_value_has_no_line() -> None:
    fresh = {**PEER, **UNKNOWN, "name": "", "preshared_key": False, "received_bytes": 0, "sent_bytes": 0}
    fresh |= {"allowed_ips": [], "queue": {"packets": 0, "bytes": 0}, "drops": {}, "state": "waiting"}
    fresh |= {"carrier_up": False, "handshake_fresh": False, "data_verified": False}
    assert lines(**fresh) == {
        "peer": PEER["public_key"],
        "carrier": "down",
        "handshake": "not fresh",
        "data": "not verified",
        "state": "waiting",
        "allowed ips": "(none)",
    }
    quiet = {**STATUS, "listen_port": None, "addresses": [], "relay": False, "drops": {}, "forwards": [], "peers": []}
    assert [line.split(":")[0].strip() for line in describe(quiet)] == [
        "interface",
        "public key",
        "mtu",
        "up for",
    ]


def test_show_says_what_the_name_server_does() -> None:
    counts = {"asked": 1234, "answered": 1000, "forwarded": 200, "limited": 34, "failed": 2}
    names = {"domain": "office.internal", "names": 12, **counts}
    said = "12 names, office.internal; questions: 1,234 asked, 1,000 answered, 200 forwarded, 34 limited, 2 failed"
    assert f"  names: {said}" in describe({**STATUS, "names": names})


def test_a_forward_has_a_line_with_its_counters_once_it_was_used() -> None:
    unused = {**FORWARD, "from": "peer", "connections": 0, "connections_total": 0, "connections_failed": 0}
    flows = {**FORWARD, "protocol": "udp", "connections_total": 1, "connections": 1, "connections_failed": 0}
    text = describe({**STATUS, "forwards": [unused, flows, *[unused] * 8], "peers": []})
    assert [line for line in text if "forward:" in line][:2] == [
        "  forward: tcp :6443 192.168.127.2:6443 from peer",
        "  forward: udp :6443 192.168.127.2:6443, 1 of 1 flow open, 3.00 KiB sent, 1.24 MiB received",
    ]
    assert list(describe({**STATUS, "forwards": [unused] * 10, "peers": []}))[-1] == (
        "  forward: 2 more, see 'vpntun forwards tun3'"
    )


def test_a_proxy_has_a_line_with_its_counters_once_it_was_used() -> None:
    for proxy, line in (
        (SOCKS5, "127.0.0.1:1080, 2 of 5 connections open, 1 failed, 3.00 KiB sent, 1.24 MiB received"),
        ({**SOCKS5, "connections_total": 0}, "127.0.0.1:1080"),
    ):
        assert f"  socks5: {line}" in describe({**STATUS, "socks5": proxy})


MACS: list[dict[str, Any]] = [{"address": f"02:00:00:00:00:{number:02x}", "seconds": number} for number in range(32)]
ON_TAP = {"device": "tap", "mac": "52:54:00:00:00:01", "bridge": "br0", "in_bridge": "br0"}


def test_a_tap_has_its_mac_and_bridge_and_where_macs_are_in_place_of_allowed_ips() -> None:
    there = {**PEER, "allowed_ips": [], "allowed_macs": ["02:00:00:00:00:00"], "mac_count": 1, "macs": MACS[:1]}
    text = list(describe({**STATUS, **ON_TAP, "mac_count": 2, "macs": MACS[1:3], "peers": [there]}))
    assert [line.strip() for line in text if any(word in line for word in ("device", "mac", "bridge", "ips"))] == [
        "device: tap",
        "mac: 52:54:00:00:00:01",
        "bridge: br0",
        "macs on this side: 02:00:00:00:00:01, 02:00:00:00:00:02",
        "allowed macs: 02:00:00:00:00:00",
        "macs: 02:00:00:00:00:00",
    ]


@pytest.mark.parametrize(
    ("joins", "is_in", "says"),
    [
        (None, "br0", ["  bridge: br0"]),
        ("br0", None, ["  bridge: br0, but the device is in none"]),
        ("br0", "br1", ["  bridge: br0, but the device is in br1"]),
        (None, None, []),
    ],
)
def test_the_bridge_is_the_one_that_the_device_is_in_or_the_one_that_it_is_missing(
    joins: str | None, is_in: str | None, says: list[str]
) -> None:
    text = describe({**STATUS, **ON_TAP, "bridge": joins, "in_bridge": is_in, "peers": []})
    assert [line for line in text if "bridge" in line] == says


def test_a_peer_whose_device_carries_something_else_has_a_line_that_says_so() -> None:
    text = list(describe({**STATUS, "peers": [{**PEER, "device": "tap"}]}))
    assert "  device: tap, and this end's is tun: no packet passes" in text
    assert not any("device" in line for line in describe({**STATUS, "peers": [{**PEER, "device": "tun"}]}))


def test_of_many_macs_those_seen_last_are_printed_and_the_others_counted() -> None:
    there = {**PEER, "mac_count": 1234, "macs": MACS}
    [line] = [line for line in describe({**STATUS, **ON_TAP, "peers": [there]}) if line.startswith("  macs")]
    assert line == f"  macs: {', '.join(each['address'] for each in MACS[:8])} and 1,226 more"


def test_a_tunnel_of_an_older_version_is_a_tun_without_forwards() -> None:
    new = ("device", "mac", "bridge", "in_bridge", "mac_count", "macs", "forwards", "socks5")
    older = {name: value for name, value in STATUS.items() if name not in new}
    peer = {name: value for name, value in PEER.items() if name not in ("allowed_macs", *new)}
    [forward] = [line for line in TEXT.splitlines(keepends=True) if "forward:" in line]
    assert "\n".join(describe({**older, "peers": [peer]})) == TEXT.replace(forward, "")


def test_the_name_that_a_peer_or_the_start_waits_for_is_printed() -> None:
    waiting = {**STATUS, "starting": "the name nx.invalid", "peers": []}
    assert "  starting: waiting for the name nx.invalid" in describe(waiting)
    assert lines(state="connecting", unresolved="nx.invalid")["state"] == "connecting, waiting for the name nx.invalid"


def test_a_carrier_has_its_reason_and_the_time_of_that_if_it_has_one() -> None:
    blocked = lines(carrier="tcp", carrier_reason="no UDP answer", carrier_reason_for=7200, carrier_up_for=60)
    assert blocked["carrier"] == "TCP for 1 minute (no UDP answer for 2 hours)"
    down = lines(carrier_up=False, carrier_up_for=5, carrier_reason="the peer has not called")
    assert down["carrier"] == "down for 5 seconds (the peer has not called)"


def test_a_peer_that_does_not_answer_now_is_said_not_to_though_a_proof_is_young() -> None:
    assert lines(data_unanswered_for=0)["data"] == "verified for 1 minute, 3 seconds, last proof 1 second ago"
    assert lines(data_unanswered_for=1)["data"].endswith("last proof 1 second ago, no answer for 1 second")
    silent = lines(data_verified=False, data_verified_for=2, data_verified_age=40, handshake_fresh=False)
    assert silent["data"] == "not verified for 2 seconds, last proof 40 seconds ago"


def test_without_a_proof_that_holds_one_silence_is_told_and_not_two_durations_of_it() -> None:
    silent = {"data_verified": False, "data_verified_for": 0, "data_unanswered_for": 3}
    assert (
        lines(**silent, data_verified_age=7)["data"]
        == "not verified: no answer for 3 seconds, last proof 7 seconds ago"
    )
    assert lines(**silent, data_verified_age=None)["data"] == "not verified: no answer for 3 seconds"


def test_the_handshake_has_its_age_too() -> None:
    silent = lines(handshake_fresh=False)
    assert silent["handshake"] == "not fresh for 2 hours, 1 second"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 seconds ago"),
        (1, "1 second ago"),
        (60, "1 minute ago"),
        (3661, "1 hour, 1 minute, 1 second ago"),
        (366 * 86400, "1 year, 1 day ago"),
    ],
)
def test_an_age_is_printed_as_a_duration(seconds: int, said: str) -> None:
    assert lines(latest_handshake_age=seconds)["latest handshake"] == said


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1 << 20, "1.00 MiB"),
        (3 << 29, "1.50 GiB"),
        (1 << 50, "1024.00 TiB"),
    ],
)
def test_a_size_is_printed_in_binary_units(size: int, said: str) -> None:
    assert lines(received_bytes=size)["transfer"] == f"{said} received, 3.00 KiB sent"


def test_a_rate_is_printed_in_bits() -> None:
    assert lines(delivered_rate=153_402_641)["delivered"] == "1.23 Gbit/s"
    assert lines(delivered_rate=1_250_000)["delivered"] == "10.00 Mbit/s"
    assert lines(delivered_rate=632)["delivered"] == "5.06 kbit/s"


def test_over_tcp_a_record_is_one_frame() -> None:
    assert lines(carrier="tcp", span=None)["records"] == "up to 62.30 KiB"


def test_a_loss_of_zero_is_printed_and_an_unknown_loss_is_not() -> None:
    assert lines(loss=0.0, protected=False)["loss"] == "0.00%"
    assert "loss" not in lines(loss=None)


# The check

SILENT = {"data_verified": False, "data_verified_for": 3, "data_verified_age": 33}
STALE = {**SILENT, "handshake_fresh": False, "handshake_fresh_for": 7}
DOWN = {**STALE, "carrier_up": False, "carrier_reason": "no answer over UDP or TCP", "carrier_reason_for": 60}


def peer(name: str, **changes: Any) -> dict[str, Any]:
    return {**PEER, "name": name, **changes}


def test_peers_whose_data_is_verified_are_in_order() -> None:
    assert faults_of([peer("a"), peer("b", state="connecting")]) == ([], 0)
    assert faults_of([]) == ([], 0)


UDP = "a: UDP for 2 hours (it answered first)"


@pytest.mark.parametrize(
    ("changes", "kind", "status", "line"),
    [
        (SILENT, NotVerified, 13, f"{UDP}; data not verified for 3 seconds, last proof 33 seconds ago"),
        (STALE, NoFreshHandshake, 14, f"{UDP}; handshake not fresh for 7 seconds"),
        (DOWN, CarrierDown, 15, "a: no carrier (no answer over UDP or TCP for 1 minute)"),
    ],
)
def test_the_state_that_is_missing_decides(
    changes: dict[str, Any], kind: type[LinkError], status: int, line: str
) -> None:
    assert faults_of([peer("a", **changes), peer("b")]) == ([line], status)
    assert kind.exit_status == status


def test_the_worst_of_several_decides_and_each_has_its_line() -> None:
    lines, status = faults_of([peer("a", **SILENT), peer("", **DOWN), peer("c"), peer("d", **STALE)])
    assert status == CarrierDown.exit_status
    assert [line.split(":")[0] for line in lines] == ["a", PEER["public_key"], "d"]
