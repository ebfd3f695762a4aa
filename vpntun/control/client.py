"""Client of the control socket, with which the command line queries and stops running tunnels.

Root finds its tunnels in /run/vpntun. Other users find their own tunnels, and get a clear error for root's.
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from vpntun.control.server import socket_path
from vpntun.control.unix_server import other_end
from vpntun.errors import PrivilegeError, VpntunError
from vpntun.runtime.clock import boottime
from vpntun.runtime.folders import run_folder

PATIENCE = 10.0
"""Seconds to wait for an answer."""
SECONDS_TO_END = 20.0
OF_THE_MACHINE = Path("/run/vpntun")


class ControlClient:
    """A connection to the tunnel of an interface, for use in a `with` statement. `process`: the tunnel's process id.

    `patience`: how many seconds to wait for an answer. Raises VpntunError if no tunnel runs there, PrivilegeError if it
    belongs to another user.
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
        """Send a request and return the answer. Raises VpntunError if the tunnel refuses, does not answer, or ends."""
        try:
            self._http.request(method, target)
            response = self._http.getresponse()
            answer = json.loads(response.read())
        except TimeoutError:
            raise VpntunError(
                f"{self.interface} (process {self.process}) has not answered within {self._patience:.0f} s: is it "
                "suspended?"
            ) from None
        except (OSError, HTTPException, ValueError) as error:
            raise VpntunError(f"{self.interface} ended before it answered ({error})") from error
        if response.status >= 400:
            raise VpntunError(f"{self.interface} refuses: {answer.get('error')}")
        return dict(answer)

    def stop(self) -> None:
        """Stop the tunnel, and wait until it has ended. Raises VpntunError after 20 s."""
        end = boottime() + SECONDS_TO_END
        with _watched(self.process) as process:
            self.ask("POST", "/v1/stop")
            for each in (self._socket.fileno(), process):  # the tunnel closes its connections when it ends
                if each is not None and not _ended(each, end - boottime()):
                    raise VpntunError(
                        f"{self.interface} (process {self.process}) has not ended within {SECONDS_TO_END:.0f} s: "
                        f"'kill -KILL {self.process}' ends it at once, and the next 'vpntun up' cleans up after it"
                    )


def running_interfaces() -> list[str]:
    """List the interfaces of this user's running tunnels."""
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
                f"this user has no tunnel called {interface}, and only root may control root's: use sudo"
            ) from None
        except OSError:
            new.close()
        else:
            return new
    raise VpntunError(f"no vpntun runs {interface}: 'vpntun show' lists the running interfaces")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.settimeout(PATIENCE)
        probe.connect(str(path))
        return True
    return False


@contextmanager
def _watched(process: int) -> Iterator[int | None]:
    """Open a descriptor that becomes readable when the process ends; None if the kernel has none for it."""
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
