"""The slow part of a tunnel's start: hook lines, and look-ups of names.

    before the loop runs    PreUp; a few seconds for the peers' names; PostUp if privileges are given up then
    in the loop             PostUp otherwise: at once or, if routes or name servers wait for a name, once it is found

The loop is served all the time, so that the control socket answers, signals work, and systemd hears of the progress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import HookLines
from vpntun.errors import VpntunError
from vpntun.process.service import Service
from vpntun.process.shell import ShellLines, When
from vpntun.runtime.log import notice
from vpntun.runtime.loop import Loop
from vpntun.runtime.resolver import Lookups

SECONDS_FOR_NAMES = 5.0
"""How long names are waited for: the time after which a resolver asks its next name server (resolv.conf(5))."""


class Start:
    """The start of one tunnel. `waits_for`: what it waits for now; None once the tunnel is set up.

    `on_end` is called once, with None when PostUp has run, or with the error that ends the tunnel.
    """

    def __init__(
        self, hooks: HookLines, service: Service, loop: Loop, on_end: Callable[[Exception | None], None]
    ) -> None:
        self.waits_for: str | None = "the set-up"
        self._hooks = hooks
        self._service = service
        self._loop = loop
        self._on_end = on_end
        self._post_up = ShellLines("PostUp", hooks.post_up)
        self._is_over = False

    # Before the loop runs

    def run_pre_up(self) -> bool:
        """Run PreUp. Return False if the loop was stopped meanwhile. Raises HookFailed."""
        return self._serve("PreUp", self._hooks.pre_up)

    def run_post_up(self) -> None:
        """Run PostUp now, instead of later in the loop. Raises HookFailed."""
        self._post_up = ShellLines("PostUp", ())
        self._serve("PostUp", self._hooks.post_up)

    def find_names(self, lookups: Lookups, peers: Iterable[PeerSettings]) -> None:
        """Look the peers' names up, before anything leads look-ups into the tunnel."""
        names = [(peer.host, peer.port) for peer in peers if peer.host is not None]
        unknown = [host for host, port in names if not lookups.has_found(host, port)]
        if unknown:
            self._wait_for(unknown)
            for host, error in lookups.look_up_ahead(names, SECONDS_FOR_NAMES).items():
                reason = error or f"no answer within {SECONDS_FOR_NAMES:.0f} s"
                notice("%s does not resolve (%s); trying again", host, reason)
            if self._service.gives_up_privileges:
                lookups.end_threads()
            self._wait_no_more("the set-up")

    # In the loop

    def proceed(self, awaited: Sequence[PeerSettings]) -> None:
        """Run PostUp, unless that was done before, or the names of peers are awaited."""
        if self._is_over:
            return
        if awaited:
            former = self.waits_for
            self._wait_for(peer.host for peer in awaited if peer.host is not None)
            if self.waits_for != former:
                notice("waiting for %s: until then routes and name servers stay as they are", self.waits_for)
            return
        self._is_over = True
        self._wait_no_more("PostUp")
        try:
            self._post_up.start(self._loop, self._post_up_ended)
        except Exception as error:  # a bug in the start ends the program, since a caller waits for the tunnel
            self._on_end(error)

    def stop(self) -> None:
        """End a line of PostUp that is running, after a few seconds of patience, and run none later."""
        self._is_over = True
        self._post_up.stop()

    def _post_up_ended(self, failed: VpntunError | None) -> None:
        try:
            if failed is None:
                self.waits_for = None
            self._on_end(failed)
        except Exception as error:
            self._on_end(error)

    def _serve(self, when: When, lines: Sequence[str]) -> bool:
        self.waits_for = when
        served = ShellLines(when, lines).serve(self._loop)
        self.waits_for = "the set-up"
        return served

    def _wait_for(self, hosts: Iterable[str]) -> None:
        names = list(dict.fromkeys(hosts))
        self.waits_for = f"the name {names[0]}" if len(names) == 1 else f"the names {', '.join(names)}"
        self._service.waits(f"waiting for {self.waits_for}")

    def _wait_no_more(self, for_now: str) -> None:
        self.waits_for = for_now
        self._service.waits_no_more()
