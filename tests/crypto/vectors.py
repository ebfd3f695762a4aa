"""Loader for the published known answers in tests/vectors; each file names its source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent.parent / "vectors"


def load(name: str) -> dict[str, Any]:
    """The contents of tests/vectors/NAME.json."""
    vectors: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text())
    return vectors
