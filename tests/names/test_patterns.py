"""Expressions for names: they match as Python's do, and one that takes too long for a name is used no more."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine import logged
from vpntun.errors import ConfigurationError
from vpntun.names.patterns import LONGEST_EXPRESSION, Pattern


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
        (r"^[\d_.-]+$", ["1_2.3-4"], ["1a"]),
        ("^WEB-[A-F]$", ["web-a", "web-f"], ["web-g"]),
        ("(?P<all>^x$)", ["x"], ["xx"]),
        ("", ["", "anything"], []),
    ],
)
def test_an_expression_matches_a_part_of_a_name(expression: str, matching: list[str], others: list[str]) -> None:
    pattern = Pattern(expression)
    assert [name for name in (*matching, *others) if pattern.matches(name)] == matching


@pytest.mark.parametrize("expression", ["(", "*a", "[a", "a" * (LONGEST_EXPRESSION + 1)])
def test_a_bad_or_long_expression_is_refused_with_the_reason(expression: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape("this regular expression cannot be used: ")):
        Pattern(expression)


def test_an_expression_that_takes_too_long_for_a_name_is_used_no_more() -> None:
    pattern = Pattern("(a|aa)+$")
    assert pattern.matches("a")
    with logged() as lines:
        assert not pattern.matches("a" * 200 + "b")
        assert not pattern.matches("a"), "it matches nothing from now on"
    assert [line for line in lines if "takes too long for" in line]


def test_expressions_are_equal_if_their_texts_are() -> None:
    assert Pattern("a") == Pattern("a") != Pattern("b")
    assert len({Pattern("a"), Pattern("a")}) == 1
