"""Refusals of `vpntun run` where a user may not make namespaces or open the TUN device: one line, and status 6."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from tests.netns.lab import Lab
from tests.netns.users import User

NO_NAMESPACES = 'echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --ambient-caps=-all --inh-caps=-all "$@"'


def test_a_refusal_names_what_forbids_the_run_and_a_way_round(lab: Lab) -> None:
    user = User(lab.a)
    vpntun: list[str | Path] = [
        sys.executable,
        "-m",
        "vpntun",
        "run",
        "-c",
        lab.b.four,
        "-k",
        user.own(lab.key),
        "--",
        "true",
    ]

    nested = ["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-ec", NO_NAMESPACES, "sh"]
    refused = user.run(*nested, *vpntun, check=False)
    assert refused.returncode == 6, refused
    assert "user.max_user_namespaces is 0" in refused.stderr
    assert refused.stderr.count("\n") == 1

    closed = lab.folder / "closed"
    os.mknod(closed, 0o600 | stat.S_IFCHR, os.makedev(10, 200))
    refused = lab.a.run(*vpntun, check=False, env=user.env, user=str(user.uid), binds={"/dev/net/tun": closed})
    assert refused.returncode == 6, refused
    assert "no access to /dev/net/tun: run as root, or have root change its mode to 0666" in refused.stderr
