"""Forwards that listen nowhere, for tests of what is asked of them."""

from __future__ import annotations

from typing import Any

from tests.cli.sample_status import FORWARD
from vpntun.config.forwards import Forward, ForwardProtocol, Listening, Origin, spelled
from vpntun.errors import ForwardExists, NoSuchForward, PortInUse


class FakeForwards:
    """A table of forwards; port 1 is always in use."""

    def __init__(self, *forwards: Forward) -> None:
        self._forwards = {each.key: each for each in forwards}

    def expose(self, forward: Forward) -> None:
        if forward.key in self._forwards:
            raise ForwardExists(f"{spelled(forward.listen)} is exposed already")
        if isinstance(forward.listen, tuple) and forward.listen[1] == 1:
            raise PortInUse(f"{spelled(forward.listen)} is in use: choose another port")
        self._forwards[forward.key] = forward

    def unexpose(self, protocol: ForwardProtocol, listen: Listening, origin: Origin) -> None:
        if self._forwards.pop((protocol, listen, origin), None) is None:
            raise NoSuchForward(f"no forward listens on {spelled(listen)}")

    def status(self) -> list[dict[str, Any]]:
        return [
            {
                **FORWARD,
                "protocol": each.protocol,
                "from": each.origin,
                "listen": spelled(each.listen),
                "target": spelled(each.target),
            }
            for each in self._forwards.values()
        ]
