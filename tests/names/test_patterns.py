"""Expressions for names: they match as Python's do where both know the syntax, and in time that is bounded."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.errors import ConfigurationError
from vpntun.names.patterns import LONGEST_EXPRESSION, Pattern

PIECES = st.sampled_from(
    [*"abc-", ".", "*", "+", "?", "|", "(", ")", "[ab]", "[^a]", "^", "$", "{2}", "{1,2}", "{1,}", "\\.", "\\d", "\\W"]
)


@given(st.lists(PIECES, max_size=8).map("".join), st.text("abc.-1", max_size=6))
def test_an_expression_matches_as_pythons_own_do(expression: str, name: str) -> None:
    try:
        pattern, other = Pattern(expression), re.compile(expression)
    except (ConfigurationError, re.error):  # Python refuses ^* and some more
        return
    assert pattern.matches(name) == bool(other.search(name))


@given(st.text(max_size=40), st.text(max_size=10))
def test_any_text_is_an_expression_or_refused_as_configuration(expression: str, name: str) -> None:
    try:
        Pattern(expression).matches(name)
    except ConfigurationError as error:
        assert "this regular expression cannot be used" in str(error)


@pytest.mark.parametrize(
    ("expression", "matching", "others"),
    [
        ("^web-[0-9]+$", ["web-1", "web-12"], ["web-", "my-web-1", "web-1.a"]),
        ("api|console", ["api", "my-console.x"], ["ap"]),
        ("^(?:a|b){2,3}$", ["ab", "aba"], ["a", "abab"]),
        (r"\Aa.*\.b\z", ["a.b", "ax.b"], ["xa.b", "a.bx"]),
        (r"^[\d_.-]+$", ["1_2.3-4"], ["1a"]),
        ("(?i)^WEB-[A-F]$", ["web-a", "web-f"], ["web-g"]),
        ("(?P<all>^x$)", ["x"], ["xx"]),
        ("", ["", "anything"], []),
    ],
)
def test_the_syntax_of_go_that_names_need_is_known(expression: str, matching: list[str], others: list[str]) -> None:
    pattern = Pattern(expression)
    assert [name for name in (*matching, *others) if pattern.matches(name)] == matching


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("(", "a ( has no )"),
        (")", "a ) has no ("),
        ("*a", "nothing is before the *"),
        ("a**", "a repetition follows a repetition"),
        ("[a", "it ends too early"),
        ("[b-a]", "b-a is in the wrong order"),
        ("[[:alpha:]]", "[:name:] is not known"),
        (r"\pL", r"\p is not known"),
        ("(?=a)", "groups are (x), (?:x) and (?P<name>x)"),
        ("a{65}", "a repetition is at most 64"),
        ("((a{64}){64}){64}", "its repetitions need too many states"),
        ("(" * 40, "groups are nested more than 32 deep"),
        ("a" * (LONGEST_EXPRESSION + 1), "it is longer than 512 characters"),
    ],
)
def test_what_is_not_known_or_too_large_is_refused_with_the_reason(expression: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(why)):
        Pattern(expression)


def test_no_name_makes_an_expression_take_long() -> None:
    started = time.process_time()
    for expression in ("^(a*)*b$", "^(a|a)*b$", "(a?){32}a{32}b"):
        assert not Pattern(expression).matches("a" * 253)
    assert time.process_time() - started < 20  # other matchers need years


def test_expressions_are_equal_if_their_texts_are() -> None:
    assert Pattern("a") == Pattern("a") != Pattern("b")
    assert len({Pattern("a"), Pattern("a")}) == 1
