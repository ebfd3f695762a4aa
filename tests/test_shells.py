"""What a document shows and what a terminal showed are compared by form: what makes a difference, and what does not."""

from __future__ import annotations

import re

import pytest

from tests.shells import form, pattern

SHOWN = """\
interface: tun11
  ...
  carrier: UDP for 8 minutes, 1 second (it answered first)
  ...
29 ok, 1 failed"""
SAID = """\
interface: tun11
  mtu: 1400

  carrier: UDP for 1 hour (it answered first)
  delivered: 12.30 kbit/s
29 ok, 4 warnings, 1 failed
"""


def matches(shown: str, said: str) -> bool:
    return re.fullmatch(pattern(shown), form(said)) is not None


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (SHOWN, SAID),
        ("", "[1]+  Terminated              ping 192.0.2.1 > /dev/null"),
        ("up       48.71 Mbit/s    0.00%", "up        1.06 Gbit/s    0.12%"),
        ('{peer="h70buasHjg"} 1.0', '{peer="s/PB7kjPxi"} 1.0'),
        ("received, 0% packet loss, time 2003ms", "received, 0% packet loss, time 201ms"),
        ("12:00:00.000001 <- peer wMrXQFRw6q: id 7", "21:31:59.753928 <- peer b5Wx+/mrTq: id 4711"),
        ("code: 7KQ2-M9XD (good", "code: 2390-SRT0 (good"),
    ],
)
def test_numbers_keys_and_times_make_no_difference(shown: str, said: str) -> None:
    assert matches(shown, said)


@pytest.mark.parametrize(
    ("this", "other"),
    [
        ("UDP", "TCP"),
        ("it answered first", "no UDP answer"),
        ("interface: tun11\n", ""),
        ("tun11", "tun12"),
        ("1 failed", "1 failed\nvpntun: an error"),
        ("1 failed", "2 failed"),
        ("1 failed", "1 skipped"),
    ],
)
def test_words_and_lines_make_one(this: str, other: str) -> None:
    assert this in SAID
    assert not matches(SHOWN, SAID.replace(this, other))


@pytest.mark.parametrize("address", ["192.0.2.1", "192.0.2.1:55555", "fd09::1"])
def test_addresses_and_ports_make_one(address: str) -> None:
    assert matches(f"endpoint: {address}", f"endpoint: {address}")
    assert not matches(f"endpoint: {address}", f"endpoint: {address[:-1]}2")


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("trouble, status 13", "trouble, status 14"),
        ('{peer="h70buasHjg"} 1.0', '{peer="h70buasHjg"} 0.0'),
        ("3 packets transmitted, 3 received, 0% packet loss", "3 packets transmitted, 0 received, 100% packet loss"),
        ("3 packets transmitted, 3 received, 0% packet loss", "3 packets transmitted, 3 received, 10% packet loss"),
        ("2 packets captured", "1 packets captured"),
    ],
)
def test_numbers_that_matter_make_one(shown: str, said: str) -> None:
    assert matches(shown, shown)
    assert not matches(shown, said)


def test_nothing_shown_is_nothing_said() -> None:
    assert matches("", "")
    assert not matches("", "anything")
