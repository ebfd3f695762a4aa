"""Sets up a host for a tunnel without a tunnel: `python -m tests.netns.host_setup FILE`; test_routing.py looks at it.

The file is JSON: interface, addresses, networks, table, mark, dns. It is read again at SIGHUP. What would go into the
tunnel is read from the device and told.
"""

from __future__ import annotations

import json
import signal
import sys
from contextlib import ExitStack
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from vpntun.errors import VpntunError
from vpntun.host.cleanup import clean_up
from vpntun.host.device import LARGEST_PACKET, TunDevice
from vpntun.host.dns import HostDns
from vpntun.host.journal import Journal
from vpntun.host.log import open_log
from vpntun.host.loop import Loop
from vpntun.host.routing import HostRoutes
from vpntun.host.settings import DeviceSettings


def say(text: str) -> None:
    print(text, flush=True)


def main(path: Path, stack: ExitStack) -> None:
    asked: dict[str, Any] = json.loads(path.read_text())
    interface = asked["interface"]
    open_log(interface, 1)
    loop = Loop()
    stack.callback(loop.close)
    stack.enter_context(loop.ending_on_signals())
    clean_up(interface)
    device = TunDevice(interface)
    stack.callback(device.close)
    journal = Journal(interface)
    settings = DeviceSettings(interface, journal, goes=device.created)
    stack.callback(settings.undo)
    settings.apply([ip_interface(each) for each in asked["addresses"]], [], None)
    routes = HostRoutes(interface, asked["table"], asked["mark"], journal, goes=device.created)
    stack.callback(routes.undo)
    networks = [ip_network(each) for each in asked["networks"]]
    say(f"mark {routes.choose_mark(networks)}")
    routes.apply(networks)
    dns = HostDns(interface, asked["dns"], journal)
    stack.callback(dns.undo)
    dns.apply()

    def again(*_: object) -> None:
        try:
            routes.apply([ip_network(each) for each in json.loads(path.read_text())["networks"]])
        except VpntunError as error:
            say(f"refused: {error}")
        else:
            say("applied")

    def follow() -> None:
        routes.follow()
        say("followed")

    header, packet = memoryview(bytearray(10)), memoryview(bytearray(LARGEST_PACKET))

    def read() -> None:
        while device.read_into(header, packet):
            there = packet[16:20] if packet[0] < 0x60 else packet[24:40]
            say(f"into the tunnel: {ip_address(bytes(there))}")

    signal.signal(signal.SIGHUP, again)
    loop.watch(device.fileno(), read)
    loop.watch(routes.fileno(), follow)
    say("stands")
    loop.run(lambda: float("inf"), lambda: None)


if __name__ == "__main__":
    with ExitStack() as outer:
        try:
            main(Path(sys.argv[1]), outer)
        except VpntunError as refused:
            say(f"error: {refused}")
            sys.exit(refused.exit_status)
