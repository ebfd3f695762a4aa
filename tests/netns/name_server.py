"""Name server of the outside for tests, at ADDRESS:53 over UDP and TCP: it knows *.example.org, and answers for ever.

A                203.0.113.7
TXT of long.*    longer than a datagram may be, so that it comes over TCP alone
fails.*          SERVFAIL

Each question is printed.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


def answer(data: bytes, limit: int) -> bytes:
    """Return the answer to a question."""
    asked = dns.message.from_wire(data)
    name, kind = asked.question[0].name, asked.question[0].rdtype
    print(name, dns.rdatatype.to_text(kind), flush=True)
    response = dns.message.make_response(asked, recursion_available=True)
    text = name.to_text().lower()
    if text.startswith("fails."):
        response.set_rcode(dns.rcode.SERVFAIL)
    elif not text.endswith(".example.org."):
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif kind == dns.rdatatype.A:
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "203.0.113.7"))
    elif kind == dns.rdatatype.TXT and text.startswith("long."):
        texts = [f'"{number:02} {"x" * 200}"' for number in range(20)]
        response.answer.append(dns.rrset.from_text_list(name, 60, "IN", "TXT", texts))
    wire = response.to_wire(max_size=65535)
    if len(wire) > limit:
        response.answer = []
        response.flags |= dns.flags.TC
        wire = response.to_wire()
    return wire


def main(host: str) -> None:
    """Serve until the process is ended."""
    selector = selectors.DefaultSelector()
    datagrams, listener = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for each in (datagrams, listener):
        each.bind((host, 53))
        selector.register(each, selectors.EVENT_READ)
    listener.listen()
    print("serves", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is datagrams:
                data, who = datagrams.recvfrom(4096)
                datagrams.sendto(answer(data, 1232), who)
            else:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(5)
                    wire = answer(connection.recv(4096)[2:], 65535)
                    connection.sendall(struct.pack("!H", len(wire)) + wire)


main(sys.argv[1])
