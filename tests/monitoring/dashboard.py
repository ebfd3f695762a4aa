"""The dashboard, docs/metrics/dashboard.json, and its queries."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.documents import CHECKOUT

DASHBOARD: dict[str, Any] = json.loads((CHECKOUT / "docs" / "metrics" / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
VARIABLES: list[dict[str, Any]] = DASHBOARD["templating"]["list"]


def queries(rate_interval: str) -> list[str]:
    """Return the queries of all panels, with every variable standing for everything."""
    found = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]
    return [re.sub(r"\$\w+", ".*", query.replace("$__rate_interval", rate_interval)) for query in found]
