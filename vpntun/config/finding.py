"""Finding of configuration files: by a path, by the name of the interface, or as the only one there is.

An interface's file is NAME.conf in /etc/vpntun or, if there is none, in /etc/wireguard, which wg-quick(8) reads too. An
ordinary user's own, in ~/.config/vpntun, come before both.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from vpntun.errors import ConfigurationError, PrivilegeError
from vpntun.runtime.folders import users_folder

FOLDERS = (Path("/etc/vpntun"), Path("/etc/wireguard"))
_ENDING = ".conf"
_NAME = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")  # as in wg-quick, since the name replaces %i in shell commands


def find_file(name: str) -> Path:
    """Find a configuration file by its path, or by its name. Raises ConfigurationError or PrivilegeError."""
    if "/" in name or name.endswith(_ENDING):
        candidates = [Path(name)]
    else:
        candidates = [folder / f"{name}{_ENDING}" for folder in (*_users_own(), *FOLDERS)]
    for number, path in enumerate(candidates):
        try:
            path.stat()
        except PermissionError:
            missing = " or ".join(map(str, candidates[:number]))
            raise PrivilegeError(
                f"{f'there is no {missing}, and ' if missing else ''}this user may not look for {path}: run as its "
                "owner, or as root"
            ) from None
        except (OSError, ValueError):
            continue
        return path
    raise ConfigurationError(f"there is no configuration file {' or '.join(map(str, candidates))}")


def only_file() -> Path:
    """Return the one configuration file in FOLDERS. Raises ConfigurationError if there is none, or several."""
    found: dict[str, Path] = {}
    for folder in reversed(FOLDERS):
        try:
            found.update({name: folder / name for name in os.listdir(folder) if name.endswith(_ENDING)})
        except PermissionError:
            raise PrivilegeError(f"this user may not look into {folder}: run as root, or name a file") from None
        except OSError:
            continue
    if len(found) == 1:
        return next(iter(found.values()))
    names = ", ".join(sorted(name.removesuffix(_ENDING) for name in found))
    raise ConfigurationError(
        f"there are files of several tunnels, {names}: name one with -f"
        if found
        else f"there is no configuration file in {' or '.join(map(str, FOLDERS))}: write one, or name one with -f"
    )


def _users_own() -> list[Path]:
    """Return the folder of an ordinary user's own files, if there can be one."""
    if os.geteuid() != 0:
        with suppress(ConfigurationError):
            return [users_folder("XDG_CONFIG_HOME", ".config") / "vpntun"]
    return []


def is_for_wg_quick(path: Path) -> bool:
    """Return whether wg-quick(8) reads this file too, which refuses the keys that are vpntun's own."""
    return FOLDERS[-1] in (path.absolute().parent, path.resolve().parent)


def interface_of(path: Path) -> str:
    """Return the name of a file's interface: the file's name without its ending. Raises ConfigurationError."""
    interface = path.name.removesuffix(_ENDING)
    if not path.name.endswith(_ENDING) or interface in (".", "..") or not _NAME.fullmatch(interface):
        raise ConfigurationError(
            f"{path} cannot name an interface: a file's name must be up to 15 letters, digits and _=+.- before its "
            f"ending, {_ENDING}; rename it, or give both: vpntun -i NAME -f FILE, vpntun run FILE -i NAME"
        )
    return interface
