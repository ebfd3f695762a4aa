"""Names that routes and name servers wait for, and what happens once they are found.

found before the loop runs     noted, and acted upon in `begin`: --up, or PostUp before it, may take long
found later                    what waited is set, and the start proceeds
what waited cannot be set      logged, and tried again 10 s later; the peers that work are left alone
it can never be set            the start ends with a ConfigurationError; a tunnel that is set up only logs it
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from vpntun.config.peer import PeerSettings
from vpntun.errors import ConfigurationError, VpntunError
from vpntun.process.start import Start
from vpntun.process.surroundings import TunnelNetwork
from vpntun.runtime.log import log
from vpntun.runtime.loop import Loop

SECONDS_AFTER_FAILURE = 10.0


class AwaitedNames:
    """The peers whose names this host's network waits for. `peers`: those that are awaited now.

    `on_set`: called by the loop when the start may proceed. `on_failure`: gets the error that ends the start.
    """

    def __init__(
        self,
        host: TunnelNetwork,
        start: Start,
        loop: Loop,
        on_set: Callable[[], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self.peers: list[PeerSettings] = []
        self._host = host
        self._start = start
        self._loop = loop
        self._on_set = on_set
        self._on_failure = on_failure
        self._all: Collection[PeerSettings] = ()
        self._is_found: Callable[[str, int], bool] = lambda host, port: False
        self._has_begun = self._is_due = self._timer_runs = False

    def apply(self, peers: Collection[PeerSettings], is_found: Callable[[str, int], bool]) -> None:
        """Set what can be set for these peers. `is_found`: whether a name was ever found. Raises VpntunError."""
        self.peers = self._host.apply(peers, is_found)
        self._all, self._is_found = peers, is_found
        self._is_due = False

    def begin(self) -> None:
        """Proceed, now that the loop runs; set first what waited for names that have been found by now."""
        self._has_begun = True
        if self._is_due:
            self._set()
        else:
            self.proceed()

    def proceed(self) -> None:
        """Proceed as soon as resolvconf has ended too."""
        self._host.when_set(self._on_set)

    def found(self) -> None:
        """Set what waited for a name that was found for the first time."""
        self._is_due = True
        if self._has_begun:
            self._set()

    def _set(self) -> None:
        try:
            self.apply(self._all, self._is_found)
        except ConfigurationError as error:
            if self._start.waits_for is None:
                log.error("%s", error)
            else:
                self._on_failure(error)
        except VpntunError as error:
            log.error("%s; trying again in %.0f s", error, SECONDS_AFTER_FAILURE)
            if not self._timer_runs:
                self._timer_runs = True
                self._loop.call_later(SECONDS_AFTER_FAILURE, self._try_again)
        else:
            self.proceed()

    def _try_again(self) -> None:
        self._timer_runs = False
        if self._is_due:
            self._set()
