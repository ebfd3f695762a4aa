"""Alert rules of docs/metrics/alerts.yml: promtool accepts them, and each fires when it should and not otherwise.

A scenario is a few series, in promtool's notation, with a sample a minute: `0+10x5` is 0, 10, ..., 50.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.documents import CHECKOUT, blocks, table
from tests.monitoring.exposition import exported_names

RULES = CHECKOUT / "docs" / "metrics" / "alerts.yml"
ALERTS = re.findall(r"^ *- alert: (\w+)$", RULES.read_text(), re.MULTILINE)
PEER = 'job="vpntun", instance="a:1", interface="tun3", peer="office"'
TUNNEL = 'job="vpntun", instance="a:1", interface="tun3"'
PROCESS = 'job="vpntun", instance="a:1"'

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


class Scenario(NamedTuple):
    """Series that make an alert fire after `minutes`, and series that are like them and do not."""

    minutes: int
    firing: dict[str, str]
    quiet: dict[str, str]


SCENARIOS = {
    "VpntunCarrierDown": Scenario(
        6, {f"vpntun_peer_carrier_up{{{PEER}}}": "0x10"}, {f"vpntun_peer_carrier_up{{{PEER}}}": "0x3 1 0x6"}
    ),
    "VpntunHandshakeNotFresh": Scenario(
        6,
        {f"vpntun_peer_handshake_fresh{{{PEER}}}": "0x10", f"vpntun_peer_carrier_up{{{PEER}}}": "1x10"},
        {f"vpntun_peer_handshake_fresh{{{PEER}}}": "0x10", f"vpntun_peer_carrier_up{{{PEER}}}": "0x10"},
    ),
    "VpntunDataNotVerified": Scenario(
        3,
        {f"vpntun_peer_data_verified{{{PEER}}}": "0x5", f"vpntun_peer_handshake_fresh{{{PEER}}}": "1x5"},
        {f"vpntun_peer_data_verified{{{PEER}}}": "0 1 0 1 0 1", f"vpntun_peer_handshake_fresh{{{PEER}}}": "1x5"},
    ),
    "VpntunOneWay": Scenario(
        2,
        {f'vpntun_peer_state{{{PEER}, state="one-way"}}': "1x5"},
        {
            f'vpntun_peer_state{{{PEER}, state="one-way"}}': "0x5",
            f'vpntun_peer_state{{{PEER}, state="connected"}}': "1x5",
        },
    ),
    "VpntunOnTcp": Scenario(
        61,
        {f'vpntun_peer_carrier_info{{{PEER}, carrier="tcp", reason="no UDP answer"}}': "1x70"},
        {f'vpntun_peer_carrier_info{{{PEER}, carrier="tcp", reason="--transport tcp"}}': "1x70"},
    ),
    "VpntunOnTcp of a server": Scenario(
        66,
        {
            f'vpntun_peer_carrier_info{{{PEER}, carrier="udp", reason="the peer called by it"}}': "1x3 stale",
            f'vpntun_peer_carrier_info{{{PEER}, carrier="tcp", reason="the peer called by it"}}': "_x4 1x70",
        },
        {
            f'vpntun_peer_carrier_info{{{PEER}, carrier="tcp", reason="the peer called by it"}}': "1x70",
            f'vpntun_peer_carrier_info{{{PEER.replace("office", "other")}, carrier="udp", reason="a"}}': "1x70",
        },
    ),
    "VpntunLossHigh": Scenario(
        11, {f"vpntun_peer_loss_ratio{{{PEER}}}": "0.05x20"}, {f"vpntun_peer_loss_ratio{{{PEER}}}": "0.01x20"}
    ),
    "VpntunRoundTripHigh": Scenario(
        80,
        {f"vpntun_peer_round_trip_seconds{{{PEER}}}": "0.03x60 0.2x30"},
        {f"vpntun_peer_round_trip_seconds{{{PEER}}}": "0.001x60 0.01x30"},
    ),
    "VpntunDrops": Scenario(
        25,
        {f'vpntun_peer_drops_total{{{PEER}, reason="queue full"}}': "0+120x30"},
        {
            f'vpntun_peer_drops_total{{{PEER}, reason="queue full"}}': "0+10x30",
            f'vpntun_peer_drops_total{{{PEER}, reason="queue late"}}': "0+120x30",
            f'vpntun_drops_total{{{TUNNEL}, reason="unknown index"}}': "0+120x30",
        },
    ),
    "VpntunOldTimestamp": Scenario(
        10,
        {f'vpntun_peer_drops_total{{{PEER}, reason="old timestamp"}}': "0x5 3x10"},
        {f'vpntun_peer_drops_total{{{PEER}, reason="old timestamp"}}': "3x20"},
    ),
    "VpntunOldTimestamp of a stranger": Scenario(
        10,
        {f'vpntun_drops_total{{{TUNNEL}, reason="old timestamp"}}': "0x5 1x10"},
        {f'vpntun_drops_total{{{TUNNEL}, reason="own key"}}': "0x5 1x10"},
    ),
    "VpntunDown": Scenario(3, {f"up{{{PROCESS}}}": "0x5"}, {f"up{{{PROCESS}}}": "1x5", 'up{job="node"}': "0x5"}),
    "VpntunNotReady": Scenario(6, {f"vpntun_ready{{{TUNNEL}}}": "0x10"}, {f"vpntun_ready{{{TUNNEL}}}": "0x2 1x8"}),
    "VpntunRestarts": Scenario(
        40,
        {f"vpntun_uptime_seconds{{{TUNNEL}}}": "0+60x9 0+60x9 0+60x9 0+60x9"},
        {f"vpntun_uptime_seconds{{{TUNNEL}}}": "0+60x19 0+60x19"},
    ),
    "VpntunInternalError": Scenario(
        10,
        {f'vpntun_drops_total{{{TUNNEL}, reason="internal error"}}': "0x5 1x10"},
        {f'vpntun_drops_total{{{TUNNEL}, reason="internal error"}}': "0x15"},
    ),
    "VpntunDescriptorsGrow near the limit": Scenario(
        20,
        {f"process_open_fds{{{PROCESS}}}": "900x30", f"process_max_fds{{{PROCESS}}}": "1000x30"},
        {f"process_open_fds{{{PROCESS}}}": "700x30", f"process_max_fds{{{PROCESS}}}": "1000x30"},
    ),
    "VpntunDescriptorsGrow since yesterday": Scenario(
        1600,
        {f"process_open_fds{{{PROCESS}}}": "30+0.1x1700", f"process_max_fds{{{PROCESS}}}": "20000x1700"},
        {f"process_open_fds{{{PROCESS}}}": "30x1400 90x10 30x300", f"process_max_fds{{{PROCESS}}}": "20000x1700"},
    ),
}


def test_promtool_accepts_the_rules() -> None:
    checked = subprocess.run(
        ["promtool", "check", "rules", RULES], check=False, capture_output=True, text=True, timeout=30
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_promtool_accepts_the_guides_configuration(tmp_path: Path) -> None:
    [block] = blocks("prometheus")
    file = tmp_path / "prometheus.yml"
    file.write_text(block.replace("/etc/prometheus/vpntun-alerts.yml", str(RULES)) + "\n")
    checked = subprocess.run(["promtool", "check", "config", file], check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(ALERTS)} rules found" in checked.stdout


def test_every_alert_has_a_scenario() -> None:
    assert len(ALERTS) >= 10
    assert {name.split()[0] for name in SCENARIOS} == set(ALERTS)


def test_every_metric_in_a_rule_is_exported() -> None:
    named = set(re.findall(r"\b(?:vpntun|process)_\w+", RULES.read_text()))
    assert len(named) >= 10
    assert named <= exported_names()


def test_every_alert_is_explained() -> None:
    assert [row[0] for row in table("alerts")[1:]] == ALERTS


@pytest.mark.parametrize("is_firing", [True, False], ids=["fires", "does not fire"])
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_an_alert_fires_when_it_should_and_not_otherwise(tmp_path: Path, name: str, is_firing: bool) -> None:
    scenario, alert = SCENARIOS[name], name.split()[0]
    series = scenario.firing if is_firing else scenario.quiet
    scenarios = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": each, "values": values} for each, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})',
                        "eval_time": f"{scenario.minutes}m",
                        "exp_samples": [{"labels": "{}", "value": 1}] if is_firing else [],
                    }
                ],
            }
        ],
    }
    file = tmp_path / "scenario.yml"
    file.write_text(json.dumps(scenarios))  # which is YAML, too
    tested = subprocess.run(
        ["promtool", "test", "rules", file], check=False, capture_output=True, text=True, timeout=30
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
