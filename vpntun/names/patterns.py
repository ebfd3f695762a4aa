"""Regular expressions for names, which match in time proportional to the name, whatever the expression.

The operator writes the expression, but any peer chooses the names, and Python's own matcher takes exponential time for
some of them. So an expression becomes a nondeterministic automaton of at most 512 states. All its states advance
together, and each set of states that has been met is kept, up to a limit, so that most steps are one look-up.

The syntax is the part of Go's (RE2) that names need. As there, a match anywhere in the name counts without ^ and $:

    a  \\.  .  [a-z0-9]  [^-]  \\d \\w \\s and \\D \\W \\S     one character
    x*  x+  x?  x{2}  x{2,}  x{2,5}                      repetition; a ? behind it changes nothing here
    xy  x|y  (x)  (?:x)  (?P<name>x)  (?i)              sequence, alternatives, groups, flags that change nothing here
    ^  $  \\A  \\z                                         the beginning and the end of the name

Names are in lower case, so an expression matches in any case.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from vpntun.errors import ConfigurationError

LONGEST_EXPRESSION = 512
MOST_STATES = 512
MOST_REPETITIONS = 64
DEEPEST = 32
MOST_STEPS_KEPT = 4096

Test = Callable[[str], bool]

_CLASSES: dict[str, Test] = {
    "d": lambda each: "0" <= each <= "9",
    "w": lambda each: each == "_" or (each.isascii() and each.isalnum()),
    "s": lambda each: each in " \t\n\f\r",
}
_COUNTS = re.compile(r"\{([0-9]{1,4})(,([0-9]{0,4}))?\}")
_GROUP = re.compile(r"\?(?::|P?<[A-Za-z_][A-Za-z0-9_]{0,31}>)")
_FLAGS = re.compile(r"\(\?[ims]{1,3}\)")


@dataclass
class _State:
    """One state. `test`: the character that leads on to `next`. Without one, all of `next` follow without a character.

    `at_start`, `at_end`: they follow only there.
    """

    next: list[int] = field(default_factory=list)
    test: Test | None = None
    at_start: bool = False
    at_end: bool = False


class Pattern:
    """One expression. Raises ConfigurationError if it is too long, or not of the syntax above."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self._states, begin, self._accepted = _Compiler(expression).result
        self._begin = self._closure({begin}, at_start=True)
        self._again = self._closure({begin})
        self._steps: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self.expression == other.expression

    def __hash__(self) -> int:
        return hash(self.expression)

    def matches(self, name: str) -> bool:
        """Whether the expression matches the name, or a part of it."""
        states = self._begin
        for character in name:
            if self._accepted in states:
                return True
            states = self._step(states, character)
        return self._accepted in self._closure(set(states), at_start=not name, at_end=True)

    def _step(self, states: frozenset[int], character: str) -> frozenset[int]:
        known = self._steps.get((states, character))
        if known is not None:
            return known
        reached: set[int] = set()
        for number in states:
            state = self._states[number]
            if state.test is not None and state.test(character):
                reached.update(state.next)
        if len(self._steps) >= MOST_STEPS_KEPT:
            self._steps.clear()
        result = self._steps[states, character] = self._closure(reached) | self._again
        return result

    def _closure(self, states: set[int], *, at_start: bool = False, at_end: bool = False) -> frozenset[int]:
        """Return these states and all that follow from them without a character."""
        found, left = set(states), list(states)
        while left:
            state = self._states[left.pop()]
            if state.test is not None or (state.at_start and not at_start) or (state.at_end and not at_end):
                continue
            fresh = [each for each in state.next if each not in found]
            found.update(fresh)
            left.extend(fresh)
        return frozenset(found)


class _Compiler:
    """Recursive descent over the expression. A part of the automaton is its first and its last state."""

    def __init__(self, expression: str) -> None:
        if len(expression) > LONGEST_EXPRESSION:
            raise self._wrong(f"it is longer than {LONGEST_EXPRESSION} characters")
        self._text = _FLAGS.sub("", expression) if expression.startswith("(?") else expression
        self._at = self._depth = 0
        self._states: list[_State] = []
        first, last = self._alternatives()
        if self._at < len(self._text):
            raise self._wrong("a ) has no (")
        self.result = self._states, first, last

    def _alternatives(self) -> tuple[int, int]:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._wrong(f"groups are nested more than {DEEPEST} deep")
        first, last = self._new(), self._new()
        while True:
            begin, end = self._sequence()
            self._states[first].next.append(begin)
            self._states[end].next.append(last)
            if not self._take("|"):
                break
        self._depth -= 1
        return first, last

    def _sequence(self) -> tuple[int, int]:
        first = last = self._new()
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            begin, end = self._repeated()
            self._states[last].next.append(begin)
            last = end
        return first, last

    def _repeated(self) -> tuple[int, int]:
        start = self._at
        part = self._single()
        lowest, highest = self._counts()
        if (lowest, highest) == (1, 1):
            return part
        if self._text[self._at : self._at + 1] in ("*", "+", "{"):
            raise self._wrong("a repetition follows a repetition")
        copies = [part]
        for _ in range(1, max(lowest, highest or 0, 1)):
            after, self._at = self._at, start
            copies.append(self._single())
            self._at = after
        return self._joined(copies, lowest, highest)

    def _joined(self, copies: list[tuple[int, int]], lowest: int, highest: int | None) -> tuple[int, int]:
        """Join copies of a part, of which the first `lowest` are needed; the last repeats if `highest` is None."""
        first, last = self._new(), self._new()
        at = first
        for number, (begin, end) in enumerate(copies):
            if number >= lowest:
                self._states[at].next.append(last)
            if highest == 0:
                break
            self._states[at].next.append(begin)
            at = end
        if highest is None:
            self._states[at].next.append(copies[-1][0])
        self._states[at].next.append(last)
        return first, last

    def _counts(self) -> tuple[int, int | None]:
        for sign, counts in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                self._take("?")
                return counts
        found = _COUNTS.match(self._text, self._at)
        if found is None:
            return 1, 1
        self._at = found.end()
        self._take("?")
        lowest = int(found[1])
        highest = lowest if found[2] is None else int(found[3]) if found[3] else None
        if max(lowest, highest or 0) > MOST_REPETITIONS or (highest is not None and highest < lowest):
            raise self._wrong(f"a repetition is at most {MOST_REPETITIONS}, and the lower number is first")
        return lowest, highest

    def _single(self) -> tuple[int, int]:
        character = self._next()
        if character == "(":
            return self._group()
        if character in "*+?" or _COUNTS.match(self._text, self._at - 1):
            raise self._wrong(f"nothing is before the {character}")
        if character == "^":
            return self._place(at_start=True)
        if character == "$":
            return self._place(at_end=True)
        if character == "\\":
            return self._escaped()
        if character == "[":
            return self._one(self._set())
        if character == ".":
            return self._one(lambda _: True)
        return self._one(_is(character))

    def _group(self) -> tuple[int, int]:
        named = _GROUP.match(self._text, self._at)
        if named is not None:
            self._at = named.end()
        elif self._text[self._at : self._at + 1] == "?":
            raise self._wrong("groups are (x), (?:x) and (?P<name>x)")
        part = self._alternatives()
        if not self._take(")"):
            raise self._wrong("a ( has no )")
        return part

    def _escaped(self) -> tuple[int, int]:
        character = self._next()
        if character in "Az":
            return self._place(at_start=character == "A", at_end=character == "z")
        return self._one(self._escaped_test(character))

    def _escaped_test(self, character: str) -> Test:
        if character.lower() in _CLASSES:
            test = _CLASSES[character.lower()]
            return test if character.islower() else lambda each: not test(each)
        if character.isalnum():
            raise self._wrong(f"\\{character} is not known")
        return _is(character)

    def _set(self) -> Test:
        is_negated = self._take("^")
        tests: list[Test] = []
        while not tests or self._text[self._at : self._at + 1] != "]":
            tests.append(self._member())
        self._at += 1
        return lambda each: any(test(each) for test in tests) != is_negated

    def _member(self) -> Test:
        """Parse a character, a range or a class of characters inside [ ]."""
        low = self._next()
        if low == "[" and self._text[self._at : self._at + 1] == ":":
            raise self._wrong("[:name:] is not known")
        if low == "\\":
            low = self._next()
            if low.isalnum():
                return self._escaped_test(low)
        if self._text[self._at : self._at + 1] != "-" or self._text[self._at + 1 : self._at + 2] in ("", "]"):
            return _is(low)
        self._at += 1
        high = self._next()
        if high == "\\":
            high = self._next()
        if high < low:
            raise self._wrong(f"{low}-{high} is in the wrong order")
        return lambda each: low <= each <= high or low <= each.upper() <= high

    def _one(self, test: Test) -> tuple[int, int]:
        last = self._new()
        self._states.append(_State([last], test))
        return len(self._states) - 1, last

    def _place(self, *, at_start: bool = False, at_end: bool = False) -> tuple[int, int]:
        last = self._new()
        self._states.append(_State([last], None, at_start, at_end))
        return len(self._states) - 1, last

    def _new(self) -> int:
        if len(self._states) >= MOST_STATES:
            raise self._wrong("it is too large: its repetitions need too many states")
        self._states.append(_State())
        return len(self._states) - 1

    def _next(self) -> str:
        if self._at >= len(self._text):
            raise self._wrong("it ends too early")
        self._at += 1
        return self._text[self._at - 1]

    def _take(self, character: str) -> bool:
        is_there = self._text[self._at : self._at + 1] == character
        self._at += is_there
        return is_there

    def _wrong(self, why: str) -> ConfigurationError:
        return ConfigurationError(f"this regular expression cannot be used: {why}")


def _is(character: str) -> Test:
    lower = character.lower()
    return lambda each: each == lower
