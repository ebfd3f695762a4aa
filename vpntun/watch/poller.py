"""Poller of one tunnel, in a thread of its own, so that a tunnel that does not answer holds up nothing else.

It asks for the status once an interval, over one connection. Now and then it also has the tunnel verify its links: it
sends a small message through each, and whether data arrives is then known although nobody else sends any.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vpntun.control.client import ControlClient
from vpntun.errors import NoSuchTunnel, RequestRefused, VpntunError
from vpntun.runtime.clock import boottime

SECONDS_BETWEEN_VERIFICATIONS = 5.0
SECONDS_BETWEEN_ATTEMPTS = 1.0
"""How soon a tunnel that did not answer is asked again."""
PATIENCE = 10.0
"""Seconds to wait for an answer."""
ENDED = "has ended; waiting for it to come back"


@dataclass(frozen=True)
class Report:
    """The status of a tunnel, or the trouble with it, for the operator."""

    interface: str
    status: dict[str, Any] | None = None
    trouble: str | None = None


class Poller(threading.Thread):
    """Thread that hands a report to `report` once an interval, until `end` is called or the program ends."""

    def __init__(self, interface: str, interval: float, report: Callable[[Report], None]) -> None:
        super().__init__(name=f"poller of {interface}", daemon=True)
        self._interface = interface
        self._interval = interval
        self._report = report
        self._ended = threading.Event()

    def run(self) -> None:
        """Ask the tunnel, and look for it whenever it is gone."""
        while not self._ended.is_set():
            try:
                with ControlClient(self._interface, PATIENCE) as tunnel:
                    self._ask(tunnel)
            except NoSuchTunnel:
                self._report(Report(self._interface, trouble=ENDED))
            except VpntunError as error:
                self._report(Report(self._interface, trouble=str(error)))
            self._ended.wait(min(self._interval, SECONDS_BETWEEN_ATTEMPTS))

    def end(self) -> None:
        """End the thread once its last question is answered."""
        self._ended.set()

    def _ask(self, tunnel: ControlClient) -> None:
        """Ask one running tunnel until the end. Raises VpntunError when it ends or does not answer."""
        verified = -SECONDS_BETWEEN_VERIFICATIONS
        while not self._ended.is_set():
            began = boottime()
            if began - verified >= SECONDS_BETWEEN_VERIFICATIONS:
                verified = began
                with suppress(RequestRefused):  # an older tunnel does not know the request
                    tunnel.ask("POST", "/v1/verify")
            self._report(Report(self._interface, tunnel.ask("GET", "/v1/status")))
            self._ended.wait(max(0.0, began + self._interval - boottime()))
