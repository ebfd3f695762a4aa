"""Compare vpntun with the bare path and with the other tunnels that are installed, all on this machine. Needs root.

    scripts/bench --quick               the main figures, in less than 5 minutes
    scripts/bench                       all figures, in three and a half hours
    scripts/bench --json FILE           also write every reading of every round to FILE
    scripts/bench --paths veth --measure up,down --subjects bare,vpntun-udp,openvpn-udp --rounds 3 --seconds 1
    scripts/bench --paths grid          the grid of ordinary paths, in an hour and a half
    scripts/bench --list                list the names of paths, measurements and subjects

The benchmark joins two namespaces by a path and runs several rounds on each path. Within a round the subjects take
turns. Because the speed of a machine changes from minute to minute, it shows the medians of the ratios within the
rounds beside the medians of the figures. "Up" is the direction from the end that calls to the end that serves. The
figures of a forward are in percent of the tunnel's own flow right before it. CPU seconds are those of both ends'
processes for each gigabyte of a flow up. Memory is that of the bigger end. The path "hub" compares a tunnel to a server
whose other link is idle with one to a server whose other link is blocked. The path "flood" compares a link to a server
with one to a server that gets 5,000 handshakes a second from a thousand addresses.

Subjects named "tap" or "switch" carry Ethernet frames between TAP devices. They are measured over the veth pair with
its offloads and without, and in a quick run only if --subjects names them.

The grid consists of eight paths named by their numbers (Mbit/s, ms one way, packets of queue, percent lost), for vpntun
and wireguard-go. Its flows use CUBIC or BBR. All other flows, and the outer connections of tunnels over TCP, use the
congestion control of the machine. The program that carries these paths needs a C compiler. Distributions ship old
versions of wireguard-go; --wireguard-go chooses a newer one.

`make bench` runs everything. The script makes the environment .venv if it does not exist. With another environment:
PYTHONPATH=scripts PYTHON -m benchmark --quick. A subject whose programs are not installed is left out, with a message.
Ctrl-C ends the benchmark and shows the results so far.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark import gridtables, table
from benchmark.errors import BenchError
from benchmark.figures import MEASUREMENTS, has_congestion_control
from benchmark.floods import SERVERS
from benchmark.grid import GRID, LEAST_SECONDS
from benchmark.hub import HUBS
from benchmark.machines import TOOLS, hide
from benchmark.others import OTHERS
from benchmark.paths import PATHS
from benchmark.plan import POINT_NAMES, QUICK, WHOLE, Plan
from benchmark.results import Results, machine
from benchmark.runner import run
from benchmark.subjects import OWN, WIREGUARD_GO, Subject, own
from benchmark.wan import check_compiler

SUBJECTS = (*OWN, *OTHERS, *HUBS, *SERVERS)
NEEDED = {"ip": "iproute2", "iperf3": "iperf3", "ping": "iputils-ping", "setpriv": "util-linux"}


def main() -> int:
    options = _options()
    if options.list:
        for title, each in (("paths", PATHS), ("measurements", MEASUREMENTS), ("subjects", SUBJECTS)):
            print(f"{title}: {', '.join(one.name for one in each)}")
        print(f"{GRID}: {', '.join(POINT_NAMES)}")
        return 0
    try:
        plan, subjects = _plan(options), _subjects(options)
        _check_machine()
        if plan.has_grid:
            check_compiler()
        hide()
    except BenchError as unable:
        print(f"bench: {unable}", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    results, started, status = Results(), time.monotonic(), 0
    try:
        run(plan, subjects, results, _say)
    except KeyboardInterrupt:
        status = 130
    about = {**machine(), "minutes": f"{(time.monotonic() - started) / 60:.1f}", **_versions(subjects)}
    _show(results, about)
    if options.json:
        shown = {"machine": about, "plan": asdict(plan), "paths": results.as_json(), "notes": results.notes}
        options.json.write_text(json.dumps(shown, indent=1) + "\n")
    return status if results.paths() else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="only the main figures, fewer rounds, shorter loads")
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="rounds (7; hub, grid 5, flood 3; quick: veth 2, else 1)"
    )
    usual = "; ".join(
        f"{name}{plan.seconds:g}, grid {plan.grid_seconds:g}, flood {plan.flood_seconds:g}"
        for name, plan in (("", WHOLE), ("quick: ", QUICK))
    )
    parser.add_argument("--seconds", type=float, metavar="S", help=f"duration of each load ({usual})")
    paths = _names(PATHS, {GRID: POINT_NAMES})
    parser.add_argument(
        "--paths", type=paths, default=[], metavar="NAME,...", help=f"only these; {GRID}: all its paths"
    )
    parser.add_argument("--measure", type=_names(MEASUREMENTS), default=[], metavar="NAME,...", help="only these")
    parser.add_argument("--subjects", type=_names(SUBJECTS), default=[], metavar="NAME,...", help="only these")
    parser.add_argument(
        "--wireguard-go", type=_program, default=WIREGUARD_GO, metavar="PATH", help="its program (default: from PATH)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every reading to this file")
    parser.add_argument("--list", action="store_true", help="list the names that these options take")
    return parser.parse_args()


def _program(text: str) -> str:
    """Make a path absolute, because programs run in another working directory; keep a name that PATH resolves."""
    return os.path.abspath(text) if "/" in text else text


def _names(known: Iterable[Any], groups: Mapping[str, Sequence[str]] | None = None) -> Any:
    names = [each.name for each in known]

    def parse(text: str) -> list[str]:
        words = [word for word in text.split(",") if word]
        chosen = [name for word in words for name in (groups or {}).get(word, [word])]
        for name in chosen:
            if name not in names:
                raise argparse.ArgumentTypeError(f"unknown name {name!r}; choose from {', '.join(names)}")
        return chosen

    return parse


def _plan(options: argparse.Namespace) -> Plan:
    plan = (QUICK if options.quick else WHOLE).limited(options.paths, options.measure)
    plan = plan.timed(options.rounds, options.seconds)
    if plan.has_grid and plan.grid_seconds < LEAST_SECONDS:
        raise BenchError(
            f"--seconds must be at least {LEAST_SECONDS:g} on the grid, where the first second of a flow does not count"
        )
    for congestion in {each.congestion: None for each in MEASUREMENTS if each.congestion}:
        if not has_congestion_control(congestion):
            _say(f"flows with {congestion} are left out: this kernel does not have it")
            for each in MEASUREMENTS:
                if each.congestion == congestion:
                    plan = plan.without(each.name)
    return plan


def _subjects(options: argparse.Namespace) -> list[Subject]:
    present = []
    for subject in (*own(options.wireguard_go), *OTHERS, *HUBS, *SERVERS):
        if options.subjects and subject.name not in options.subjects:
            continue
        if options.quick and not options.subjects and not subject.quick:
            continue
        if missing := subject.missing():
            _say(f"{subject.name} is left out: {missing} is not installed")
        else:
            present.append(subject)
    return present


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise BenchError("root is required to make network namespaces and TUN devices")
    for tool, package in NEEDED.items():
        if shutil.which(tool, path=TOOLS) is None:
            raise BenchError(f"{tool} is not installed; on Debian: apt install {package}")
    if not Path("/dev/net/tun").is_char_device():
        raise BenchError("there is no /dev/net/tun; load the kernel module: modprobe tun")


def _versions(subjects: Sequence[Subject]) -> dict[str, str]:
    return {Path(subject.needs[0]).name: said for subject in subjects if (said := subject.version())}


def _show(results: Results, about: dict[str, str]) -> None:
    print("\n" + ", ".join(f"{name} {value}" for name, value in about.items()))
    titles = {path.name: path.title for path in PATHS}
    for path in results.paths():
        if path in POINT_NAMES:
            continue
        print(f"\n{path}: {titles[path]}; medians\n\n{table.medians(results, path)}")
        if ratios := table.ratios(results, path):
            print(f"\n{path}: ratios within the round; medians\n\n{ratios}")
    for shown in gridtables.tables(results):
        print(f"\n{shown}")
    for name, targets in (("targets", table.targets(results)), ("targets on the grid", gridtables.targets(results))):
        if targets:
            print(f"\n{name}: within the round; medians\n\n{targets}")
    if results.notes:
        print("\nnotes")
        for note in results.notes:
            print(f"  {note}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
