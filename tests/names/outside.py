"""Name server of the outside on the loopback, for the tests of this room: questions wait until the test answers."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from tests.machine import HandLoop
from vpntun.types import Place

Change = Callable[[dns.message.Message], None]


class Outside:
    """One server, UDP and TCP, whose test answers for it."""

    def __init__(self, loop: HandLoop) -> None:
        self._loop = loop
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.place: Place = self._listener.getsockname()
        self._datagrams = socket.socket(type=socket.SOCK_DGRAM)
        self._datagrams.bind(self.place)
        self.asked: list[tuple[dns.message.Message, Place]] = []
        for each in (self._datagrams, self._listener):
            each.setblocking(False)
        loop.watch(self._datagrams.fileno(), self._read)

    def close(self) -> None:
        self._loop.forget(self._datagrams.fileno())
        self._datagrams.close()
        self._listener.close()

    def next_question(self) -> dns.message.Message:
        """Wait for a question by UDP that has not been answered, the first one."""
        self._loop.until(lambda: self.asked, "for a question")
        return self.asked[0][0]

    def answer(self, *addresses: str, change: Change = lambda _: None) -> None:
        """Answer the first question that waits with A records; `change` changes the answer."""
        asked, who = self.asked.pop(0)
        self._datagrams.sendto(self._answer(asked, addresses, change), who)

    def answer_connection(self, *addresses: str) -> None:
        """Wait for a connection, read the question in it, and answer it, a byte and then the rest."""
        accepted: list[socket.socket] = []

        def accept() -> bool:
            try:
                accepted.append(self._listener.accept()[0])
            except BlockingIOError:
                return False
            return True

        self._loop.until(accept, "for a connection")
        with accepted[0] as connection:
            self._loop.settle()
            connection.settimeout(5)
            data = connection.recv(4096)
            assert struct.unpack_from("!H", data)[0] == len(data) - 2
            wire = self._answer(dns.message.from_wire(data[2:]), addresses, lambda _: None)
            connection.sendall(struct.pack("!H", len(wire))[:1])
            self._loop.settle(0.01)
            connection.sendall(struct.pack("!H", len(wire))[1:] + wire)
            self._loop.settle()

    def _read(self) -> None:
        data, who = self._datagrams.recvfrom(4096)
        self.asked.append((dns.message.from_wire(data), who))

    def _answer(self, asked: dns.message.Message, addresses: tuple[str, ...], change: Change) -> bytes:
        response = dns.message.make_response(asked, recursion_available=True)
        if addresses:
            name = asked.question[0].name
            response.answer.append(dns.rrset.from_text_list(name, 60, "IN", "A", list(addresses)))
        change(response)
        return response.to_wire()


def is_cut(response: dns.message.Message) -> None:
    """Change: the answer has no room in a datagram."""
    response.flags |= dns.flags.TC


def fails(response: dns.message.Message) -> None:
    """Change: the server could not find out."""
    response.set_rcode(dns.rcode.SERVFAIL)


def has_other_number(response: dns.message.Message) -> None:
    """Change: the answer is to another question, by its number."""
    response.id ^= 1


def has_other_question(response: dns.message.Message) -> None:
    """Change: the answer is to another question, by its name."""
    response.question = dns.message.make_query("other.example.org", "A").question


def is_no_answer(response: dns.message.Message) -> None:
    """Change: it is a question itself."""
    response.flags ^= dns.flags.QR


def records(response: dns.message.Message) -> list[str]:
    """The records of an answer, as text."""
    return sorted(str(each) for rrset in response.answer for each in rrset)
