"""Holder process: makes the namespaces of a run, stays in them, and acts there for its parent.

    1. leave the terminal's session, and close all descriptors but the channel to the parent
    2. make the namespaces (making.py)
    3. answer: set up the device, change routes, make sockets, look names up
    4. end when the parent does: nothing of the namespace then leads anywhere

It is forked before the keys are read. An answer has the number of its request, and the lines that were logged here
since the last one, since the parent has the log.

    {"request": 7, "what": "open", "family": 2, "kind": 1}    {"request": 7, "done": {}}, with a descriptor
                                                              {"request": 7, "errno": 97, "step": "..."}
                                                              {"request": 7, "failed": "DeviceError", "text": "..."}
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from vpntun.carriers.sockets import bound
from vpntun.errors import DeviceError, VpntunError
from vpntun.namespace.files import NamespaceFiles
from vpntun.namespace.making import Steps, make_namespaces
from vpntun.namespace.messages import Channel, Message
from vpntun.netconf.change_kinds import Route
from vpntun.netconf.changes import Changes
from vpntun.netconf.netlink import MAIN, Netlink
from vpntun.netconf.settings import DeviceSettings
from vpntun.runtime.log import log
from vpntun.runtime.loop import Loop
from vpntun.runtime.resolver import Found, Lookups
from vpntun.tun.device import KernelDevice
from vpntun.tun.ipv6 import carried_addresses
from vpntun.tun.queries import interface_exists
from vpntun.tun.superpackets import limit_superpackets

NOT_ENDING = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that a terminal or systemd may send to all processes of a run: this one ends after the others."""
BACKLOG = 512
TCP_SOCKETS = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
SENDING = frozenset({"04", "09", "0B"})
"""States of a TCP socket without a process that the other end has not confirmed all data of (linux/tcp_states.h):
FIN_WAIT1, LAST_ACK, CLOSING."""

Done = tuple[Message, list[int]]
"""The content of an answer, and the descriptors that it carries, which are closed here once they are sent."""


def hold(channel: Channel, netns: str | None) -> None:
    """Make the namespaces, report, and serve until the parent has ended. Runs in a child; never returns.

    `netns`: the name of the network namespace to enter, in place of a new one.
    """
    try:
        _leave_parent(channel)
        steps = Steps()
        try:
            made = make_namespaces(netns, steps)
        except OSError as error:
            channel.send({"request": 0, "errno": error.errno, "step": steps.current})
        except VpntunError as error:
            channel.send({"request": 0, "failed": type(error).__name__, "text": str(error)})
        else:
            _serve(channel, made, netns)
    finally:
        os._exit(0)


def _leave_parent(channel: Channel) -> None:
    os.setsid()
    for number in NOT_ENDING:
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor != channel.fileno():
            with suppress(OSError):  # the one of the list itself, which is closed by now
                os.close(descriptor)


def _serve(channel: Channel, made: list[str], netns: str | None) -> None:
    loop = Loop()
    logged = _Logged()
    log.handlers = [logged]
    namespace = _Namespace(loop, netns)

    def answer(request: int, content: Message, descriptors: list[int]) -> None:
        lines, logged.lines = logged.lines, []
        try:
            channel.send({"request": request, "log": lines, "descriptors": len(descriptors), **content}, descriptors)
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.ECONNRESET):
                loop.stop()
        finally:
            for each in descriptors:
                os.close(each)

    def read() -> None:
        received = channel.receive()
        if received is None:
            loop.stop()
            return
        message, _ = received
        request = message.pop("request")
        if message["what"] == "look_up":
            namespace.look_up(message["host"], message["port"], partial(_answer_look_up, partial(answer, request)))
            return
        answer(request, *_guarded(partial(namespace.answer, **message)))

    loop.watch(channel.fileno(), read)
    answer(0, {"done": {"kinds": made}}, [*(os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in made), _here()])
    loop.run(lambda _: float("inf"), lambda _: None)


def _here() -> int:
    """Return a descriptor of the current folder, as this mount namespace has it."""
    return os.open(".", os.O_PATH | os.O_DIRECTORY)


def _answer_look_up(answer: Callable[[Message, list[int]], None], found: Found, error: Exception | None) -> None:
    if error is not None:
        number = error.errno if isinstance(error, OSError) else None
        answer({"errno": number or 0, "step": str(error)}, [])
    else:
        answer({"done": {"found": [[int(family), list(address)] for family, address in found]}}, [])


def _guarded(act: Callable[[], Done]) -> Done:
    """Return what `act` returns, or what tells the parent of its failure."""
    try:
        content, descriptors = act()
    except VpntunError as error:
        return {"failed": type(error).__name__, "text": str(error)}, []
    except OSError as error:
        return {"errno": error.errno or errno.EIO, "step": ""}, []
    except Exception as error:
        return {"failed": "VpntunError", "text": f"internal error, please report it: {error!r}"}, []
    return {"done": content}, descriptors


class _Logged(logging.Handler):
    """Handler that keeps lines for the next answer."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))


class _Namespace:
    """What the parent may ask for; each request is a method of this name. `netns`: the namespace's name, if any."""

    def __init__(self, loop: Loop, netns: str | None) -> None:
        self._loop = loop
        self._netns = netns
        self._lookups = Lookups(loop)
        self._device = ""
        self._routes = Changes(None, device_is_ephemeral=True)

    def answer(self, what: str, **fields: Any) -> Done:
        """Carry out a request. Raises VpntunError or OSError."""
        act: Callable[..., Done] = getattr(self, what)
        return act(**fields)

    def look_up(self, host: str, port: int, answer: Callable[[Found, Exception | None], None]) -> None:
        """Look a name up as the programs here do."""
        self._lookups.ask(host, port, answer)

    def set_up(self, interface: str, mtu: int, addresses: list[str], dns: list[str]) -> Done:
        """Make the device, with its MTU and addresses, and the files; answer with its descriptor."""
        if interface_exists(interface):
            raise DeviceError(f"the network namespace has a device {interface} already: give the tunnel another name")
        device = KernelDevice(interface)
        carried = carried_addresses(interface, mtu, map(ip_interface, addresses))
        DeviceSettings(interface, ephemeral=True).apply(carried, [], mtu)
        limit_superpackets(interface, mtu)
        NamespaceFiles(dns, self._netns).keep(self._loop)
        self._device = interface
        descriptor = os.dup(device.fileno())
        device.close()
        return {"addresses": [str(each) for each in carried], "offloads": device.offloads}, [descriptor]

    def change_routes(self, add: list[str], remove: list[str]) -> Done:
        """Add routes to networks through the device, and remove others."""
        with Netlink() as netlink:
            for each in add:
                self._routes.make(Route(self._device, ip_network(each), MAIN), netlink)
            for each in remove:
                route = Route(self._device, ip_network(each), MAIN)
                if route in self._routes:
                    self._routes.drop(route, netlink)
        return {}, []

    def open(self, family: int, kind: int) -> Done:
        """Make a socket."""
        return {}, [socket.socket(family, kind).detach()]

    def listen(self, kind: int, host: str, port: int) -> Done:
        """Make sockets bound to an address, listening if they are streams; "" is the loopback, where no peer is."""
        made: list[socket.socket] = []
        for address in (host,) if host else ("127.0.0.1", "::1"):
            try:
                family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
                new = socket.socket(family, kind)
                made.append(bound(new, address, port, backlog=BACKLOG))
            except OSError as error:
                if made and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):  # IPv6 is off
                    continue
                for each in made:
                    each.close()
                raise
        return {}, [each.detach() for each in made]

    def count_unsent(self) -> Done:
        """Count the connections whose programs have ended, and whose last data is still on its way."""
        count = 0
        for path in TCP_SOCKETS:
            with suppress(OSError):
                count += sum(line.split()[3] in SENDING for line in path.read_text().splitlines()[1:])
        return {"count": count}, []
