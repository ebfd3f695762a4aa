"""Commands that make keys: genkey, pubkey, genpsk and keygen.

Apart from keygen, which makes a file, they write base64 to stdout as wg(8) does, and nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vpntun.config.keyfile import create_shared
from vpntun.crypto.keys import format_key, generate_private, generate_secret, parse_key, public_of
from vpntun.errors import ConfigurationError


@click.command()
def genkey() -> None:
    """Write a new private key to stdout."""
    click.echo(format_key(generate_private()))


@click.command()
def pubkey() -> None:
    """Read a private key from stdin and write its public key to stdout."""
    try:
        text = sys.stdin.buffer.read(4096).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigurationError(
            f"stdin cannot be read ({error.strerror or error}): give the private key on it"
        ) from None
    click.echo(format_key(public_of(parse_key(text.strip()))))


@click.command()
def genpsk() -> None:
    """Write a new preshared key to stdout."""
    click.echo(format_key(generate_secret()))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def keygen(file: Path) -> None:
    """Write a new shared key to FILE, which must not exist."""
    create_shared(file)
