"""Rules for the rooms of the package: which may import which, how many files each contains, and which do no I/O.

ROOMS lists them from low to high. A file imports only from its own room and from rooms listed before it, and files do
not import each other in a circle. Imports are read from the source, so those inside a function and those for types only
count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import vpntun

ROOMS = (
    "errors",
    "types",
    "wire",
    "wire/inside",
    "wire/ethernet",
    "crypto",
    "core",
    "core/wireguard",
    "core/records",
    "core/inside",
    "core/selection",
    "core/pairing",
    "core/speed",
    "runtime",
    "config",
    "tun",
    "carriers",
    "pairing",
    "firewall",
    "netconf",
    "netconf/following",
    "process",
    "namespace",
    "link",
    "datapath/sending",
    "datapath/receiving",
    "datapath/routing",
    "datapath/switching",
    "datapath",
    "capture",
    "speed",
    "serving",
    "forwards",
    "socks",
    "names",
    "services",
    "uapi",
    "doctor",
    "doctor/inside",
    "doctor/reach",
    "control",
    "daemon",
    "watch",
    "cli",
    "cli/reaching",
    "__main__",
)
"""Folders, and files at the top level, from low to high. Any file may import the package itself."""
WITHOUT_IO = ROOMS[: ROOMS.index("runtime")]
OUTSIDE = {"socket", "select", "selectors", "time", "os", "fcntl", "asyncio", "threading"}
MOST_FILES = 16


def room_of(module: Path) -> str:
    """The room of a file, given relative to the package: its folder, or its own name at the top level."""
    return module.parent.as_posix() if len(module.parts) > 1 else module.stem


def imports(module: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and absolute dotted name of each import of a module; `from a import b` gives a.b."""
    package = [root.name, *module.relative_to(root).parts[:-1]]
    for node in ast.walk(ast.parse(module.read_text(), str(module))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*start, node.module] if node.module else start)
            for alias in node.names:
                yield node.lineno, f"{origin}.{alias.name}"


def file_of(name: str, root: Path) -> Path | None:
    """The file of the package that defines a dotted name, relative to the package; None for other packages' names."""
    top, *rest = name.split(".")
    if top != root.name:
        return None
    found = Path("__init__.py")
    for length in range(1, len(rest) + 1):
        path = Path(*rest[:length])
        if (root / path).with_suffix(".py").is_file():
            return path.with_suffix(".py")
        if not (root / path).is_dir():
            break
        found = path / "__init__.py"
    return found


def violations(root: Path) -> list[str]:
    """Return a line for each import from above or from outside, and for each unknown room. `root` is the package."""
    found = []
    for module in modules(root):
        room = room_of(module)
        if room != "__init__" and room not in ROOMS:
            found.append(f"{module}: {room} is not in ROOMS; add it below whatever imports it")
            continue
        height = ROOMS.index(room) if room in ROOMS else -1
        for line, name in imports(root / module, root):
            target = file_of(name, root)
            if target is not None:
                above = room_of(target)
                if above in ROOMS and ROOMS.index(above) > height:
                    found.append(f"{module}:{line}: imports {name}, which is above it")
            elif room in WITHOUT_IO and name.partition(".")[0] in OUTSIDE:
                found.append(f"{module}:{line}: imports {name}; below runtime, time and bytes are arguments")
    return found


def modules(root: Path) -> list[Path]:
    """All files of the package, relative to it."""
    return sorted(each.relative_to(root) for each in root.rglob("*.py"))


def circle(root: Path) -> list[str]:
    """Find files that import each other in a circle; return them with the first repeated at the end, or nothing."""
    graph = {
        module: sorted({target for _, name in imports(root / module, root) if (target := file_of(name, root))})
        for module in modules(root)
    }
    done: set[Path] = set()

    def search(module: Path, trail: list[Path]) -> list[Path]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module not in done:
            for target in graph.get(module, ()):
                if target != module and (found := search(target, [*trail, module])):
                    return found
            done.add(module)
        return []

    for module in graph:
        if found := search(module, []):
            return [str(each) for each in found]
    return []


def write_tree(root: Path, sources: dict[str, str]) -> Path:
    for name, source in sources.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source)
    return root


PACKAGE = Path(vpntun.__file__).parent


def test_no_import_points_up() -> None:
    assert violations(PACKAGE) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circle(PACKAGE) == []


def test_every_room_exists_and_holds_at_most_sixteen_files() -> None:
    counts = {room: len(list((PACKAGE / room).glob("*.py"))) for room in ROOMS if (PACKAGE / room).is_dir()}
    assert {room: count for room, count in counts.items() if count > MOST_FILES} == {}
    assert {room for room in ROOMS if room not in counts and not (PACKAGE / f"{room}.py").is_file()} == set()


def test_violations_of_the_rules_are_found(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path / "house",
        {
            "__init__.py": "",
            "errors.py": "from house.wire import ip",
            "wire/__init__.py": "",
            "wire/ip.py": "import struct\nfrom house.errors import BadPacket\nfrom house import crypto",
            "crypto/__init__.py": "",
            "crypto/noise.py": "import hashlib\nfrom ..core.wireguard.peer import Peer\nfrom ..wire import ip",
            "core/queue.py": "import house.core.records.span",
            "core/wireguard/peer.py": "def now():\n    import time\n    from os import path",
            "core/records/span.py": "import house.runtime.loop as loop\nfrom selectors import DefaultSelector",
            "runtime/loop.py": "import os, time\nimport house.core.wireguard.peer\nimport house.daemon",
            "daemon.py": "import house.runtime.loop, house.cli.main, threading",
            "cli/main.py": "",
            "attic/box.py": "",
        },
    )

    assert [line.partition(";")[0] for line in violations(root)] == [
        "attic/box.py: attic is not in ROOMS",
        "core/queue.py:1: imports house.core.records.span, which is above it",
        "core/records/span.py:1: imports house.runtime.loop, which is above it",
        "core/records/span.py:2: imports selectors.DefaultSelector",
        "core/wireguard/peer.py:2: imports time",
        "core/wireguard/peer.py:3: imports os.path",
        "crypto/noise.py:2: imports house.core.wireguard.peer.Peer, which is above it",
        "daemon.py:1: imports house.cli.main, which is above it",
        "errors.py:1: imports house.wire.ip, which is above it",
        "runtime/loop.py:3: imports house.daemon, which is above it",
        "wire/ip.py:3: imports house.crypto, which is above it",
    ]


def test_a_circle_is_found_and_named(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path / "house",
        {
            "wire/ip.py": "from house.wire import gso",
            "wire/gso.py": "def cut():\n    from house.wire.vnet import Header",
            "wire/vnet.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.wire.ip import Packet",
        },
    )
    assert circle(root) == ["wire/gso.py", "wire/vnet.py", "wire/ip.py", "wire/gso.py"]
