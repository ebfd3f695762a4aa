"""Program inside a run that tries all ways out: `python -m tests.netns.leaker FOLDER`, FOLDER being writable by it.

For each N from 1 on it waits until FOLDER/go-N exists, tries everything, and prints a line: N, and a JSON object that
maps each way to "done" or to the name of the error.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

SERVICE_PORT, SERVICE_NAME = 7777, b"\0vpntun-leak"
"""Where the machine has a service for its own programs: a port of 127.0.0.1, and an abstract unix socket."""
CANARY = b"a packet that may be in the tunnel alone"
QUESTION = bytes.fromhex("123401000001000000000000046c65616b076578616d706c650000010001")
"""A DNS message that asks for the address of leak.example."""
DATAGRAMS = {
    "a host of the LAN": ("10.0.0.77", 9),
    "the server's own address": ("10.0.0.2", 9),
    "the machine's own address": ("10.0.0.1", 9),
    "broadcast of the LAN": ("10.0.0.255", 9),
    "broadcast": ("255.255.255.255", 9),
    "mDNS": ("224.0.0.251", 5353),
    "SSDP": ("239.255.255.250", 1900),
    "the Internet": ("192.0.2.7", 9),
    "IPv6 of the LAN": ("fd01::2", 9),
    "IPv6": ("2001:db8::7", 9),
    "mDNS over IPv6": ("ff02::fb", 5353),
}


def send(message: bytes, host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sending:
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sending.sendto(message, (host, port))


def connect(family: int, address: str | bytes | tuple[str, int]) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as connecting:
        connecting.settimeout(2)
        connecting.connect(address)


def bind(host: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind((host, 0))


def enter(namespace: str) -> None:
    """Enter a namespace in a child, which root may."""
    with open(namespace) as file:
        child = os.fork()
        if child == 0:
            libc = ctypes.CDLL(None, use_errno=True)
            os._exit(ctypes.get_errno() if libc.setns(file.fileno(), 0x40000000) else 0)
    if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise OSError(code, "setns")


def result_of(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except socket.gaierror as error:
        return f"EAI {error.errno}"
    except TimeoutError:
        return "ETIMEDOUT"
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def attempts() -> dict[str, str]:
    """Try everything once."""
    ways: dict[str, Callable[[], object]] = {
        name: lambda host=host, port=port: send(CANARY, host, port)  # type: ignore[misc]
        for name, (host, port) in DATAGRAMS.items()
    }
    ways |= {
        "a question to a name server": lambda: send(QUESTION, "10.0.0.53", 53),
        "a question to the machine's stub": lambda: send(QUESTION, "127.0.0.53", 53),
        "a service on 127.0.0.1": lambda: connect(socket.AF_INET, ("127.0.0.1", SERVICE_PORT)),
        "a service on ::1": lambda: connect(socket.AF_INET6, ("::1", SERVICE_PORT)),
        "an abstract socket": lambda: connect(socket.AF_UNIX, SERVICE_NAME),
        "the machine's address as source": lambda: bind("10.0.0.1"),
        "a raw socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
        "the machine's namespace": lambda: enter(f"/proc/{os.getppid()}/ns/net"),
        "a name": lambda: socket.getaddrinfo("leak.example", 80),
    }
    return {name: result_of(attempt) for name, attempt in ways.items()}


def main() -> None:
    folder = Path(sys.argv[1])
    print("inside", flush=True)
    for number in itertools.count(1):
        while not (folder / f"go-{number}").exists():
            time.sleep(0.05)
        print(number, json.dumps(attempts()), flush=True)


if __name__ == "__main__":
    main()
