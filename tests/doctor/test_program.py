"""The program: what each fact about its cipher, its interpreter and its version means."""

from __future__ import annotations

import sys

import pytest

from vpntun import __version__
from vpntun.crypto.aead import BACKEND
from vpntun.doctor.program import ProgramFacts, examine_program, facts_in, judge, judge_running, program_facts

GOOD = ProgramFacts(
    version="1.0.0",
    aead="openssl",
    why_not_openssl="",
    executable="/usr/bin/python3",
    python="3.11.2",
    is_debug=False,
    optimization="O2",
    is_profiled=True,
    has_gil=True,
)
SLOW = GOOD._replace(aead="sodium", why_not_openssl="the package cryptography is not installed")


def test_a_good_program_has_nothing_to_mend() -> None:
    assert [each.verdict for each in judge(GOOD)] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("facts", "check", "word"),
    [
        (SLOW, "AEAD", "since the package cryptography is not installed: OpenSSL is four times as fast"),
        (GOOD._replace(is_debug=True), "interpreter", "debug build"),
        (GOOD._replace(optimization="O0"), "interpreter", "compiled with -O0"),
        (GOOD._replace(has_gil=False), "interpreter", "without the global lock"),
        (GOOD._replace(is_profiled=False), "interpreter", "without PGO"),
    ],
)
def test_each_fault_is_a_warning_with_a_remedy(facts: ProgramFacts, check: str, word: str) -> None:
    (finding,) = [each for each in judge(facts) if each.verdict != "ok"]
    assert (finding.check, finding.verdict) == (check, "warning")
    assert word in finding.text
    assert finding.remedy


def test_the_remedy_for_a_slow_cipher_is_for_the_interpreter_that_is_used() -> None:
    assert next(judge(SLOW)).remedy == "/usr/bin/python3 -m pip install 'cryptography>=47'"


def test_the_interpreter_of_another_machine_is_not_taken_for_the_one_of_this() -> None:
    _, interpreter = judge(GOOD._replace(executable="python3"), is_of_this_machine=False)
    assert interpreter.text == "its interpreter, Python 3.11.2, an optimised build"


def test_the_facts_of_this_process() -> None:
    facts = program_facts()
    assert (facts.version, facts.aead, facts.executable) == (__version__, BACKEND, sys.executable)
    assert facts.optimization.startswith("O")
    assert len(list(examine_program())) == 2


def test_a_running_tunnel_of_another_version_is_to_be_restarted() -> None:
    (finding,) = judge_running(GOOD._replace(version="0.9.0"), GOOD)
    assert (finding.check, finding.verdict) == ("version", "warning")
    assert finding.text == "the tunnel runs vpntun 0.9.0, and 1.0.0 is installed"
    assert finding.remedy


def test_of_a_running_tunnel_only_what_differs_is_said() -> None:
    assert [each.verdict for each in judge_running(GOOD, GOOD)] == ["ok"]
    other = SLOW._replace(executable="/opt/python", is_debug=True)
    assert [each.check for each in judge_running(other, GOOD)] == ["version", "AEAD", "interpreter"]


def test_a_tunnel_of_another_version_may_report_less_or_more() -> None:
    facts = facts_in({"version": "9.0.0", "aead": "sodium", "colour": "red"})
    assert (facts.version, facts.aead) == ("9.0.0", "sodium")
    assert facts.executable == sys.executable
