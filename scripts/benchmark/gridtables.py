"""The tables of the grid: a row for each point and congestion control, a column for each subject. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from benchmark.grid import CONGESTIONS, POINTS
from benchmark.gridfigures import of
from benchmark.gridtargets import AIMS, Aim
from benchmark.results import Results
from benchmark.table import NOTHING, columns, number
from benchmark.targets import TCP, UDP, WIREGUARD

SUBJECTS = (WIREGUARD, UDP, TCP)
OWN = (UDP, TCP)
OTHERS = {
    "two": "two flows",
    "eight": "eight flows",
    "both-up": "each way, up",
    "both-down": "each way, down",
    "share": "two tunnels, share",
}
Cell = Callable[[Results, str, str, str], str]
NAMES = {point.name for point in POINTS}


def tables(results: Results) -> Iterator[str]:
    """Yield each table with its title, or nothing if no point was measured."""
    flows = [(f"{path} {each}", path, each) for path in _measured(results) for each in CONGESTIONS]
    others = [(f"{path} {shown}", path, each) for path in _measured(results) for each, shown in OTHERS.items()]
    for title, rows, cell in (
        ("one flow: Mbit/s (segments sent again; wire / received)", flows, _throughput),
        ("one flow: round trip beside it, median / p99 ms; start, s", flows, _trips),
        (
            "several flows and tunnels, with CUBIC: Mbit/s; the smaller share of two tunnels, of a fair half",
            others,
            _plain,
        ),
    ):
        if shown := _table(results, rows, cell, ratios=cell is not _trips):
            yield f"grid, {title}; medians\n\n{shown}"


def targets(results: Results) -> str:
    """A line for each aim with the number of points that meet it, and a line for each point that does not."""
    verdicts = [_verdict(results, subject, aim) for subject, aims in AIMS.items() for aim in aims]
    return "\n".join(filter(None, verdicts))


def _measured(results: Results) -> list[str]:
    return [path for path in results.paths() if path in NAMES]


def _table(results: Results, rows: Sequence[tuple[str, str, str]], cell: Cell, *, ratios: bool) -> str:
    """Make a table of rows given as title, path and figure, with vpntun's ratios to wireguard-go if wanted."""
    heads, shown = [""], []
    for subject in SUBJECTS:
        heads += [subject, "of wg"] if ratios and subject in OWN else [subject]
    for title, path, figure in rows:
        row = [title]
        for subject in SUBJECTS:
            row.append(cell(results, path, subject, figure))
            if ratios and subject in OWN:
                row.append(number(results.ratio(path, subject, figure, WIREGUARD), 2))
        if set(row[1:]) != {NOTHING}:
            shown.append(row)
    return columns(heads, shown) if shown else ""


def _throughput(results: Results, path: str, subject: str, congestion: str) -> str:
    rate, again, wire = _medians(results, path, subject, congestion, of(congestion, "again"), of(congestion, "wire"))
    return NOTHING if rate is None else f"{number(rate, 1)} ({number(again, 0)}; {number(wire, 3)})"


def _trips(results: Results, path: str, subject: str, congestion: str) -> str:
    names = [of(congestion, each) for each in ("trip", "p99", "start")]
    trip, p99, start = _medians(results, path, subject, *names)
    return NOTHING if trip is None else f"{number(trip, 1)} / {number(p99, 1)}; {number(start, 1)}"


def _plain(results: Results, path: str, subject: str, figure: str) -> str:
    return number(results.median(path, subject, figure), 2 if figure == "share" else 1)


def _medians(results: Results, path: str, subject: str, *figures: str) -> list[float | None]:
    return [results.median(path, subject, figure) for figure in figures]


def _verdict(results: Results, subject: str, aim: Aim) -> str:
    values = [(target, value) for target in aim.targets if (value := target.value(results)) is not None]
    if not values:
        return ""
    missed = [(target, value) for target, value in values if target.verdict(value) != "met"]
    head = f"{subject}: {aim.title}: met at {len(values) - len(missed)} of {len(values)}"
    return "\n".join([head, *(f"    {target.path} {target.figure}: {_precise(value)}" for target, value in missed)])


def _precise(value: float) -> str:
    return number(value, 3 if abs(value) < 10 else None)
