"""A tunnel of an ordinary user, tun3, which answers these commands on a real control socket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.cli.child_tunnel import answering
from tests.cli.sample_status import STATUS
from tests.machine import ordinary_user
from vpntun.control import client
from vpntun.control.server import ControlServer
from vpntun.runtime.loop import Loop
from vpntun.serving.http import Route


@contextlib.contextmanager
def tunnel_of_a_user(monkeypatch: pytest.MonkeyPatch, more: Mapping[str, Route]) -> Iterator[Path]:
    """Run it to the end of the block, with these requests, too; yield the folder of its socket."""

    def new_server(loop: Loop) -> ControlServer:
        return ControlServer(
            "tun3", loop, status=lambda: STATUS, stop=loop.stop, reload=loop.stop, reset=str, more=more
        )

    with ordinary_user() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        monkeypatch.setattr(client, "OF_THE_MACHINE", folder / "root")  # where tests beside this one have tunnels
        with answering(new_server):
            yield folder
