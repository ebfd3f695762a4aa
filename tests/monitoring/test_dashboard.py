"""Dashboard of docs/metrics: of the shape that Grafana imports, with queries that promtool and a tunnel accept.

tests/netns/test_prometheus.py runs every query against a real Prometheus that scrapes a real tunnel.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path

import pytest

from tests.documents import table
from tests.monitoring.dashboard import DASHBOARD, PANELS, VARIABLES, queries
from tests.monitoring.exposition import exported_names
from tests.monitoring.test_alerts import RULES

COLUMNS = 24


def test_the_dashboard_has_what_grafana_imports() -> None:
    assert (DASHBOARD["title"], DASHBOARD["uid"], DASHBOARD["id"]) == ("vpntun", "vpntun", None)
    assert DASHBOARD["schemaVersion"] >= 36
    assert len({panel["id"] for panel in PANELS}) == len(PANELS) > 20
    for panel in PANELS:
        assert {"type", "title", "gridPos"} <= panel.keys()
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
            assert panel["description"].endswith("."), panel["title"]
            references = [target["refId"] for target in panel["targets"]]
            assert len(set(references)) == len(references) > 0, panel["title"]
            assert all(target["datasource"] == panel["datasource"] for target in panel["targets"]), panel["title"]


def test_no_two_panels_overlap_and_all_are_in_the_grid() -> None:
    places = [panel["gridPos"] for panel in PANELS]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= COLUMNS for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


def test_every_variable_is_used_and_every_one_that_is_used_exists() -> None:
    text = json.dumps({name: part for name, part in DASHBOARD.items() if name != "templating"})
    asked = json.dumps([variable["query"] for variable in VARIABLES])
    used = set(re.findall(r"\$\{?(\w+)", text + asked)) - {"__rate_interval"}
    assert used == {variable["name"] for variable in VARIABLES}
    [datasource] = [variable for variable in VARIABLES if variable["type"] == "datasource"]
    assert datasource["query"] == "prometheus"


def test_every_metric_on_the_dashboard_is_exported() -> None:
    asked = json.dumps([variable["query"] for variable in VARIABLES])
    named = set(re.findall(r"\b(?:vpntun|process)_\w+", "\n".join(queries("1m")) + asked))
    assert named <= exported_names()


def test_every_metric_is_explained_and_no_other() -> None:
    explained = [row[0].strip("`") for row in table("metrics")[1:]]
    assert len(set(explained)) == len(explained)
    assert set(explained) == {name for name in exported_names() if name.startswith("vpntun_")}


def test_every_metric_of_a_link_is_on_the_dashboard_or_in_a_rule() -> None:
    shown = "\n".join(queries("1m")) + RULES.read_text()
    of_links = {name for name in exported_names() if name.startswith("vpntun_peer_")}
    assert {name for name in of_links if name not in shown} <= {
        "vpntun_peer_latest_received_timestamp_seconds",  # what it says, data_verified says better
        "vpntun_peer_mac_addresses",  # of TAP devices alone
        "vpntun_peer_up",  # the three states say more
    }


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_can_parse_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries("1m"))]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run(
        ["promtool", "check", "rules", file], check=False, capture_output=True, text=True, timeout=30
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
