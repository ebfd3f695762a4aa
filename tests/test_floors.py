"""The law of floors: a module imports its own floor and those below, and floors 0-2 reach neither clock nor descriptor.

    0 wire    1 crypto    2 core    3 host    4 the roof: config, daemon, cli

`errors` and the package's own name are open to all. Imports are read from the source, wherever they stand in it,
so that one inside a function, or for types only, counts like any other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import vpntun

FLOORS = {
    "wire": 0,
    "crypto": 1,
    "core": 2,
    "host": 3,
    "config": 4,
    "links": 4,
    "reset": 4,
    "service": 4,
    "sockets": 4,
    "status": 4,
    "daemon": 4,
    "cli": 4,
    "__main__": 4,
}
OPEN_TO_ALL = {"errors", "__init__"}
OUTSIDE = {"socket", "select", "selectors", "time", "os", "fcntl", "asyncio", "threading"}
HIGHEST_WITHOUT_IO = 2


def imports(module: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a module imports; `from a import b` gives a.b, whatever b is."""
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


def violations(root: Path) -> list[str]:
    """One line for each import that breaks the law; `root` is the package's folder."""
    found = []
    for module in sorted(root.rglob("*.py")):
        room = module.relative_to(root).parts[0].removesuffix(".py")
        if room in OPEN_TO_ALL:
            floor = -1
        elif room in FLOORS:
            floor = FLOORS[room]
        else:
            found.append(f"{module.relative_to(root)}: {room} stands on no floor; say in FLOORS on which")
            continue
        for line, name in imports(module, root):
            where = f"{module.relative_to(root)}:{line}"
            top, *rest = name.split(".")
            if top == root.name:
                target = FLOORS.get(rest[0], -1) if rest else -1
                if target > floor:
                    found.append(f"{where}: imports {name}, which is above it")
            elif floor <= HIGHEST_WITHOUT_IO and top in OUTSIDE:
                found.append(f"{where}: imports {name}; floors 0-2 take time and bytes as arguments")
    return found


def test_no_import_points_up() -> None:
    assert violations(Path(vpntun.__file__).parent) == []


def test_a_tree_that_breaks_the_law_is_found_out(tmp_path: Path) -> None:
    root = tmp_path / "house"
    sources = {
        "__init__.py": "",
        "errors.py": "from house.wire import ip",
        "wire/ip.py": "import struct\nfrom house.errors import BadPacket\nfrom house import crypto",
        "wire/checksum.py": "from house.wire import ip",
        "crypto/noise.py": "import hashlib\nfrom ..core.peer import Peer\nfrom ..wire import ip",
        "core/peer.py": "def now():\n    import time\n    from os import path",
        "core/timers.py": "import house.host.loop as loop\nfrom selectors import DefaultSelector",
        "host/loop.py": "import os, time\nimport house.core.peer\nimport house.daemon",
        "daemon.py": "import house.host.loop, house.cli, threading",
        "attic/box.py": "",
    }
    for name, source in sources.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source)

    assert [line.partition(";")[0] for line in violations(root)] == [
        "attic/box.py: attic stands on no floor",
        "core/peer.py:2: imports time",
        "core/peer.py:3: imports os.path",
        "core/timers.py:1: imports house.host.loop, which is above it",
        "core/timers.py:2: imports selectors.DefaultSelector",
        "crypto/noise.py:2: imports house.core.peer.Peer, which is above it",
        "errors.py:1: imports house.wire.ip, which is above it",
        "host/loop.py:3: imports house.daemon, which is above it",
        "wire/ip.py:3: imports house.crypto, which is above it",
    ]
