"""A process that answers on a control socket like a tunnel with traffic, but has no device."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.cli.sample_status import PEER, STATUS
from vpntun.control.server import ControlServer
from vpntun.runtime.clock import boottime
from vpntun.runtime.loop import Loop
from vpntun.serving.http import Answer, Route

CHECKOUT = Path(__file__).parents[2]
_numbers = itertools.count()


class FakeTunnel:
    """The process, for use in a `with` statement. Its interface has a name that no other test uses.

    Its first peer, "office", receives 1 MB a second. In its status, `relay` counts the requests to verify the links.
    """

    def __init__(self, peers: int = 1) -> None:
        self.interface = f"w{os.getpid()}-{next(_numbers)}"
        self._peers = peers

    def __enter__(self) -> FakeTunnel:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process, and wait until it answers."""
        command = [sys.executable, "-m", __name__, self.interface, str(self._peers)]
        self._process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        with self._process.stdout as output:
            assert output.readline() == b"ready\n"

    def stop(self) -> None:
        """End the process as a tunnel ends, and wait until it has."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGCONT)
        self._process.terminate()
        self._process.wait()

    @property
    def process(self) -> int:
        return self._process.pid


class Counted:
    """What the fake tunnel counts."""

    def __init__(self, interface: str, peers: int) -> None:
        self._began, self._interface, self._peers = boottime(), interface, peers
        self.verified = 0

    def status(self) -> Mapping[str, Any]:
        clock = boottime() - self._began
        peers = [
            {
                **PEER,
                "public_key": f"{number:043d}=",
                "name": f"peer{number}" if number else "office",
                "received_bytes": int(1e6 * clock / (number + 1)),
            }
            for number in range(self._peers)
        ]
        own = {"interface": self._interface, "pid": os.getpid(), "forwards": [], "relay": self.verified, "peers": peers}
        return {**STATUS, **own, "clock": clock, "uptime": int(clock)}

    def verify(self) -> Answer:
        self.verified += 1
        return Answer(HTTPStatus.OK, {})


def main(interface: str, peers: int) -> None:
    loop, counted = Loop(), Counted(interface, peers)
    control = ControlServer(
        interface,
        loop,
        status=lambda: dict(counted.status()),
        stop=loop.stop,
        reload=lambda: None,
        reset=lambda _: "",
        more={"/v1/verify": Route("POST", counted.verify)},
    )
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    print("ready", flush=True)
    loop.run(lambda _: boottime() + 0.1, lambda _: None)
    control.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
