"""TAP devices in scripts/benchmark: where they are measured, and what vpntun's must reach. They need no root."""

from __future__ import annotations

import pytest

from benchmark import table
from benchmark.others import OTHERS
from benchmark.paths import PATHS
from benchmark.results import Results
from benchmark.runner import measured_on
from benchmark.subjects import OWN


def test_every_tap_is_measured_beside_its_tun_over_a_veth_pair_but_with_no_loss_nor_on_the_grid() -> None:
    pairs = {
        "vpntun-tap-udp": "vpntun-udp",
        "vpntun-tap-tcp": "vpntun-tcp",
        "openvpn-tap": "openvpn-udp",
        "tinc-switch": "tinc",
        "fastd-tap": "fastd",
    }
    for path in PATHS:
        measured = {subject.name for subject in (*OWN, *OTHERS) if measured_on(subject, path)}
        if path.name in {"veth", "no-offloads"}:
            assert {*pairs, *pairs.values()} <= measured
        else:
            assert not measured & set(pairs)


@pytest.mark.parametrize("carrier", ["udp", "tcp"])
@pytest.mark.parametrize("flow", ["up", "down"])
def test_a_tap_must_be_nearly_as_fast_as_a_tun_over_the_same_carrier_and_much_faster_than_others(
    carrier: str, flow: str
) -> None:
    def verdicts(mbits: float) -> list[str]:
        results, tap = Results(), f"vpntun-tap-{carrier}"
        for subject, value in ((tap, mbits), (f"vpntun-{carrier}", 1000), ("openvpn-tap", 360), ("tinc-switch", 320)):
            results.record("veth", subject, 0, {flow: value})
        lines = [line for line in table.targets(results).splitlines() if f" {tap} / " in line]
        return [line.split()[-1] for line in lines if line.split()[-1] in {"met", "MISSED"}]

    assert verdicts(900) == ["met", "met", "met"]
    assert verdicts(899) == ["MISSED", "MISSED", "met"]
    assert verdicts(799) == ["MISSED", "MISSED", "MISSED"]
