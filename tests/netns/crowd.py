"""Unauthenticated clients at many addresses: `crowd.py HOST PORT ADDRESS...`.

Opens 16 silent TCP connections from each address and replaces those that are closed. Prints "crowding" once it has
started all of them, and runs until it is killed.
"""

from __future__ import annotations

import resource
import select
import socket
import sys

EACH = 16


def main() -> None:
    host, port, *addresses = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    poll = select.epoll()
    connections: dict[int, tuple[socket.socket, str]] = {}

    def connect(address: str) -> None:
        new = socket.socket(family)
        new.bind((address, 0))
        new.setblocking(False)
        new.connect_ex((host, port))
        connections[new.fileno()] = (new, address)
        poll.register(new, select.EPOLLIN | select.EPOLLHUP)

    for address in addresses:
        for _ in range(EACH):
            connect(address)
    print("crowding", flush=True)
    while True:
        for descriptor, _ in poll.poll():
            closed, address = connections.pop(descriptor)
            closed.close()
            connect(address)


if __name__ == "__main__":
    main()
