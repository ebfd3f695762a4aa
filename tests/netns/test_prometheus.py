"""A real Prometheus scrapes a real tunnel: every query of the dashboard has an answer, and every alert is evaluated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.monitoring.dashboard import queries
from tests.monitoring.test_alerts import ALERTS, RULES
from tests.netns.daemons import configured
from tests.netns.lab import STARTED, Lab, Machine, start_client, until

METRICS, PROMETHEUS = "127.0.0.1:9586", "127.0.0.1:9090"
CONFIGURATION = {
    "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
    "rule_files": [str(RULES)],
    "scrape_configs": [{"job_name": "vpntun", "static_configs": [{"targets": [METRICS]}]}],
}

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")


def ask(machine: Machine, path: str, **fields: str) -> Any:
    """Ask the Prometheus of this machine."""
    query = [word for name, value in fields.items() for word in ("--data-urlencode", f"{name}={value}")]
    return json.loads(machine.run("curl", "-fsSG", *query, f"http://{PROMETHEUS}/api/v1/{path}").stdout)["data"]


def start_prometheus(lab: Lab, folder: Path) -> None:
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(CONFIGURATION))
    prometheus = lab.b.popen(
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={PROMETHEUS}",
    )
    prometheus.wait_for("Server is ready to receive web requests", 30)


@pytest.fixture
def _busy_tunnel(lab: Lab, tmp_path: Path) -> None:
    """A tunnel with metrics that has carried enough to know its loss, and drops packets now and then."""
    server = lab.b.vpntun(
        "up",
        configured(
            lab, lab.b, "server", "Address = 10.9.0.1/24", f"Metrics = {METRICS}", peer="AllowedIPs = 10.9.0.2/32"
        ),
    )
    server.wait_for(STARTED)
    start_client(lab, "--address", "10.9.0.2/24")
    lab.ping(lab.a, "10.9.0.1")
    lab.a.run("ip", "address", "add", "10.77.0.1/32", "dev", "tun11")
    start_prometheus(lab, tmp_path)
    lab.transfer(20_000_000, "10.9.0.2", source=lab.b)
    lab.a.popen("ping", "-n", "-i0.2", "-c300", "-I10.77.0.1", "10.9.0.1")  # is not allowed to send from there


@pytest.mark.usefixtures("_busy_tunnel")
def test_prometheus_scrapes_a_tunnel_evaluates_the_alerts_and_answers_the_dashboard(lab: Lab) -> None:
    assert until(lambda: bool(ask(lab.b, "query", query='up{job="vpntun"} == 1')["result"]), 20)
    silent = queries("5s")
    assert len(silent) > 25

    def all_have_answered() -> bool:
        silent[:] = [query for query in silent if not ask(lab.b, "query", query=query)["result"]]
        return not silent

    assert until(all_have_answered, 30), "\n".join(silent)
    rules = [rule for group in ask(lab.b, "rules")["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule["health"] for rule in rules} == dict.fromkeys(ALERTS, "ok")
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
