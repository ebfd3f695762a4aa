"""`services` and `expose --service-key` on a real control socket, served by a process in place of the tunnel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.cli.conftest import Run
from tests.cli.reaching.tunnel import tunnel_of_a_user
from tests.forwards.fake_forwards import FakeForwards
from vpntun.config.forwards import ServiceName
from vpntun.crypto.keys import format_key
from vpntun.forwards.requests import forward_routes
from vpntun.services.requests import ServiceRequests
from vpntun.services.services import Services

KEY = bytes(range(32))
FOUND = [
    {"name": "ssh@desk", "service": "ssh", "peer": "desk", "key": True, "through": "office"},
    {"name": "ntp@office", "service": "ntp", "peer": "office", "key": False, "through": None},
]
WITHOUT = [{"peer": "phone", "reason": "the peer is not a vpntun"}]
TABLE = """\
service     key     through
ssh@desk    needed  office
ntp@office  -       -
"""


class FakeServices:
    """Services of a tunnel whose peers answer at the second question."""

    def __init__(self) -> None:
        self.lists = self.visits = self
        self.reports = 0
        self.services: list[dict[str, Any]] = []
        self.key: bytes | None = None

    def begin(self) -> int:
        self.reports = 0
        return 7

    def report(self, number: int) -> dict[str, Any]:
        self.reports += 1
        state = "asked" if self.reports < 2 else "answered"
        return {"state": state, "services": FOUND if self.key == KEY else [], "without": WITHOUT}

    def give_key(self, name: ServiceName, key: bytes | None) -> None:
        self.key = key


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tunnel of an ordinary user, tun3, whose peers offer services once it has a key for them."""
    forwards, services = FakeForwards(), cast(Services, FakeServices())
    routes = {**forward_routes("tun3", lambda: forwards), **ServiceRequests(lambda: services).routes()}
    with tunnel_of_a_user(monkeypatch, routes) as made:
        yield made


def test_services_are_listed_and_a_key_is_read_from_its_file(run: Run, folder: Path) -> None:
    listed = run("services", "tun3")
    assert (listed.status, listed.out) == (0, "")
    assert listed.err == "no peer offers tun3 a service\nphone: the peer is not a vpntun\n"
    file = folder / "service.key"
    file.touch(0o600)
    file.write_text(format_key(KEY))
    assert run("expose", "tun3", "127.0.0.1:2222", "ssh@desk", "--service-key", str(file)).status == 0
    assert "ssh@desk" in run("forwards", "tun3").out
    assert run("services", "tun3").out == TABLE
    assert json.loads(run("services", "tun3", "--json").out) == {
        "state": "answered",
        "services": FOUND,
        "without": WITHOUT,
    }


def test_a_key_without_a_service_is_refused(run: Run, folder: Path) -> None:
    done = run("expose", "tun3", "127.0.0.1:2222", "10.9.0.7:22", "--service-key", str(folder / "none"))
    assert done.status == 3
    assert "--service-key is for a service of a peer" in done.err
