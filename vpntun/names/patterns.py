"""Regular expressions for names, each with a limit of time.

The operator writes the expression, but any peer chooses the names, and for some expressions a name can be chosen that
takes a matcher for ever. The package `regex` gives up after SECONDS_TO_MATCH, in contrast to Python's own matcher. An
expression for which that has happened matches nothing from then on, so it holds up the loop only once.

The syntax is that of Python, which for names is nearly Go's. A match anywhere in the name counts without ^ and $. Names
are in lower case, so an expression matches in any case.
"""

from __future__ import annotations

from typing import Any

from vpntun.errors import ConfigurationError, VpntunError
from vpntun.runtime.log import notice

LONGEST_EXPRESSION = 512
SECONDS_TO_MATCH = 0.01


class Pattern:
    """One expression. Raises ConfigurationError if it is too long, or not one; VpntunError without the package."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self._compiled: Any = _compile(expression)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self.expression == other.expression

    def __hash__(self) -> int:
        return hash(self.expression)

    def matches(self, name: str) -> bool:
        """Whether the expression matches the name, or a part of it."""
        if self._compiled is None:
            return False
        try:
            return self._compiled.search(name, timeout=SECONDS_TO_MATCH) is not None
        except TimeoutError:
            self._compiled = None
            notice("the regular expression %r takes too long for %s: it is ignored from now on", self.expression, name)
            return False


def _compile(expression: str) -> Any:
    try:
        import regex  # only here: few use expressions
    except ImportError:
        raise VpntunError(
            "the Python package regex matches regular expressions, and is not installed: install it (pip install "
            "regex), or give records by name"
        ) from None
    if len(expression) > LONGEST_EXPRESSION:
        raise ConfigurationError(
            f"this regular expression cannot be used: it is longer than {LONGEST_EXPRESSION} characters"
        )
    try:
        return regex.compile(expression, regex.IGNORECASE)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        raise ConfigurationError(f"this regular expression cannot be used: {error}") from None
