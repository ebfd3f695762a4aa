"""All commands of the program, loaded."""

from __future__ import annotations

import click

from vpntun.cli.command import vpntun
from vpntun.cli.commands import FILES

LOADED = {name: command for name in FILES if (command := vpntun.get_command(click.Context(vpntun), name)) is not None}
