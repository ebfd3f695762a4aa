"""The other side of the control socket: what the command line asks of a tunnel that runs.

Root asks its own tunnels, in /run/vpntun; anybody else those of their own, and is told that root's are root's.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from vpntun.control.server import socket_path
from vpntun.control.unix_server import other_end
from vpntun.errors import PrivilegeError, VpntunError
from vpntun.runtime.folders import run_folder

PATIENCE = 10.0
SECONDS_TO_END = 20.0
OF_THE_MACHINE = Path("/run/vpntun")


class ControlClient:
    """A connection to the tunnel of an interface; to be used in a `with`. `process`: its process id.

    `patience`: how many seconds it has for an answer. Raises VpntunError where no tunnel runs there, PrivilegeError
    where it is not this user's.
    """

    def __init__(self, interface: str, patience: float = PATIENCE) -> None:
        self.interface = interface
        self._patience = patience
        self._socket = _connect(interface, patience)
        self.process, _ = other_end(self._socket)
        self._http = HTTPConnection("vpntun")
        self._http.sock = self._socket

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, method: str, target: str) -> dict[str, Any]:
        """The answer. Raises VpntunError: the tunnel refuses, and why; it does not answer; it has just ended."""
        try:
            self._http.request(method, target)
            response = self._http.getresponse()
            answer = json.loads(response.read())
        except TimeoutError:
            raise VpntunError(
                f"{self.interface} (process {self.process}) has not answered within {self._patience:.0f} s: is it "
                "stopped?"
            ) from None
        except (OSError, HTTPException, ValueError) as error:
            raise VpntunError(f"{self.interface} has ended while it was asked ({error})") from error
        if response.status >= 400:
            raise VpntunError(f"{self.interface} refuses: {answer.get('error')}")
        return dict(answer)

    def stop(self) -> None:
        """Have it end, and wait until it has. Raises VpntunError after 20 s."""
        end = time.monotonic() + SECONDS_TO_END
        with _watched(self.process) as process:
            self.ask("POST", "/v1/stop")
            for each in (self._socket.fileno(), process):  # the socket ends when the tunnel lets its clients go
                if each is not None and not _ended(each, end - time.monotonic()):
                    raise VpntunError(
                        f"{self.interface} (process {self.process}) has not ended within {SECONDS_TO_END:.0f} s: "
                        f"'kill -KILL {self.process}' ends it at once, and 'vpntun up' cleans up behind it"
                    )


def running_interfaces() -> list[str]:
    """The interfaces of this user's tunnels that run."""
    return sorted(path.stem for path in run_folder().glob("*.sock") if _answers(path))


def _connect(interface: str, patience: float) -> socket.socket:
    for folder in dict.fromkeys((run_folder(), OF_THE_MACHINE)):
        new = socket.socket(socket.AF_UNIX)
        new.settimeout(patience)
        try:
            new.connect(str(socket_path(interface, folder)))
        except PermissionError:
            new.close()
            raise PrivilegeError(
                f"no tunnel of this user's is called {interface}, and only root may ask root's: use sudo"
            ) from None
        except OSError:
            new.close()
        else:
            return new
    raise VpntunError(f"no vpntun runs {interface}: 'vpntun show' says which interfaces it runs")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.settimeout(PATIENCE)
        probe.connect(str(path))
        return True
    return False


@contextmanager
def _watched(process: int) -> Iterator[int | None]:
    """A descriptor that is readable once the process has ended; None where this kernel or namespace has none."""
    descriptor = None
    with suppress(OSError):
        descriptor = os.pidfd_open(process)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _ended(descriptor: int, seconds: float) -> bool:
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(max(0.0, seconds) * 1000))
