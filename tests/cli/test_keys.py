"""The commands that make keys: base64 on stdout and nothing else, or one line and a status."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Run, program
from vpntun.config.keyfile import read_shared
from vpntun.crypto.keys import clamp, format_key, parse_key

ALICE_PRIVATE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
"""RFC 7748, section 6.1."""


def test_genkey_writes_a_clamped_private_key_and_nothing_else(run: Run) -> None:
    said = run("genkey")
    key = parse_key(said.out)
    assert said.status == 0
    assert said.out == format_key(key) + "\n"
    assert key == clamp(key)
    assert run("genkey").out != said.out
    assert said.err == ""


def test_genpsk_writes_a_key_and_nothing_else(run: Run) -> None:
    said = run("genpsk")
    assert said.out == format_key(parse_key(said.out)) + "\n"
    assert run("genpsk").out != said.out


@pytest.mark.parametrize("around", ["%s", "%s\n", "  %s\r\n\n"])
def test_pubkey_answers_with_the_public_key(around: str) -> None:
    said = program("pubkey", stdin=(around % format_key(bytes.fromhex(ALICE_PRIVATE))).encode())
    assert said.status == 0
    assert said.out == format_key(bytes.fromhex(ALICE_PUBLIC)) + "\n"
    assert said.err == ""


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\n", b"garbage", b"\xff\xfe\x00\x80", bytes(32), format_key(bytes(32)).encode()[:-1], b"A" * 100_000],
)
def test_pubkey_of_garbage_has_status_3_and_one_line(garbage: bytes) -> None:
    said = program("pubkey", stdin=garbage, environment={"PYTHONIOENCODING": "utf-8:strict"})  # as in most locales
    assert said.status == 3
    assert said.out == ""
    assert said.err.startswith("vpntun: this is not a key")
    assert said.err.count("\n") == 1


def test_keygen_makes_a_file_that_both_ends_read(run: Run, tmp_path: Path) -> None:
    said = run("keygen", tmp_path / "key")
    assert said.status == 0
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert len(read_shared(tmp_path / "key")) == 32
    assert format_key(read_shared(tmp_path / "key")) not in said.out + said.err


def test_keygen_over_an_existing_file_has_status_4_and_leaves_it(run: Run, key: Path) -> None:
    before = key.read_bytes()
    said = run("keygen", key)
    assert said.status == 4
    assert said.err == f"vpntun: {key} already exists, and a key is never overwritten: move it away first\n"
    assert key.read_bytes() == before
