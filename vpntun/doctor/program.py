"""The program itself: which cipher it uses, how its interpreter was built, and whether a tunnel runs the same version.

A running tunnel reports the same facts of its own process, by its control socket.
"""

from __future__ import annotations

import functools
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from vpntun import __version__
from vpntun.crypto.aead import BACKEND, WHY_NOT_OPENSSL
from vpntun.doctor.finding import Finding, ok, warning


class ProgramFacts(NamedTuple):
    """What the checks of the program judge by.

    `aead`: the backend, as in crypto/aead.py, and `why_not_openssl` that file's reason. `executable`: the interpreter.
    `is_profiled`: whether it was built with PGO, as those of distributions are, which live in /usr and do not say so.
    `has_gil`: whether the interpreter has its global lock, as all but the free-threaded ones have.
    """

    version: str
    aead: str
    why_not_openssl: str
    executable: str
    python: str
    is_debug: bool
    optimization: str
    is_profiled: bool
    has_gil: bool


@functools.cache
def program_facts() -> ProgramFacts:
    """Return the facts of this process. They are read once, and have to be before a process gives root up.

    The interpreter may be in a folder of root's, and reading about its build imports another file from there.
    """
    flags = " ".join(map(str, filter(None, map(sysconfig.get_config_var, ("PY_CFLAGS", "PY_CFLAGS_NODIST")))))
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    levels = re.findall(r"(?:^|\s)-(O\S*)", flags)
    return ProgramFacts(
        version=__version__,
        aead=BACKEND,
        why_not_openssl=WHY_NOT_OPENSSL,
        executable=sys.executable,
        python=".".join(map(str, sys.version_info[:3])),
        is_debug=hasattr(sys, "gettotalrefcount"),
        optimization=levels[-1] if levels else "",
        is_profiled=sys.base_prefix == "/usr" or "--enable-optimizations" in arguments or "-fprofile" in flags,
        has_gil=bool(getattr(sys, "_is_gil_enabled", lambda: True)()),
    )


def facts_in(answer: Mapping[str, Any]) -> ProgramFacts:
    """Return the facts that a running tunnel reports. One of another version may lack some, or have more."""
    own = program_facts()._asdict()
    return ProgramFacts(**{name: answer.get(name, value) for name, value in own.items()})


def examine_program() -> Iterator[Finding]:
    """Examine the program that runs the checks."""
    return judge(program_facts())


def judge(facts: ProgramFacts, *, is_of_this_machine: bool = True) -> Iterator[Finding]:
    """Yield the findings about a program. `is_of_this_machine`: whether it is read where it runs."""
    yield _cipher(facts)
    yield _interpreter(facts, is_of_this_machine=is_of_this_machine)


def judge_running(facts: ProgramFacts, own: ProgramFacts) -> Iterator[Finding]:
    """Yield the findings about a running tunnel's program, beside the program on disk. Equal ones need no words."""
    if facts.version != own.version:
        yield warning(
            "version",
            f"the tunnel runs vpntun {facts.version}, and {own.version} is installed",
            "restart the tunnel",
        )
    else:
        yield ok("version", f"the tunnel runs vpntun {facts.version}, as it is installed")
    if facts.aead != own.aead:
        yield _cipher(facts)
    if (facts.executable, facts.python) != (own.executable, own.python):
        yield _interpreter(facts)


def _cipher(facts: ProgramFacts) -> Finding:
    if facts.aead == "openssl":
        return ok("AEAD", "ChaCha20-Poly1305 by OpenSSL, the faster backend")
    return warning(
        "AEAD",
        f"ChaCha20-Poly1305 by libsodium, since {facts.why_not_openssl}: OpenSSL is four times as fast on a packet",
        f"{facts.executable} -m pip install 'cryptography>=47'",
    )


def _interpreter(facts: ProgramFacts, *, is_of_this_machine: bool = True) -> Finding:
    version = f"Python {facts.python}"
    what = f"{version}, {facts.executable}" if is_of_this_machine else f"its interpreter, {version}"
    if facts.is_debug:
        return warning("interpreter", f"{what}, is a debug build, several times slower", "use another interpreter")
    if facts.optimization in ("O0", "Og", "O1"):
        return warning(
            "interpreter",
            f"{what}, was compiled with -{facts.optimization}, hardly optimised",
            "use your distribution's interpreter, or compile one with --enable-optimizations",
        )
    if not facts.has_gil:
        return warning(
            "interpreter",
            f"{what}, runs without the global lock, which makes a single thread slower",
            "use the ordinary build, or set PYTHON_GIL=1",
        )
    if not facts.is_profiled:
        return warning(
            "interpreter",
            f"{what}, was built without PGO: single flows are some 10% slower",
            "use your distribution's interpreter, or compile one with --enable-optimizations",
        )
    return ok("interpreter", f"{what}, an optimised build")
