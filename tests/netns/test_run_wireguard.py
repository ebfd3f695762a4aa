"""`vpntun run` with the file of a WireGuard provider, against wireguard-go: an ordinary user's curl in the VPN."""

from __future__ import annotations

import sys

from tests.documents import blocks, steps
from tests.netns.lab import Lab
from tests.netns.servers import start_web
from tests.netns.users import User
from tests.netns.wireguard import OURS, OURS6, THEIRS, THEIRS6, Keys, start_wireguard

PAGE = "<h1>Welcome to the office</h1>\n"


def test_a_providers_file_leads_one_program_and_its_look_ups_into_the_vpn(lab: Lab, keys: Keys) -> None:
    start_wireguard(lab, keys)
    start_web(lab.b, 80, THEIRS, THEIRS6, index=PAGE)
    names = [f"www.office.internal={address}" for address in (THEIRS, THEIRS6)]
    responder = lab.b.popen(sys.executable, "-m", "tests.netns.responder", THEIRS, *names)
    responder.wait_for("answering")

    user = User(lab.a)
    [text] = blocks("providers-file")
    private = keys.ours.file.read_text().strip()
    for written, ours in (
        ("LOCAL_PRIVATE", private),
        ("REMOTE_PUBLIC", keys.theirs.public),
        ("203.0.113.2", lab.b.four),
    ):
        text = text.replace(written, ours)
    user.write(".config/vpntun/provider.conf", text)
    shim = user.write("vpntun", f'#!/bin/sh\nexec {sys.executable} -m vpntun "$@"\n')
    shim.chmod(0o700)
    for step in steps(blocks("program-of-a-provider")[0]):
        said = user.run("sh", "-c", f'PATH="$HOME:$PATH"; {step.command}')
        assert said.stdout.splitlines() == step.output, f"{said}\n{lab.logs()}"

    curl = "curl --silent --show-error --max-time 30"
    script = f"{curl} -4 http://www/ && {curl} -6 http://www/ && ip -o address show scope global"
    status, shown = user.ask("run", "provider", "--", "sh", "-c", script)
    assert (status, shown.count(PAGE)) == (0, 2), f"{shown}\n{lab.logs()}"
    assert f"inet {OURS}/32" in shown
    assert f"inet6 {OURS6}/128" in shown
    asked = responder.log.splitlines()[1:]
    assert {f"{OURS} asks for {kind} www.office.internal" for kind in ("A", "AAAA")} == set(asked)
    assert not lab.a.has_device("provider")
