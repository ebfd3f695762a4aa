"""The documents as tests read them: README.rst, CONTRIBUTING.rst and docs/*.rst.

Each code block follows a comment that names it, `.. example: NAME`, or `.. example: NAME (continued)`. In a console
block the prompt says who types: `remote#` and `local#` are root on the two machines, `remote$` is alice on the remote
one, `#` is root anywhere. A line without a prompt is what the command before it prints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
DOCUMENTS = {
    path.relative_to(CHECKOUT).as_posix(): path.read_text()
    for path in (CHECKOUT / "README.rst", CHECKOUT / "CONTRIBUTING.rst", *sorted((CHECKOUT / "docs").glob("*.rst")))
}
EVERYTHING = "\n\n".join(DOCUMENTS.values())


@dataclass
class Step:
    """One command of a console block, and what it prints."""

    prompt: str
    command: str
    output: list[str] = field(default_factory=list)


def blocks(name: str) -> list[str]:
    """Return the code blocks of this name, in order, without their indentation."""
    head = rf"^\.\. example: {re.escape(name)}(?: \(continued\))?\n\n\.\. code-block:: \w+\n\n"
    found = re.findall(head + r"((?:    .*\n|\n)+)", EVERYTHING, re.MULTILINE)
    assert found, f"no document has an example named {name}"
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE).strip() for block in found]


def steps(block: str) -> list[Step]:
    """Return the commands of a console block."""
    taken: list[Step] = []
    for line in re.sub(r" *\\\n *", " ", block).splitlines():
        typed = re.match(r"(remote|local|)([#$]) +(.*)", line)
        if typed:
            taken.append(Step(typed[1] + typed[2], typed[3]))
        else:
            taken[-1].output.append(line)
    return taken


def table(name: str) -> list[list[str]]:
    """Return the rows of the table that follows the comment of this name, its head included."""
    _, found, text = EVERYTHING.partition(f".. {name}\n\n")
    assert found, f"no document has a table named {name}"
    return rows(text.partition("\n\n")[0])


def rows(text: str) -> list[list[str]]:
    """Return the rows of a simple table, each as its cells. A row without a first cell continues the one before it."""
    rule, *lines = text.splitlines()
    places = columns(rule)
    taken: list[list[str]] = []
    for line in lines:
        cells = [line[begin:end].strip() for begin, end in [*places[:-1], (places[-1][0], None)]]
        if line.startswith("="):
            continue
        if cells[0]:
            taken.append(cells)
        else:
            taken[-1] = [f"{before} {more}".rstrip() for before, more in zip(taken[-1], cells, strict=True)]
    return taken


def columns(rule: str) -> list[tuple[int, int]]:
    """Return where the columns of a simple table begin and end, which its rule of equals signs shows."""
    return [found.span() for found in re.finditer("=+", rule)]
