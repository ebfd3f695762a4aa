"""Sections and lines of a configuration file: what is significant, and which line an error names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.config.lines import Section, parse
from vpntun.errors import ConfigurationError, KeyFileError

KNOWN = {"Garden": ("Tree", "Pond", "Fence"), "House": ("Door", "Roof")}
SECRET = "oAYOXHtZrLMO6GbDGBHKP9YqeMbJZDSJSr2CXmvAOU4="


def read(*lines: str) -> list[Section]:
    return parse("\n".join(lines), "f.conf", KNOWN)


def refusal(*lines: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(*lines)
    return str(caught.value)


def texts(section: Section, key: str) -> list[str]:
    return section.every(key, str)


def test_sections_and_keys_come_in_order_with_their_lines() -> None:
    first, second, third = read("[Garden]", "Tree = elm", "[House]", "Door=red", "[Garden]", "", "Tree = oak")
    assert [(each.name, each.line) for each in (first, second, third)] == [("Garden", 1), ("House", 3), ("Garden", 5)]
    assert first.values == {"Tree": [(2, "elm")]}
    assert second.values == {"Door": [(4, "red")]}
    assert third.values == {"Tree": [(7, "oak")]}


@pytest.mark.parametrize("line", ["Tree = elm", "tree=elm", "TREE\t=\telm", " Tree = elm\r", "T r e e = elm # tall"])
@pytest.mark.parametrize("header", ["[Garden]", "[garden]", "  [GARDEN] ", "[ Garden ]\r", "[Garden] # here"])
def test_case_and_blanks_in_names_are_ignored(header: str, line: str) -> None:
    [section] = read(header, line)
    assert section.name == "Garden"
    assert texts(section, "Tree") == ["elm"]


def test_a_comment_begins_anywhere_and_ends_with_its_line() -> None:
    [section] = read("# [House]", "[Garden]", "#Tree = elm", "Tree = ash#Pond = deep", "Pond = # nothing", "   # = ")
    assert section.values == {"Tree": [(4, "ash")], "Pond": [(5, "")]}


def test_a_value_may_hold_equals_signs_and_blanks() -> None:
    [section] = read("[Garden]", "Tree = a = b  c ==")
    assert texts(section, "Tree") == ["a = b  c =="]


def test_lines_end_with_a_newline_and_nothing_else() -> None:
    [section] = read("[Garden]", "Tree = a\x0bb\x1cc\u2028d", "Pond = deep")
    assert section.values["Pond"] == [(3, "deep")]


def test_the_last_of_several_values_counts_and_a_missing_one_is_none() -> None:
    [section] = read("[Garden]", "Tree = 1", "Pond = 5", "Tree = 2")
    assert section.every("Tree", int) == [1, 2]
    assert section.last("Tree", int) == 2
    assert section.last("Fence", int) is None
    assert "Tree" in section
    assert "Fence" not in section


def test_followed_by_joins_the_lines_of_two_sections() -> None:
    first, second = read("[Garden]", "Tree = elm", "Pond = deep", "[Garden]", "Fence = low", "Tree = oak")
    both = first.followed_by(second)
    assert both.values == {"Tree": [(2, "elm"), (6, "oak")], "Pond": [(3, "deep")], "Fence": [(5, "low")]}
    assert both.line == 1
    assert first.values == {"Tree": [(2, "elm")], "Pond": [(3, "deep")]}


def test_an_error_of_a_value_keeps_its_kind_and_gets_file_line_and_key() -> None:
    def burnt(text: str) -> str:
        raise KeyFileError(f"{text} has burnt down")

    [section] = read("[Garden]", "", "Tree = elm")
    with pytest.raises(KeyFileError, match=r"^f\.conf:3: Tree: elm has burnt down$"):
        section.last("Tree", burnt)


def test_an_error_about_a_section_or_a_key_names_its_line() -> None:
    [section] = read("", "[Garden]", "Tree = elm", "Tree = oak")
    assert str(section.error("wrong")) == "f.conf:2: wrong"
    assert str(section.error("wrong", "Tree")) == "f.conf:4: wrong"
    assert str(section.error("wrong", "Pond")) == "f.conf:2: wrong"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["[Garten]"], "f.conf:1: there is no section [Garten]; did you mean [Garden]?"),
        (["", "[Office]"], "f.conf:2: there is no section [Office]; the known ones are [Garden], [House]"),
        (["[Garden"], "f.conf:1: there is no section [Garden; did you mean [Garden]?"),
        (["[Garden] Tree = elm"], "f.conf:1: there is no such section; "),
        (["[]"], "f.conf:1: there is no such section; the known ones are [Garden], [House]"),
        (["[Garden]", "Tre = elm"], "f.conf:2: there is no key Tre in [Garden]; did you mean Tree?"),
        (
            ["[Garden]", "Fountain = 1"],
            "f.conf:2: there is no key Fountain in [Garden]; the known ones are Tree, Pond, Fence",
        ),
        (["[Garden]", "door = red"], "f.conf:2: Door is not a key of [Garden]; it belongs in [House]"),
        (["Tree = elm"], "f.conf:1: this line comes before any section; begin with [Garden]"),
        (["[Garden]", "Tree"], "f.conf:2: this line is neither [Section] nor Key = value; a comment begins with #"),
        (["[Garden]", "= elm"], "f.conf:2: this line is neither"),
        (["[Garden]", "; Tree = elm"], "f.conf:2: there is no such key in [Garden]; did you mean Tree?"),
    ],
)
def test_an_error_names_the_line_and_gives_a_hint(lines: list[str], message: str) -> None:
    assert refusal(*lines).startswith(message)


@pytest.mark.parametrize(
    "line", [SECRET, f"Tree {SECRET}", f"{SECRET} = Tree", f"[{SECRET}]", f"Tree{SECRET[:-1]} = x"]
)
def test_no_error_quotes_a_line_since_it_may_contain_a_key(line: str) -> None:
    said = refusal("[Garden]", line)
    assert not any(SECRET[start : start + 8] in said for start in range(len(SECRET) - 8))


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        sections = parse(text, "f.conf", KNOWN)
    except ConfigurationError as error:
        assert str(error).startswith("f.conf:")
    else:
        assert all(section.name in KNOWN for section in sections)
