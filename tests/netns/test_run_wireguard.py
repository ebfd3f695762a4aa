"""`vpntun run` with the file of a WireGuard provider, against wireguard-go: an ordinary user's curl in the VPN."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.netns.lab import Lab, until
from tests.netns.users import User
from tests.netns.wireguard import OURS, OURS6, THEIRS, THEIRS6, WG_PORT, Keys, start_wireguard

FILE = """
[Interface]
PrivateKey = {private}
Address = {ours}/32, {ours6}/128
DNS = {theirs}, office.internal

[Peer]
PublicKey = {public}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = {endpoint}
"""


def test_a_providers_file_leads_one_program_and_its_look_ups_into_the_vpn(lab: Lab, keys: Keys) -> None:
    start_wireguard(lab, keys)
    page = lab.folder / "page"
    page.mkdir()
    (page / "index.html").write_text("the page of the VPN\n")
    web: list[str | Path] = [sys.executable, "-m", "http.server", "80", "--directory", page, "--bind"]
    for address in (THEIRS, THEIRS6):
        lab.b.popen(*web, address)
    names = [f"www.office.internal={address}" for address in (THEIRS, THEIRS6)]
    responder = lab.b.popen(sys.executable, "-m", "tests.netns.responder", THEIRS, *names)
    responder.wait_for("answering")
    assert until(lambda: lab.b.listens(80), 30)

    user = User(lab.a)
    text = FILE.format(
        private=keys.ours.file.read_text().strip(),
        public=keys.theirs.public,
        ours=OURS,
        ours6=OURS6,
        theirs=THEIRS,
        endpoint=f"{lab.b.four}:{WG_PORT}",
    )
    provider = user.write("provider.conf", text)
    curl = "curl --silent --show-error --max-time 30"
    script = (
        f"{curl} -4 http://www/ && {curl} -6 http://www/ && {curl} http://{THEIRS}/ && ip -o addr show scope global"
    )
    status, said = user.ask("run", provider, "--", "sh", "-c", script)
    assert (status, said.count("the page of the VPN")) == (0, 3), f"{said}\n{lab.logs()}"
    assert f"inet {OURS}/32" in said
    assert f"inet6 {OURS6}/128" in said
    asked = responder.log.splitlines()[1:]
    assert {f"{OURS} asks for {kind} www.office.internal" for kind in ("A", "AAAA")} == set(asked)
    assert not lab.a.has_device("provider")
