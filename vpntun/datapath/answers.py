"""Answers to the requests of peers inside the tunnel, each made by the part of the program that knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vpntun.link.link import Link
from vpntun.runtime.internal_errors import InternalErrors

MakeAnswer = Callable[[Link, "dict[str, Any]"], "Mapping[str, Any] | None"]
"""Makes the answer to a request of a link's peer, from the request's body; None while it is not ready, so that a repeat
of the request gets it. The peer is authenticated, not trusted."""


class Answers:
    """What answers requests, by what they ask for (wire/inside/request.py). Failures are counted in `errors`."""

    def __init__(self, errors: InternalErrors) -> None:
        self._errors = errors
        self._make: dict[int, MakeAnswer] = {}

    def add(self, what: int, make: MakeAnswer) -> None:
        """Have requests of this kind answered from now on."""
        self._make[what] = make

    def answer(self, link: Link, what: int, content: dict[str, Any]) -> Mapping[str, Any] | None:
        """Return the answer to a request of a link's peer, None while it is not ready.

        Its member "refused" says why there is none. Of a failure, which the log has, the peer learns nothing else.
        """
        make = self._make.get(what)
        if make is None:
            return {"refused": "this vpntun does not know the request"}
        try:
            return make(link, content)
        except Exception:
            self._errors.note()
            return {"refused": "internal error: the log of the tunnel has it"}
