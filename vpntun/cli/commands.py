"""Commands of the program. Each is loaded from its file when it is used, so that none waits for the code of the others.

While wg-quick's variable is set, each name of an interface is a command, too (wg_quick.py).
"""

from __future__ import annotations

import os
from functools import partial
from importlib import import_module

import click

from vpntun.cli.wg_quick import VARIABLE, run_for_wg_quick

FILES = {
    "capture": "capture",
    "check": "files",
    "doctor": "doctor",
    "down": "control",
    "expose": "reaching.forwards",
    "forwards": "reaching.forwards",
    "genkey": "keys",
    "genpsk": "keys",
    "keygen": "keys",
    "mktun": "devices",
    "phone": "phone",
    "pubkey": "keys",
    "reset": "control",
    "rmtun": "devices",
    "run": "reaching.run",
    "services": "reaching.services",
    "show": "control",
    "signal": "signals",
    "speed": "speed",
    "unexpose": "reaching.forwards",
    "up": "files",
}
"""The file of each command, in this folder."""


class Commands(click.Group):
    """The program's commands, and one for each name of an interface while wg-quick's variable is set."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names of the program's commands."""
        return list(FILES)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return the command of this name, else the one that runs an interface of this name for wg-quick."""
        if name in FILES:
            command = getattr(import_module(f"{__package__}.{FILES[name]}"), name)
            assert isinstance(command, click.Command)
            return command
        if os.environ.get(VARIABLE) and not name.startswith("-"):
            return click.Command(name, callback=partial(run_for_wg_quick, name), hidden=True)
        return None
