"""Leaks of `vpntun run`: a program in it tries all ways out (leaker.py), while tcpdump listens on each device.

The machine has default routes, so that anything that is sent outside the tunnel is seen on the wire.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.netns.lab import PORT, Daemon, Lab, start_server, until
from tests.netns.leaker import SERVICE_NAME, SERVICE_PORT
from tests.netns.servers import needs
from tests.netns.users import User

SERVICE = f"""
import socket
services = [socket.create_server(("127.0.0.1", {SERVICE_PORT})), socket.socket(socket.AF_UNIX)]
services.append(socket.create_server(("::1", {SERVICE_PORT}), family=socket.AF_INET6))
services[1].bind({SERVICE_NAME!r})
services[1].listen()
print("serving", flush=True)
while True:
    services[0].accept()
    print("a visitor", flush=True)
"""
THE_TUNNELS_OWN = f"host 10.0.0.1 and host 10.0.0.2 and (port {PORT} or icmp[icmptype] == icmp-unreach)"
OF_THE_KERNEL = re.compile(
    r"ARP, (Request who-has 10\.0\.0\.[12] tell 10\.0\.0\.[12],|Reply 10\.0\.0\.[12] is-at)|"
    r"router solicitation|multicast listener report|"
    r"neighbor (solicitation|advertisement).* fe80::"
)
"""What the kernel sends on its own: ARP between the two machines, and its checks of IPv6's link-local addresses."""
REFUSED = {
    "a service on 127.0.0.1": "ECONNREFUSED",
    "a service on ::1": "ECONNREFUSED",
    "an abstract socket": "ECONNREFUSED",
    "the machine's address as source": "EADDRNOTAVAIL",
    "IPv6": "ENETUNREACH",
    "IPv6 of the LAN": "ENETUNREACH",
}
NEVER_TRIED = "10.0.0.99"
"""Pinged by the machine at the end: once tcpdump shows it, it has shown everything before."""
SENT = ("a host of the LAN", "the machine's own address", "the Internet", "a question to a name server")


class Leaker:
    """The program inside, with what it reports."""

    def __init__(self, run: Daemon, folder: Path) -> None:
        self._run, self._folder, self._count = run, folder, 0
        run.wait_for("inside", 30)

    def tries(self) -> dict[str, str]:
        """Have it try everything once more, and return what came of it."""
        self._count += 1
        (self._folder / f"go-{self._count}").touch()
        line = re.compile(rf"^{self._count} (\{{.*\}})$", re.MULTILINE)
        assert until(lambda: line.search(self._run.log) is not None, 60), self._run
        found = line.search(self._run.log)
        assert found is not None
        results: dict[str, str] = json.loads(found[1])
        return results


def strangers(capture: Daemon) -> list[str]:
    """The packets seen that are neither the tunnel's own nor the kernel's."""
    lines = capture.log.splitlines()
    return [line for line in lines if re.search(r" (In|Out|P|M|B) ", line) and not OF_THE_KERNEL.search(line)]


@needs("tcpdump")
@pytest.mark.parametrize("as_root", [False, pytest.param(True, marks=pytest.mark.long)])
def test_everything_goes_through_the_tunnel_or_nowhere(lab: Lab, as_root: bool) -> None:
    user = User(lab.a, 0 if as_root else 65534)
    lab.a.run("sh", "-ec", "ip route add default via 10.0.0.2; ip -6 route add default via fd01::2")
    service = lab.a.popen(sys.executable, "-c", SERVICE)
    service.wait_for("serving")
    server = start_server(lab, "--address", "192.168.9.1/24")
    responder = lab.b.popen(sys.executable, "-m", "tests.netns.responder", "192.168.9.1")
    responder.wait_for("answering")
    inner = lab.b.popen("tcpdump", "-nl", "-i", "tun3")
    outer = lab.a.popen("tcpdump", "-nl", "-i", "any", f"not ({THE_TUNNELS_OWN})")
    for capture in (inner, outer):
        capture.wait_for("listening on")

    options: list[str | Path] = [
        "-c",
        lab.b.four,
        "-k",
        user.own(lab.key),
        "--address",
        "192.168.9.2/24",
        "--dns",
        "192.168.9.1",
    ]
    program: list[str | Path] = [sys.executable, "-m", "tests.netns.leaker", user.home]
    run = user.vpntun("run", *options, "--", *program, env={"RES_OPTIONS": "timeout:1 attempts:1"})
    leaker = Leaker(run, user.home)

    results = leaker.tries()
    assert results.items() >= REFUSED.items()
    assert [results[name] for name in SENT] == ["done"] * len(SENT)
    assert results["a name"].startswith("EAI")
    responder.wait_for("192.168.9.2 asks for A leak.example", 30)
    assert results["mDNS over IPv6"] != "done"
    if not as_root:
        assert (results["a raw socket"], results["the machine's namespace"]) == ("EPERM", "EACCES")
    for inside in ("> 10.0.0.77.9", "> 10.0.0.1.9", "> 192.0.2.7.9", "> 10.0.0.53.53"):
        inner.wait_for(inside, 30)

    # A router of the LAN that announces more specific routes to the machine leads nothing out of the tunnel.
    lab.a.run("sh", "-ec", "for to in 192.0.2.0/24 0.0.0.0/1 128.0.0.0/1; do ip route add $to via 10.0.0.2; done")
    assert leaker.tries().items() >= REFUSED.items()
    inner.wait_for("> 192.0.2.7.9", 30, count=2)

    server.kill()
    assert leaker.tries().items() >= REFUSED.items()

    run.kill()
    assert until(lambda: leaker.tries()["the Internet"] == "ENETUNREACH", 30)
    assert leaker.tries().items() >= REFUSED.items()

    lab.a.run("ping", "-c1", "-W1", NEVER_TRIED, check=False)
    outer.wait_for(NEVER_TRIED, 30)
    assert [line for line in strangers(outer) if NEVER_TRIED not in line] == []
    assert "a visitor" not in service.log
