"""Published known answers: data only, each file names where it is from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent.parent / "vectors"


def load(name: str) -> dict[str, Any]:
    """What tests/vectors/NAME.json says."""
    vectors: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text())
    return vectors
