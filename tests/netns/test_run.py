"""`vpntun run`: a program in a namespace of its own, as an ordinary user and as root."""

from __future__ import annotations

import sys

from tests.netns.lab import Lab, far, start_server
from tests.netns.users import User

RUN = (sys.executable, "-m", "vpntun", "run")


def test_an_ordinary_users_program_reaches_the_peer(lab: Lab) -> None:
    start_server(lab)
    user = User(lab.a)
    done = user.run(*RUN, "-c", lab.b.four, "-k", user.own(lab.key), "--", "ping", "-c1", far(lab))
    assert "1 received" in done.stdout
    assert done.stderr == ""


def test_roots_program_reaches_the_peer(lab: Lab) -> None:
    start_server(lab)
    done = lab.a.run(*RUN, "-c", lab.b.four, "-k", lab.key, "--", "ping", "-c1", far(lab))
    assert "1 received" in done.stdout
    assert done.stderr == ""
