"""Command `services`: lists what the peers of a running tunnel offer this end by name.

The tunnel asks its peers, and hubs ask theirs, which takes some seconds at most. The command polls for the answers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import click

from vpntun.cli.reaching.table import table
from vpntun.control.client import ControlClient
from vpntun.crypto.keys import shortened
from vpntun.runtime.clock import boottime
from vpntun.runtime.logform import escape
from vpntun.serving.http import target_of

SECONDS = 12.0
"""Longer than a peer may take to answer."""
SECONDS_BETWEEN = 0.05
HEADINGS = ("service", "key", "through")
MOST_SHOWN = 10
"""Peers that have not told what they offer."""
LENGTH_OF_KEY = 44
"""Characters of a public key, which stands for a peer without a name."""


@click.command()
@click.argument("interface")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/control.rst).")
def services(interface: str, as_json: bool) -> None:
    """List the services that peers of INTERFACE offer this end.

    Each is used by the name in the first column, as in 'vpntun expose INTERFACE 127.0.0.1:2222 ssh@desk'. What this end
    offers itself is set by Service in the tunnel's file.
    """
    with ControlClient(interface) as tunnel:
        found = _found(tunnel)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if found["services"]:
        for line in table(HEADINGS, map(_row, found["services"])):
            click.echo(escape(line))
    else:
        click.echo(f"no peer offers {interface} a service", err=True)
    for each in found["without"][:MOST_SHOWN]:
        click.echo(escape(f"{each['peer']}: {each['reason']}"), err=True)
    if len(found["without"]) > MOST_SHOWN:
        click.echo(f"and {len(found['without']) - MOST_SHOWN} more peers, which --json lists", err=True)


def _row(service: Mapping[str, Any]) -> tuple[str, str, str]:
    through = service["through"] or "-"
    key = "needed" if service["key"] else "-"
    return service["name"], key, shortened(through) if len(through) == LENGTH_OF_KEY else through


def _found(tunnel: ControlClient) -> dict[str, Any]:
    """Have the tunnel ask its peers, and wait for their answers."""
    number = tunnel.ask("POST", "/v1/services/ask")["id"]
    end = boottime() + SECONDS
    while True:
        found = tunnel.ask("GET", target_of("/v1/services/found", {"id": number}))
        if found["state"] == "answered" or boottime() >= end:
            return found
        time.sleep(SECONDS_BETWEEN)
