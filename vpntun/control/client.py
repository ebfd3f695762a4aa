"""Client of the control socket, with which the command line queries and stops running tunnels.

Root finds its tunnels in /run/vpntun. Other users find their own tunnels, and get a clear error for root's. Everybody
finds the tunnels of this network namespace alone: those of others may have interfaces of the same names.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from vpntun.control.server import path_beside, socket_path
from vpntun.errors import (
    NoSuchPeer,
    NoSuchTunnel,
    PrivilegeError,
    RequestRefused,
    RequestUnknown,
    VpntunError,
)
from vpntun.runtime.clock import boottime
from vpntun.runtime.folders import run_folder
from vpntun.serving.http import target_of
from vpntun.serving.listening import listens_here, names_listening_here, other_end

PATIENCE = 10.0
"""Seconds to wait for an answer."""
SECONDS_TO_END = 20.0
LARGEST_PIECE = 1 << 16
FIRST_LOOK = 0.005
LAST_LOOK = 0.1
"""Seconds between two looks for the peers' answers: doubling from the first, since most take one round trip."""
UNKNOWN_REQUEST = "there is no /v1/"
"""How the refusal of a request begins that the tunnel does not know (serving/http.py)."""
OF_THE_MACHINE = Path("/run/vpntun")

_timeval = struct.Struct("@ll")


class ControlClient:
    """A connection to the tunnel of an interface, for use in a `with` statement. `process`: the tunnel's process id.

    `patience`: how many seconds to wait for an answer. Raises NoSuchTunnel if none runs there, PrivilegeError if it
    belongs to another user, and VpntunError if it takes no connections.
    """

    def __init__(self, interface: str, patience: float = PATIENCE) -> None:
        self.interface = interface
        self._patience = patience
        self._socket = _connect(interface, patience)
        self.process, _ = other_end(self._socket)
        self._http = HTTPConnection("vpntun")
        self._http.sock = self._socket
        self._http.auto_open = 0  # or it would look for a host of this name once the tunnel has ended
        self._response: HTTPResponse | None = None

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        if self._response is not None:
            self._response.close()
        self._http.close()

    def ask(self, method: str, target: str, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the answer. Raises RequestRefused, or VpntunError without an answer.

        `content`: the JSON object of the request's body, if it has one.
        """
        return self._read(self._request(method, target, None if content is None else json.dumps(content)))

    def stream(self, method: str, target: str) -> Iterator[bytes]:
        """Send a request, and return its answer, which is not JSON, piece by piece as it comes.

        Raises VpntunError as `ask` does, at once or between two pieces.
        """
        response = self._request(method, target)
        if response.status >= 400:
            self._read(response)
        self._socket.settimeout(None)
        return self._pieces(response)

    def end_stream(self) -> None:
        """Ask the tunnel to end the answer of `stream`. Its last pieces are still to be read."""
        with suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_WR)

    def _pieces(self, response: HTTPResponse) -> Iterator[bytes]:
        try:
            while piece := response.read1(LARGEST_PIECE):
                yield piece
        except (OSError, HTTPException) as error:
            raise VpntunError(f"{self.interface} ended before its answer did ({error!r})") from error

    def _request(self, method: str, target: str, body: str | None = None) -> HTTPResponse:
        with self._explained():
            self._http.request(method, target, body)
            self._response = self._http.getresponse()
            return self._response

    def _read(self, response: HTTPResponse) -> dict[str, Any]:
        with self._explained():
            answer = json.loads(response.read())
        if response.status >= 400:
            reason = str(answer.get("error"))
            kind = RequestUnknown if reason.startswith(UNKNOWN_REQUEST) else RequestRefused
            raise kind(f"{self.interface} refuses: {reason}")
        return dict(answer)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise VpntunError if there is no answer."""
        try:
            yield
        except TimeoutError:
            raise VpntunError(
                f"{self.interface} (process {self.process}) has not answered within {self._patience:.0f} s: is it "
                "suspended?"
            ) from None
        except (OSError, HTTPException, ValueError) as error:
            raise VpntunError(f"{self.interface} ended before it answered ({error})") from error

    def verify(self, peer: str | None, patience: float) -> list[str]:
        """Have the tunnel ask its peers whether data arrives, and wait `patience` seconds at most for their answers.

        `peer`: what the user calls the only peer to ask; None for all. Return the keys of the peers. Raises as `ask`. A
        tunnel that an older version has started asks nobody.
        """
        target = target_of("/v1/verify", {} if peer is None else {"peer": peer})
        end, pause = boottime() + patience, FIRST_LOOK
        while True:
            try:
                answer = self.ask("POST", target)
            except RequestUnknown:
                return self._keys_of(peer)
            left = end - boottime()
            if not answer.get("awaited") or left <= 0:
                return list(answer.get("peers", ()))
            time.sleep(min(left, pause))
            pause = min(LAST_LOOK, 2 * pause)

    def _keys_of(self, called: str | None) -> list[str]:
        """Return the keys of the peers, by the status: all, or that of one. Raises NoSuchPeer."""
        peers = self.ask("GET", "/v1/status")["peers"]
        if called is None:
            return [peer["public_key"] for peer in peers]
        named = [peer["public_key"] for peer in peers if peer["name"] == called]
        found = named or [peer["public_key"] for peer in peers if peer["public_key"].startswith(called)]
        if len(found) != 1:
            raise NoSuchPeer(
                f"{self.interface} has {len(found) or 'no'} peers of this name or key: 'vpntun show {self.interface}' "
                "lists its peers"
            )
        return found

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
    """List the interfaces of this user's running tunnels in this network namespace."""
    return sorted(
        interface for interface in set(map(_interface_of, run_folder().glob("*.sock"))) if _runs_here(interface)
    )


def interfaces_of_root() -> list[str]:
    """List the interfaces of tunnels in this network namespace that are root's, for a user who may not ask them."""
    if run_folder() == OF_THE_MACHINE:
        return []
    return [_interface_of(Path(name)) for name in names_listening_here(OF_THE_MACHINE) if name.endswith(".sock")]


def _interface_of(path: Path) -> str:
    return path.stem.partition(":")[0]


def _connect(interface: str, patience: float) -> socket.socket:
    elsewhere = None
    for folder in dict.fromkeys((run_folder(), OF_THE_MACHINE)):
        for path in _paths(interface, folder):
            try:
                new = _connected(path, interface, patience)
            except PermissionError:
                raise PrivilegeError(
                    f"this user has no tunnel called {interface}, and only root may control root's: use sudo"
                ) from None
            except OSError:
                continue
            if listens_here(path):
                return new
            elsewhere = other_end(new)[0]
            new.close()
    if elsewhere is not None:
        raise NoSuchTunnel(_explain_elsewhere(interface, elsewhere))
    raise NoSuchTunnel(f"no vpntun runs {interface}: 'vpntun show' lists the running interfaces")


def _paths(interface: str, folder: Path) -> tuple[Path, Path]:
    """Return where a tunnel of this network namespace may listen."""
    return path_beside(interface, folder), socket_path(interface, folder)


def _connected(path: Path, interface: str, patience: float) -> socket.socket:
    """Return a connection to a tunnel. Raises OSError where none listens, and VpntunError where it takes no more."""
    new = socket.socket(socket.AF_UNIX)
    # Unlike Python's own timeout, this one waits for room in the tunnel's queue of new connections.
    new.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval.pack(int(patience), int(patience % 1 * 1e6)))
    try:
        new.connect(str(path))
    except BlockingIOError:
        new.close()
        raise VpntunError(
            f"{interface} has taken no connection within {patience:g} s: is its vpntun suspended?"
        ) from None
    except OSError:
        new.close()
        raise
    new.settimeout(patience)
    return new


def _explain_elsewhere(interface: str, process: int) -> str:
    if not process:
        return f"no vpntun runs {interface} in this network namespace, but one does in that of another container"
    return (
        f"no vpntun runs {interface} in this network namespace, but process {process} does in another: "
        f"'nsenter --net=/proc/{process}/ns/net vpntun show {interface}' shows it"
    )


def _runs_here(interface: str) -> bool:
    return any(_answers(path) and listens_here(path) for path in _paths(interface, run_folder()))


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except BlockingIOError:  # its queue of new connections is full
            return True
        except OSError:
            return False
        return True


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
