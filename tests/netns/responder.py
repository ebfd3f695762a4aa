"""Name server for tests: `python -m tests.netns.responder ADDRESS NAME=ADDRESS...`, at port 53 over UDP.

It prints each question, after the address that asked it. Names that it was not given do not exist.
"""

from __future__ import annotations

import socket
import sys

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset


def answer(question: bytes, names: dict[str, list[str]], asker: str) -> bytes:
    query = dns.message.from_wire(question)
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.AA
    for asked in query.question:
        kind = dns.rdatatype.to_text(asked.rdtype)
        name = asked.name.to_text(omit_final_dot=True).lower()
        print(f"{asker} asks for {kind} {name}", flush=True)
        if name not in names:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        for address in names.get(name, []):
            if kind == ("AAAA" if ":" in address else "A"):
                reply.answer.append(dns.rrset.from_text(asked.name, 60, dns.rdataclass.IN, kind, address))
    return reply.to_wire()


def main() -> None:
    names: dict[str, list[str]] = {}
    for word in sys.argv[2:]:
        name, _, address = word.partition("=")
        names.setdefault(name, []).append(address)
    with socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM) as serving:
        serving.bind((sys.argv[1], 53))
        print("answering", flush=True)
        while True:
            question, asker = serving.recvfrom(4096)
            serving.sendto(answer(question, names, asker[0]), asker)


if __name__ == "__main__":
    main()
