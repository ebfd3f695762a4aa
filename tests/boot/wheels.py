"""Wheels packed from this environment's packages, to test `make install` without the network.

An installed package is an unpacked wheel: the files in its RECORD, below one folder. So it can be packed again.
"""

from __future__ import annotations

import configparser
import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from zipfile import ZipFile

CHECKOUT = Path(__file__).parents[2]
BUILD = ("setuptools", "wheel")  # needed by pip for a project without a pyproject.toml


def pack(folder: Path) -> None:
    """Pack a wheel of every package that vpntun needs, and of those that build vpntun's own wheel."""
    packed: set[str] = set()
    wanted = [*BUILD, *_asked_for()]
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in packed:
            continue
        packed.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # needed only on other Pythons or systems
            continue
        _pack(found, folder)
        wanted += _names("\n".join(line for line in found.requires or [] if "extra ==" not in line))


def _asked_for() -> list[str]:
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    extras = setup["options.extras_require"]
    installed = ("fast", "phone", "terminal", "metrics", "pair", "names")
    return _names(setup["options"]["install_requires"] + "".join(extras[each] for each in installed))


def _names(requirements: str) -> list[str]:
    return re.findall(r"^[\w.-]+", requirements, re.MULTILINE)


def _pack(installed: Distribution, folder: Path) -> None:
    about = installed.read_text("WHEEL") or ""
    tag = re.search(r"^Tag: (\S+)$", about, re.MULTILINE)
    assert tag, installed.name
    name = f"{installed.name.replace('-', '_')}-{installed.version}-{tag[1]}.whl"
    with ZipFile(folder / name, "w") as wheel:
        for path in installed.files or []:
            there = Path(str(path.locate()))
            if path.suffix != ".pyc" and ".." not in path.parts and there.is_file():
                wheel.write(there, str(path))
