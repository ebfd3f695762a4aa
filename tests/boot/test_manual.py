"""Manual pages: they render without warnings, and describe exactly the program's options and keys."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.boot.installed import need
from tests.commands import LOADED
from tests.netns.lab import CHECKOUT
from vpntun import errors
from vpntun.cli.command import vpntun
from vpntun.config.file import KNOWN, read_file
from vpntun.crypto.keys import KeyPair, format_key, generate_private
from vpntun.errors import VpntunError

COMMANDS = CHECKOUT / "docs" / "vpntun.8"
FILES = CHECKOUT / "docs" / "vpntun.conf.5"


def plain(page: Path) -> str:
    """Return the source of a page without fonts and escapes."""
    text = re.sub(r"\\f[BIRP]", "", page.read_text())
    return re.sub(r"\\(?=-)", "", text)


def section(page: Path, title: str) -> str:
    found = re.search(rf'^\.SH "?{re.escape(title)}"?\n(.*?)(?=^\.SH|\Z)', plain(page), re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def named_in(text: str) -> set[str]:
    """Return the long options in the headings of all entries."""
    heads = re.findall(r"^\.TP\n(.*)", text, re.MULTILINE)
    return {option for head in heads for option in re.findall(r"--[a-z0-9-]+", head)}


def long_options(command: click.Command) -> set[str]:
    return {form for parameter in command.params for form in parameter.opts if form.startswith("--")}


def subsections() -> Iterator[tuple[str, str]]:
    """Yield each command with the text under its heading."""
    for title, text in re.findall(
        r"^\.SS (vpntun .*)\n((?:(?!\.SS).*\n)*)", section(COMMANDS, "COMMANDS"), re.MULTILINE
    ):
        for name in re.findall(r"vpntun ([a-z]+)", title):
            yield name, text


@pytest.mark.parametrize("page", [COMMANDS, FILES], ids=lambda page: page.name)
def test_the_pages_render_without_warnings(page: Path) -> None:
    need("man", "groff")
    render = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)]
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    done = subprocess.run(render, capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""
    assert done.stdout


def test_every_option_is_there_and_no_other() -> None:
    assert named_in(section(COMMANDS, "OPTIONS")) == long_options(vpntun) | {"--help"}


def test_every_command_is_there_with_its_options_and_no_other() -> None:
    described = dict(subsections())
    assert described.keys() == LOADED.keys()
    for name, command in LOADED.items():
        own = long_options(command) - {"--help"}
        above = own & long_options(vpntun) if "OPTIONS" in described[name] else set()
        assert named_in(described[name]) == own - above, name


def test_every_exit_status_is_there() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, VpntunError)]
    listed = {int(number) for number in re.findall(r"^\.B (\d+)$", section(COMMANDS, "EXIT STATUS"), re.MULTILINE)}
    assert listed == {0, click.UsageError.exit_code, *(kind.exit_status for kind in kinds)}


@pytest.mark.parametrize("name", list(KNOWN))
def test_every_key_of_a_file_is_there_and_no_other(name: str) -> None:
    heads = re.findall(r"^\.TP\n\.BR? (.*)", section(FILES, f"[{name}]"), re.MULTILINE)
    assert sorted(key for head in heads for key in re.findall(r"[A-Za-z]+", head)) == sorted(KNOWN[name])


def test_the_examples_are_accepted(tmp_path: Path) -> None:
    examples = re.findall(r"^\.EX\n(.*?)^\.EE", plain(FILES), re.MULTILINE | re.DOTALL)
    assert len(examples) >= 3
    for text in examples:
        text = text.replace("HUB_PRIVATE", format_key(generate_private()))
        text = text.replace("/etc/vpntun/office.key", format_key(generate_private()))
        for machine in ("LAPTOP_PUBLIC", "WORKSHOP_PUBLIC"):
            text = text.replace(machine, format_key(KeyPair.of(generate_private()).public))
        file = tmp_path / "office.conf"
        file.write_text(text)
        file.chmod(0o600)
        assert read_file(file, "office").interface == "office"
