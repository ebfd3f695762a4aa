"""The tables that are printed: medians, ratios within the round, targets. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.figures import FIGURES
from benchmark.measuring import Figure
from benchmark.results import Results
from benchmark.targets import COMPARED, TARGETS

NOTHING = "-"


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table. The first column is aligned to the left, the others to the right; headings break at spaces."""
    words = [head.split(" ") for head in heads]
    height = max(map(len, words))
    lines = [[*[""] * (height - len(each)), *each] for each in words]
    table = [[line[n] for line in lines] for n in range(height)] + [list(row) for row in rows]
    widths = [max(len(row[n]) for row in table) for n in range(len(heads))]
    rule = "  ".join("-" * width for width in widths)
    shown = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table]
    return "\n".join(line.rstrip() for line in (*shown[:height], rule, *shown[height:]))


def medians(results: Results, path: str) -> str:
    figures = _measured(results, path)
    rows = [
        [subject, *(number(results.median(path, subject, each.name), each.digits) for each in figures)]
        for subject in results.subjects(path)
    ]
    return columns(["", *(each.heading for each in figures)], rows)


def ratios(results: Results, path: str) -> str:
    """Format vpntun's figures as multiples of other subjects', or return nothing if there are none."""
    figures, there = _measured(results, path), set(results.subjects(path))
    rows = [
        [f"{subject} / {other}", *(number(results.ratio(path, subject, each.name, other), 2) for each in figures)]
        for subject, other in COMPARED
        if {subject, other} <= there
    ]
    return columns(["", *(each.heading.rpartition(" ")[0] for each in figures)], rows) if rows else ""


def targets(results: Results) -> str:
    """Format the targets of the measured paths, or return nothing if there are none."""
    rows, measured = [], set(results.paths())
    for target in TARGETS:
        if target.path not in measured:
            continue
        value = target.value(results)
        against = target.subject + (f" / {target.to}" if target.to else "")
        wanted = f"{'<=' if target.at_most else '>='} {target.bound:g}"
        rows.append([f"{target.path}: {target.figure}", against, wanted, number(value, 2), target.verdict(value)])
    return columns(["target", "of", "wanted", "is", ""], rows) if rows else ""


def number(value: float | None, digits: int | None = None) -> str:
    """Format a number with this many decimals; by default two, or none from 100 on."""
    if value is None:
        return NOTHING
    return f"{value:,.{digits if digits is not None else 0 if abs(value) >= 100 else 2}f}"


def _measured(results: Results, path: str) -> list[Figure]:
    return [
        figure
        for figure in FIGURES
        if any(results.median(path, subject, figure.name) is not None for subject in results.subjects(path))
    ]
