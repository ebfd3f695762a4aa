"""A newcomer's two commands, `make demo` and `make test`, on a Debian system with only make and git installed.

It takes nine minutes on two busy cores (debootstrap two and a half, the steps five, removal one) and 1.5 GB of
temporary files.
"""

from __future__ import annotations

from collections.abc import Iterator
from subprocess import CompletedProcess

import pytest

from tests.netns.lab import why_not as why_no_lab
from tests.scripts.bare import BareMachine, bare_machine, why_not

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]
COMMAND = "apt-get install --no-install-recommends python3 python3-venv python3-dev gcc"


@pytest.fixture(scope="module")
def bare() -> Iterator[BareMachine]:
    if reason := why_not() or why_no_lab():
        pytest.skip(reason)
    with bare_machine() as machine:
        yield machine


def succeeded(done: CompletedProcess[str]) -> CompletedProcess[str]:
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def test_the_two_commands_install_what_they_need_and_no_more(bare: BareMachine) -> None:
    untouched = bare.packages()
    for target in ("demo", "test"):
        refused = bare.run("make", target, NO_INSTALL="1")
        assert refused.returncode != 0
        assert COMMAND in refused.stderr
        assert len(refused.stderr.splitlines()) == 2, refused.stderr  # the second line is make's
    assert bare.packages() == untouched

    shown = succeeded(bare.run("make", "demo"))
    assert "scripts/provide: installing python3 python3-venv" in shown.stderr
    assert "clean: status 0 from each, no device left" in shown.stdout
    of_the_demo = bare.packages()
    assert {"python3-venv", "gcc", "iputils-ping"} <= of_the_demo
    assert not {"fish", "wireguard-go"} & of_the_demo

    apt_get = bare.root / "usr" / "local" / "bin" / "apt-get"
    apt_get.write_text("#!/bin/sh\necho apt-get was called >&2\nexit 1\n")
    apt_get.chmod(0o755)
    again = succeeded(bare.run("make", "demo"))
    assert again.stderr == ""
    assert "clean: status 0 from each" in again.stdout
    apt_get.unlink()

    # The part of `make test` before lint and tests, then a few of the tests.
    installed = succeeded(bare.run("scripts/environment", "test"))
    assert "fish" in installed.stderr
    assert {"fish", "wireguard-go"} <= bare.packages()
    assert succeeded(bare.run("scripts/environment", "test")).stderr == ""
    assert " passed" in succeeded(bare.run("scripts/test", "-q", "tests/wire")).stdout
