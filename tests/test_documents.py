"""The documents agree with the program and with each other. test_examples.py runs the examples with two machines.

1. The real command line accepts every `vpntun ...` in a block or in a sentence. Every example has a test.
2. Options, messages, requests, packages and commands match those of the program, the scripts and the Makefile.
3. Links, section names and file names have targets, tables are well formed, and README.rst is short.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from tests.commands import LOADED
from tests.documents import CHECKOUT, DOCUMENTS, EVERYTHING, blocks, columns, steps, table
from vpntun.cli.command import _check_usage, vpntun
from vpntun.crypto.keys import KeyPair, parse_key

PACKAGE = CHECKOUT / "vpntun"
GUIDE = DOCUMENTS["docs/guide.rst"]
MOST_BYTES_OF_README = 12_000
DOCUMENT = pytest.mark.parametrize("name", list(DOCUMENTS))


# Commands and examples.


def all_blocks() -> list[str]:
    """Return every code block and every literal block."""
    found = re.findall(r"^(?:\.\. code-block:: \w+|.*\w::)\n\n((?:    .*\n|\n)+)", EVERYTHING, re.MULTILINE)
    return [re.sub(r" *\\\n *", " ", block) for block in found]


def command_lines() -> list[str]:
    """Return every `vpntun ...` in a block."""
    return [line.strip() for block in all_blocks() for line in re.findall(r"(?:^|[#$(] *)(vpntun [^|<>&)\n]+)", block)]


def mentions() -> list[str]:
    """Return every `vpntun ...` in a sentence, except commands that are named without arguments."""
    found = re.findall(r"``(vpntun [^`]+)``", flat(EVERYTHING))
    return [line for line in found if line.split()[1] not in LOADED or len(line.split()) > 2]


def flat(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text)


def check_command_line(line: str, *, whole: bool) -> None:
    """Raise click's error if the real command line does not accept this one."""
    arguments = shlex.split(line)[1:]
    if arguments and arguments[0] in LOADED:
        parent = click.Context(vpntun, **vpntun.context_settings)
        LOADED[arguments[0]].make_context(arguments[0], arguments[1:], parent)
        return
    context = vpntun.make_context("vpntun", arguments)
    if whole:
        _check_usage(**context.params)


@pytest.mark.parametrize("line", command_lines())
def test_a_command_line_is_accepted(line: str) -> None:
    check_command_line(line, whole=True)


@pytest.mark.parametrize("line", [line for line in mentions() if "DEVICE:" not in line])
def test_a_command_line_in_a_sentence_is_accepted(line: str) -> None:
    try:
        check_command_line(line, whole=False)
    except click.exceptions.Exit as left:  # -h and -V
        assert left.exit_code == 0


def test_the_command_lines_are_found() -> None:
    assert len(command_lines()) >= 15
    assert "vpntun -s -i tun3" in command_lines()
    assert "vpntun -V" in mentions()
    assert "vpntun rmtun tun7" in mentions()


@DOCUMENT
def test_every_block_has_a_name(name: str) -> None:
    text = DOCUMENTS[name]
    named = re.findall(r"^\.\. example: [\w-]+(?: \(continued\))?\n\n\.\. code-block::", text, re.MULTILINE)
    assert text.count(".. code-block::") == len(named) == len(re.findall(r"^\.\. example:", text, re.MULTILINE))


def test_every_name_is_given_once_and_continued_in_the_same_document() -> None:
    begun: dict[str, str] = {}
    for document, text in DOCUMENTS.items():
        for name, continued in re.findall(r"^\.\. example: ([\w-]+)( \(continued\))?$", text, re.MULTILINE):
            assert begun.get(name) == (document if continued else None), name
            begun[name] = document


def test_every_example_has_a_test() -> None:
    tests = "\n".join(path.read_text() for path in (CHECKOUT / "tests").rglob("*.py"))
    begins = tuple(re.findall(r'f"([\w-]+-)\{', tests))
    names = set(re.findall(r"^\.\. example: ([\w-]+)", EVERYTHING, re.MULTILINE))
    assert len(names) >= 20
    assert {name for name in names if f'"{name}"' not in tests and not name.startswith(begins)} == set()


# The program.


def test_every_option_is_explained() -> None:
    text = DOCUMENTS["README.rst"] + GUIDE
    for parameter in vpntun.params:
        assert any(re.search(rf"(?<![\w-]){form}(?![\w-])", text) for form in parameter.opts), parameter.opts


def test_version_and_help() -> None:
    changes = (CHECKOUT / "CHANGES.rst").read_text()
    version = re.search(r"^(\d+\.\d+\.\d+)\n-+$", changes, re.MULTILINE)
    assert version
    assert CliRunner().invoke(vpntun, ["-V"]).output.split()[-1] == version[1]
    assert "vpntun -s -i tun3" in CliRunner().invoke(vpntun, ["-h"]).output


def test_keys_can_be_piped_as_in_the_readme() -> None:
    runner = CliRunner()
    private = runner.invoke(vpntun, ["genkey"]).output
    public = runner.invoke(vpntun, ["pubkey"], input=private).output
    assert parse_key(public) == KeyPair.of(parse_key(private)).public
    assert len(parse_key(runner.invoke(vpntun, ["genpsk"]).output)) == 32


def test_every_message_is_in_the_source() -> None:
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    source = re.sub(r'"\n\s+f?"', "", source)
    source = re.sub(r"\{[^{}\n]+\}", "%s", source)
    said = re.findall(r"^\*(.+)\*\n    ", GUIDE, re.MULTILINE)
    assert len(said) >= 7
    for message in said:
        assert re.sub(r"\b(A|B|NAME)\b", "%s", message) in source, message


def test_the_requests_are_those_of_the_control_socket() -> None:
    files = [*(PACKAGE / "control").glob("*.py"), *PACKAGE.glob("*/requests.py")]
    source = "".join(path.read_text() for path in files)
    served = {f"{method} {path}" for path, method in re.findall(r'"(/v1/[\w/]+)": Route\("(\w+)"', source)}
    assert len(served) >= 4
    assert {row[0] for row in table("requests")[1:]} - {"\\"} == served
    asked = set()
    for step in [step for block in blocks("control-socket") for step in steps(block)]:
        for curl, path in re.findall(r"(curl [^|]*?)http://vpntun(/v1/[\w/]+)", step.command):
            method = re.search(r" -X (\w+) ", curl)
            asked.add(f"{method[1] if method else 'GET'} {path}")
    assert asked == served


def test_the_packages_are_those_that_the_scripts_install() -> None:
    named = set(" ".join(blocks("packages") + blocks("packages-of-the-tests")).split())
    listed = (CHECKOUT / "scripts" / "packages").read_text()
    assert named - {"#", "apt", "install", "\\"} == set(
        re.findall(r"^(?:build|demo|test) +(\S+)", listed, re.MULTILINE)
    )


def test_the_commands_of_a_developer_exist() -> None:
    typed = [
        step.command.split()
        for name in ("install", "first-try", "bench", "developer")
        for block in blocks(name)
        for step in steps(block)
    ]
    in_sentences = re.findall(r"``((?:make|scripts/)[^`]*)``", flat(EVERYTHING))
    makefile = (CHECKOUT / "Makefile").read_text()
    for words in [*typed, *map(str.split, in_sentences)]:
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words
        else:
            assert os.access(CHECKOUT / words[0], os.X_OK), words


def test_the_extras_that_are_installed_exist() -> None:
    extras = re.search(r"\$\{work\}\[([\w,]+)\]", (CHECKOUT / "scripts" / "install").read_text())
    assert extras
    for extra in extras[1].split(","):
        assert f"\n{extra} =\n" in (CHECKOUT / "setup.cfg").read_text()


# Form.


def test_the_readme_is_short() -> None:
    assert (CHECKOUT / "README.rst").stat().st_size <= MOST_BYTES_OF_README


def titles(text: str) -> list[str]:
    """Return the titles of a document's sections."""
    found = re.findall(r"(?:\A|\n\n)(\S.*)\n([=~-])(\2*)\n", text)
    assert all(len(title) == 1 + len(line) for title, _, line in found), [title for title, _, line in found]
    return [title for title, _, _ in found]


def anchor(title: str) -> str:
    """Return the fragment by which a code host links to a section."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def prose(text: str) -> str:
    """Return a document on one line, without its literals."""
    return re.sub(r"``.*?``", "", flat(text))


@DOCUMENT
def test_every_link_leads_to_a_file_and_a_section(name: str) -> None:
    for target in re.findall(r"`[^`<]*<([^`>]+)>`_", prose(DOCUMENTS[name])):
        if "://" in target:
            continue
        path, _, section = target.partition("#")
        file = (CHECKOUT / name).parent / path
        assert file.is_file(), target
        assert not section or section in map(anchor, titles(file.read_text())), target


@DOCUMENT
def test_every_section_that_is_referred_to_exists(name: str) -> None:
    text = DOCUMENTS[name]
    assert set(re.findall(r"`([^`<>]+)`_(?!_)", prose(text))) <= set(titles(text))


@DOCUMENT
def test_every_file_that_is_named_exists(name: str) -> None:
    tops = {path.name for path in (*CHECKOUT.iterdir(), *PACKAGE.iterdir())} - {"__pycache__"}
    names = {path.name for top in ("docs", "scripts", "tests", "vpntun") for path in (CHECKOUT / top).rglob("*.*")}
    names |= {path.name for path in CHECKOUT.iterdir()}
    for literal in re.findall(r"``([^`\s]+)[^`]*``", flat(DOCUMENTS[name])):
        if "/" in literal and literal.partition("/")[0] in tops:
            found = (CHECKOUT / literal).exists() or (PACKAGE / literal).exists()
        elif re.fullmatch(r"[\w-]+\.(rst|py|c|cfg|toml|8)|vpntun\.conf\.5", literal):
            found = literal in names
        else:
            continue
        assert found, literal


def simple_tables(text: str) -> Iterator[list[str]]:
    """Yield every table that is drawn by rules of equals signs, as its lines."""
    for paragraph in text.split("\n\n"):
        lines = paragraph.strip("\n").split("\n")
        if re.fullmatch(r"=+(  +=+)+", lines[0]):
            yield lines


@DOCUMENT
def test_tables_keep_to_their_columns(name: str) -> None:
    for lines in simple_tables(DOCUMENTS[name]):
        assert lines[0] == lines[-1], lines[0]
        places = columns(lines[0])
        gaps = [(end, begin) for (_, end), (begin, _) in itertools.pairwise(places)]
        for line in lines:
            assert all(not line[begin:end].strip() for begin, end in gaps), line


BLOCK = re.compile(r"^( *)(?:\.\. code-block::.*|.*::)\n(?:\n|\1 +.*\n)+", re.MULTILINE)
"""A block in the form of a program's text, to its end."""


@DOCUMENT
def test_lines_have_at_most_120_characters(name: str) -> None:
    text = BLOCK.sub("", DOCUMENTS[name])  # which shows what programs print, however long
    assert [line for line in text.splitlines() if len(line) > 120] == []
