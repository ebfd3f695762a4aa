"""`vpntun show --watch` beside real tunnels: traffic, the end of a tunnel and its return, and all tunnels at once."""

from __future__ import annotations

import re
import sys

from tests.netns.lab import Lab, far, start_client, start_pair
from tests.terminal import Terminal

VPNTUN = (sys.executable, "-m", "vpntun")


def test_traffic_through_a_tunnel_is_seen_at_both_ends_with_its_rate(lab: Lab) -> None:
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    flood = lab.a.popen("ping", "-n", "-s1200", "-i0.002", "-w60", far(lab))
    for machine, interface in ((lab.a, "tun11"), (lab.b, "tun3")):
        with Terminal(machine.enter([*VPNTUN, "show", interface, "--watch"])) as terminal:
            # 500 pings a second of 1,200 bytes are 5 Mbit/s each way. A busy machine sends fewer.
            terminal.until(lambda terminal=terminal: len(rates(terminal)) == 2 and min(rates(terminal)) > 0.1)  # type: ignore[misc]
            assert max(rates(terminal)) < 50
            assert re.search(r"round trip +[\d.]+ ms", terminal.text)
            assert re.search("^● .* connected.* UDP 10.0.0.", terminal.text, re.MULTILINE)
            terminal.type("q")
            assert terminal.wait() == 0
    flood.stop()


def rates(terminal: Terminal) -> list[float]:
    """Return the rates in Mbit/s that the screen shows."""
    shown = re.findall(r"(?:down|up) +([\d.]+) ([kM])bit/s", terminal.text)
    return [float(number) * (1.0 if unit == "M" else 1e-3) for number, unit in shown]


def test_a_tunnel_that_ends_is_waited_for_until_it_is_back(lab: Lab) -> None:
    _, client = start_pair(lab)
    lab.ping(lab.a, far(lab))
    with Terminal(lab.a.enter([*VPNTUN, "show", "--watch", "0.3", "tun11"])) as terminal:
        terminal.wait_for("connected")
        assert client.stop() == 0
        terminal.wait_for("has ended; waiting for it to come back")
        start_client(lab)
        lab.ping(lab.a, far(lab))
        terminal.until(lambda: "has ended" not in terminal.text and "connected" in terminal.text, "for the tunnel")
        terminal.type("q")
        assert terminal.wait() == 0


def test_all_tunnels_are_watched_also_those_that_start_meanwhile(lab: Lab) -> None:
    with Terminal(lab.b.enter([*VPNTUN, "show", "--watch", "0.3"])) as terminal:
        terminal.wait_for("no tunnel of this user is running in this network namespace; waiting for one")
        for interface, port in (("tun3", 55555), ("tun4", 55556)):
            server = lab.b.vpntun("-s", "-i", interface, "-p", str(port), "-k", lab.new_key(interface))
            terminal.until(lambda interface=interface: f"\n{interface} " in f"\n{terminal.text}")  # type: ignore[misc]
        assert server.stop() == 0
        terminal.wait_for("has ended")
        assert re.search("^tun3 .* up ", terminal.text, re.MULTILINE)
        terminal.type("q")
        assert terminal.wait() == 0
