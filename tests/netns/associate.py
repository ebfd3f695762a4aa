"""Client of a SOCKS5 proxy for datagrams: `python -m tests.netns.associate PROXY_PORT HOST PORT NAME`.

It asks the name server at HOST for the addresses of NAME, and prints them.
"""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address

import dns.message


def packed(host: str, port: str) -> bytes:
    """Return an address, or a name, as RFC 1928 has it in section 5."""
    try:
        address = ip_address(host)
    except ValueError:
        kind, content = b"\x03", bytes([len(host)]) + host.encode()
    else:
        kind, content = (b"\x01" if address.version == 4 else b"\x04"), address.packed
    return kind + content + int(port).to_bytes(2, "big")


def main() -> None:
    proxy, host, port, name = sys.argv[1:]
    with (
        socket.create_connection(("127.0.0.1", int(proxy)), timeout=30) as control,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        control.sendall(b"\x05\x01\x00")
        assert control.recv(2) == b"\x05\x00"
        control.sendall(b"\x05\x03\x00" + packed("0.0.0.0", "0"))
        reply = control.recv(10)
        assert reply[:4] == b"\x05\x00\x00\x01", reply
        header = b"\0\0\0" + packed(host, port)
        datagrams.connect((socket.inet_ntoa(reply[4:8]), int.from_bytes(reply[8:], "big")))
        datagrams.settimeout(2)
        for _ in range(15):  # the first look-up may take a while, and datagrams may be lost
            datagrams.send(header + dns.message.make_query(name, "A").to_wire())
            try:
                answer = datagrams.recv(65535)
            except TimeoutError:
                continue
            assert answer[:4] == b"\0\0\0\x01"
            print(dns.message.from_wire(answer[10:]).answer[0].to_text(), "from", socket.inet_ntoa(answer[4:8]))
            return
    sys.exit("no answer")


if __name__ == "__main__":
    main()
