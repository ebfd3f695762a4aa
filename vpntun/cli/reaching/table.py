"""Tables of the commands of this folder: columns of texts, wide enough for all rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[str] = ()) -> Iterator[str]:
    """Write a table, line by line. `numbers`: headings of the columns that are aligned to the right."""
    lines = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(headings, line, widths, strict=True)
        padded = (text.rjust(width) if title in numbers else text.ljust(width) for title, text, width in cells)
        yield "  ".join(padded).rstrip()
