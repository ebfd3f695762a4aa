"""The tables of docs/architecture.rst, which scripts/rooms writes, list every room and file with its docstring."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import re
from pathlib import Path
from types import ModuleType

from tests.documents import CHECKOUT, DOCUMENTS, rows
from tests.test_floors import ROOMS

PACKAGE = CHECKOUT / "vpntun"
ARCHITECTURE = DOCUMENTS["docs/architecture.rst"]


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def without_markup(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text.replace("``", "`"))


def rooms_script() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("rooms", str(CHECKOUT / "scripts" / "rooms"))
    spec = importlib.util.spec_from_loader("rooms", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_every_room_is_in_the_table_with_the_first_sentence_of_its_docstring() -> None:
    listed = {name.strip("`"): without_markup(text) for name, text in rows_of_part("rooms")}
    assert list(listed) == [f"{room}/" if (PACKAGE / room).is_dir() else f"{room}.py" for room in ROOMS]
    for name, text in listed.items():
        path = PACKAGE / name / "__init__.py" if name.endswith("/") else PACKAGE / name
        assert f"{docstring(path)} ".replace("\n", " ").startswith(f"{text}. "), f"{name}: run scripts/rooms"


def test_every_file_of_a_room_is_in_its_table_with_the_first_line_of_its_docstring() -> None:
    part = ARCHITECTURE.partition(".. files, ")[2].partition(".. end of files")[0]
    listed = {}
    for room, content in re.findall(r"^([\w/]+/)\n~+\n\n((?:.+\n)+)", part, re.MULTILINE):
        listed.update({f"{room}{name.strip('`')}": without_markup(text) for name, text in rows(content)})
    there = {path.relative_to(PACKAGE).as_posix(): docstring(path).split("\n")[0] for path in PACKAGE.rglob("*.py")}
    there = {name: line.removesuffix(".") for name, line in there.items() if "/" in name}
    there = {name: line for name, line in there.items() if not name.endswith("__init__.py")}
    assert listed == there, "run scripts/rooms"


def rows_of_part(name: str) -> list[list[str]]:
    return rows(ARCHITECTURE.partition(f".. {name}, written by scripts/rooms\n\n")[2].partition("\n\n")[0])


def test_the_script_rewrites_the_tables_and_keeps_the_rest() -> None:
    script = rooms_script()
    assert script.rewritten(ARCHITECTURE) == ARCHITECTURE, "run scripts/rooms"
    assert script.rewritten(re.sub(r"^``[a-z_/]+\.py``  .*\n", "", ARCHITECTURE, flags=re.MULTILINE)) == ARCHITECTURE


def test_markup_in_a_docstring_is_plain_text_in_the_table() -> None:
    text = "`Relay = yes` and `x`: a*b | c_ and some_name, back\\slash"
    marked = rooms_script().marked_up(f"{text}.")
    assert marked == r"``Relay = yes`` and ``x``: a\*b \| c\_ and some_name, back\\slash"
    assert without_markup(marked) == text
