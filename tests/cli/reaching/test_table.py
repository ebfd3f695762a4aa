"""Tables of commands: each column is as wide as its widest text."""

from __future__ import annotations

from vpntun.cli.reaching.table import table


def test_numbers_are_aligned_to_the_right_and_words_to_the_left() -> None:
    rows = [("ssh@desk", "1,024"), ("web", "7")]
    assert list(table(("name", "open"), rows, numbers=("open",))) == [
        "name       open",
        "ssh@desk  1,024",
        "web           7",
    ]


def test_a_table_without_rows_is_its_headings_and_no_line_ends_in_blanks() -> None:
    assert list(table(("name", "key"), [])) == ["name  key"]
    assert list(table(("name", "through"), [("ssh@desk", "-")])) == ["name      through", "ssh@desk  -"]
