"""Fixtures that read lines as a configuration file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.config.examples import (
    write,
)
from vpntun.config.file import read_file
from vpntun.config.tunnel import Tunnel
from vpntun.errors import ConfigurationError


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Tunnel]:
    """Function that reads lines as the file of the interface wg7."""

    def take(*lines: str, by: Callable[[Path, str], Tunnel] = read_file) -> Tunnel:
        path = write(tmp_path / "wg7.conf", "\n".join(lines).encode())
        return by(path, "wg7")

    return take


@pytest.fixture
def refusal(tmp_path: Path, read: Callable[..., Tunnel]) -> Callable[..., str]:
    """Function that returns the error for lines that are refused, without the path of the folder."""

    def take(*lines: str) -> str:
        with pytest.raises(ConfigurationError) as caught:
            read(*lines)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return take
