"""The exposition of a tunnel of which everything is known, as rules and the dashboard may query it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.cli.sample_status import FORWARD
from tests.control.test_metrics import FULL
from tests.control.test_metrics import status as status_of
from vpntun.control.exposition import Exposition
from vpntun.runtime.loop import Loop


def exported_names() -> set[str]:
    """Return the names of all samples."""
    loop = Loop()
    try:
        exposition = Exposition(
            loop,
            count=lambda: 1,
            status=lambda *_: status_of(FULL, forwards=[FORWARD]),
            verify=lambda *_: False,
            on_ready=lambda: None,
        )
        text = b"".join(exposition._write()).decode()
    finally:
        loop.close()
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
