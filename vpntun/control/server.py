"""The control socket, /run/vpntun/INTERFACE.sock: requests to a running tunnel, and their answers.

    GET  /v1/status    report what the tunnel is doing (docs/control.rst)
    POST /v1/stop      send the answer, then end the loop
    POST /v1/reload    read the configuration file again; 409 and the reason if that fails, and nothing changes
    POST /v1/verify    ask peers whether data arrives, and answer at once (verify.py)
    POST /v1/reset     forget the last timestamp of ?peer=; 404 if no peer matches, 409 if several do

Files of this room add others, each by a function that returns its routes (capture.py).

A request that fails is answered with 500, and logged. It never ends the tunnel, whatever phase of its start or end the
tunnel is in.

serving/unix_server.py decides who may connect, and clients.py there how much a client may ask for. The socket is also
the lock of the interface: InterfaceInUse where another vpntun of this network namespace already answers on it. Where
one of another namespace has the name, the socket is /run/vpntun/INTERFACE:NAMESPACE.sock (runtime/folders.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from vpntun.control.reset import refusal_because
from vpntun.errors import AmbiguousPeer, InterfaceInUse, NoSuchPeer, VpntunError
from vpntun.runtime.folders import named_here, run_folder
from vpntun.runtime.log import NOTICE, Limited
from vpntun.runtime.loop import Loop
from vpntun.serving.http import Answer, AnyAnswer, HttpExchange, LaterAnswer, Route, follow, refusal
from vpntun.serving.listening import SocketInUse
from vpntun.serving.unix_server import UnixServer

Result = TypeVar("Result")


def socket_path(interface: str, folder: Path | None = None) -> Path:
    """Return the path of an interface's control socket; `folder` None is this user's own."""
    return (folder or run_folder()) / f"{interface}.sock"


def path_beside(interface: str, folder: Path | None = None) -> Path:
    """Return the path of the control socket where another network namespace has the first."""
    return socket_path(named_here(interface), folder)


class ControlServer:
    """Answers requests on the control socket until it is closed.

    `status` returns an object without secrets, or yields its JSON in parts, and None where the loop may go on. `stop`
    ends the loop. `reload` raises VpntunError with the reason if it fails. `reset` takes what the client calls the
    peer, None for the only one, returns the peer's public key, and raises NoSuchPeer or AmbiguousPeer.
    """

    def __init__(
        self,
        interface: str,
        loop: Loop,
        *,
        status: Callable[[], dict[str, Any] | Iterator[str | None]],
        stop: Callable[[], None],
        reload: Callable[[], None],
        reset: Callable[[str | None], str],
        more: Mapping[str, Route] = MappingProxyType({}),
        folder: Path | None = None,
    ) -> None:
        """`more`: the routes of requests that other files of this room answer, by their paths.

        Raises InterfaceInUse where another vpntun runs the interface, PrivilegeError or VpntunError.
        """
        self._loop = loop
        self._status = status
        self._goes_on = False
        self._reload = reload
        self._reset = reset
        self._failed = Limited(NOTICE, "the request %s could not be answered: %s")
        self._routes = {
            "/v1/status": Route("GET", self._answer_with_status),
            "/v1/stop": Route("POST", lambda: Answer(HTTPStatus.ACCEPTED, {"stopping": True}, then=stop)),
            "/v1/reload": Route("POST", self._answer_to_reload),
            "/v1/reset": Route("POST", self._answer_to_reset, frozenset({"peer"})),
            **more,
        }
        try:
            self._server = UnixServer(
                "the control socket",
                socket_path(interface, folder),
                loop,
                lambda: HttpExchange(self._answer),
                path_beside=path_beside(interface, folder),
            )
        except SocketInUse as taken:
            who = "" if taken.process is None else f", process {taken.process}"
            raise InterfaceInUse(
                f"another vpntun runs {interface} already{who}: 'vpntun show {interface}' says what it does, "
                f"'vpntun down {interface}' ends it"
            ) from None

    def close(self) -> None:
        """Close all connections, and remove the socket unless its name belongs to another by now."""
        self._server.close()

    def _answer(self, method: str, target: str, body: bytes) -> AnyAnswer:
        request = f"{method} {target.partition('?')[0]}"
        answer = self._guarded(request, partial(follow, self._routes, method, target, body))
        if isinstance(answer, LaterAnswer):
            return LaterAnswer(partial(self._guarded, request, answer.work))
        return answer

    def _answer_with_status(self) -> Answer | LaterAnswer:
        status = self._status()
        return (
            Answer(HTTPStatus.OK, status) if isinstance(status, dict) else LaterAnswer(partial(self._write, status, []))
        )

    def _write(self, parts: Iterator[str | None], written: list[str]) -> Answer | None:
        """Write parts of an answer up to the next None, and go on in the next turn of the loop."""
        for part in parts:
            if part is None:
                self._go_on_later()
                return None
            written.append(part)
        return Answer(HTTPStatus.OK, "".join(written).encode())

    def _go_on_later(self) -> None:
        if not self._goes_on:
            self._goes_on = True
            self._loop.call_later(0.0, self._go_on)

    def _go_on(self) -> None:
        self._goes_on = False
        self._server.go_on()

    def _guarded(self, request: str, act: Callable[[], Result]) -> Result | Answer:
        """Return what `act` returns, or the answer to the error that it raises."""
        try:
            return act()
        except (VpntunError, OSError) as error:
            self._failed(request, error)
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except Exception:
            self._loop.internal_errors.note()
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error: the tunnel's log has it")

    def _answer_to_reload(self) -> Answer:
        try:
            self._reload()
        except VpntunError as error:
            return refusal(HTTPStatus.CONFLICT, str(error))
        return Answer(HTTPStatus.OK, {"reloaded": True})

    def _answer_to_reset(self, peer: str | None = None) -> Answer:
        try:
            return Answer(HTTPStatus.OK, {"public_key": self._reset(peer)})
        except (AmbiguousPeer, NoSuchPeer) as error:
            return refusal_because(error)
