"""The report for people: columns, remedies, and lines that fit."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from vpntun.doctor.finding import VERDICTS, Finding, failed, ok, warning
from vpntun.doctor.report import BEFORE_TEXT, NARROWEST_TEXT, heading, lines_of, summary

SLOW = warning("AEAD", "ChaCha20-Poly1305 by libsodium, since the package is missing", "pip install 'cryptography>=47'")


def test_the_verdict_comes_first_and_the_remedy_below() -> None:
    assert list(lines_of(SLOW)) == [
        "  warning  AEAD           ChaCha20-Poly1305 by libsodium, since the package is missing",
        "           -> pip install 'cryptography>=47'",
    ]
    assert list(lines_of(ok("TUN device", "/dev/net/tun opens"))) == ["  ok       TUN device     /dev/net/tun opens"]


def test_a_long_text_goes_on_in_its_column_and_a_command_stays_whole() -> None:
    finding = replace(SLOW, remedy="as root, run 'pip install cryptography', say, and restart the tunnel")
    assert list(lines_of(finding, 60)) == [
        "  warning  AEAD           ChaCha20-Poly1305 by libsodium,",
        "                          since the package is missing",
        "           -> as root, run 'pip install cryptography', say,",
        "              and restart the tunnel",
    ]
    assert "'pip install cryptography'" in list(lines_of(finding, 50))[3]


TEXTS = st.text(st.characters(blacklist_characters="'"))


@given(TEXTS, TEXTS, st.sampled_from(VERDICTS), st.integers(0, 200))
def test_lines_have_one_width_and_nothing_unprintable(text: str, remedy: str, verdict: str, columns: int) -> None:
    finding = Finding("check", verdict, text, remedy)  # type: ignore[arg-type]
    longest = max(map(len, f"{text} {remedy}".encode("unicode_escape").decode().split()), default=0)
    for line in lines_of(finding, columns):
        assert line.isprintable()
        assert len(line) <= max(columns, BEFORE_TEXT + NARROWEST_TEXT, BEFORE_TEXT + 3 + longest)


def test_the_verdict_is_painted_in_its_column() -> None:
    (line,) = lines_of(ok("a", "b"), paint=lambda text, verdict: f"<{verdict}:{text}>")
    assert line == "  <ok:ok     >  a              b"


def test_the_heading_and_the_summary() -> None:
    assert heading(SLOW) == "this machine"
    assert heading(replace(SLOW, about="tun3\n")) == "tun3\\n"
    assert summary([SLOW, SLOW, failed("a", "b", "c")]) == "2 warnings, 1 failed"
    assert summary([SLOW]) == "1 warning"
    assert summary([]) == "no check was run"
